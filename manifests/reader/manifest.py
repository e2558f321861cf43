"""Opens manifests: finds the files, and holds them to what their footers, names and folders say."""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from rendermill.manifests.arrow.types import carried_type, common_type
from rendermill.manifests.errors import UserError, one_line
from rendermill.manifests.reader.files import ManifestFile, find_files
from rendermill.manifests.reader.footers import expanding_column, largest_row, memory_of, open_parquet, read_whole
from rendermill.manifests.reader.row_groups import MAX_ROW_BYTES, RowGroup, is_pandas_index
from rendermill.manifests.schema import INTERNAL_PREFIX, MANIFEST_COLUMNS, MANIFEST_NAMES, RESERVED_NAMES
from rendermill.manifests.storage.errors import as_user_errors
from rendermill.manifests.storage.retries import is_transient, with_retries

_NUM_FOOTER_THREADS = 32
_NUM_BYTES_KEPT = 64 * 2**20
"""Of all files that are small and far away: what is read for their footers need not be asked for again."""
_NUM_BYTES_OF_A_SMALL_FILE = 2**16
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
_MAX_JSON_LENGTH = 10_000
_CUT_LENGTH = 200


@dataclass(frozen=True)
class Manifest:
    """A manifest as its files' footers describe it.

    Attributes:
        row_groups: in the order of files and rows.
        extra: the user's own columns, in name order, with the types in which records carry them.
        unreadable: files that are no manifest, with the reason.
    """

    row_groups: list[RowGroup]
    extra: pa.Schema
    unreadable: dict[str, str]


@dataclass(frozen=True)
class _Footer:
    """A file that can be read, its footer, and its own columns with the types in which records carry them."""

    file: ManifestFile
    metadata: pq.FileMetaData
    extra: Mapping[str, pa.DataType]


class _NoManifest(Exception):
    """Why a file cannot be read as a manifest, in words."""


def open_manifest(url: str, patience_seconds: float = 0.0) -> Manifest:
    """Read the footers of every Parquet file of a manifest.

    Args:
        url: a file, a folder (searched for `*.parquet` at any depth) or a glob; any fsspec URL.
        patience_seconds: how long to try again while the manifest's store fails, once it has answered.

    Raises:
        UserError: nothing there, no readable file, or extra columns that no record could carry.
    """
    with as_user_errors("cannot be read", ("manifest",), url):
        files = find_files(url)
    footers, unreadable = _read_footers(_with_whole_numbers(files), patience_seconds)
    if not footers:
        name, reason = next(iter(unreadable.items()))
        raise UserError(reason, ("manifest",), name)
    row_groups = [group for footer in footers for group in _row_groups(footer, patience_seconds)]
    if not any(group.num_rows for group in row_groups):
        raise UserError("it has no rows", ("manifest",), url)
    return Manifest(row_groups, _extra_columns(footers), unreadable)


def _read_footers(files: list[ManifestFile], patience_seconds: float) -> tuple[list[_Footer], dict[str, str]]:
    """The footers of the files that can be read, and the reasons for the others by name."""
    sizes = [_NUM_BYTES_OF_A_SMALL_FILE if file.num_bytes is None else file.num_bytes for file in files]
    num_bytes = sum(size for size in sizes if size <= _NUM_BYTES_OF_A_SMALL_FILE)
    read = partial(_footer_or_reason, keeps_content=num_bytes <= _NUM_BYTES_KEPT)
    with ThreadPoolExecutor(_NUM_FOOTER_THREADS) as threads:
        found = list(threads.map(partial(with_retries(patience_seconds), read), files))
    footers = [footer for footer in found if isinstance(footer, _Footer)]
    return footers, {file.name: reason for file, reason in zip(files, found, strict=True) if isinstance(reason, str)}


def _footer_or_reason(file: ManifestFile, keeps_content: bool) -> "_Footer | str":
    try:
        content = read_whole(file)
        with open_parquet(file, content) as parquet:
            metadata = parquet.metadata
        schema = metadata.schema.to_arrow_schema()
        extra = _checked(file, metadata, schema)
    except _NoManifest as problem:
        return str(problem)
    except UserError:
        raise
    except pa.ArrowNotImplementedError as error:
        return (
            f"it has a column of a type that Arrow cannot read: {one_line(error)}; write it in another type, or as text"
        )
    except Exception as error:
        if is_transient(error):
            raise
        return f"not a readable Parquet file: {one_line(error)}"
    is_kept = keeps_content and content is not None and len(content) <= _NUM_BYTES_OF_A_SMALL_FILE
    return _Footer(replace(file, content=content if is_kept else None), metadata, extra)


