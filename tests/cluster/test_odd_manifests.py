"""Manifests as other tools write them, and as accidents leave them: rendered, or refused in words before that."""

import contextlib
import datetime
import decimal
import functools
import http.server
import json
import os
import shutil
import tarfile
import threading
import uuid
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from rendermill.manifests.arrow.types import as_type, carried_type
from rendermill.manifests.arrow.values import python_values
from rendermill.manifests.errors import UserError
from rendermill.manifests.output.format import ensure_format, read_format
from rendermill.manifests.reader.manifest import open_manifest
from rendermill.manifests.reader.own_columns import MAX_TEXT_BYTES
from rendermill.manifests.reader.read_rows import read_rows
from rendermill.manifests.rows import RowValidator
from rendermill.manifests.schema import ModelContract, conformed
from rendermill.manifests.storage.folder import Folder
from tests.support.commands import ROOT, Rendermill

INT128 = ROOT / "tests" / "support" / "int128.parquet"
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


def parquet(path: Path, columns: Any, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)


def odd_folder(folder: Path) -> dict[str, str]:
    """A manifest in which every file is odd in its own way; gives why some are rejected as a whole, by their names."""
    parquet(folder / "types.parquet", {"prompt": [f"type {row}" for row in range(NUM_ROWS)], **every_type()})
    parquet(
        folder / "model=tall" / "seed=5" / "m.parquet", {"prompt": ["in folders"], "rank": pa.array([1], pa.int32())}
    )
    parquet(folder / "model=__HIVE_DEFAULT_PARTITION__" / "m.parquet", {"prompt": ["in none"], "note": pa.nulls(1)})
    parquet(folder / "set.parquet" / "part-0.parquet", {"prompt": ["in a folder named so"], "note": ["x"]})
    parquet(folder / "run[1]?*" / "m.PARQUET", {"prompt": ["in brackets"], "note": pa.array(["x"], pa.large_string())})
    parquet(folder / "_temporary" / "m.parquet", {"prompt": ["hidden"]})
    parquet(folder / ".m.parquet", {"prompt": ["hidden"]})
    parquet(folder.parent / "elsewhere" / "m.parquet", {"prompt": ["behind a link"], "rank": pa.array([2], pa.int64())})
    (folder / "link").symlink_to(folder.parent / "elsewhere")
    pd.DataFrame({"prompt": ["b", "pandas"]}).iloc[1:].to_parquet(folder / "pandas.parquet")
    pd.DataFrame({"id": ["named"], "prompt": ["index"]}).set_index("id").to_parquet(folder / "index.parquet")
    texts = not_utf8([b"sound", b"\xff\xfe"])
    parquet(folder / "texts.parquet", {"prompt": pa.concat_arrays([texts, pa.array(["y" * (MAX_TEXT_BYTES + 1)])])})
    seeds = pa.array([2**24 - 1, 2**24, None], pa.float32())
    parquet(folder / "float32.parquet", {"prompt": ["exact", "rounded", "no seed"], "seed": seeds})
    parquet(folder / "float64.parquet", {"prompt": ["too large"], "seed": [float(2**53)]})
    huge = decimal.Decimal(2**62)
    parquet(folder / "huge.parquet", {"prompt": ["hugeint"], "id": [huge], "seed": [huge]})
    parquet(folder / "uuid.parquet", {"prompt": ["uuid"], "id": extension(pa.uuid(), [uuid.UUID(int=5).bytes])})
    parquet(folder / "floats.parquet", {"prompt": ["float id", "half id"], "id": [7.0, 7.5]})
    parquet(folder / "z-double.parquet", pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["prompt", "prompt"]))
    parquet(folder / "z-numbers.parquet", {"prompt": [1, 2]})
    parquet(folder / "z-days.parquet", {"prompt": ["x"], "seed": [datetime.date(2024, 1, 1)]})
    parquet(folder / "z-both" / "model=tall" / "m.parquet", {"prompt": ["x"], "model": ["wide"]})
    parquet(folder / "both" / "model=tall" / "m.parquet", {"prompt": ["said twice"], "model": ["tall"]})
    shutil.copy(INT128, folder / "z-int128.parquet")
    (folder / "z-cut.parquet").write_bytes((folder / "types.parquet").read_bytes()[:-9])
    return {
        "z-double.parquet": "it has two columns `prompt`",
        "z-numbers.parquet": "column `prompt` is int64; it has to be text",
        "z-days.parquet": "column `seed` is date32[day]; it has to be a number",
        "z-int128.parquet": "it has a column of a type that Arrow cannot read: Integers with more than 64 bits",
        "z-both/model=tall/m.parquet": "column `model` stands in the file and in its folder's name, model=tall",
        "z-cut.parquet": "not a readable Parquet file",
    }


