"""What a job will do: reads its manifest once, and finds what is new, finished, double and rejected."""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayTaskError

from jobs.outstanding import Outstanding, by_row_group
from manifests.errors import one_line
from manifests.hash_set import HASH, HashSet, as_numpy
from manifests.identity import item_key
from manifests.ledger import Ledger, Origin
from manifests.prompts import Manifest, RowGroup, RowProblem, RowValidator, read_rows, row_as_json
from manifests.rejected import RejectedRows
from manifests.schema import REJECTED_COLUMNS, arrow_schema
from manifests.storage import is_passing

_SCAN_SCHEMA = pa.schema(
    [
        ("row_group", pa.int32()),
        ("row_number", pa.int64()),
        ("sample_index", pa.int32()),
        ("model", pa.int16()),
        ("key", HASH),
        ("content_hash", HASH),
        ("request_hash", HASH),
    ]
)
"""A row a sample; `model` counts in the job's models, and `key` of a row's first sample stands for its id."""
_REJECTED_SCHEMA = arrow_schema(REJECTED_COLUMNS)


@dataclass(frozen=True)
class Plan:
    """What a job will do.

    Attributes:
        outstanding: what is to be drawn.
        num_to_do: by model, samples to draw.
        num_finished: by model, samples that have a record already.
        num_failed: samples that failed in an earlier run and are left as they are.
        num_duplicates: rows that say again what an earlier row says.
        num_rejected: rows, and unreadable files, that cannot be drawn.
        num_not_in_manifest: samples that have a record, and that no valid row asks for any more.
    """

    outstanding: Outstanding
    num_to_do: Mapping[str, int]
    num_finished: Mapping[str, int]
    num_failed: int
    num_duplicates: int
    num_rejected: int
    num_not_in_manifest: int


def make_plan(
    manifest: Manifest,
    validator: RowValidator,
    ledger: Ledger,
    rejected: RejectedRows,
    limit: int | None,
    retry_failures: bool,
    outdated: Collection[Origin] = (),
) -> Plan:
    """Read ids and hashes of every row, in tasks, and decide what each model is to draw.

    Args:
        rejected: takes the rows that cannot be drawn.
        limit: only the manifest's first so many samples.
        retry_failures: draw what failed before once more.
        outdated: records made there count as not made.
    """
    for file, reason in manifest.unreadable.items():
        rejected.add(_rejected_file(file, reason))
    scans = []
    for scan, rejected_rows in _map_row_groups(_Scan(validator), list(enumerate(manifest.row_groups))):
        scans.append(scan)
        rejected.add(rejected_rows)
    scanned = pa.concat_tables([_SCAN_SCHEMA.empty_table(), *scans])

    is_first, in_conflict = _doubles(scanned)
    num_duplicates = _num_rows(scanned, ~is_first & ~in_conflict)
    for rejected_rows in _reject_conflicts(manifest, scanned.filter(pa.array(in_conflict))):
        rejected.add(rejected_rows)
    rejected.finish()

    hashes, is_valid = as_numpy(scanned["request_hash"]), is_first & ~in_conflict
    is_finished = is_valid & HashSet(as_numpy(ledger.finished(outdated))).contains(hashes)
    is_failed = is_valid & ~is_finished & HashSet(as_numpy(ledger.failed)).contains(hashes)
    is_changed = HashSet(as_numpy(ledger.keys)).contains(as_numpy(scanned["key"])[is_valid & ~is_finished])
    num_gone = len(ledger.keys) - int(is_finished.sum() + is_changed.sum())
    is_asked_for = is_valid & (np.cumsum(is_valid) <= (len(is_valid) if limit is None else limit))
    is_to_do = is_asked_for & ~is_finished & (retry_failures | ~is_failed)
    models = list(validator.models)
    return Plan(
        outstanding=Outstanding(_to_do(scanned.filter(pa.array(is_to_do)), models), manifest.row_groups),
        num_to_do=_count_models(scanned, is_to_do, models),
        num_finished=_count_models(scanned, is_asked_for & is_finished, models),
        num_failed=0 if retry_failures else int((is_asked_for & is_failed).sum()),
        num_duplicates=num_duplicates,
        num_rejected=rejected.num_rows,
        num_not_in_manifest=num_gone,
    )


