"""Opens manifests: finds the files, and reads their footers."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from rendermill.manifests.errors import UserError, one_line
from rendermill.manifests.reader.columns import (
    NotAManifest,
    check_renamed_exist,
    common_extra,
    extra_types,
    with_typed_partitions,
)
from rendermill.manifests.reader.files import ManifestFile, find_files
from rendermill.manifests.reader.footers import largest_row, memory_of, open_parquet, read_whole
from rendermill.manifests.reader.naming import ColumnNames
from rendermill.manifests.reader.read_rows import MAX_ROW_BYTES
from rendermill.manifests.reader.row_group import RowGroup
from rendermill.manifests.storage.errors import as_user_errors
from rendermill.manifests.storage.retries import is_transient, with_retries

_NUM_FOOTER_THREADS = 32
_MAX_BYTES_KEPT = 64 * 2**20
"""The size of all small files of a store up to which their content is kept, so that it need not be read again."""
_MAX_BYTES_OF_A_SMALL_FILE = 2**16


@dataclass(frozen=True)
class Manifest:
    """A manifest as its files' footers describe it.

    Attributes:
        row_groups: All row groups, in the order of files and rows.
        extra: The user's own columns, in name order, with the types in which records carry them.
        unreadable: The files that cannot be read as a manifest, with the reason.
    """

    row_groups: list[RowGroup]
    extra: pa.Schema
    unreadable: dict[str, str]

    @property
    def folder(self) -> str:
        """The URL or path of the manifest's folder, where relative paths of images and videos begin."""
        return self.row_groups[0].file.root_name

    def with_own(self, arguments: Collection[str], inputs: Collection[str]) -> "Manifest":
        """Return the manifest with some of the user's columns as rendermill's own, which no record carries.

        Args:
            arguments: The names of all columns that the job's models take beside `schema.MANIFEST_COLUMNS`.
            inputs: The names of those of them that hold images and videos.
        """
        names = replace(self.row_groups[0].names, arguments=frozenset(arguments), inputs=frozenset(inputs))
        row_groups = [replace(row_group, names=names) for row_group in self.row_groups]
        extra = pa.schema([field for field in self.extra if not names.is_own(field.name)])
        return replace(self, row_groups=row_groups, extra=extra)


@dataclass(frozen=True)
class _Footer:
    """A file that can be read, its footer, and the user's own columns with the types in which records carry them."""

    file: ManifestFile
    metadata: pq.FileMetaData
    extra: Mapping[str, pa.DataType]

    @property
    def columns(self) -> list[str]:
        """The names of all columns in the file."""
        return list(self.metadata.schema.to_arrow_schema().names)


class _Unreadable(NamedTuple):
    """A file that cannot be read as a manifest: the reason in words, and the names of its columns if it has any."""

    reason: str
    columns: Sequence[str] = ()


def open_manifest(url: str, patience_seconds: float = 0.0, renamed: Mapping[str, str | None] | None = None) -> Manifest:
    """Read the footers of every Parquet file of a manifest.

    Args:
        url: A file, a folder (searched for `*.parquet` at any depth) or a glob; any fsspec URL.
        patience_seconds: How long reads are repeated while the store fails with transient errors, once it has answered.
        renamed: As in `reader.naming.ColumnNames`.

    Raises:
        UserError: There is no file, no readable file, an extra column that no record could carry, or none of a name
            that is to be renamed.
    """
    with as_user_errors("cannot be read", ("manifest",), url):
        files = find_files(url)
    names = ColumnNames(renamed or {})
    found = {name for file in files for name, _ in file.partitions}
    files = with_typed_partitions([_renamed(file, names) for file in files])
    footers, unreadable = _read_footers(files, names, patience_seconds)
    if names.renamed:
        found.update(*(footer.columns for footer in footers), *(file.columns for file in unreadable.values()))
        check_renamed_exist(names.renamed, found)
    if not footers:
        name, (reason, _) = next(iter(unreadable.items()))
        raise UserError(reason, ("manifest",), name)
    row_groups = [group for footer in footers for group in _row_groups(footer, names, patience_seconds)]
    if not any(group.num_rows for group in row_groups):
        raise UserError("it has no rows", ("manifest",), url)
    extra = common_extra([(footer.file, footer.extra) for footer in footers])
    return Manifest(row_groups, extra, {name: reason for name, (reason, _) in unreadable.items()})


def _renamed(file: ManifestFile, names: ColumnNames) -> ManifestFile:
    return replace(file, partitions=tuple((names.of(column), value) for column, value in file.partitions))


def _read_footers(
    files: list[ManifestFile], names: ColumnNames, patience_seconds: float
) -> tuple[list[_Footer], dict[str, _Unreadable]]:
    """Return the footers of the files that can be read, and the others by name."""
    sizes = [_MAX_BYTES_OF_A_SMALL_FILE if file.num_bytes is None else file.num_bytes for file in files]
    num_bytes = sum(size for size in sizes if size <= _MAX_BYTES_OF_A_SMALL_FILE)
    read = partial(_footer_or_reason, names=names, keeps_content=num_bytes <= _MAX_BYTES_KEPT)
    with ThreadPoolExecutor(_NUM_FOOTER_THREADS) as threads:
        found = list(threads.map(partial(with_retries(patience_seconds), read), files))
    footers = [footer for footer in found if isinstance(footer, _Footer)]
    others = zip(files, found, strict=True)
    return footers, {file.name: other for file, other in others if isinstance(other, _Unreadable)}


def _footer_or_reason(file: ManifestFile, names: ColumnNames, keeps_content: bool) -> _Footer | _Unreadable:
    """Read a file's footer, and check that the file can be read as a manifest."""
    columns: list[str] = []
    try:
        content = read_whole(file)
        with open_parquet(file, content) as parquet:
            metadata = parquet.metadata
        schema = metadata.schema.to_arrow_schema()
        columns = schema.names
        extra = extra_types(file, metadata, schema, names)
    except NotAManifest as problem:
        return _Unreadable(str(problem), columns)
    except UserError:
        raise
    except pa.ArrowNotImplementedError as error:
        words = "it has a column of a type that Arrow cannot read"
        return _Unreadable(f"{words}: {one_line(error)}; write it in another type, or as text")
    except Exception as error:
        if is_transient(error):
            raise
        return _Unreadable(f"not a readable Parquet file: {one_line(error)}")
    is_kept = keeps_content and content is not None and len(content) <= _MAX_BYTES_OF_A_SMALL_FILE
    return _Footer(replace(file, content=content if is_kept else None), metadata, extra)


def _row_groups(footer: _Footer, names: ColumnNames, patience_seconds: float) -> Iterator[RowGroup]:
    first_row = 0
    for index in range(footer.metadata.num_row_groups):
        num_rows = footer.metadata.row_group(index).num_rows
        yield RowGroup(
            file=footer.file,
            index=index,
            first_row=first_row,
            num_rows=num_rows,
            num_bytes=memory_of(footer.metadata, index),
            may_have_large_rows=largest_row(footer.metadata, index, names) > MAX_ROW_BYTES,
            patience_seconds=patience_seconds,
            names=names,
        )
        first_row += num_rows
