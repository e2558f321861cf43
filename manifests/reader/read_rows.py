"""Rows of a manifest: its own columns as Python objects, and the user's columns, which are read only if asked for."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from rendermill.manifests.arrow.types import as_type
from rendermill.manifests.arrow.values import python_rows
from rendermill.manifests.reader.files import PartitionValue
from rendermill.manifests.reader.input_values import inline_bytes
from rendermill.manifests.reader.own_columns import MAX_TEXT_BYTES, own_rows
from rendermill.manifests.reader.row_group import ColumnReader, RowGroup, batch_bytes, bounded_ranges, is_pandas_index
from rendermill.manifests.storage.errors import masked_errors

MAX_ROW_BYTES = 128 * 2**20
"""The largest size of a row's extra columns: a step of a run holds several rows."""


class Rows:
    """Consecutive rows of a row group. A place is a row's number among them.

    Args:
        first_row: The number of the first row in the file.
        own: The manifest's columns of every row, as `own_columns.own_rows` gives them.
        read_extra: Reads the other columns, which takes time and memory; None if there are none.
        partitions: The extra columns that the names of the file's folders give.
        inputs: The columns of every row that hold images and videos.
    """

    def __init__(
        self,
        first_row: int,
        own: list[dict[str, Any]],
        read_extra: Callable[[], list[pa.RecordBatch]] | None,
        partitions: dict[str, PartitionValue],
        inputs: pa.RecordBatch,
    ) -> None:
        self.first_row, self.own = first_row, own
        self._read_extra, self._partitions, self._inputs = read_extra, partitions, inputs

    @cached_property
    def _extra(self) -> list[pa.RecordBatch]:
        return self._read_extra() if self._read_extra is not None else []

    def identified(self, places: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield rows with the columns that their identity needs: all of them if a row has no id, else its own.

        Args:
            places: The rows' places, ascending.
        """
        own = self.own
        has_id = [own[place].get("id") not in (None, "") for place in places]
        whole = self.whole([place for place, named in zip(places, has_id, strict=True) if not named])
        for place, named in zip(places, has_id, strict=True):
            yield own[place] if named else next(whole)

    def whole(self, places: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield rows with all their columns.

        Args:
            places: The rows' places, ascending.
        """
        own, partitions = self.own, self._partitions
        if self._read_extra is None:
            yield from ({**own[place], **partitions} for place in places)
            return
        in_order = iter(places)
        for piece in self._pieces(np.asarray(places, np.int64)):
            for row, place in zip(python_rows(piece), in_order, strict=False):
                yield {**own[place], **partitions, **row}

    def inline(self, places: Sequence[int], names: Sequence[str]) -> list[pa.Array]:
        """Return the bytes of images and videos that the manifest itself holds for some rows.

        Args:
            places: The rows' places.
            names: The inputs' names.

        Returns:
            For each input an array as `reader.input_values.inline_bytes` gives it; nulls if this file has none.
        """
        indices = pa.array(places, pa.int64())
        return [
            inline_bytes(self._inputs[name].take(indices))
            if name in self._inputs.schema.names
            else pa.nulls(len(places), pa.large_binary())
            for name in names
        ]

    def bounded(self, places: Sequence[int]) -> Iterator[Sequence[int]]:
        """Cut some places, of which each may come several times, so that the images and videos take a bounded size."""
        for first, last in bounded_ranges(batch_bytes(self._inputs)[np.asarray(places, np.int64)]):
            yield places[first:last]

    def too_large(self) -> dict[int, int]:
        """Return the sizes in bytes of the rows that are too large for a record, by place."""
        if self._read_extra is None:
            return {}
        sizes = np.concatenate([batch_bytes(batch) for batch in self._extra])
        return {int(place): int(sizes[place]) for place in np.flatnonzero(sizes > MAX_ROW_BYTES)}

    def carried(self, places: Sequence[int], schema: pa.Schema) -> Iterator[pa.Table]:
        """Yield the extra columns of some rows, as records carry them, in tables of bounded size.

        Args:
            places: The rows' places, ascending; a place that comes N times gives N rows.
            schema: The columns' names and types; a column that this file does not have is null.
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
            return pa.table({"": pa.nulls(num_rows)}).select([])  # a table without columns that has rows
        return pa.table([column(field) for field in schema], schema)

    def _pieces(self, places: np.ndarray) -> Iterator[pa.RecordBatch]:
        """Yield the extra columns of some rows, few enough at a time that a repeated value may be written out."""
        start = 0
        for batch in self._extra:
            here = places[(places >= start) & (places < start + batch.num_rows)] - start
            for first, last in bounded_ranges(batch_bytes(batch)[here]):
                rows = here[first:last]
                if rows[-1] - rows[0] == last - first - 1 and (np.diff(rows) == 1).all():
                    yield batch.slice(rows[0], last - first)  # consecutive rows are not copied
                else:
                    yield batch.take(pa.array(rows, pa.int64()))
            start += batch.num_rows


def read_rows(row_group: RowGroup) -> Iterator[Rows]:
    """Yield the rows of a row group, some megabytes at a time, or one row if that is larger.

    A value that a file holds once for many rows is held once in memory, too, until it is asked for.
    """
    with masked_errors():
        given, is_own = dict(row_group.file.partitions), row_group.names.is_own
        own_partitions = {name: value for name, value in given.items() if is_own(name)}
        partitions = {name: value for name, value in given.items() if not is_own(name)}
        own = ColumnReader(row_group, lambda name: is_own(name) and name not in given)
        extra = ColumnReader(row_group, lambda name: not (is_own(name) or name in given or is_pandas_index(name)))
        has_extra = any(map(extra.takes, own.names()))
        for start, part in _bounded_parts(own, row_group):
            rows = own_rows(part, row_group)
            yield Rows(
                row_group.first_row + start,
                [row | own_partitions for row in rows] if own_partitions else rows,
                _between(extra, start, start + part.num_rows) if has_extra else None,
                partitions,
                part.select(list(filter(row_group.names.is_input, part.schema.names))),
            )


def rows_at(row_group: RowGroup, row_numbers: np.ndarray) -> Iterator[tuple[Rows, list[int]]]:
    """Read some rows of a row group, and stop after the last of them.

    Args:
        row_numbers: The rows' numbers in the file, ascending, (rows,); a number may come several times.

    Yields:
        Rows, and the places of the wanted rows among them, each once.
    """
    numbers, start = np.unique(row_numbers), 0
    for rows in read_rows(row_group):
        stop = int(np.searchsorted(numbers, rows.first_row + len(rows.own)))
        if stop > start:
            yield rows, (numbers[start:stop] - rows.first_row).tolist()
        start = stop
        if start == len(numbers):
            return


def _bounded_parts(own: ColumnReader, row_group: RowGroup) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield all rows of a row group in parts of bounded size, each with the place of its first row.

    Of a text that is too long to be read, only the length that is read counts; nor are the bytes of inputs copied.
    """
    start = 0
    while start < row_group.num_rows:
        for batch in own.between(start, min(start + row_group.num_rows_per_part, row_group.num_rows)):
            for first, last in bounded_ranges(np.minimum(batch_bytes(batch), MAX_TEXT_BYTES)):
                yield start + first, batch.slice(first, last - first)
            start += batch.num_rows


def _between(columns: ColumnReader, start: int, stop: int) -> Callable[[], list[pa.RecordBatch]]:
    return lambda: columns.between(start, stop)
