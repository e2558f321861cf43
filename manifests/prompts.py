"""Reads manifests: finds the files, and streams their rows with file and row number."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import UserError, one_line
from manifests.retries import is_passing, patience
from manifests.schema import MANIFEST_COLUMNS, RESERVED_NAMES
from manifests.storage import first_contact, masked_errors, open_filesystem

_MANIFEST_NAMES = frozenset(column.name for column in MANIFEST_COLUMNS)
_NUM_FOOTER_THREADS = 32
_NUM_ROWS_PER_READ = 8192


@dataclass(frozen=True)
class RowGroup:
    """A row group of a manifest file: the unit in which tasks read."""

    file: str
    index: int
    first_row: int
    num_rows: int
    patience_seconds: float = 0.0


@dataclass(frozen=True)
class Manifest:
    """What a manifest holds, from its files' footers alone.

    Attributes:
        row_groups: in the order of files and rows.
        extra: the user's own columns, in name order, with their types.
        unreadable: files that are no manifest, with the reason.
    """

    row_groups: list[RowGroup]
    extra: pa.Schema
    unreadable: dict[str, str]


def open_manifest(url: str, patience_seconds: float = 0.0) -> Manifest:
    """Read the footers of every Parquet file of a manifest.

    Args:
        url: a file, a folder (searched for `*.parquet` at any depth) or a glob; any fsspec URL.
        patience_seconds: how long to try again while the manifest's store fails, once it has answered.

    Raises:
        UserError: nothing there, no readable file, or extra columns that no record could carry.
    """
    filesystem, path = open_filesystem(url)
    with first_contact(f"manifest {url}: cannot be read"):
        if any(character in path for character in "*?["):
            files = sorted(filesystem.glob(path))
        elif filesystem.isdir(path):
            files = sorted(filesystem.glob(f"{path.rstrip('/')}/**/*.parquet"))
        else:
            files = [path] if filesystem.exists(path) else []
    if not files:
        raise UserError(f"manifest {url}: no such file, folder with *.parquet files, or glob with a match")

    files = [filesystem.unstrip_protocol(file) if "://" in url else str(file) for file in files]
    with ThreadPoolExecutor(_NUM_FOOTER_THREADS) as threads:
        footers = list(threads.map(partial(patience(patience_seconds), _read_footer), files))
    unreadable = {file: footer for file, footer in zip(files, footers, strict=True) if isinstance(footer, str)}
    readable = {file: footer for file, footer in zip(files, footers, strict=True) if not isinstance(footer, str)}
    if not readable:
        file, reason = next(iter(unreadable.items()))
        raise UserError(f"manifest {file}: {reason}")

    row_groups = []
    for file, footer in readable.items():
        first_row = 0
        for index in range(footer.num_row_groups):
            num_rows = footer.row_group(index).num_rows
            row_groups.append(RowGroup(file, index, first_row, num_rows, patience_seconds))
            first_row += num_rows
    if not any(group.num_rows for group in row_groups):
        raise UserError(f"manifest {url}: it has no rows")
    extra = _extra_columns({file: footer.schema.to_arrow_schema() for file, footer in readable.items()})
    return Manifest(row_groups, extra, unreadable)


def _read_footer(file: str) -> "pq.FileMetaData | str":
    filesystem, path = open_filesystem(file)
    try:
        with filesystem.open(path, "rb") as opened:
            metadata = pq.read_metadata(opened)
    except (pa.ArrowInvalid, OSError) as error:
        if is_passing(error):
            raise
        return f"not a readable Parquet file: {one_line(error)}"
    names = metadata.schema.to_arrow_schema().names
    if "prompt" not in names:
        return f"no column `prompt`, which is the one required; it has {', '.join(names)}"
    return metadata


def _extra_columns(schemas: Mapping[str, pa.Schema]) -> pa.Schema:
    fields: dict[str, pa.Field] = {}
    for file, schema in schemas.items():
        for field in schema:
            if field.name in _MANIFEST_NAMES:
                continue
            if field.name in RESERVED_NAMES:
                raise UserError(
                    f"manifest {file}: column `{field.name}` is the name of a record's own column; rename it"
                )
            carried = pa.field(field.name, _plain_type(field.type))
            known = fields.setdefault(field.name, carried)
            if known.type != carried.type:
                raise UserError(
                    f"manifest {file}: column `{field.name}` is {carried.type}, but {known.type} in another file of it"
                )
    return pa.schema([fields[name] for name in sorted(fields)])


def _plain_type(data_type: pa.DataType) -> pa.DataType:
    return data_type.value_type if pa.types.is_dictionary(data_type) else data_type


def read_rows(row_group: RowGroup) -> Iterator[tuple[int, dict[str, Any]]]:
    """Stream a row group as (row number in the file, row); holds a few thousand rows at a time."""
    row_number, num_batches = row_group.first_row, 0
    with masked_errors():
        for attempt in patience(row_group.patience_seconds):
            with attempt:
                for batch in islice(_batches(row_group), num_batches, None):
                    for row in batch.to_pylist():
                        yield row_number, row
                        row_number += 1
                    num_batches += 1


def _batches(row_group: RowGroup) -> Iterator[pa.RecordBatch]:
    filesystem, path = open_filesystem(row_group.file)
    with filesystem.open(path, "rb") as opened, pq.ParquetFile(opened) as parquet:
        yield from parquet.iter_batches(_NUM_ROWS_PER_READ, row_groups=[row_group.index])


def row_as_json(row: Mapping[str, Any]) -> str:
    """A manifest row as it was, for `rejected/`."""
    return json.dumps(row, ensure_ascii=False, default=str)
