"""Opens manifests: finds the files, and reads their footers."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from rendermill.manifests.errors import UserError, one_line
from rendermill.manifests.reader.columns import NotAManifest, common_extra, extra_types, with_typed_partitions
from rendermill.manifests.reader.files import ManifestFile, find_files
from rendermill.manifests.reader.footers import largest_row, memory_of, open_parquet, read_whole
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


@dataclass(frozen=True)
class _Footer:
    """A file that can be read, its footer, and the user's own columns with the types in which records carry them."""

    file: ManifestFile
    metadata: pq.FileMetaData
    extra: Mapping[str, pa.DataType]


def open_manifest(url: str, patience_seconds: float = 0.0) -> Manifest:
    """Read the footers of every Parquet file of a manifest.

    Args:
        url: A file, a folder (searched for `*.parquet` at any depth) or a glob; any fsspec URL.
        patience_seconds: How long reads are repeated while the store fails with transient errors, once it has answered.

    Raises:
        UserError: There is no file, no readable file, or an extra column that no record could carry.
    """
    with as_user_errors("cannot be read", ("manifest",), url):
        files = find_files(url)
    footers, unreadable = _read_footers(with_typed_partitions(files), patience_seconds)
    if not footers:
        name, reason = next(iter(unreadable.items()))
        raise UserError(reason, ("manifest",), name)
    row_groups = [group for footer in footers for group in _row_groups(footer, patience_seconds)]
    if not any(group.num_rows for group in row_groups):
        raise UserError("it has no rows", ("manifest",), url)
    return Manifest(row_groups, common_extra([(footer.file, footer.extra) for footer in footers]), unreadable)


def _read_footers(files: list[ManifestFile], patience_seconds: float) -> tuple[list[_Footer], dict[str, str]]:
    """Return the footers of the files that can be read, and the reasons why the others cannot, by name."""
    sizes = [_MAX_BYTES_OF_A_SMALL_FILE if file.num_bytes is None else file.num_bytes for file in files]
    num_bytes = sum(size for size in sizes if size <= _MAX_BYTES_OF_A_SMALL_FILE)
    read = partial(_footer_or_reason, keeps_content=num_bytes <= _MAX_BYTES_KEPT)
    with ThreadPoolExecutor(_NUM_FOOTER_THREADS) as threads:
        found = list(threads.map(partial(with_retries(patience_seconds), read), files))
    footers = [footer for footer in found if isinstance(footer, _Footer)]
    return footers, {file.name: reason for file, reason in zip(files, found, strict=True) if isinstance(reason, str)}


def _footer_or_reason(file: ManifestFile, keeps_content: bool) -> _Footer | str:
    """Read a file's footer; return the reason, in words, if the file cannot be read as a manifest."""
    try:
        content = read_whole(file)
        with open_parquet(file, content) as parquet:
            metadata = parquet.metadata
        extra = extra_types(file, metadata, metadata.schema.to_arrow_schema())
    except NotAManifest as problem:
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
    is_kept = keeps_content and content is not None and len(content) <= _MAX_BYTES_OF_A_SMALL_FILE
    return _Footer(replace(file, content=content if is_kept else None), metadata, extra)


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
