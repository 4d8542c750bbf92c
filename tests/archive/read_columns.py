"""Reads the Parquet files of an archive by pyarrow and by DuckDB, and compares them with each other, with what the records
themselves say, and with the lines and the Merkle roots of the objects that they belong to.

Usage: read_columns.py FOLDER
"""

import base64
import hashlib
import json
import os
import sys
from collections import Counter
from datetime import datetime, timezone

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

folder = sys.argv[1]
text = {name: pa.string() for name in (
    "id", "operation", "workload", "user", "user_key", "mailbox", "client_ip", "object", "result_status",
    "tenant_id", "feed", "raw",
)}
numbers = {name: pa.int32() for name in ("record_type", "user_type", "class_uid")}
wanted = text | numbers | {"time": pa.timestamp("ms", tz="UTC")}
sha = lambda data: hashlib.sha256(data).digest()


def root(leaves):
    """As in RFC 6962, by its definition."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha(b"")
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha(b"\1" + root(leaves[:half]) + root(leaves[half:]))


def entries():
    for at, _, names in os.walk(os.path.join(folder, "manifests")):
        for name in names:
            with open(os.path.join(at, name), "rb") as file:
                yield json.loads(base64.b64decode(json.load(file)["payload"]))


def rows_of(path):
    """The rows of a file, read by both and compared."""
    # A file is opened by itself, so that the folders that it lies in add no columns.
    file = pq.ParquetFile(path)
    table = file.read()
    types = {field.name: field.type for field in table.schema}
    tags = types.pop("tags")
    assert pa.types.is_list(tags) and tags.value_type == pa.string(), tags
    assert types == wanted, types
    for group in range(file.metadata.num_row_groups):
        size = file.metadata.row_group(group).total_byte_size
        assert size <= 17 << 20, size
    names = sorted(wanted | {"tags": None})
    columns = ", ".join("epoch_ms(time)" if name == "time" else f'"{name}"' for name in names)
    duck = duckdb.execute(f"select {columns} from read_parquet(?, hive_partitioning = false)", [path]).fetchall()
    rows = table.to_pylist()
    for row in rows:
        row["time"] = row["time"] and int(row["time"].timestamp() * 1000 + 0.5)
    assert [tuple(row[name] for name in names) for row in rows] == duck, f"they read {path} differently"
    return rows


records = files = 0
for entry in entries():
    for o in entry["objects"]:
        found = []
        for f in (f for f in o["files"] if f["format"] == "parquet"):
            rows = rows_of(os.path.join(folder, f["path"]))
            assert len(rows) == f["records"], f
            found += rows
            files += 1
            for row in rows:
                record = json.loads(row["raw"])
                said = datetime.strptime(record["CreationTime"], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
                assert row["time"] == int(said.timestamp()) * 1000, row
                assert row["id"] == record["Id"] and row["user"] == (record.get("UserId") or None), row
                assert row["operation"] == record["Operation"] and row["record_type"] == record["RecordType"], row
                assert row["tenant_id"] == entry["tenant"] and row["feed"] == o["content_type"], row
        raw = [row["raw"].encode() for row in found]
        assert len(raw) == o["records"], o
        lines = [f for f in o["files"] if f["format"] == "ndjson.zst"]
        if lines:
            path = os.path.join(folder, lines[0]["path"])
            plain = pa.CompressedInputStream(path, "zstd").read()
            assert Counter(plain.splitlines()) == Counter(raw), "other bytes than in the lines"
            raw = plain.splitlines()
        assert root([sha(b"\0" + record) for record in raw]).hex() == o["merkle_root"], o
        records += len(raw)
print(records, "records in", files, "files agree")
