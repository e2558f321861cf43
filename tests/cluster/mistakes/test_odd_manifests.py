"""Manifests as other tools write them, and as accidents leave them: rendered, or refused in words before that."""

import datetime
import decimal
import json
import shutil
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from rendermill.manifests.arrow.types import as_type, carried_type
from rendermill.manifests.arrow.values import python_values
from rendermill.manifests.reader.own_columns import MAX_TEXT_BYTES
from tests.support.commands import Rendermill
from tests.support.odd_manifests import BEYOND, INT128, NUM_ROWS, every_type, extension, not_utf8, parquet


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
