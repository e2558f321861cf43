"""Writes `rejected/`: the manifest rows of the newest run that cannot be drawn."""

import pyarrow as pa

from rendermill.manifests.output import layout
from rendermill.manifests.schema import REJECTED_COLUMNS, arrow_schema
from rendermill.manifests.storage.folder import Folder
from rendermill.manifests.storage.parquet import parquet_bytes

_NUM_ROWS_PER_PART = 20_000


class RejectedRows:
    """Takes rejected rows as they are found, and replaces those of earlier runs; holds no more than one part's.

    Args:
        folder: the output.
        run_id: names the files that this run writes.
    """

    def __init__(self, folder: Folder, run_id: str) -> None:
        self._folder = folder
        self._run_id = run_id
        self._earlier = folder.names(layout.REJECTED)
        self._waiting = [arrow_schema(REJECTED_COLUMNS).empty_table()]
        self._num_parts = 0
        self.num_rows = 0

    def add(self, rows: pa.Table) -> None:
        """Take rows with `schema.REJECTED_COLUMNS`."""
        if rows.num_rows == 0:
            return
        self._waiting.append(rows)
        self.num_rows += rows.num_rows
        if sum(table.num_rows for table in self._waiting) >= _NUM_ROWS_PER_PART:
            self._write_part()

    def finish(self) -> None:
        """Store the last rows and remove those of earlier runs; from then on a table is there, perhaps an empty one."""
        if self._num_parts == 0 or len(self._waiting) > 1:
            self._write_part()
        self._folder.delete(self._earlier)

    def _write_part(self) -> None:
        name = layout.rejected_part(self._run_id, self._num_parts)
        self._folder.write(name, parquet_bytes(pa.concat_tables(self._waiting)))
        self._waiting = self._waiting[:1]
        self._num_parts += 1
