"""Opens manifest files, and estimates from a file's footer alone how much memory its rows take."""

import io
from collections.abc import Iterator
from typing import IO

import pyarrow.parquet as pq

from rendermill.manifests.reader.files import ManifestFile
from rendermill.manifests.reader.naming import ColumnNames
from rendermill.manifests.storage.urls import is_local, open_filesystem

_NUM_BYTES_READ_WHOLE = 2**20
"""The size of a file in an object store up to which one request takes less time than several for its parts."""
_NUM_BYTES_TO_STREAM = 64 * 2**20
"""The size of a row group beyond which its columns are read page by page."""
_NUM_BYTES_OF_A_STREAM = 2**20
_PHYSICAL_BYTES = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}
_INDEX_BYTES = 8
_MAX_EXPANSION = 1000
_NUM_BYTES_OF_A_DICTIONARY = 64 * 2**20
_MIN_REPETITION = 20
"""The compression ratio from which a column is taken to repeat its values."""
_NUM_BYTES_TO_EXPAND = 2**30


def read_whole(file: ManifestFile) -> bytes | None:
    """Return the content of a small file that is not on this machine; None for others, which are to be opened."""
    if file.content is not None or is_local(file.url) or (file.num_bytes or 0) > _NUM_BYTES_READ_WHOLE:
        return file.content
    filesystem, path = open_filesystem(file.url)[0], file.path
    return bytes(filesystem.cat_file(path))


def open_parquet(file: ManifestFile, content: bytes | None = None) -> pq.ParquetFile:
    """Open a manifest file so that texts stay dictionary-encoded, and take about as much memory as in the file.

    Args:
        file: The file.
        content: The file's content, if it was read already.
    """
    content = read_whole(file) if content is None else content
    source: IO[bytes] = io.BytesIO(content) if content is not None else _opened(file)
    metadata = pq.read_metadata(source)
    columns = [metadata.schema.column(index) for index in range(metadata.num_columns)]
    groups = [metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)]
    return pq.ParquetFile(
        source,
        metadata=metadata,
        read_dictionary=[column.path for index, column in enumerate(columns) if _may_repeat(metadata, index)],
        buffer_size=_NUM_BYTES_OF_A_STREAM if max(groups, default=0) > _NUM_BYTES_TO_STREAM else 0,
        # Arrow keeps no dictionary for JSON
        arrow_extensions_enabled="<arrow.json>" not in str(metadata.schema.to_arrow_schema()),
    )


def _opened(file: ManifestFile) -> IO[bytes]:
    return open_filesystem(file.url)[0].open(file.path, "rb")


def _may_repeat(metadata: pq.FileMetaData, column: int) -> bool:
    """Whether to keep a column of texts or bytes dictionary-encoded, because it may be far larger than its file.

    For a large column without repetition, a dictionary would take more memory than the values.
    """
    if metadata.schema.column(column).physical_type != "BYTE_ARRAY":
        return False
    chunks = [metadata.row_group(index).column(column) for index in range(metadata.num_row_groups)]
    return all(chunk.total_uncompressed_size <= _NUM_BYTES_OF_A_DICTIONARY or _is_repetitive(chunk) for chunk in chunks)


def _is_repetitive(chunk: pq.ColumnChunkMetaData) -> bool:
    return chunk.total_uncompressed_size >= _MIN_REPETITION * chunk.total_compressed_size


def memory_of(metadata: pq.FileMetaData, row_group: int) -> int:
    """Return the approximate memory in bytes that the rows of a row group take, with texts dictionary-encoded."""
    return sum(size for _, _, size, _ in _leaves(metadata, row_group))


def largest_row(metadata: pq.FileMetaData, row_group: int, names: ColumnNames) -> int:
    """Return an upper bound, in bytes, of the memory that the extra columns of one row take."""
    return sum(largest for name, _, _, largest in _leaves(metadata, row_group) if not names.is_own(names.of(name)))


def expanding_column(metadata: pq.FileMetaData) -> str | None:
    """Return a column of lists that takes far more memory than its file, perhaps in one row; None if there is none."""
    for row_group in range(metadata.num_row_groups):
        for name, num_stored, size, largest in _leaves(metadata, row_group):
            if min(size, largest) > max(_NUM_BYTES_TO_EXPAND, _MAX_EXPANSION * num_stored):
                return name
    return None


def _leaves(metadata: pq.FileMetaData, row_group: int) -> Iterator[tuple[str, int, int, int]]:
    """Yield the sizes of each leaf of each column in a row group.

    Yields:
        The column's name, and in bytes: the stored size, the size of all rows in memory, an upper bound for one row.
    """
    group = metadata.row_group(row_group)
    for index in range(group.num_columns):
        schema, chunk = metadata.schema.column(index), group.column(index)
        is_text, is_list = schema.physical_type == "BYTE_ARRAY", schema.max_repetition_level > 0
        width = _PHYSICAL_BYTES.get(schema.physical_type, schema.length)
        if is_text:
            size = chunk.total_uncompressed_size + _INDEX_BYTES * chunk.num_values
            num_times = chunk.num_values if is_list and chunk.has_dictionary_page else int(_is_repetitive(chunk))
            largest = (
                chunk.total_uncompressed_size * num_times
            )  # 0 times: a value that the file holds in full may be read
        else:
            size = width * chunk.num_values
            largest = size if is_list else width
        yield schema.path.partition(".")[0], chunk.total_compressed_size, size, largest
