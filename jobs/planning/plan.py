"""What a job will do: reads its manifest once, and finds what is new, finished, double and rejected."""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayTaskError

from rendermill.jobs.planning.remaining import Outstanding, by_row_group
from rendermill.manifests.arrow.hash_set import HASH, HashSet, as_numpy, hashes_of_hex
from rendermill.manifests.errors import one_line
from rendermill.manifests.identity import item_key
from rendermill.manifests.reader.manifest import Manifest, row_as_json
from rendermill.manifests.reader.row_groups import MAX_ROW_BYTES, RowGroup, Rows, read, rows_at
from rendermill.manifests.rows import RowProblem, RowValidator, content_hash
from rendermill.manifests.schema import REJECTED_COLUMNS, Shape, arrow_schema
from rendermill.manifests.secrets import mask_secrets
from rendermill.manifests.storage.retries import is_transient
from rendermill.manifests.storage.urls import is_local

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
_NUM_ROWS_PER_TASK = 20_000
"""Smaller row groups are read several by a task."""
_NUM_THREADS = 16
"""The threads with which the driver reads, where files lie far away."""
_NUM_TASKS_PER_CPU = 2
_NUM_ROWS_OF_A_LIMIT = 16
"""The rows that are looked at first, where a few may be enough."""
_Result = TypeVar("_Result")

_TOO_LARGE = f"its own columns take {{:,}} bytes; a record carries up to {MAX_ROW_BYTES:,}"
_CONFLICT = "id: {!r} stands in several rows with different content; give each its own"


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
    """Takes the rows that cannot be drawn: `manifests.output.rejected.RejectedRows` stores them."""

    num_rows: int

    def add(self, rows: pa.Table) -> None:
        """Take rows with `schema.REJECTED_COLUMNS`."""

    def finish(self) -> None:
        """Take note that there are no more."""


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
        num_not_in_manifest: samples that have a record, and that no valid row asks for any more; 0 if a limit ended the
            reading before the manifest's end.
    """

    outstanding: Outstanding
    models: list[str]
    shapes: list[ShapeCount]
    num_duplicates: int
    num_rejected: int
    num_not_in_manifest: int

    @cached_property
    def num_to_do(self) -> Mapping[str, int]:
        """The number of samples to draw, by model."""
        return self._sums("num_to_do")

    @property
    def models_to_draw(self) -> list[str]:
        """The models that have something to draw."""
        return [model for model, count in self.num_to_do.items() if count]

    @cached_property
    def num_finished(self) -> Mapping[str, int]:
        """The number of samples that have a record already, by model."""
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
        limit: only the manifest's first N samples; what comes after them is not read.
        retry_failures: draw what failed before once more.
    """
    for file, reason in manifest.unreadable.items():
        rejected.add(_rejected_file(file, reason))
    scanned, is_first, in_conflict, is_whole = _scan(manifest, validator, rejected, limit)
    num_duplicates = _num_rows(scanned, ~is_first & ~in_conflict)
    for rejected_rows in _reject_conflicts(manifest, scanned.filter(pa.array(in_conflict))):
        rejected.add(rejected_rows)
    rejected.finish()

    hashes, is_valid = as_numpy(scanned["request_hash"]), is_first & ~in_conflict
    is_finished = is_valid & HashSet(as_numpy(standing.finished)).contains(hashes)
    is_failed = is_valid & ~is_finished & HashSet(as_numpy(standing.failed)).contains(hashes)
    is_changed = is_valid & ~is_finished & HashSet(as_numpy(standing.keys)).contains(as_numpy(scanned["key"]))
    num_gone = len(standing.keys) - int((is_finished | is_changed).sum()) if is_whole else 0
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


