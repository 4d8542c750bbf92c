#!/usr/bin/env python3
"""Verifies an archive, knowing nothing but docs/archive-format.md: verify.py FOLDER --public-key FILE... [--head NUMBER:HASH]...
Prints a line for each finding, its kind and what it is about, and exits with 1 when there is one."""
import argparse, base64, hashlib, json, os, re, sys, zlib, zstandard
from datetime import datetime
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

TYPE = "application/vnd.mailtrail.archive-entry+json"
KINDS = {"Audit.Exchange", "Audit.AzureActiveDirectory", "Audit.SharePoint", "Audit.General", "DLP.All"}
GUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
MANIFEST = re.compile(f"manifests/tenant=({GUID})/({GUID})/((?!0{{10}})[0-9]{{10}})\\.(json|tsr)")
OBJECT = re.compile(rf"({GUID})-(0|[1-9][0-9]*)-(0|[1-9][0-9]*)-[0-9a-f]{{16}}(\..*)?")
FOLDER = re.compile(f"[^=]*=(?:external_)?({GUID})")
PART = "[A-Za-z0-9_=-][A-Za-z0-9._=-]*"
DEPTH = 100
sha = lambda data: hashlib.sha256(data).digest()
leaf = lambda data: sha(b"\0" + data)
node = lambda left, right: sha(b"\1" + left + right)
unhex = lambda text: bytes.fromhex(need(re.fullmatch("[0-9a-f]{64}", text))[0])
keyid = lambda raw: hashlib.sha256(raw).hexdigest()[:16]

def need(good):
    if not good: raise ValueError("not as the format says")
    return good

def unbase64(text):
    need(base64.b64encode(base64.b64decode(text, validate=True)).decode() == text)
    return base64.b64decode(text)

def root(leaves):
    complete, count = [], 0
    for h in leaves:
        i, count = count, count + 1
        while i & 1: h, i = node(complete.pop(), h), i >> 1
        complete.append(h)
    while len(complete) > 1: complete.append(node(*reversed((complete.pop(), complete.pop()))))
    return (complete or [sha(b"")])[0], count

def once(members):
    need(len(dict(members)) == len(members))
    return dict(members)

def depth(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)

def read_json(data):
    try: return need(depth(value := json.loads(data.decode(), object_pairs_hook=once, parse_constant=lambda c: need(0))) <= DEPTH) and value
    except RecursionError: raise ValueError("too deep") from None

def open_envelope(data):
    """The entry of an envelope, its signature not checked; what must be there is touched, so that its absence is an error."""
    e = read_json(data) if isinstance(data, bytes) else data
    (s,) = e["signatures"]
    need(set(e) == {"payloadType", "payload", "signatures"} and set(s) == {"keyid", "sig"} and e["payloadType"] == TYPE)
    need(re.fullmatch("[0-9a-f]{16}", s["keyid"]))
    entry = read_json(payload := unbase64(e["payload"]))
    need(entry["format"] == 1 and set(entry["accounts"]) <= KINDS and re.fullmatch("[0-9a-f]{16}", entry["key"]))
    entry.update(hash=sha(payload), signed=payload, signature=(s["keyid"], unbase64(s["sig"])), root=unhex(entry["entry_root"]))
    entry["previous"] = entry["previous"] and unhex(entry["previous"])
    entry["next"] = unbase64(entry["next_key"]) if "next_key" in entry else None
    entry["tenant"] + entry["ledger"], entry["number"] + entry["last_seq"]
    for name in ("from", "to"): entry[name] = datetime.fromisoformat(entry[name])
    for o in entry["objects"]:
        o["root"], _ = unhex(o["merkle_root"]), o["first_seq"] + o["last_seq"] + o["records"]
        for f in o["files"]:
            unhex(f["sha256"]), f["bytes"] + f["records"], need(f["format"] in ("ndjson.zst", "ndjson.gz", "parquet"))
            need(len(f["path"]) <= 900 and re.fullmatch(f"{PART}(/{PART})*", f["path"]))
    entry["adds up"] = adds_up(entry)
    return entry

def adds_up(entry):
    seqs, good = entry["other_seqs"], True
    for a in entry["accounts"].values():
        r = a.get("retries", dict.fromkeys(["works", "records", "filtered", "archived", "dead"], 0))
        seqs += a["listed"] + a["holes"] + r["works"]
        good &= a["listed"] == sum(a[part] for part in ("fetched", "gaps", "quarantined"))
        good &= a["records"] == sum(a[part] for part in ("duplicates", "not_due", "filtered", "archived", "dead"))
        good &= r["records"] == sum(r[part] for part in ("filtered", "archived", "dead"))
    return good and seqs == entry["last_seq"] - entry["after_seq"]

def signed(entry, raw):
    pae = b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE.encode(), len(entry["signed"]), entry["signed"])
    try: return Ed25519PublicKey.from_public_bytes(raw).verify(entry["signature"][1], pae) or entry["signature"][0] == keyid(raw)
    except InvalidSignature: return False

def lines(data, new):
    """The leaf hashes of the lines of a file, which is in memory as a whole."""
    rest = b""
    while data:
        unpack = new()
        *whole, rest = (rest + unpack.decompress(data)).split(b"\n")
        yield from map(leaf, whole)
        data = need(unpack.eof) and unpack.unused_data
    need(not rest)