def blank_models(rendermill: Rendermill) -> None:
    checkpoint = rendermill.folder / "blank"
    checkpoint.mkdir()
    (checkpoint / "model_index.json").write_text('{"_class_name": "BlankPipeline"}')
    pool = {"max_actors": 1, "num_cpus": 0.2, "num_gpus": 0}
    for name, height in (("wide", 16), ("tall", 32)):
        defaults = {"width": 16, "height": height}
        rendermill.models[name] = {
            "checkpoint": str(checkpoint),
            "dtype": "float32",
            "defaults": defaults,
            "pool": pool,
        }


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_every_row_of_an_odd_folder_is_rendered_with_its_columns_or_rejected_alone(
    rendermill: Rendermill, layout: str
) -> None:
    blank_models(rendermill)
    folder = rendermill.folder / "prompts"
    reasons = odd_folder(folder)
    job = {"manifest": str(folder), "output": str(folder / "out"), "default_model": "wide", "layout": layout}
    finished = rendermill.generate(**job)
    assert finished.status == 3, finished
    records = pa.concat_tables([pq.read_table(path) for path in (folder / "out" / "metadata").glob("*.parquet")])
    records = records.take(pc.sort_indices(records["prompt"]))
    names = ["prompt", "id", "model", "seed", "rank", "note"]
    by_prompt = {row["prompt"]: row for row in records.select(names).to_pylist()}
    assert by_prompt.keys() == {
        *(f"type {row}" for row in range(NUM_ROWS)),
        *("in folders", "in none", "in a folder named so", "in brackets", "behind a link", "pandas", "index", "sound"),
        *("exact", "no seed", "hugeint", "uuid", "float id", "said twice"),
    }
    assert {prompt for prompt, row in by_prompt.items() if row["model"] == "tall"} == {"in folders", "said twice"}
    assert [by_prompt["in folders"][name] for name in ("seed", "rank")] == [5, 1]
    assert [by_prompt[prompt]["id"] for prompt in ("index", "hugeint", "uuid", "float id")] == [
        "named",
        str(2**62),
        str(uuid.UUID(int=5)),
        "7",
    ]
    assert (by_prompt["hugeint"]["seed"], by_prompt["exact"]["seed"]) == (2**62, 2**24 - 1)
    assert records.schema.field("rank").type == pa.int64(), "int32 in one file, int64 in another"

    of_types = records.filter(pc.starts_with(records["prompt"], "type "))
    for name, column in every_type().items():
        carried = python_values(as_type(column, carried_type(column.type)))
        assert repr(python_values(of_types[name].combine_chunks())) == repr(carried), name

    rows = rendermill.table("rejected", folder / "out")
    rejected = {(row["file"].removeprefix(f"{folder}/"), row["row_number"]): row["reason"] for row in rows}
    assert {file for file, row_number in rejected if row_number is None} == reasons.keys()
    for file, reason in reasons.items():
        assert reason in rejected[file, None]
    assert {place: reason for place, reason in rejected.items() if place[1] is not None} == {
        ("texts.parquet", 1): "prompt: not UTF-8: b'\\xff\\xfe'",
        ("texts.parquet", 2): "prompt: a text of 65,537 bytes; at most 65,536 are read",
        ("float32.parquet", 1): "seed: 16777216.0 is too large to be exact in a float column; use int64",
        (
            "float64.parquet",
            0,
        ): "seed: 9007199254740992.0 is too large to be exact in a floating-point column; use int64",
        ("floats.parquet", 1): "id: expected text, got 7.5 (float)",
    }
    if layout == "webdataset":
        said = {row["prompt"]: row for row in samples_of_shards(folder / "out" / "media")}
        assert said.keys() == by_prompt.keys()
        assert (said["type 0"]["frames"], said["type 0"]["forever"], said["type 0"]["garbled"]) == (17, BEYOND, "fffe")
        return
    again = rendermill.run("plan", rendermill.write_job(**job))
    assert "to render: nothing" in again.out, "what a run wrote is no part of the manifest"