def _scan(
    manifest: Manifest, validator: RowValidator, rejected: Rejections, limit: int | None
) -> tuple[pa.Table, np.ndarray, np.ndarray, bool]:
    """Read rows until there are enough.

    Args:
        limit: how many samples of valid rows are enough; None: all.

    Returns:
        The samples (`_SCAN_SCHEMA`); for each, whether its row is the first with its id, and whether rows of its id
        differ; and whether all rows were read.
    """
    tables, num_samples, num_enough = [_SCAN_SCHEMA.empty_table()], 0, limit or 0
    for scan, rejected_rows in _scans(manifest, _Scan(validator), limit):
        tables.append(scan)
        rejected.add(rejected_rows)
        num_samples += scan.num_rows
        if limit is not None and num_samples >= num_enough:
            scanned = pa.concat_tables(tables)
            is_first, in_conflict = _doubles(manifest, scanned)
            if int((is_first & ~in_conflict).sum()) >= limit:
                return scanned, is_first, in_conflict, False
            num_enough = 2 * num_samples
    scanned = pa.concat_tables(tables)
    return scanned, *_doubles(manifest, scanned), True


def _scans(manifest: Manifest, scan: "_Scan", limit: int | None) -> Iterator[tuple[pa.Table, pa.Table]]:
    """The results of scanning all row groups, in their order."""
    if limit is not None and limit <= _NUM_ROWS_READ_HERE:  # no row group is read further than need be
        for number, row_group in enumerate(manifest.row_groups):
            yield from scan.parts(row_group, number, max(_NUM_ROWS_OF_A_LIMIT, limit))
        return
    yield from _map_row_groups(scan, [(row_group, number) for number, row_group in enumerate(manifest.row_groups)])


class _Scan:
    """The task that reads a row group: hashes of its valid rows, and its rejected rows."""

    def __init__(self, validator: RowValidator) -> None:
        self._validator = validator
        self._model_numbers = {model: number for number, model in enumerate(validator.models)}

    def __call__(self, row_group: RowGroup, number: int) -> tuple[pa.Table, pa.Table]:
        scans, rejected = zip(*self.parts(row_group, number), strict=True)
        return pa.concat_tables(scans), pa.concat_tables(rejected)

    def parts(
        self, row_group: RowGroup, number: int, num_rows: int | None = None
    ) -> Iterator[tuple[pa.Table, pa.Table]]:
        """The results of some rows after the other, at most `num_rows` at first and ever more if more are asked for."""
        yield _SCAN_SCHEMA.empty_table(), _REJECTED_SCHEMA.empty_table()
        row_number = row_group.first_row
        try:
            for rows in read(row_group):
                start, end = 0, len(rows.own)
                while start < end:
                    stop = min(end, start + (num_rows or end))
                    yield self._part(row_group, number, rows, range(start, stop))
                    start, num_rows = stop, num_rows and 2 * num_rows
                row_number += end
        except Exception as error:
            if is_transient(error):
                raise
            where = f"row group {row_group.index} cannot be read from row {row_number} on"
            yield _SCAN_SCHEMA.empty_table(), _rejected_file(row_group.file.name, f"{where}: {one_line(error)}")

    def _part(self, row_group: RowGroup, number: int, rows: Rows, among: Sequence[int]) -> tuple[pa.Table, pa.Table]:
        samples: list[tuple[int, int, int, Shape, bytes, str]] = []
        too_large = rows.too_large() if row_group.may_have_large_rows else {}
        problems = {place: _TOO_LARGE.format(size) for place, size in too_large.items() if place in among}
        places = [place for place in among if place not in too_large]
        for place, row in zip(places, rows.identified(places), strict=True):
            try:
                item = self._validator.item(row)
            except RowProblem as problem:
                problems[place] = str(problem)
                continue
            model, shape = self._model_numbers[item.settled.fields["model"]], item.settled.shape
            for sample_index, _, request_hash in item.samples:
                key = item_key(item.id, sample_index)
                samples.append((rows.first_row + place, sample_index, model, shape, key, request_hash))
        return _as_scan(number, samples), _rejected_rows(row_group, rows, problems, too_large)


