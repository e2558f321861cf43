"""Rows of manifests whose columns stand in unusual places."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rendermill.manifests.reader.manifest import open_manifest
from rendermill.manifests.reader.read_rows import read_rows


def test_rows_whose_own_columns_all_come_from_folders_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "prompt=a cat"
    folder.mkdir()
    pq.write_table(pa.table({"category": ["x", "y"]}), folder / "m.parquet")
    (row_group,) = open_manifest(str(tmp_path)).row_groups
    (rows,) = read_rows(row_group)
    assert list(rows.identified([0, 1])) == [
        {"prompt": "a cat", "category": "x"},
        {"prompt": "a cat", "category": "y"},
    ]
