"""Reads a Parquet twin by pyarrow and by DuckDB, and compares it with the lines that it was made from.

Usage: read_twin.py TWIN LINES
"""

import sys
from collections import Counter

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

twin, lines = sys.argv[1:]
with open(lines, "rb") as file:
    expected = Counter(line.rstrip(b"\n").decode() for line in file)

file = pq.ParquetFile(twin)
table = file.read()
wanted = {name: pa.string() for name in (
    "id", "operation", "workload", "user", "user_key", "mailbox", "client_ip", "object", "result_status",
    "tenant_id", "feed", "raw",
)}
wanted |= {name: pa.int32() for name in ("record_type", "user_type", "class_uid")}
wanted |= {"time": pa.timestamp("ms", tz="UTC")}
types = {field.name: field.type for field in table.schema}
tags = types.pop("tags")
assert pa.types.is_list(tags) and tags.value_type == pa.string(), tags
assert types == wanted, types
assert Counter(table["raw"].to_pylist()) == expected, "pyarrow reads other records"

for group in range(file.metadata.num_row_groups):
    meta = file.metadata.row_group(group)
    assert meta.total_byte_size <= 17 << 20, meta.total_byte_size
    for at in range(meta.num_columns):
        column = meta.column(at)
        assert column.compression == "ZSTD", column.path_in_schema
        assert column.has_offset_index, column.path_in_schema
        assert column.has_column_index == (column.path_in_schema != "raw"), column.path_in_schema

rows = duckdb.execute(
    "select id, epoch_ms(time), \"user\", tags, raw from read_parquet(?)", [twin]
).fetchall()
assert Counter(row[4] for row in rows) == expected, "DuckDB reads other records"
times = [None if time is None else int(time.timestamp() * 1000 + 0.5) for time in table["time"].to_pylist()]
arrow = zip(table["id"].to_pylist(), times, table["user"].to_pylist(), table["tags"].to_pylist(), table["raw"].to_pylist())
assert Counter(map(repr, arrow)) == Counter(map(repr, rows)), "they disagree"
kinds = dict(duckdb.execute("select column_name, column_type from (describe select * from read_parquet(?))", [twin]).fetchall())
assert kinds["time"] == "TIMESTAMP WITH TIME ZONE" and kinds["tags"] == "VARCHAR[]", kinds
assert kinds["record_type"] == "INTEGER" and kinds["raw"] == "VARCHAR", kinds

blooms = duckdb.execute(
    "select distinct path_in_schema from parquet_metadata(?) where bloom_filter_offset is not null", [twin]
).fetchall()
assert {name for (name,) in blooms} == {"id", "user", "mailbox", "client_ip"}, blooms
one = duckdb.execute("select count(*) from read_parquet(?) where id = 'id-7'", [twin]).fetchone()
assert one == (1,), one
print(len(rows), "rows agree")
