"""The key `columns` of a job file: other names for a manifest's columns, in files and in the names of folders."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rendermill.jobs.config.job_file import parse_job
from rendermill.manifests.errors import UserError
from rendermill.manifests.reader.manifest import open_manifest
from rendermill.manifests.reader.read_rows import read_rows


def write(file: Path, **columns: list[Any]) -> str:
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), file)
    return str(file)


def rows_of(url: str, renamed: dict[str, str | None], arguments: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    manifest = open_manifest(url, 0.0, renamed).with_own(arguments, ())
    return [
        {**rows.own[place], "extra": next(rows.carried([place], manifest.extra)).to_pylist()[0]}
        for row_group in manifest.row_groups
        for rows in read_rows(row_group)
        for place in range(len(rows.own))
    ]


def test_columns_have_the_names_that_the_job_gives(tmp_path: Path) -> None:
    url = write(tmp_path / "m.parquet", caption=["a cat"], prompt=["old"], path=["x.png"], strength=[0.5])
    renamed: dict[str, str | None] = {"caption": "prompt", "prompt": "old_prompt", "path": "source"}
    (row,) = rows_of(url, renamed, ("strength",))
    assert row == {"prompt": "a cat", "strength": 0.5, "extra": {"old_prompt": "old", "source": "x.png"}}


def test_null_keeps_a_column_as_the_users_own(tmp_path: Path) -> None:
    url = write(tmp_path / "m.parquet", prompt=["a cat"], strength=["strong"])
    assert rows_of(url, {"strength": None}, ("strength",)) == [{"prompt": "a cat", "extra": {"strength": "strong"}}]


def test_columns_that_folders_give_are_renamed(tmp_path: Path) -> None:
    write(tmp_path / "caption=a dog" / "m.parquet", kind=["x"])
    assert rows_of(str(tmp_path), {"caption": "prompt", "kind": "sort"}) == [
        {"prompt": "a dog", "extra": {"sort": "x"}}
    ]


def test_files_may_have_the_new_name_already(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", caption=["a cat"])
    write(tmp_path / "b.parquet", prompt=["a dog"])
    assert [row["prompt"] for row in rows_of(str(tmp_path), {"caption": "prompt"})] == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("renamed", "problem"),
    [
        ({"captoin": "prompt"}, "columns.captoin: no file of the manifest has this column; did you mean 'caption'?"),
        ({"x9": "prompt"}, "columns.x9: no file of the manifest has this column; they have caption, sort"),
        ({"caption": "prompt", "sort": "path"}, "column `path` is the name of a record's own column; rename it"),
        ({"caption": "sort"}, "m.parquet has a column `sort`, too; rename that one as well"),
        ({}, "no column `prompt`, which is the one required; it has caption, sort; `columns: {NAME: prompt}` in the"),
    ],
)
def test_names_that_cannot_be_are_one_line(tmp_path: Path, renamed: dict[str, str | None], problem: str) -> None:
    url = write(tmp_path / "m.parquet", caption=["a cat"], sort=["x"])
    with pytest.raises(UserError) as refused:
        open_manifest(url, 0.0, renamed)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"a": "prompt", "b": "prompt"}, "columns.b: 'a' becomes 'prompt', too; leave one of them"),
        ({"a": "image", "image": None}, "columns.image: 'a' becomes 'image', too; leave one of them"),
        ({"a": ""}, "columns.a: an empty name; write null"),
        ({"a": 3}, "columns.a: should be a valid string"),
    ],
)
def test_names_that_clash_in_the_job_file_are_one_line(columns: dict[str, Any], problem: str) -> None:
    content = {"manifest": "m", "output": "o", "models": {"m": {"checkpoint": "c"}}, "columns": columns}
    with pytest.raises(UserError) as refused:
        parse_job(content, "job.yaml")
    assert problem in str(refused.value)