def samples_of_shards(media: Path) -> Iterator[dict[str, Any]]:
    for path in media.rglob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    opened = tar.extractfile(member)
                    assert opened is not None
                    yield json.load(opened)


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
    lists = pa.ListArray.from_arrays([0, 1, 200_000_000], pa.array(np.zeros(200_000_000, np.int64)))
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


DEFAULTS = {"width": 64, "height": 64, "num_frames": 1, "fps": None, "num_inference_steps": 2, "guidance_scale": 1.0}
VALIDATOR = RowValidator({"sana": ModelContract(DEFAULTS, lambda _: None, "0" * 32)}, "sana", 7)


def ids_and_hashes(url: str) -> list[tuple[str, str]]:
    found = []
    for row_group in open_manifest(url).row_groups:
        for rows in read_rows(row_group):
            items = [VALIDATOR.item(row) for row in rows.identified(range(len(rows.own)))]
            found += [(item.id, item.samples[0].request_hash) for item in items]
    return found


def test_ids_and_request_hashes_of_rows_with_columns_of_any_type_stay_as_they_are(tmp_path: Path) -> None:
    table = {
        "prompt": ["a cat", "a dog"],
        "seed": pa.array([7.0, None]),
        "width": pa.array([64, None], pa.int16()),
        "text": ["x", None],
        "category": pa.array(["u", "v"]).dictionary_encode(),
        "raw": [b"\x01\xff", b""],
        "score": [0.5, float("nan")],
        "flag": [True, None],
        "day": [datetime.date(2024, 1, 2), None],
        "time": [datetime.datetime(2024, 1, 2, 3, 4, 5, 678901), None],
        "ns": pa.array([1704164645678901234, None], pa.timestamp("ns")),
        "zoned": pa.array([1704164645678901, None], pa.timestamp("us", "Europe/Berlin")),
        "price": [decimal.Decimal("1.50"), None],
        "tags": [["a", "b"], []],
        "box": [{"x": 1, "y": None}, None],
        "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        "key": extension(pa.uuid(), [uuid.UUID(int=5).bytes, None]),
        "took": [datetime.timedelta(seconds=1.5), None],
        "clock": [datetime.time(1, 2, 3), None],
        "float32": pa.array([0.1, None], pa.float32()),
        "empty": pa.nulls(2),
    }
    parquet(tmp_path / "m.parquet", table)
    assert ids_and_hashes(str(tmp_path / "m.parquet")) == [
        ("68ab60c38a01fc39a7d8c7abf37ea64b", "a7a67d29533cf066e44de1e4c294eccf"),
        ("695f656b9dfa960641d202ff4b6b32cf", "1573e595c6f89330c55be1554cb2a949"),
    ]


def test_the_index_that_pandas_stores_is_no_part_of_a_row(tmp_path: Path) -> None:
    rows = pd.DataFrame({"prompt": ["a", "b", "c"]})
    rows.iloc[[0, 2, 1]].to_parquet(tmp_path / "filtered.parquet")
    rows.set_axis([5, 9, 7]).to_parquet(tmp_path / "moved.parquet")
    filtered, moved = (ids_and_hashes(str(tmp_path / name)) for name in ("filtered.parquet", "moved.parquet"))
    assert sorted(filtered) == sorted(moved)


@contextlib.contextmanager
def arrow_memory() -> Iterator[pa.MemoryPool]:
    """Within, all that Arrow holds is of this pool."""
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    POOLS.append(pool)
    pa.set_memory_pool(pool)
    try:
        yield pool
    finally:
        pa.set_memory_pool(before)


