"""Tables of the rows that cannot be rendered, each with its reason, as `rejected/` stores them."""

from collections.abc import Collection, Mapping
from typing import Protocol

import pyarrow as pa

from rendermill.manifests.output.rejected import row_as_json
from rendermill.manifests.reader.read_rows import Rows
from rendermill.manifests.reader.row_group import RowGroup
from rendermill.manifests.schema import REJECTED_COLUMNS, arrow_schema
from rendermill.manifests.secrets import mask_secrets

REJECTED_SCHEMA = arrow_schema(REJECTED_COLUMNS)


class Rejections(Protocol):
    """Takes the rows that cannot be rendered: `manifests.output.rejected.RejectedRows` stores them."""

    num_rows: int

    def add(self, rows: pa.Table) -> None:
        """Take rows with the columns `schema.REJECTED_COLUMNS`."""

    def finish(self) -> None:
        """Do what has to be done after the last row."""


def rejected_rows(
    row_group: RowGroup, rows: Rows, problems: Mapping[int, str], without_extra: Collection[int] = ()
) -> pa.Table:
    """Return rows with their reasons and all their columns, as a table of `REJECTED_SCHEMA`.

    Args:
        problems: reasons by the rows' places.
        without_extra: places of rows that are shown with the manifest's own columns only, as the others are too large.
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
    return pa.Table.from_pylist(rejected, REJECTED_SCHEMA)


def rejected_file(file: str, reason: str) -> pa.Table:
    """Return the entry of a file of which all rows, or all further rows, cannot be read."""
    return pa.Table.from_pylist([{"file": mask_secrets(file), "reason": reason}], REJECTED_SCHEMA)
