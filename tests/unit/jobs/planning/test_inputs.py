"""Images of rows on their way through a job: counts of the plan, and bytes in the tables of requests."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rendermill.actors.services.guard import Guard
from rendermill.jobs.planning.plan import InputCounts, Plan, make_plan
from rendermill.jobs.planning.remaining import Work
from rendermill.jobs.running.dataset.requests import RequestReader
from rendermill.manifests.reader.manifest import Manifest, open_manifest
from rendermill.manifests.rows import RowValidator
from rendermill.manifests.schema import InputColumn, ModelContract, inline_column
from tests.unit.jobs.planning.test_planning import DEFAULTS, Rejected, stored

INPUTS = {"image": InputColumn(False, False), "references": InputColumn(False, True)}
VALIDATOR = RowValidator({"edits": ModelContract(DEFAULTS, lambda _: None, "00", inputs=INPUTS)}, "edits", 0)
BIG = b"0" * 2**20
COLUMNS: dict[str, Any] = {
    "prompt": ["a"] * 4,
    "id": ["a", "b", "c", "d"],
    "image": pa.array(
        [
            {"bytes": BIG, "path": "x.png"},
            {"bytes": None, "path": "1.png"},
            {"bytes": None, "path": "1.png"},
            {"bytes": None, "path": None},
        ]
    ),
    "references": pa.array([None, [b"one", b"two"], None, None], pa.list_(pa.binary())),
    "num_samples": [100, 1, 1, 1],
}


def manifest_in(folder: Path, columns: dict[str, Any]) -> Manifest:
    pq.write_table(pa.table(columns), folder / "m.parquet")
    return open_manifest(str(folder)).with_own((), INPUTS)


def planned(manifest: Manifest) -> Plan:
    return make_plan(manifest, VALIDATOR, stored(), Rejected(), limit=None, retry_failures=False)


def test_a_plan_counts_what_is_to_be_read(tmp_path: Path) -> None:
    made = planned(manifest_in(tmp_path, COLUMNS))
    assert made.inputs == InputCounts(num=104, num_distinct=4, num_inline_bytes=100 * len(BIG) + 6)
    without = {name: COLUMNS[name] for name in ("prompt", "id")}
    assert planned(manifest_in(tmp_path, without)).inputs == InputCounts()


def test_requests_carry_the_bytes_of_the_manifest_in_tables_of_bounded_size(tmp_path: Path) -> None:
    manifest = manifest_in(tmp_path, COLUMNS)
    (work,) = planned(manifest).outstanding.work()["edits"]
    assert not manifest.extra.names
    reader = RequestReader("edits", VALIDATOR, cast(Guard, None), manifest.extra)
    tables = list(reader.tables(Work(work.row_group, work.row_numbers, work.sample_indices)))
    assert all(table.nbytes < 100 * 2**20 for table in tables)
    rows = pa.concat_tables(tables).to_pylist()
    image, references = inline_column("image"), inline_column("references")
    assert [row[image] for row in rows if row["id"] == "a"] == [BIG] * 100
    (other,) = [row for row in rows if row["id"] == "b"]
    assert (other[image], other[references]) == (None, [b"one", b"two"])
    assert {row["id"]: row["inputs"] for row in rows if row["id"] in "cd"} == {
        "c": '{"image":{"url":"1.png"}}',
        "d": None,
    }


def test_files_without_the_column_or_with_a_plain_one_are_read_alike(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"prompt": ["b"], "references": [b"one"]}), tmp_path / "b.parquet")
    manifest = open_manifest(str(tmp_path)).with_own((), INPUTS)
    reader = RequestReader("edits", VALIDATOR, cast(Guard, None), manifest.extra)
    one = np.zeros(1, np.int64)
    tables = [table for group in manifest.row_groups for table in reader.tables(Work(group, one, one))]
    assert [table[inline_column("references")].to_pylist() for table in tables] == [[None], [[b"one"]]]
    assert tables[0].schema == tables[1].schema
