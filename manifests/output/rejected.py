"""Writes `rejected/`: the manifest rows of the newest run that cannot be rendered, with the reasons."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from rendermill.manifests.output import layout
from rendermill.manifests.schema import REJECTED_COLUMNS, arrow_schema
from rendermill.manifests.storage.folder import Folder
from rendermill.manifests.storage.parquet import parquet_bytes

_NUM_ROWS_PER_PART = 20_000
_MAX_JSON_LENGTH = 10_000
_MAX_VALUE_LENGTH = 200
"""The length of a value in a row that is too long as a whole."""


class RejectedRows:
    """Writes rejected rows as they are found, in place of those of earlier runs; holds the rows of one part at most.

    Args:
        folder: The output.
        run_id: Names the files that this run writes.
    """

    def __init__(self, folder: Folder, run_id: str) -> None:
        self._folder = folder
        self._run_id = run_id
        self._earlier = folder.names(layout.REJECTED)
        self._waiting = [arrow_schema(REJECTED_COLUMNS).empty_table()]
        self._num_parts = 0
        self.num_rows = 0

    def add(self, rows: pa.Table) -> None:
        """Take rows with the columns `schema.REJECTED_COLUMNS`."""
        if rows.num_rows == 0:
            return
        self._waiting.append(rows)
        self.num_rows += rows.num_rows
        if sum(table.num_rows for table in self._waiting) >= _NUM_ROWS_PER_PART:
            self._write_part()

    def finish(self) -> None:
        """Store the last rows, and remove those of earlier runs. Readers find a table then, even if it is empty."""
        if self._num_parts == 0 or len(self._waiting) > 1:
            self._write_part()
        self._folder.delete(self._earlier)

    def _write_part(self) -> None:
        name = layout.rejected_part(self._run_id, self._num_parts)
        self._folder.write(name, parquet_bytes(pa.concat_tables(self._waiting)))
        self._waiting = self._waiting[:1]
        self._num_parts += 1


def row_as_json(row: Mapping[str, Any]) -> str:
    """Return a manifest row as JSON; the long values of a very long row are cut."""
    text = _json(row)
    if len(text) <= _MAX_JSON_LENGTH:
        return text
    texts = {name: _json(value) for name, value in row.items()}
    return _json(
        {
            name: row[name] if len(text) <= _MAX_VALUE_LENGTH else f"{text[:_MAX_VALUE_LENGTH]}…"
            for name, text in texts.items()
        }
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
