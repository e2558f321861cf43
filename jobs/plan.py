"""What a job will do: reads its manifest once, and finds what is new, finished, double and rejected."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from jobs.outstanding import Outstanding, by_row_group
from manifests.errors import one_line
from manifests.identity import item_key
from manifests.ledger import Ledger
from manifests.prompts import Manifest, RowGroup, RowProblem, RowValidator, read_rows, row_as_json
from manifests.rejected import RejectedRows
from manifests.schema import REJECTED_COLUMNS, arrow_schema
from manifests.storage import is_passing

_HASH = pa.binary(16)
_SCAN_SCHEMA = pa.schema(
    [
        ("row_group", pa.int32()),
        ("row_number", pa.int64()),
        ("sample_index", pa.int32()),
        ("model", pa.dictionary(pa.int8(), pa.string())),
        ("id_hash", _HASH),
        ("content_hash", _HASH),
        ("request_hash", _HASH),
    ]
)
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
    """

    outstanding: Outstanding
    num_to_do: Mapping[str, int]
    num_finished: Mapping[str, int]
    num_failed: int
    num_duplicates: int
    num_rejected: int


def make_plan(
    manifest: Manifest,
    validator: RowValidator,
    ledger: Ledger,
    rejected: RejectedRows,
    limit: int | None,
    retry_failures: bool,
) -> Plan:
    """Read ids and hashes of every row, in tasks, and decide what each model is to draw.

    Args:
        rejected: takes the rows that cannot be drawn.
        limit: only the manifest's first so many samples.
        retry_failures: draw what failed before once more.
    """
    for file, reason in manifest.unreadable.items():
        rejected.add(_rejected_file(file, reason))
    scans = []
    for scan, rejected_rows in _map_row_groups(_Scan(validator), list(enumerate(manifest.row_groups))):
        scans.append(scan)
        rejected.add(rejected_rows)
    scanned = pa.concat_tables([_SCAN_SCHEMA.empty_table(), *scans]).unify_dictionaries().combine_chunks()
    scanned = scanned.sort_by([(name, "ascending") for name in ("row_group", "row_number", "sample_index")])

    is_first, in_conflict = _doubles(scanned)
    num_duplicates = _num_rows(scanned.filter(pa.array(~is_first & ~in_conflict)))
    for rejected_rows in _reject_conflicts(manifest, scanned.filter(pa.array(in_conflict))):
        rejected.add(rejected_rows)
    rejected.finish()
    valid = scanned.filter(pa.array(is_first & ~in_conflict)).slice(0, limit)

    finished = pc.is_in(valid["request_hash"], ledger.finished)
    failed = pc.and_not(pc.is_in(valid["request_hash"], ledger.failed), finished)
    skipped = finished if retry_failures else pc.or_(finished, failed)
    to_do = valid.filter(pc.invert(skipped))
    return Plan(
        outstanding=Outstanding(to_do.drop_columns(["id_hash", "content_hash"]), manifest.row_groups),
        num_to_do=_count_models(to_do, validator),
        num_finished=_count_models(valid.filter(finished), validator),
        num_failed=0 if retry_failures else pc.sum(failed).as_py() or 0,
        num_duplicates=num_duplicates,
        num_rejected=rejected.num_rows,
    )


class _Scan:
    """The task that reads a row group: hashes of its valid rows, and its rejected rows."""

    def __init__(self, validator: RowValidator) -> None:
        self._validator = validator

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
                id_hash = item_key(item.id, 0)
                for request in item.requests:
                    columns["row_group"].append(number)
                    columns["row_number"].append(row_number)
                    columns["sample_index"].append(request.sample_index)
                    columns["model"].append(request.model)
                    columns["id_hash"].append(id_hash)
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
        yield ray.get(waiting.popleft())


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _doubles(scanned: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """For every sample: whether its row is the first with its id, and whether rows of its id differ in content."""
    if not scanned.num_rows:
        return np.zeros(0, bool), np.zeros(0, bool)
    ids = scanned["id_hash"].combine_chunks().dictionary_encode().indices.to_numpy()
    contents = scanned["content_hash"].combine_chunks().dictionary_encode().indices.to_numpy()
    _, first_of_id = np.unique(ids, return_index=True)
    first = first_of_id[ids]
    is_first = np.ones(scanned.num_rows, bool)
    for name in ("row_group", "row_number"):
        values = scanned[name].to_numpy()
        is_first &= values == values[first]
    in_conflict = np.isin(ids, ids[contents != contents[first]])
    return is_first, in_conflict


def _num_rows(scanned: pa.Table) -> int:
    return pc.sum(pc.equal(scanned["sample_index"], 0)).as_py() or 0


def _count_models(scanned: pa.Table, validator: RowValidator) -> dict[str, int]:
    return {model: pc.sum(pc.equal(scanned["model"], model)).as_py() or 0 for model in validator.models}


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