def repeated(num_rows: int, num_bytes: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(num_rows, np.int32)), pa.array(["y" * num_bytes]))


POOLS: list[pa.MemoryPool] = []
"""Arrow's buffers may outlive a test, and their pool has to outlive them."""


@pytest.mark.parametrize("names", [["prompt"], ["id", "prompt", "own"], ["prompt", "own"]])
def test_what_repeats_itself_in_a_file_is_not_written_out_in_memory(tmp_path: Path, names: list[str]) -> None:
    num_rows = 2_000
    columns = {
        "id": pa.array([f"{row}" for row in range(num_rows)]),
        "prompt": repeated(num_rows, 1_000_000)
        if names == ["prompt"]
        else pa.array([f"{row}" for row in range(num_rows)]),
        "own": repeated(num_rows, 1_000_000),
    }
    parquet(tmp_path / "m.parquet", {name: columns[name] for name in names}, compression="zstd", store_schema=False)
    (row_group,) = open_manifest(str(tmp_path / "m.parquet")).row_groups
    with arrow_memory() as pool:
        rows = next(read_rows(row_group))
        list(zip(rows.identified(range(len(rows.own))), range(20), strict=False))
    assert pool.max_memory() < 2**27


def test_large_rows_are_not_all_in_memory_at_once(tmp_path: Path) -> None:
    num_rows = 96
    columns = {"prompt": [f"{row}" for row in range(num_rows)], "own": [os.urandom(2**20) for _ in range(num_rows)]}
    parquet(tmp_path / "m.parquet", columns, write_batch_size=1)  # pages are read whole, and end after so many rows
    del columns
    with arrow_memory() as pool:
        (row_group,) = open_manifest(str(tmp_path / "m.parquet")).row_groups
        own = {hash(row["own"]) for rows in read_rows(row_group) for row in rows.identified(range(len(rows.own)))}
    assert len(own) == num_rows
    assert pool.max_memory() < 2**26


NUM_FILES = 3


class Server(http.server.SimpleHTTPRequestHandler):
    """Answers no ranges, counts what it is asked for, and gives no file before it is asked for all."""

    asked: ClassVar[Counter[str]] = Counter()
    all_are_asked_for: ClassVar[threading.Barrier] = threading.Barrier(NUM_FILES, timeout=60)

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        if self.path.endswith(".parquet"):
            self.all_are_asked_for.wait()
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The URL of a `Server` of the test's folder."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_small_files_far_away_are_asked_for_at_once_and_once(tmp_path: Path, served: str) -> None:
    for number in range(NUM_FILES):
        parquet(tmp_path / f"{number}.parquet", {"prompt": [os.urandom(2000).hex() for _ in range(5)]})
    assert len(ids_and_hashes(f"{served}/")) == 15
    assert {path: count for path, count in Server.asked.items() if path.endswith(".parquet")} == {
        f"/{number}.parquet": 1 for number in range(NUM_FILES)
    }


def test_a_large_file_on_a_server_without_ranges_is_refused(tmp_path: Path, served: str) -> None:
    parquet(tmp_path / "large", {"prompt": ["x"], "own": [os.urandom(2**20)]})
    with pytest.raises(UserError, match=r"manifest http:.*large: .* server doesn't appear to support range requests"):
        open_manifest(f"{served}/large")


def test_files_in_an_archive_are_read_by_a_chain_of_urls(tmp_path: Path) -> None:
    parquet(tmp_path / "m.parquet", {"prompt": ["a", "b"]})
    with zipfile.ZipFile(tmp_path / "prompts.zip", "w") as archive:
        archive.write(tmp_path / "m.parquet", "model=sana/m.parquet")
    plain = ids_and_hashes(str(tmp_path / "m.parquet"))
    for url in (
        f"zip://model=sana/*.parquet::{tmp_path}/prompts.zip",
        f"zip://model=sana::file://{tmp_path}/prompts.zip",
    ):
        assert ids_and_hashes(url) == plain
    assert len(ids_and_hashes(f"zip://::{tmp_path}/prompts.zip")) == 2
