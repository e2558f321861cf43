"""Types and files that a manifest may have, and those that no record could carry."""

import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rendermill.manifests.arrow.types import as_type, carried_type
from rendermill.manifests.arrow.values import python_values
from rendermill.manifests.errors import UserError
from rendermill.manifests.output.format import ensure_format, read_format
from rendermill.manifests.reader.manifest import open_manifest
from rendermill.manifests.reader.read_rows import read_rows
from rendermill.manifests.schema import conformed
from rendermill.manifests.storage.folder import Folder
from tests.support.odd_manifests import INT128, NUM_ROWS, every_type, parquet


@pytest.mark.parametrize("start", range(NUM_ROWS))
def test_columns_of_every_type_keep_their_values_in_any_slice(start: int) -> None:
    carried = {name: as_type(column, carried_type(column.type)) for name, column in every_type().items()}
    table = pa.table(carried)
    for num_rows in range(1, NUM_ROWS + 1 - start):
        kept = conformed(pa.concat_tables([table.slice(start, num_rows), table]), table.schema)
        kept.validate()
        for name, column in carried.items():
            expected = [*python_values(column)[start : start + num_rows], *python_values(column)]
            assert repr(python_values(kept[name])) == repr(expected), name


def two_files(one: pa.Array, other: pa.Array) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        parquet(folder / "a.parquet", {"prompt": ["x"], "own": one})
        parquet(folder / "b.parquet", {"prompt": ["y"], "own": other})
        return str(folder)

    return write


def one_file(**columns: Any) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        parquet(folder / "m.parquet", columns)
        return str(folder / "m.parquet")

    return write


def delta_table(folder: Path) -> str:
    parquet(folder / "part-0.parquet", {"prompt": ["x"]})
    (folder / "_delta_log").mkdir()
    (folder / "_delta_log" / "0.json").write_text("{}")
    return str(folder)


def iceberg_table(folder: Path) -> str:
    parquet(folder / "data" / "part-0.parquet", {"prompt": ["x"]})
    (folder / "metadata").mkdir()
    (folder / "metadata" / "v1.metadata.json").write_text("{}")
    return str(folder)


def cycle(folder: Path) -> str:
    parquet(folder / "a" / "m.parquet", {"prompt": ["x"]})
    (folder / "a" / "up").symlink_to(folder)
    return str(folder)


def bomb(folder: Path) -> str:
    width = 2**10  # few values, as Arrow takes seconds to write a hundred million
    num_values = 2**30 // width + 100
    zeros = pa.py_buffer(np.zeros(num_values * width, np.uint8))
    values = pa.Array.from_buffers(pa.binary(width), num_values, [None, zeros])
    lists = pa.ListArray.from_arrays([0, 1, num_values], values)
    parquet(folder / "m.parquet", {"prompt": ["x", "y"], "own": lists}, compression="zstd")
    return str(folder / "m.parquet")


TWO_FIELDS = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
REFUSED: dict[str, tuple[Callable[[Path], str], str]] = {
    "int64 and double": (two_files(pa.array([1]), pa.array([0.5])), "b.parquet: column `own` is double, but int64 in"),
    "text and number": (two_files(pa.array([1]), pa.array(["x"])), "column `own` is string, but int64 in another file"),
    "units of time": (
        two_files(pa.array([1], pa.timestamp("us")), pa.array([1], pa.timestamp("ns"))),
        "column `own` is timestamp[ns], but timestamp[us] in another file",
    ),
    "a name of the pipeline": (one_file(prompt=["x"], **{"rendermill:frames": [1]}), "column `rendermill:frames` is"),
    "fields of one name": (
        one_file(prompt=["x"], own=TWO_FIELDS),
        "column `own`: a struct in it has two fields",
    ),
    "prompts that are null": (one_file(prompt=pa.nulls(1)), "column `prompt` is null; it has to be text"),
    "numbers as prompts": (one_file(prompt=[1, 2]), "m.parquet: column `prompt` is int64; it has to be text"),
    "binary prompts": (one_file(prompt=[b"x"]), "column `prompt` is binary; it has to be text"),
    "Int128": (
        lambda _: str(INT128),
        "it has a column of a type that Arrow cannot read: Integers with more than 64 bits",
    ),
    "text as width": (one_file(prompt=["x"], width=["64"]), "column `width` is string; it has to be a number"),
    "binary ids": (one_file(prompt=["x"], id=[b"x"]), "column `id` is binary; it has to be text or a number or a UUID"),
    "a Delta table": (delta_table, "is a table of Delta, whose files also hold rows that it no longer has"),
    "an Iceberg table": (iceberg_table, "is a table of Iceberg"),
    "a cycle of links": (cycle, "a/up links to a folder that it lies in; remove the link"),
    "lists that expand": (bomb, "column `own` holds lists that take over a thousand times their size in the file"),
    "HDFS without Java": (lambda _: "hdfs://host/m.parquet", "hdfs://host/m.parquet: "),
    "a chain without its end": (lambda folder: f"dir://{folder}", "cannot be opened: "),
    "only hidden files": (lambda folder: _hidden(folder), "no such file, folder with *.parquet files"),
}


