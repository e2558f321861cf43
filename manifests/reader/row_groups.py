"""Reads row groups of manifest files in parts of bounded size, and as Python objects only what rendermill reads."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from rendermill.manifests.arrow.types import as_type, row_bytes
from rendermill.manifests.arrow.values import Unreadable, python_rows, python_values
from rendermill.manifests.reader.files import ManifestFile
from rendermill.manifests.reader.footers import open_parquet
from rendermill.manifests.schema import MANIFEST_COLUMNS, MANIFEST_NAMES
from rendermill.manifests.storage.errors import masked_errors
from rendermill.manifests.storage.retries import with_retries

MAX_ROW_BYTES = 128 * 2**20
"""The most that a row's own columns may take: a step of a run holds several."""
MAX_TEXT_BYTES = 2**16
"""The longest prompt, or another text that rendermill itself reads."""

_NUM_BYTES_AT_ONCE = 16 * 2**20
_NUM_ROWS_AT_ONCE = 8192
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")
_EXACT_WHOLE_NUMBERS = {16: 2**11, 32: 2**24}
"""The whole numbers, by bits, beyond which floating-point numbers leave some out."""


@dataclass(frozen=True)
class RowGroup:
    """A row group of a manifest file: the unit in which tasks read.

    Attributes:
        num_bytes: about what its rows take in memory, by the file's footer.
        may_have_large_rows: whether the footer leaves it open that a row is too large for a record.
    """

    file: ManifestFile
    index: int
    first_row: int
    num_rows: int
    num_bytes: int
    may_have_large_rows: bool = False
    patience_seconds: float = 0.0

    @property
    def num_rows_at_once(self) -> int:
        """How many rows to read at once, so that all their columns take a bounded size."""
        return max(1, min(_NUM_ROWS_AT_ONCE, _NUM_BYTES_AT_ONCE * self.num_rows // max(1, self.num_bytes)))


class Rows:
    """Consecutive rows of a row group.

    Args:
        first_row: its number in the file.
        own: the manifest's columns of every row, as Python objects (`Unreadable` where there is none).
        extra: reads the other columns, which takes time and memory; some batches that make up these rows.
        partitions: columns that are not the manifest's and that the file's folders give.
    """

    def __init__(
        self,
        first_row: int,
        own: list[dict[str, Any]],
        extra: Callable[[], list[pa.RecordBatch]] | None,
        partitions: dict[str, str | int | None],
    ) -> None:
        self.first_row, self.own = first_row, own
        self._read_extra, self._partitions = extra, partitions

    @cached_property
    def _extra(self) -> list[pa.RecordBatch]:
        return self._read_extra() if self._read_extra is not None else []

    def identified(self, places: Sequence[int]) -> Iterator[dict[str, Any]]:
        """The rows at ascending places: without an id whole, as that is what names them; with one without the rest."""
        own = self.own
        is_named = [own[place].get("id") not in (None, "") for place in places]
        whole = self.whole([place for place, named in zip(places, is_named, strict=True) if not named])
        for place, named in zip(places, is_named, strict=True):
            yield own[place] if named else next(whole)

    def whole(self, places: Sequence[int]) -> Iterator[dict[str, Any]]:
        """The rows at ascending places with all their columns."""
        own, partitions = self.own, self._partitions
        if self._read_extra is None:
            yield from ({**own[place], **partitions} for place in places)
            return
        in_order = iter(places)
        for piece in self._pieces(np.asarray(places, np.int64)):
            for row, place in zip(python_rows(piece), in_order, strict=False):
                yield {**own[place], **partitions, **row}

    def too_large(self) -> dict[int, int]:
        """Places and sizes in bytes of the rows that are too large for a record."""
        if self._read_extra is None:
            return {}
        sizes = np.concatenate([_batch_bytes(batch) for batch in self._extra])
        return {int(place): int(sizes[place]) for place in np.flatnonzero(sizes > MAX_ROW_BYTES)}

    def carried(self, places: Sequence[int], schema: pa.Schema) -> Iterator[pa.Table]:
        """The columns that are not the manifest's of the rows at some places, in tables of bounded size.

        Args:
            places: ascending; one that comes several times gives as many rows.
            schema: with the types in which records carry them; null for a column that this file does not have.
        """
        if self._read_extra is None:
            yield self._as_table(None, len(places), schema)
            return
        for piece in self._pieces(np.asarray(places, np.int64)):
            yield self._as_table(piece, piece.num_rows, schema)

    def _as_table(self, piece: pa.RecordBatch | None, num_rows: int, schema: pa.Schema) -> pa.Table:
        def column(field: pa.Field) -> pa.Array:
            if field.name in self._partitions:
                return pa.array([self._partitions[field.name]] * num_rows).cast(field.type)
            if piece is None or field.name not in piece.schema.names:
                return pa.nulls(num_rows, field.type)
            return as_type(piece.column(field.name), field.type)

        if not schema.names:
            return pa.table({"": pa.nulls(num_rows)}).select([])
        return pa.table([column(field) for field in schema], schema)

    def _pieces(self, places: np.ndarray) -> Iterator[pa.RecordBatch]:
        """The rows at some places, few enough at a time that they may be written out."""
        start = 0
        for batch in self._extra:
            here = places[(places >= start) & (places < start + batch.num_rows)] - start
            for first, last in _bounded(_batch_bytes(batch)[here]):
                rows = here[first:last]
                if rows[-1] - rows[0] == last - first - 1 and (np.diff(rows) == 1).all():
                    yield batch.slice(rows[0], last - first)
                else:
                    yield batch.take(pa.array(rows, pa.int64()))
            start += batch.num_rows


def is_pandas_index(name: str) -> bool:
    """Whether a column is an index without a name, as pandas stores it: where a row stood, and nothing that it says."""
    return _PANDAS_INDEX.fullmatch(name) is not None


def read(row_group: RowGroup) -> Iterator[Rows]:
    """Stream the rows of a row group; holds some megabytes at a time, or one row if that is larger.

    Whatever repeats itself in a file is held once until it is asked for.
    """
    with masked_errors():
        given = dict(row_group.file.partitions)
        own = _Columns(row_group, lambda name: name in MANIFEST_NAMES and name not in given)
        partitions = dict(given)
        own_partitions = {name: partitions.pop(name) for name in partitions.keys() & MANIFEST_NAMES}
        extra = _Columns(row_group, lambda name: not (name in MANIFEST_NAMES or name in given or is_pandas_index(name)))
        has_extra = any(map(extra.takes, own.names()))
        start = 0
        while start < row_group.num_rows:
            for batch in own.between(start, min(start + row_group.num_rows_at_once, row_group.num_rows)):
                for first, last in _bounded(np.minimum(_batch_bytes(batch), MAX_TEXT_BYTES)):
                    part = batch.slice(first, last - first)
                    here, stop = start + first, start + last
                    read_extra = _between(extra, here, stop) if has_extra else None
                    yield Rows(row_group.first_row + here, _own_rows(part, own_partitions), read_extra, partitions)
                start += batch.num_rows


def rows_at(row_group: RowGroup, row_numbers: np.ndarray) -> Iterator[tuple[Rows, list[int]]]:
    """Read some rows of a row group; stops after the last of them.

    Args:
        row_numbers: of the file, (rows,), ascending; one may come several times.

    Yields:
        Rows, and the places of those that are wanted among them, each once.
    """
    numbers, start = np.unique(row_numbers), 0
    for rows in read(row_group):
        stop = int(np.searchsorted(numbers, rows.first_row + len(rows.own)))
        if stop > start:
            yield rows, (numbers[start:stop] - rows.first_row).tolist()
        start = stop
        if start == len(numbers):
            return


def _between(columns: "_Columns", start: int, stop: int) -> Callable[[], list[pa.RecordBatch]]:
    return lambda: columns.between(start, stop)


def _bounded(sizes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of consecutive rows of these sizes in bytes, each of a bounded size or of one row."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _NUM_BYTES_AT_ONCE, side="right")))
        yield start, stop
        start = stop


def _batch_bytes(batch: pa.RecordBatch) -> np.ndarray:
    return sum((row_bytes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64))


def _own_rows(batch: pa.RecordBatch, partitions: dict[str, Any]) -> list[dict[str, Any]]:
    names = batch.schema.names
    columns = [_own_values(name, column) for name, column in zip(names, batch.columns, strict=True)]
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return [row | partitions for row in rows] if partitions else rows


def _own_values(name: str, column: pa.Array) -> list[Any]:
    """A column of the manifest's own as Python objects."""
    if types.is_floating(column.type) and column.type.bit_width in _EXACT_WHOLE_NUMBERS:
        return [_exactly(name, value, column.type) for value in column.to_pylist()]
    sizes = row_bytes(column)
    is_short = sizes <= MAX_TEXT_BYTES
    found = python_values(column if is_short.all() else column.filter(pa.array(is_short)))
    if _is_text(column.type) and any(isinstance(value, bytes) for value in found):
        found = [_text(value) for value in found]
    if is_short.all():
        return found
    short = iter(found)
    return [next(short) if size <= MAX_TEXT_BYTES else _too_long(size) for size in sizes]


def _too_long(num_bytes: int) -> Unreadable:
    return Unreadable("…", f"a text of {num_bytes:,} bytes; at most {MAX_TEXT_BYTES:,} are read")


def _is_text(data_type: pa.DataType) -> bool:
    data_type = data_type.value_type if types.is_dictionary(data_type) else data_type
    return types.is_string(data_type) or types.is_large_string(data_type)


def _text(value: Any) -> Any:
    return Unreadable(repr(value), f"not UTF-8: {value!r:.80}") if isinstance(value, bytes) else value


def _exactly(name: str, value: float | None, data_type: pa.DataType) -> Any:
    """A number of a floating-point column, unless it should be whole and may have been rounded."""
    if value is None or name in _FRACTIONS or abs(value) < _EXACT_WHOLE_NUMBERS[data_type.bit_width]:
        return value
    return Unreadable(str(value), f"{value!r} is too large to be exact in a {data_type} column; use int64")


_FRACTIONS = {column.name for column in MANIFEST_COLUMNS if types.is_floating(column.type)}


class _Columns:
    """Some columns of a row group, read from its beginning to its end; opened anew after errors that may pass.

    Args:
        takes: whether to read the column of a name.
    """

    def __init__(self, row_group: RowGroup, takes: Callable[[str], bool]) -> None:
        self.takes = takes
        self._row_group = row_group
        self._patience = with_retries(row_group.patience_seconds)
        self._opened: pq.ParquetFile | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.RecordBatch | None = None
        self._batch_start = 0

    def names(self) -> list[str]:
        """All columns of the file."""
        return list(self._patience(self._open).schema_arrow.names)

    def between(self, start: int, stop: int) -> list[pa.RecordBatch]:
        """The rows from `start` to `stop`; each call begins where the one before ended, or later."""
        return self._patience(self._between, start, stop)

    def _between(self, start: int, stop: int) -> list[pa.RecordBatch]:
        found = []
        try:
            self._open()
            while start < stop:
                batch = self._batch_at(start)
                part = batch.slice(start - self._batch_start, stop - start)
                found.append(part)
                start += part.num_rows
        except Exception:
            self._opened = None
            raise
        return found

    def _batch_at(self, row: int) -> pa.RecordBatch:
        while self._batch is None or row >= self._batch_start + self._batch.num_rows:
            self._batch_start += self._batch.num_rows if self._batch is not None else 0
            self._batch = None  # one at a time
            read = next(self._batches, None)
            if read is None:
                raise pa.ArrowInvalid("it has fewer rows than its footer says")
            self._batch = read.select([name for name in read.schema.names if self.takes(name)])
        return self._batch

    def _open(self) -> pq.ParquetFile:
        if self._opened is None:
            self._opened = open_parquet(self._row_group.file)
            self._batch, self._batch_start = None, 0
            self._batches = self._opened.iter_batches(
                self._row_group.num_rows_at_once,
                row_groups=[self._row_group.index],
                columns=list(filter(self.takes, self._opened.schema_arrow.names)),
            )
        return self._opened
