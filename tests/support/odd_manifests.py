"""Columns of every kind of type that Parquet holds, and the ids and request hashes of a manifest's rows."""

import decimal
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rendermill.manifests.reader.manifest import open_manifest
from rendermill.manifests.reader.read_rows import read_rows
from rendermill.manifests.rows import RowValidator
from rendermill.manifests.schema import ModelContract
from tests.support.commands import ROOT

INT128 = ROOT / "tests" / "unit" / "manifests" / "golden" / "int128.parquet"
"""As polars 2.1 writes a column `own` of the type Int128, which Arrow does not have."""
NUM_ROWS = 4
BEYOND = 2**62
"""A time in microseconds that is beyond Python's years."""


def not_utf8(texts: list[bytes]) -> pa.Array:
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    return pa.Array.from_buffers(pa.string(), len(texts), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))])


def extension(data_type: pa.DataType, values: list[Any]) -> pa.Array:
    return pa.ExtensionArray.from_storage(data_type, pa.array(values, data_type.storage_type))


def every_type() -> dict[str, pa.Array]:
    """Columns of every kind of type that Parquet holds, nested as well, under names that a run might use itself."""
    texts, pairs = ["x", None, "zz", ""], [[1, 2], None, [], [3]]
    view, inner = pa.string_view(), [{"a": "x", "b": [1]}, None, {"a": None, "b": None}, {"a": "y", "b": []}]
    plain_struct = pa.struct([("a", pa.string()), ("b", pa.list_(pa.int8()))])
    return {
        "frames": pa.array([17, 33, None, 4]),
        "media": pa.array(texts, view),
        "work": pa.array([b"x", None, b"\xff", b""], pa.binary_view()),
        "is_guided": pa.array(texts, pa.large_string()),
        "": pa.array(texts).dictionary_encode(),
        "a.b": pa.array(pairs, pa.list_view(pa.int32())),
        "prompt.x": pa.array([texts, None, [], ["q"]], pa.large_list_view(pa.string())),
        "struct": pa.array(inner, pa.struct([("a", view), ("b", pa.list_view(pa.int8()))])),
        "structs": pa.array([inner, None, [], inner[:1]], pa.list_(plain_struct)),
        "map": pa.array([[("k", "v")], None, [], [("l", None)]], pa.map_(pa.string(), pa.large_string())),
        "views": pa.array([["x"], ["y"], ["z"], ["x"]], pa.list_(view)),
        "pair": pa.array([[1, 2], None, [3, None], [4, 5]], pa.list_(pa.int16(), 2)),
        "codes": pa.array([["x"], None, [], ["y"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        "forever": pa.array([BEYOND, 0, None, 1], pa.timestamp("us")),
        "nowhere": pa.array([1, 0, None, BEYOND], pa.timestamp("us", "Nowhere/Land")),
        "times": pa.array([[BEYOND], None, [], [0]], pa.list_(pa.timestamp("ns"))),
        "day": pa.array([2**31 - 1, 0, None, 1], pa.int32()).cast(pa.date32()),
        "clock": pa.array([1, 0, None, 2], pa.int64()).cast(pa.time64("ns")),
        "took": pa.array([1, 0, None, BEYOND], pa.duration("us")),
        "price": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal(0), decimal.Decimal(9)], pa.decimal64(9, 2)),
        "large": pa.array(
            [decimal.Decimal(10**40), None, decimal.Decimal(0), decimal.Decimal(9)], pa.decimal256(60, 2)
        ),
        "half": pa.array([1.5, None, 0.0, float("nan")], pa.float16()),
        "count": pa.array([2**64 - 1, None, 0, 1], pa.uint64()),
        "flag": pa.array([True, None, False, True]),
        "fixed": pa.array([b"ab", None, b"\xff\xff", b"cd"], pa.binary(2)),
        "key": extension(pa.uuid(), [uuid.UUID(int=5).bytes, None, b"\0" * 16, b"x" * 16]),
        "document": extension(pa.json_(), ["{}", None, "[1]", "2"]),
        "bool8": extension(pa.bool8(), [1, None, 0, 1]),
        "nothing": pa.nulls(NUM_ROWS),
        "nothings": pa.array([[None], None, [], [None, None]], pa.list_(pa.null())),
        "garbled": not_utf8([b"\xff\xfe", b"a", b"", b"b"]),
    }


def parquet(path: Path, columns: Any, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)


DEFAULTS = {"width": 64, "height": 64, "num_frames": 1, "fps": None, "num_inference_steps": 2, "guidance_scale": 1.0}
VALIDATOR = RowValidator({"sana": ModelContract(DEFAULTS, lambda _: None, "0" * 32)}, "sana", 7)


def ids_and_hashes(url: str) -> list[tuple[str, str]]:
    found = []
    for row_group in open_manifest(url).row_groups:
        for rows in read_rows(row_group):
            items = [VALIDATOR.item(row) for row in rows.identified(range(len(rows.own)))]
            found += [(item.id, item.samples[0].request_hash) for item in items]
    return found