class _Scan:
    """The task that reads a row group: hashes of its valid rows, and its rejected rows."""

    def __init__(self, validator: RowValidator) -> None:
        self._validator = validator
        self._model_numbers = {model: number for number, model in enumerate(validator.models)}

    def __call__(self, number: int, row_group: RowGroup) -> tuple[pa.Table, pa.Table]:
        columns: dict[str, list[Any]] = {name: [] for name in _SCAN_SCHEMA.names}
        rejected: list[dict[str, Any]] = []
        try:
            for row_number, row in read_rows(row_group):
                try:
                    item = self._validator.item(row)
                except RowProblem as problem:
                    rejected.append(_rejected_row(row_group.file, row_number, row, str(problem)))
                    continue
                for request in item.requests:
                    columns["row_group"].append(number)
                    columns["row_number"].append(row_number)
                    columns["sample_index"].append(request.sample_index)
                    columns["model"].append(self._model_numbers[request.model])
                    columns["key"].append(item_key(item.id, request.sample_index))
                    columns["content_hash"].append(item.content_hash)
                    columns["request_hash"].append(bytes.fromhex(request.request_hash))
        except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
            if is_passing(error):
                raise
            reason = f"row group {row_group.index} cannot be read: {one_line(error)}"
            return _SCAN_SCHEMA.empty_table(), _rejected_file(row_group.file, reason)
        return pa.table(columns, _SCAN_SCHEMA), pa.Table.from_pylist(rejected, _REJECTED_SCHEMA)


def _map_row_groups(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> Iterator[Any]:
    """Run a function over row groups as Ray tasks, and yield its results in order."""
    task = ray.remote(num_cpus=1)(_call)
    shared = ray.put(function)
    waiting = deque(task.remote(shared, *given) for given in arguments)
    while waiting:
        try:
            result = ray.get(waiting.popleft())
        except RayTaskError as error:
            raise error.cause from error  # what a store raised, so that callers know it
        yield result


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _doubles(scanned: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """For every sample: whether its row is the first with its id, and whether rows of its id differ in content."""
    is_start = scanned["sample_index"].to_numpy() == 0
    ids = as_numpy(scanned["key"])[is_start]
    order = np.argsort(ids, kind="stable")
    is_same = np.zeros(len(ids), bool)
    in_order = ids[order]
    is_same[1:] = in_order[1:] == in_order[:-1]
    row_of_sample = np.cumsum(is_start) - 1
    if not is_same.any():
        return np.ones(len(is_start), bool), np.zeros(len(is_start), bool)
    contents = as_numpy(scanned["content_hash"])[is_start]
    group_of_row = np.empty(len(ids), np.int64)
    group_of_row[order] = np.cumsum(~is_same) - 1
    first_row = order[~is_same][group_of_row]
    group_differs = np.zeros(len(ids), bool)
    group_differs[group_of_row[contents != contents[first_row]]] = True
    is_first = first_row == np.arange(len(ids))
    return is_first[row_of_sample], group_differs[group_of_row][row_of_sample]


def _num_rows(scanned: pa.Table, is_chosen: np.ndarray) -> int:
    return int((is_chosen & (scanned["sample_index"].to_numpy() == 0)).sum())


def _count_models(scanned: pa.Table, is_chosen: np.ndarray, models: list[str]) -> dict[str, int]:
    counts = np.bincount(scanned["model"].to_numpy()[is_chosen], minlength=len(models))
    return dict(zip(models, counts.tolist(), strict=True))


def _to_do(samples: pa.Table, models: list[str]) -> pa.Table:
    """The samples as `Outstanding` takes them."""
    numbers = samples["model"].combine_chunks()
    names = pa.DictionaryArray.from_arrays(numbers, pa.array(models, pa.string()))
    place = samples.schema.get_field_index("model")
    return samples.drop_columns(["key", "content_hash"]).set_column(place, "model", names)


def _reject_conflicts(manifest: Manifest, samples: pa.Table) -> Iterator[pa.Table]:
    """Read the rows that share an id but not their content once more, for `rejected/`."""
    arguments = [
        (work.row_group, set(work.row_numbers.tolist())) for work in by_row_group(samples, manifest.row_groups)
    ]
    return _map_row_groups(_reject_rows, arguments)


def _reject_rows(row_group: RowGroup, row_numbers: set[int]) -> pa.Table:
    rejected = [
        _rejected_row(
            row_group.file,
            row_number,
            row,
            f"id: {row.get('id')!r} stands in several rows with different content; give each its own",
        )
        for row_number, row in read_rows(row_group)
        if row_number in row_numbers
    ]
    return pa.Table.from_pylist(rejected, _REJECTED_SCHEMA)


def _rejected_row(file: str, row_number: int, row: Mapping[str, Any], reason: str) -> dict[str, Any]:
    return {"file": file, "row_number": row_number, "reason": reason, "row": row_as_json(row)}


def _rejected_file(file: str, reason: str) -> pa.Table:
    return pa.Table.from_pylist([{"file": file, "reason": reason}], _REJECTED_SCHEMA)
