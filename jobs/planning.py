"""What a job will do: reads its manifest once, and finds what is new, finished, double and rejected."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayTaskError

from jobs.outstanding import Outstanding, by_row_group
from manifests.errors import one_line
from manifests.hash_set import HASH, HashSet, as_numpy, hashes_of_hex
from manifests.identity import item_key
from manifests.prompts import Manifest, RowGroup, read_rows, row_as_json
from manifests.retries import is_passing
from manifests.rows import RowProblem, RowValidator, content_hash
from manifests.schema import REJECTED_COLUMNS, Shape, arrow_schema
from manifests.secrets import mask_secrets

_SCAN_SCHEMA = pa.schema(
    [
        ("row_group", pa.int32()),
        ("row_number", pa.int64()),
        ("sample_index", pa.int32()),
        ("model", pa.int16()),
        ("shape", pa.dictionary(pa.int32(), pa.string())),
        ("key", HASH),
        ("request_hash", HASH),
    ]
)
"""A row a sample; `model` counts in the job's models, and `key` of a row's first sample stands for its id."""
_REJECTED_SCHEMA = arrow_schema(REJECTED_COLUMNS)

_NUM_ROWS_READ_HERE = 100_000
"""Up to so many rows the driver reads itself: a second's work, and processes for tasks take longer to start."""


@dataclass(frozen=True)
class Standing:
    """What an output holds already, 16-byte binary each.

    Attributes:
        keys: of the items that have a record (`manifests.identity.item_key`).
        finished: request hashes of the records that count.
        failed: request hashes of the failures.
    """

    keys: pa.ChunkedArray
    finished: pa.ChunkedArray
    failed: pa.ChunkedArray


class Rejections(Protocol):
    """Takes the rows that cannot be drawn: `manifests.rejected.RejectedRows` stores them."""

    num_rows: int

    def add(self, rows: pa.Table) -> None:
        """Take rows with `schema.REJECTED_COLUMNS`."""

    def finish(self) -> None:
        """There are no more."""


@dataclass(frozen=True)
class ShapeCount:
    """Samples of one model and shape.

    Attributes:
        num_to_do: to be drawn.
        num_changed: of these, those whose item has a record that is not of this request.
        num_finished: that have a record already.
        num_failed: that failed in an earlier run and are left as they are.
    """

    model: str
    shape: Shape
    num_to_do: int
    num_changed: int
    num_finished: int
    num_failed: int


@dataclass(frozen=True)
class Plan:
    """What a job will do.

    Attributes:
        outstanding: what is to be drawn.
        models: the job's.
        shapes: counts by model and shape.
        num_duplicates: rows that say again what an earlier row says.
        num_rejected: rows, and unreadable files, that cannot be drawn.
        num_not_in_manifest: samples that have a record, and that no valid row asks for any more.
    """

    outstanding: Outstanding
    models: list[str]
    shapes: list[ShapeCount]
    num_duplicates: int
    num_rejected: int
    num_not_in_manifest: int

    @cached_property
    def num_to_do(self) -> Mapping[str, int]:
        """By model, samples to draw."""
        return self._sums("num_to_do")

    @property
    def models_to_draw(self) -> list[str]:
        """The models that have something to draw."""
        return [model for model, count in self.num_to_do.items() if count]

    @cached_property
    def num_finished(self) -> Mapping[str, int]:
        """By model, samples that have a record already."""
        return self._sums("num_finished")

    @cached_property
    def num_failed(self) -> int:
        """Samples that failed in an earlier run and are left as they are."""
        return sum(self._sums("num_failed").values())

    def _sums(self, name: str) -> Mapping[str, int]:
        sums = Counter(dict.fromkeys(self.models, 0))
        for count in self.shapes:
            sums[count.model] += getattr(count, name)
        return dict(sums)


