"""The records of an output as any reader sees them, without holding its lease: parts, and receipts not yet in one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rendermill.manifests.errors import UserError, one_line
from rendermill.manifests.output import layout
from rendermill.manifests.output.holder import settled
from rendermill.manifests.schema import RECORD_COLUMNS, arrow_schema, conformed
from rendermill.manifests.storage.folder import Folder

_RECORD_COLUMNS = [column.name for column in RECORD_COLUMNS]
_FIELDS = {field.name: field for field in arrow_schema(RECORD_COLUMNS)}


def as_requested(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the sizes that were asked for, where the pipeline rendered others."""
    return {**record, **json.loads(record["requested_sizes"] or "{}")}


def read_records(
    output: Folder, model: str | None = None, columns: Sequence[str] = _RECORD_COLUMNS
) -> Iterator[pa.Table]:
    """Read the records, one table per file.

    A record that a run is just moving from `_pending/` into a part may come twice; both copies say the same.

    Args:
        model: The model whose records are wanted; None: all models.
    """
    for receipts in _read_pending(output, [*columns, "model", "error_type"]):
        yield _of_model(receipts.filter(pc.is_null(receipts["error_type"])), model).select(columns)
    for records in _read_parts(output, layout.METADATA, [*columns, "model"]):
        yield _of_model(records, model).select(columns)


def read_failures(output: Folder, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Read the failures, one table per file."""
    for receipts in _read_pending(output, [*columns, "error_type"]):
        yield receipts.filter(pc.is_valid(receipts["error_type"])).select(columns)
    yield from _read_parts(output, layout.FAILURES, columns)


def read_stale_media(output: Folder) -> set[str]:
    """The paths of media that newer ones replaced and that a later run will remove."""
    stale: set[str] = set()
    for folder in (layout.FORMER_PENDING, layout.PENDING):
        for name in output.names(folder):
            if name.endswith(".stale.json"):
                with suppress(ValueError, TypeError):  # the next run reports a damaged note
                    stale.update(json.loads(output.read(name) or b"[]"))
    return stale


def _read_pending(output: Folder, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Read the pending receipts that count: not those that a run wrote after another one had taken over."""
    yield from _read(
        output, [name for name in output.names(layout.FORMER_PENDING) if name.endswith(".parquet")], columns
    )
    names = [name for name in output.names(layout.PENDING) if name.endswith(".parquet")]
    late = settled(output)
    yield from _read(output, [name for name in names if (layout.lease_of(name) or 0) > late], columns)


def _read_parts(output: Folder, folder: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    yield from _read(output, [name for name in output.names(folder) if layout.is_part(name)], columns)


def _read(output: Folder, names: Sequence[str], columns: Sequence[str]) -> Iterator[pa.Table]:
    wanted = list(dict.fromkeys(columns))
    for name in names:
        try:
            table = output.read_table(name, wanted)
        except FileNotFoundError:  # a run that is under way moved it
            continue
        except pa.ArrowException as error:
            raise UserError(f"{name} cannot be read ({one_line(error)})", ("output",), output.url) from error
        # an earlier version may have written fewer columns; a manifest's own columns stay as they are
        fields = [_FIELDS[column] if column in _FIELDS else table.schema.field(column) for column in wanted]
        yield conformed(table, pa.schema(fields))


def _of_model(records: pa.Table, model: str | None) -> pa.Table:
    return records if model is None else records.filter(pc.equal(records["model"], model))