def check_file(path, o, f):
    if not os.path.isfile(path): return "object-missing"
    data = open(path, "rb").read()
    if len(data) != f["bytes"] or sha(data) != unhex(f["sha256"]): return "object-changed"
    new = zstandard.ZstdDecompressor().decompressobj if f["format"] == "ndjson.zst" else lambda: zlib.decompressobj(31)
    try: return "object-records" if f["format"][:6] == "ndjson" and root(lines(data, new)) != (o["root"], f["records"]) else None
    except (ValueError, zlib.error, zstandard.ZstdError): return "object-records"

def check_chain(folder, tenant, ledger, numbers, given, named, heads, found):
    known, before, signer, top, sums = dict(given), None, None, 0, None
    for n in numbers:
        path = f"manifests/tenant={tenant}/{ledger}/{n:010}.json"
        try:
            if not os.path.isfile(os.path.join(folder, path)): raise FileNotFoundError
            with open(os.path.join(folder, path), "rb") as file: e = open_envelope(file.read())
        except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
            before = signer = sums = found("entry-missing" if isinstance(error, FileNotFoundError) else "entry-unreadable", path)
            continue
        if (e["tenant"], e["ledger"], e["number"]) != (tenant, ledger, n): found("entry-misplaced", path)
        must, signer = signer or known.get(e["key"]), None
        if must is None or keyid(must) != e["key"]: found("entry-key", path)
        elif not signed(e, must): found("entry-signature", path)
        else: known[keyid(e["next"] or must)] = signer = e["next"] or must
        if e["last_seq"] < e["after_seq"] or e["to"] < e["from"] or (
            before and (e["after_seq"] != before["last_seq"] or e["from"] != before["to"])): found("entry-span", path)
        if (n == 1 and e["previous"]) or (n > 1 and before and e["previous"] != before["hash"]): found("entry-previous", path)
        if root(leaf(o["root"]) for o in e["objects"])[0] != e["root"]: found("entry-root", path)
        if not all(o["files"] and e["after_seq"] < o["first_seq"] <= e["last_seq"] and o["first_seq"] <= o["last_seq"]
                   and all(sum(f["records"] for f in o["files"] if f["format"] == k) == o["records"] for k in {f["format"] for f in o["files"]})
                   for o in e["objects"]): found("entry-objects", path)
        if n == 1 and e["after_seq"] == 0: sums = 0
        if sums is not None:  # how many more records are in objects than are said to be archived
            sums += sum(o["records"] for o in e["objects"])
            sums -= sum(a["archived"] + a.get("retries", {"archived": 0})["archived"] for a in e["accounts"].values())
        if not e["adds up"] or (sums or 0) < 0: found("entry-accounts", path)
        if (sums or 0) < 0: sums = None
        before, top = e, max(top, e["last_seq"])
        heads.discard(f"{n}:{e['hash'].hex()}")
        for o, f in ((o, f) for o in e["objects"] for f in o["files"]):
            wrong = "object-twice" if f["path"] in named else check_file(os.path.join(folder, f["path"]), o, f)
            if named.add(f["path"]) or wrong: found(wrong, f["path"])
    return top

def check_archive(folder, given, heads, found):
    names, named, chains, tops = set(), set(), {}, {}
    for at, _, files in os.walk(folder):
        names |= {os.path.relpath(os.path.join(at, name), folder) for name in files
                  if not (name.startswith(".") and name.endswith(".part"))}
    for m in filter(None, map(MANIFEST.fullmatch, names)):
        if m[4] == "json": chains.setdefault((m[1], m[2]), set()).add(int(m[3]))
    if not chains: found("no-entries", "manifests")
    for chain, there in sorted(chains.items()):
        # Of several entries in a row that are missing, the first one is looked for.
        numbers = sorted(there | {n + 1 for n in there | {0} if n < max(there)})
        tops[chain] = check_chain(folder, *chain, numbers, given, named, heads, found)
    for name in sorted(names - named):
        m, o = MANIFEST.fullmatch(name), OBJECT.fullmatch(os.path.basename(name))
        tenant = next((t[1] for t in map(FOLDER.fullmatch, name.split("/")[:-1]) if t), None)
        if m and (m[4] == "json" or 1 <= int(m[3]) <= max(chains.get((m[1], m[2]), {0}))): continue
        newer = o and tenant and int(o[2]) > tops.get((tenant, o[1]), -1) and not name.startswith("manifests/")
        if not newer: found("surplus", name)
    for head in sorted(heads): found("tail-cut", head)

def given_keys(files):
    pems = (load_pem_public_key(open(file, "rb").read()) for file in files)
    return {keyid(raw): raw for raw in (pem.public_bytes(Encoding.Raw, PublicFormat.Raw) for pem in pems)}

if __name__ == "__main__":
    parser, findings = argparse.ArgumentParser(description=__doc__), []
    parser.add_argument("folder")
    parser.add_argument("--public-key", action="append", required=True)
    parser.add_argument("--head", action="append", default=[])
    args = parser.parse_args()
    check_archive(args.folder, given_keys(args.public_key), set(args.head), lambda *finding: findings.append(finding))
    for kind, what in findings: print(kind, what)
    sys.exit(1 if findings else 0)
