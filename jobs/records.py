"""The records of an output as any reader sees them, without holding its lease: parts, and receipts not yet in one."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from manifests import layout
from manifests.errors import UserError
from manifests.schema import RECORD_COLUMNS
from manifests.storage import Folder


def check_is_output(output: Folder) -> None:
    """Raise a `UserError` where a folder was not written by rendermill."""
    if output.read(layout.FORMAT_FILE) is None:
        raise UserError(f"output {output.url}: no {layout.FORMAT_FILE} there, so it is no output of rendermill")


def read_records(output: Folder, model: str | None = None) -> Iterator[pa.Table]:
    """The records, a table a file, with `RECORD_COLUMNS`.

    A record that a run is just moving from `_pending/` into a part may come twice; both say the same.

    Args:
        model: only this model's.
    """
    columns = [column.name for column in RECORD_COLUMNS]
    for name in (*output.names(layout.PENDING), *output.names(layout.METADATA)):
        if not name.endswith(".parquet"):
            continue
        try:
            table = output.read_table(name)
        except FileNotFoundError:  # a run that is going on moved it
            continue
        if "error_type" in table.column_names:
            table = table.filter(pc.is_null(table["error_type"]))
        if model is not None:
            table = table.filter(pc.equal(table["model"], model))
        yield table.select(columns)