def _rejected_rows(
    row_group: RowGroup, rows: Rows, problems: Mapping[int, str], without_extra: Collection[int] = ()
) -> pa.Table:
    """Rows for `rejected/`, with all their columns.

    Args:
        problems: by the rows' places.
        without_extra: places of rows of which only the manifest's columns are shown.
    """
    places = sorted(problems)
    whole = rows.whole([place for place in places if place not in without_extra])
    rejected = [
        {
            "file": mask_secrets(row_group.file.name),
            "row_number": rows.first_row + place,
            "reason": problems[place],
            "row": row_as_json(rows.own[place] if place in without_extra else next(whole)),
        }
        for place in places
    ]
    return pa.Table.from_pylist(rejected, _REJECTED_SCHEMA)


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


def _map_row_groups(function: Callable[..., _Result], arguments: Sequence[tuple[RowGroup, Any]]) -> Iterator[_Result]:
    """Run a function over row groups, as Ray tasks where they are large, and yield its results in order."""
    if sum(row_group.num_rows for row_group, _ in arguments) <= _NUM_ROWS_READ_HERE:
        yield from _map_here(function, arguments)
        return
    task: Any = ray.remote(num_cpus=1)(_call)
    shared = ray.put(function)
    num_waiting = max(_NUM_THREADS, int(_NUM_TASKS_PER_CPU * ray.cluster_resources().get("CPU", 1)))
    waiting: deque[Any] = deque()
    for parts in _of_one_task(arguments):
        waiting.append(task.remote(shared, parts))
        if len(waiting) >= num_waiting:
            yield from _result_of(waiting.popleft())
    while waiting:
        yield from _result_of(waiting.popleft())


def _map_here(function: Callable[..., _Result], arguments: Sequence[tuple[RowGroup, Any]]) -> Iterator[_Result]:
    is_near = all(row_group.file.content is not None or is_local(row_group.file.url) for row_group, _ in arguments[:1])
    if is_near or len(arguments) == 1:
        yield from (function(*given) for given in arguments)
        return
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        waiting: deque[Future[_Result]] = deque()
        for given in arguments:
            waiting.append(threads.submit(function, *given))
            if len(waiting) >= _NUM_THREADS:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)


def _of_one_task(arguments: Sequence[tuple[RowGroup, Any]]) -> Iterator[list[tuple[RowGroup, Any]]]:
    """Consecutive row groups that make up enough rows for a task."""
    parts: list[tuple[RowGroup, Any]] = []
    for given in arguments:
        parts.append(given)
        if sum(row_group.num_rows for row_group, _ in parts) >= _NUM_ROWS_PER_TASK:
            yield parts
            parts = []
    if parts:
        yield parts


def _result_of(task: Any) -> Any:
    try:
        return ray.get(task)
    except RayTaskError as error:
        raise error.cause from error  # what a store raised, so that callers know it


def _call(function: Callable[..., _Result], parts: list[tuple[RowGroup, Any]]) -> list[_Result]:
    return list(_map_here(function, parts))


def _doubles(manifest: Manifest, scanned: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Tell of every sample whether its row is the first with its id, and whether rows of its id differ in content."""
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


def _content_hashes(row_group: RowGroup, row_numbers: np.ndarray) -> pa.Array:
    wanted = rows_at(row_group, row_numbers)
    return pa.array([content_hash(row) for rows, places in wanted for row in rows.whole(places)], HASH)


def _places(manifest: Manifest, rows: pa.Table) -> list[tuple[RowGroup, np.ndarray]]:
    """Where rows are to be read again."""
    return [(work.row_group, work.row_numbers) for work in by_row_group(rows, manifest.row_groups)]


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


def _reject_rows(row_group: RowGroup, row_numbers: np.ndarray) -> pa.Table:
    found = [_REJECTED_SCHEMA.empty_table()]
    for rows, places in rows_at(row_group, row_numbers):
        problems = {place: _CONFLICT.format(rows.own[place].get("id")) for place in places}
        found.append(_rejected_rows(row_group, rows, problems))
    return pa.concat_tables(found)


def _rejected_file(file: str, reason: str) -> pa.Table:
    return pa.Table.from_pylist([{"file": mask_secrets(file), "reason": reason}], _REJECTED_SCHEMA)