@pytest.mark.parametrize("name", ["[1].parquet", "?.parquet", "*.parquet", "a[1]/?*", "[!a]"])
def test_an_existing_name_is_no_glob(tmp_path: Path, name: str) -> None:
    for others in ("1.parquet", "x.parquet", "a1/xy/m.parquet", "b/m.parquet"):
        parquet(tmp_path / others, {"prompt": ["of another file"]})
    named = tmp_path / name
    parquet(named if named.suffix else named / "m.parquet", {"prompt": ["of this file"]})
    (row_group,) = open_manifest(str(named)).row_groups
    assert [row["prompt"] for rows in read_rows(row_group) for row in rows.own] == ["of this file"]


def _hidden(folder: Path) -> str:
    parquet(folder / "_committed.parquet", {"prompt": ["x"]})
    return str(folder)


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_record_could_carry_is_refused_by_file_and_column(tmp_path: Path, case: str) -> None:
    write, message = REFUSED[case]
    with pytest.raises(UserError) as refused:
        open_manifest(write(tmp_path))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


WIDENED = {
    "whole numbers": (pa.array([1], pa.int32()), pa.array([1], pa.uint32()), pa.int64()),
    "numbers": (pa.array([1.0], pa.float32()), pa.array([1], pa.int32()), pa.float64()),
    "texts": (pa.array(["x"], pa.string_view()), pa.array(["x"], pa.large_string()), pa.large_string()),
    "nulls": (pa.nulls(1), pa.array([[1]]), pa.list_(pa.int64())),
    "nested": (
        pa.array([{"a": None, "b": [None]}]),
        pa.array([{"b": ["x"], "a": 1}]),
        pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]),
    ),
    "decimals": (pa.array([decimal.Decimal("1.5")]), pa.array([1], pa.int16()), pa.decimal128(6, 1)),
}


@pytest.mark.parametrize("case", WIDENED)
def test_files_may_differ_in_types_of_which_one_holds_the_others_values(tmp_path: Path, case: str) -> None:
    one, other, expected = WIDENED[case]
    manifest = open_manifest(two_files(one, other)(tmp_path))
    assert manifest.extra.field("own").type == expected
    tables = [
        table
        for row_group in manifest.row_groups
        for rows in read_rows(row_group)
        for table in rows.carried([0], manifest.extra)
    ]
    assert pa.concat_tables(tables)["own"].to_pylist() == [one.to_pylist()[0], other.to_pylist()[0]]


def test_an_output_takes_later_columns_whose_values_it_can_hold(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    first = pa.schema([("count", pa.int64()), ("note", pa.string()), ("tags", pa.list_(pa.string()))])
    ensure_format(folder, first, "files")
    later = pa.schema([("count", pa.int8()), ("note", pa.large_string()), ("tags", pa.list_(pa.null()))])
    assert read_format(folder, later, "files") == first
    for name, data_type in (("count", pa.float64()), ("note", pa.int64()), ("tags", pa.string())):
        with pytest.raises(UserError, match=f"column `{name}` is .*; the extra columns of an output stay"):
            read_format(folder, pa.schema([(name, data_type)]), "files")
