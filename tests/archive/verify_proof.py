#!/usr/bin/env python3
"""Verifies a proof, knowing nothing but docs/archive-format.md: verify_proof.py FILE PUBLIC_KEY... Exits with 1 when it proves nothing."""
import sys

from verify import given_keys, leaf, node, open_envelope, read_json, signed, unbase64, unhex

def way(h, p):
    at, last = p["index"], p["leaves"] - 1
    if not 0 <= at <= last: raise ValueError("no such leaf")
    for other in map(unhex, p["path"]):
        if last == 0: raise ValueError("too long")
        if at & 1 or at == last:
            h = node(other, h)
            while at and not at & 1: at, last = at >> 1, last >> 1
        else: h = node(h, other)
        at, last = at >> 1, last >> 1
    if last: raise ValueError("too short")
    return h

def check_proof(proof, given):
    e = open_envelope(proof["envelope"])
    r = way(leaf(unbase64(proof["record"])), proof["object"])
    o = e["objects"][proof["entry"]["index"]]
    return (proof["format"] == 1 and signed(e, given[e["signature"][0]]) and o["root"] == r
            and o["records"] == proof["object"]["leaves"] and proof["entry"]["leaves"] == len(e["objects"])
            and way(leaf(r), proof["entry"]) == e["root"])

if __name__ == "__main__":
    try: good = check_proof(read_json(open(sys.argv[1], "rb").read()), given_keys(sys.argv[2:]))
    except (ValueError, KeyError, TypeError, IndexError): good = False
    sys.exit(0 if good else 1)
