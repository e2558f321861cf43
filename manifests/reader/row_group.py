"""A row group of a manifest file, read by columns, in parts of bounded size."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rendermill.manifests.arrow.types import row_bytes
from rendermill.manifests.reader.files import ManifestFile
from rendermill.manifests.reader.footers import open_parquet
from rendermill.manifests.reader.naming import ColumnNames
from rendermill.manifests.storage.retries import with_retries

_MAX_BYTES_PER_PART = 16 * 2**20
_MAX_ROWS_PER_PART = 8192
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


@dataclass(frozen=True)
class RowGroup:
    """A row group of a manifest file: the unit in which tasks read.

    Attributes:
        file: The file.
        index: The row group's place in the file.
        first_row: The number of its first row in the file.
        num_rows: The number of its rows.
        num_bytes: The approximate memory that its rows take, by the file's footer.
        may_have_large_rows: Whether a row may be too large for a record, as far as the footer tells.
        patience_seconds: How long reads are repeated while the store fails with transient errors.
        names: The names of its columns.
    """

    file: ManifestFile
    index: int
    first_row: int
    num_rows: int
    num_bytes: int
    may_have_large_rows: bool = False
    patience_seconds: float = 0.0
    names: ColumnNames = field(default_factory=ColumnNames)

    @property
    def num_rows_per_part(self) -> int:
        """The number of rows to read at a time, so that all their columns take a bounded size."""
        return max(1, min(_MAX_ROWS_PER_PART, _MAX_BYTES_PER_PART * self.num_rows // max(1, self.num_bytes)))


def is_pandas_index(name: str) -> bool:
    """Whether a column is an unnamed index that pandas stored: it tells where a row stood, not what it says."""
    return _PANDAS_INDEX.fullmatch(name) is not None


def batch_bytes(batch: pa.RecordBatch) -> np.ndarray:
    """Return the size of each row in bytes, int64, (rows,)."""
    return sum((row_bytes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64))


def bounded_ranges(sizes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut consecutive rows into ranges, each of a bounded size or of one row.

    Args:
        sizes: The rows' sizes in bytes, (rows,).

    Yields:
        The first row of a range, and the row after its last.
    """
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _MAX_BYTES_PER_PART, side="right")))
        yield start, stop
        start = stop


class ColumnReader:
    """Reads some columns of a row group from its beginning to its end, and holds one part of it at a time.

    After a transient error the file is opened again, and read from the row group's beginning.

    Args:
        row_group: The row group.
        takes: Whether to read the column of a name, by which the job knows it.
    """

    def __init__(self, row_group: RowGroup, takes: Callable[[str], bool]) -> None:
        self.takes = takes
        self._row_group = row_group
        self._with_retries = with_retries(row_group.patience_seconds)
        self._opened: pq.ParquetFile | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.RecordBatch | None = None
        self._batch_start = 0

    def names(self) -> list[str]:
        """Return the names of all columns of the file, as the job knows them."""
        return [self._row_group.names.of(name) for name in self._with_retries(self._open).schema_arrow.names]

    def between(self, start: int, stop: int) -> list[pa.RecordBatch]:
        """Return the rows from `start` to before `stop`. A call may not go back behind the one before it."""
        return self._with_retries(self._between, start, stop)

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
            self._batch = None  # before the next is read, so that memory holds one at a time
            read = next(self._batches, None)
            if read is None:
                raise pa.ArrowInvalid("it has fewer rows than its footer says")
            taken = {name: column for name, column in self._in_file(read.schema).items() if self.takes(name)}
            self._batch = read.select([*taken.values()]).rename_columns([*taken])
        return self._batch

    def _open(self) -> pq.ParquetFile:
        if self._opened is None:
            self._opened = open_parquet(self._row_group.file)
            self._batch, self._batch_start = None, 0
            self._batches = self._opened.iter_batches(
                self._row_group.num_rows_per_part,
                row_groups=[self._row_group.index],
                columns=[
                    column for name, column in self._in_file(self._opened.schema_arrow).items() if self.takes(name)
                ],
            )
        return self._opened

    def _in_file(self, schema: pa.Schema) -> dict[str, str]:
        return self._row_group.names.in_file(schema.names)