def make_plan(
    manifest: Manifest,
    validator: RowValidator,
    standing: Standing,
    rejected: Rejections,
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
    numbered = [(row_group, number) for number, row_group in enumerate(manifest.row_groups)]
    for scan, rejected_rows in _map_row_groups(_Scan(validator), numbered):
        scans.append(scan)
        rejected.add(rejected_rows)
    scanned = pa.concat_tables([_SCAN_SCHEMA.empty_table(), *scans])

    is_first, in_conflict = _doubles(manifest, scanned)
    num_duplicates = _num_rows(scanned, ~is_first & ~in_conflict)
    for rejected_rows in _reject_conflicts(manifest, scanned.filter(pa.array(in_conflict))):
        rejected.add(rejected_rows)
    rejected.finish()

    hashes, is_valid = as_numpy(scanned["request_hash"]), is_first & ~in_conflict
    is_finished = is_valid & HashSet(as_numpy(standing.finished)).contains(hashes)
    is_failed = is_valid & ~is_finished & HashSet(as_numpy(standing.failed)).contains(hashes)
    is_changed = is_valid & ~is_finished & HashSet(as_numpy(standing.keys)).contains(as_numpy(scanned["key"]))
    num_gone = len(standing.keys) - int((is_finished | is_changed).sum())
    is_asked_for = is_valid & (np.cumsum(is_valid) <= (len(is_valid) if limit is None else limit))
    is_to_do = is_asked_for & ~is_finished & (retry_failures | ~is_failed)
    models = list(validator.models)
    counted = {
        "num_to_do": is_to_do,
        "num_changed": is_to_do & is_changed,
        "num_finished": is_asked_for & is_finished,
        "num_failed": is_asked_for & is_failed & ~is_to_do,
    }
    return Plan(
        outstanding=Outstanding(_to_do(scanned.filter(pa.array(is_to_do)), models), manifest.row_groups),
        models=models,
        shapes=_count_shapes(scanned, counted, models),
        num_duplicates=num_duplicates,
        num_rejected=rejected.num_rows,
        num_not_in_manifest=num_gone,
    )


class _Scan:
    """The task that reads a row group: hashes of its valid rows, and its rejected rows."""

    def __init__(self, validator: RowValidator) -> None:
        self._validator = validator
        self._model_numbers = {model: number for number, model in enumerate(validator.models)}

    def __call__(self, row_group: RowGroup, number: int) -> tuple[pa.Table, pa.Table]:
        samples: list[tuple[int, int, int, Shape, bytes, str]] = []
        rejected: list[dict[str, Any]] = []
        try:
            for row_number, row in read_rows(row_group):
                try:
                    item = self._validator.item(row)
                except RowProblem as problem:
                    rejected.append(_rejected_row(row_group.file, row_number, row, str(problem)))
                    continue
                model, shape = self._model_numbers[item.settled.fields["model"]], item.settled.shape
                for sample_index, _, request_hash in item.samples:
                    key = item_key(item.id, sample_index)
                    samples.append((row_number, sample_index, model, shape, key, request_hash))
        except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
            if is_passing(error):
                raise
            reason = f"row group {row_group.index} cannot be read: {one_line(error)}"
            return _SCAN_SCHEMA.empty_table(), _rejected_file(row_group.file, reason)
        return _as_scan(number, samples), pa.Table.from_pylist(rejected, _REJECTED_SCHEMA)


def _as_scan(row_group: int, samples: list[tuple[int, int, int, Shape, bytes, str]]) -> pa.Table:
    if not samples:
        return _SCAN_SCHEMA.empty_table()
    row_numbers, sample_indices, models, shapes, keys, request_hashes = zip(*samples, strict=True)
    in_words = {shape: str(shape) for shape in set(shapes)}
    columns = {
        "row_group": np.full(len(samples), row_group, np.int32),
        "row_number": row_numbers,
        "sample_index": sample_indices,
        "model": models,
        "shape": [in_words[shape] for shape in shapes],
        "key": keys,
        "request_hash": hashes_of_hex(request_hashes),
    }
    return pa.table(columns, _SCAN_SCHEMA)


def _map_row_groups(function: Callable[..., Any], arguments: list[tuple[RowGroup, Any]]) -> Iterator[Any]:
    """Run a function over row groups, as Ray tasks where they are large, and yield its results in order."""
    if sum(row_group.num_rows for row_group, _ in arguments) <= _NUM_ROWS_READ_HERE:
        yield from starmap(function, arguments)
        return
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


def _doubles(manifest: Manifest, scanned: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """For every sample: whether its row is the first with its id, and whether rows of its id differ in content."""
    is_start = scanned["sample_index"].to_numpy() == 0
    ids = as_numpy(scanned["key"])[is_start]
    order = np.argsort(ids, kind="stable")
    in_order = ids[order]
    is_same = np.zeros(len(ids), bool)
    is_same[1:] = in_order[1:] == in_order[:-1]
    row_of_sample = np.cumsum(is_start) - 1
    if not is_same.any():
        return np.ones(len(is_start), bool), np.zeros(len(is_start), bool)
    group_of_row = np.empty(len(ids), np.int64)
    group_of_row[order] = np.cumsum(~is_same) - 1
    is_shared = np.bincount(group_of_row)[group_of_row] > 1
    contents = np.zeros(len(ids), "S16")
    contents[is_shared] = _contents(manifest, scanned.filter(pa.array(is_start)).filter(pa.array(is_shared)))
    first_row = order[~is_same][group_of_row]
    group_differs = np.zeros(len(ids), bool)
    group_differs[group_of_row[contents != contents[first_row]]] = True
    is_first = first_row == np.arange(len(ids))
    return is_first[row_of_sample], group_differs[group_of_row][row_of_sample]


def _contents(manifest: Manifest, rows: pa.Table) -> np.ndarray:
    """Read rows that share their ids with others once more, for their content hashes: (rows,), dtype S16."""
    hashes = _map_row_groups(_content_hashes, _places(manifest, rows))
    return as_numpy(pa.chunked_array(hashes, HASH))


def _content_hashes(row_group: RowGroup, row_numbers: set[int]) -> pa.Array:
    return pa.array([content_hash(row) for number, row in read_rows(row_group) if number in row_numbers], HASH)


def _places(manifest: Manifest, rows: pa.Table) -> list[tuple[RowGroup, set[int]]]:
    """Where rows are to be read again."""
    return [(work.row_group, set(work.row_numbers.tolist())) for work in by_row_group(rows, manifest.row_groups)]


def _num_rows(scanned: pa.Table, is_chosen: np.ndarray) -> int:
    return int((is_chosen & (scanned["sample_index"].to_numpy() == 0)).sum())


def _count_shapes(scanned: pa.Table, counted: Mapping[str, np.ndarray], models: list[str]) -> list[ShapeCount]:
    columns = {name: pa.array(is_counted.astype(np.int64)) for name, is_counted in counted.items()}
    table = pa.table({"model": scanned["model"], "shape": scanned["shape"], **columns}).unify_dictionaries()
    sums = table.group_by(["model", "shape"]).aggregate([(name, "sum") for name in counted])
    counts = [
        ShapeCount(models[row["model"]], Shape.parse(row["shape"]), *(row[f"{name}_sum"] for name in counted))
        for row in sums.to_pylist()
    ]
    return sorted(counts, key=lambda count: (models.index(count.model), count.shape))


def _to_do(samples: pa.Table, models: list[str]) -> pa.Table:
    """The samples as `Outstanding` takes them."""
    numbers = samples["model"].combine_chunks()
    names = pa.DictionaryArray.from_arrays(numbers, pa.array(models, pa.string()))
    place = samples.schema.get_field_index("model")
    return samples.drop_columns(["key"]).set_column(place, "model", names)


def _reject_conflicts(manifest: Manifest, samples: pa.Table) -> Iterator[pa.Table]:
    """Read the rows that share an id but not their content once more, for `rejected/`."""
    return _map_row_groups(_reject_rows, _places(manifest, samples))


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
    return {"file": mask_secrets(file), "row_number": row_number, "reason": reason, "row": row_as_json(row)}


def _rejected_file(file: str, reason: str) -> pa.Table:
    return pa.Table.from_pylist([{"file": mask_secrets(file), "reason": reason}], _REJECTED_SCHEMA)
