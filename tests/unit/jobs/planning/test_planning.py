"""Planning: repeated, conflicting and rejected rows of a manifest, and the state of every sample; without Ray."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rendermill.jobs.planning.plan import Plan, make_plan
from rendermill.jobs.planning.sample_states import StoredHashes
from rendermill.manifests.arrow.hash_set import HASH
from rendermill.manifests.identity import item_key
from rendermill.manifests.reader.manifest import open_manifest
from rendermill.manifests.rows import RowValidator
from rendermill.manifests.schema import ModelContract
from rendermill.models.capabilities import Capabilities

DEFAULTS = {"num_frames": 1, "width": 64, "height": 64, "num_inference_steps": 2, "guidance_scale": 5.0}
CONTRACT = ModelContract(DEFAULTS, Capabilities(kind="image", size_multiple=16).problem, "settings")
VALIDATOR = RowValidator({"one": CONTRACT, "two": CONTRACT}, "one", job_seed=7)


class Rejected:
    """Keeps rejected rows, and notes whether they were finished."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []
        self.is_finished = False

    @property
    def num_rows(self) -> int:
        return len(self.rows)

    def add(self, rows: pa.Table) -> None:
        assert not self.is_finished
        self.rows += rows.to_pylist()

    def finish(self) -> None:
        self.is_finished = True


def hashes(values: Sequence[bytes]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, HASH)])


def stored(finished: Sequence[Mapping[str, Any]] = (), failed: Sequence[Mapping[str, Any]] = ()) -> StoredHashes:
    """What an output holds after a run finished some rows and failed with others."""
    finished_items = [VALIDATOR.item({"model": None, **row}) for row in finished]
    failed_items = [VALIDATOR.item({"model": None, **row}) for row in failed]

    def request_hashes(items: Sequence[Any]) -> pa.ChunkedArray:
        return hashes([bytes.fromhex(sample.request_hash) for item in items for sample in item.samples])

    keys = [item_key(item.id, sample.sample_index) for item in finished_items for sample in item.samples]
    return StoredHashes(hashes(keys), request_hashes(finished_items), request_hashes(failed_items))


def plan(
    folder: Path, rows: Sequence[Mapping[str, Any]], holds: StoredHashes | None = None, **given: Any
) -> tuple[Plan, Rejected]:
    """Plan a manifest with row groups of three rows."""
    names = dict.fromkeys(key for row in rows for key in row)
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    pq.write_table(table, folder / "prompts.parquet", row_group_size=3)
    rejected = Rejected()
    options = {"limit": None, "retry_failures": False} | given
    manifest = open_manifest(str(folder / "prompts.parquet"), 0.0)
    made = make_plan(manifest, VALIDATOR, holds or stored(), rejected, **options)
    assert rejected.is_finished
    assert made.num_rejected == rejected.num_rows
    return made, rejected


def rows_to_do(made: Plan) -> dict[str, list[int]]:
    """The numbers of the rows to render, by model, one for each sample."""
    return {
        model: [int(number) for part in parts for number in part.row_numbers]
        for model, parts in made.outstanding.work().items()
    }


def test_repeated_rows_count_once_and_conflicts_and_bad_rows_are_rejected(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "prompt": "first", "num_samples": 2},
        {"id": "b", "prompt": "second", "model": "two"},
        {"id": "a", "prompt": "first", "num_samples": 2},
        {"id": "c", "prompt": "third"},
        {"id": "d", "prompt": "fourth", "width": 65},
        {"id": "c", "prompt": "not the third"},
        {"id": "a", "prompt": "first", "num_samples": 2},
        {"id": "e", "prompt": "fifth", "width": 32},
    ]
    made, rejected = plan(tmp_path, rows)
    assert rows_to_do(made) == {"one": [0, 0, 7], "two": [1]}
    assert (made.num_duplicates, made.num_rejected, made.num_not_in_manifest) == (2, 3, 0)
    assert [row["row_number"] for row in rejected.rows] == [4, 3, 5], "conflicts are known when all rows were read"
    assert rejected.rows[1]["reason"].startswith("id: 'c' stands in several rows")
    shapes = [(count.model, count.shape.width, count.num_to_do) for count in made.shapes]
    assert shapes == [("one", 32, 1), ("one", 64, 2), ("two", 64, 1)]
    assert made.num_to_do == {"one": 3, "two": 1}


def test_a_sample_is_finished_failed_changed_or_new(tmp_path: Path) -> None:
    rows = [{"id": str(number), "prompt": f"prompt {number}"} for number in range(6)]
    before = [rows[0], rows[1] | {"prompt": "an earlier prompt"}, {"id": "gone", "prompt": "gone"}]
    holds = stored(finished=before, failed=[rows[2]])
    made, _ = plan(tmp_path, rows, holds)
    (count,) = made.shapes
    assert (count.num_to_do, count.num_changed, count.num_finished, count.num_failed) == (4, 1, 1, 1)
    assert rows_to_do(made) == {"one": [1, 3, 4, 5]}
    assert (made.num_finished, made.num_failed, made.num_not_in_manifest) == ({"one": 1, "two": 0}, 1, 1)
    assert made.models_to_render == ["one"]

    retried, _ = plan(tmp_path, rows, holds, retry_failures=True)
    assert (rows_to_do(retried), retried.num_failed) == ({"one": [1, 2, 3, 4, 5]}, 0)


def test_a_limit_counts_valid_samples_of_any_state_and_ends_the_scan(tmp_path: Path) -> None:
    rows = [{"id": str(number // 2), "prompt": f"prompt {number // 2}"} for number in range(200)]
    rows[2]["prompt"] = ""
    rows += [{"id": "late", "prompt": ""}]
    made, rejected = plan(tmp_path, rows, stored(finished=[rows[0]]), limit=4)
    (count,) = made.shapes
    assert (count.num_to_do, count.num_finished) == (3, 1)
    assert rows_to_do(made) == {"one": [3, 4, 6]}, "row 2 is rejected, and rows 1, 5 and 7 repeat others"
    assert [row["row_number"] for row in rejected.rows] == [2], "the last row is not read"
    assert made.num_not_in_manifest == 0

    whole, rejected = plan(tmp_path, rows, limit=1000)
    assert (sum(whole.num_to_do.values()), rejected.num_rows) == (100, 2)