def _checked(file: ManifestFile, metadata: pq.FileMetaData, schema: pa.Schema) -> dict[str, pa.DataType]:
    """The columns of a file that are the user's own, with the types in which records carry them.

    Raises:
        _NoManifest: the file cannot be read as a manifest.
    """
    partitions = dict(file.partitions)
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        raise _NoManifest(f"it has two columns `{twice}`; leave one, or rename one")
    if "prompt" not in {*schema.names, *partitions}:
        raise _NoManifest(f"no column `prompt`, which is the one required; it has {', '.join(schema.names)}")
    for name in partitions.keys() & {*schema.names}:
        _check_partition(name, partitions[name], metadata)
    expanding = expanding_column(metadata)
    if expanding is not None:
        raise _NoManifest(f"column `{expanding}` holds lists that take over a thousand times their size in the file")
    extra = {name: _partition_type(partitions[name]) for name in partitions.keys() - MANIFEST_NAMES}
    for field in schema:
        if field.name in partitions or is_pandas_index(field.name):
            continue
        if field.name in MANIFEST_NAMES:
            _check_own_type(field)
            continue
        try:
            extra[field.name] = carried_type(field.type)
        except ValueError as error:
            raise _NoManifest(f"column `{field.name}`: {error}") from error
    return extra


def _check_own_type(field: pa.Field) -> None:
    """Refuse a type in which no value of a column of the manifest's can be right."""
    data_type = field.type
    kinds = [kind for kind in _KINDS[field.name] if _HAS_KIND[kind](carried_type(data_type))]
    if not kinds and not (types.is_null(data_type) and field.name != "prompt"):
        raise _NoManifest(f"column `{field.name}` is {data_type}; it has to be {' or '.join(_KINDS[field.name])}")


def _is_number(data_type: pa.DataType) -> bool:
    return types.is_integer(data_type) or types.is_floating(data_type) or types.is_decimal(data_type)


_HAS_KIND = {
    "text": lambda data_type: types.is_string(data_type) or types.is_large_string(data_type),
    "a number": _is_number,
    "a UUID": lambda data_type: data_type == pa.binary(16),
}
_KINDS = {column.name: ["text"] if types.is_string(column.type) else ["a number"] for column in MANIFEST_COLUMNS} | {
    "id": ["text", "a number", "a UUID"]
}


def _check_partition(name: str, value: str | int | None, metadata: pq.FileMetaData) -> None:
    """Refuse a column of the file that may say other than its folder's name does."""
    index = metadata.schema.names.index(name)
    for number in range(metadata.num_row_groups):
        chunk = metadata.row_group(number).column(index)
        found = chunk.statistics
        is_same = found is not None and found.has_min_max and not found.null_count and found.min == found.max
        if not is_same or str(found.min) != str(value):
            raise _NoManifest(f"column `{name}` stands in the file and in its folder's name, {name}={value}; leave one")


def _partition_type(value: str | int | None) -> pa.DataType:
    return pa.null() if value is None else pa.string() if isinstance(value, str) else pa.int64()


def _with_whole_numbers(files: list[ManifestFile]) -> list[ManifestFile]:
    """Turn columns that folders give into whole numbers where all folders have one, and numbers where one is needed."""
    values: dict[str, set[str | int | None]] = {}
    for file in files:
        for name, value in file.partitions:
            values.setdefault(name, set()).add(value)
    are_whole = {name for name, found in values.items() if all(v is None or _WHOLE.fullmatch(str(v)) for v in found)}

    def typed(name: str, value: Any) -> Any:
        if value is None or (_KINDS.get(name, ["text"])[0] == "text" and name in MANIFEST_NAMES):
            return value
        if name in are_whole:
            return int(value)
        try:
            return float(value) if name in MANIFEST_NAMES else value
        except ValueError:
            return value

    return [replace(file, partitions=tuple((name, typed(name, v)) for name, v in file.partitions)) for file in files]


def _row_groups(footer: _Footer, patience_seconds: float) -> Iterator[RowGroup]:
    first_row = 0
    for index in range(footer.metadata.num_row_groups):
        num_rows = footer.metadata.row_group(index).num_rows
        yield RowGroup(
            file=footer.file,
            index=index,
            first_row=first_row,
            num_rows=num_rows,
            num_bytes=memory_of(footer.metadata, index),
            may_have_large_rows=largest_row(footer.metadata, index) > MAX_ROW_BYTES,
            patience_seconds=patience_seconds,
        )
        first_row += num_rows


def _extra_columns(footers: list[_Footer]) -> pa.Schema:
    """The own columns of all files, each in the type that holds what every file has in it."""
    found: dict[str, pa.DataType] = {}
    for footer in footers:
        for name, data_type in footer.extra.items():
            if name in RESERVED_NAMES or name.startswith(INTERNAL_PREFIX):
                raise UserError(
                    f"column `{name}` is the name of a record's own column; rename it", ("manifest",), footer.file.name
                )
            common = common_type(found.get(name, data_type), data_type)
            if common is None:
                raise UserError(
                    f"column `{name}` is {data_type}, but {found[name]} in another file of it",
                    ("manifest",),
                    footer.file.name,
                )
            found[name] = common
    return pa.schema([(name, found[name]) for name in sorted(found)])


def row_as_json(row: Mapping[str, Any]) -> str:
    """A manifest row as it was, for `rejected/`; of a very long row, values are cut."""
    text = _json(row)
    if len(text) <= _MAX_JSON_LENGTH:
        return text
    texts = {name: _json(value) for name, value in row.items()}
    return _json(
        {name: row[name] if len(text) <= _CUT_LENGTH else f"{text[:_CUT_LENGTH]}…" for name, text in texts.items()}
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
