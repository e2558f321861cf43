"""Opens manifest files, and says from a footer alone what a file has and what its rows may take in memory."""

import io
from collections.abc import Iterator
from typing import IO

import pyarrow.parquet as pq

from rendermill.manifests.reader.files import ManifestFile
from rendermill.manifests.schema import MANIFEST_NAMES
from rendermill.manifests.storage.urls import is_local, open_filesystem

_NUM_BYTES_READ_WHOLE = 2**20
"""The size of a file far away up to which one request takes less time than several for its parts."""
_NUM_BYTES_TO_STREAM = 64 * 2**20
"""The size of a row group beyond which its columns are read page by page."""
_NUM_BYTES_OF_A_STREAM = 2**20
_PHYSICAL_BYTES = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}
_INDEX_BYTES = 8
_MAX_EXPANSION = 1000
_NUM_BYTES_OF_A_DICTIONARY = 64 * 2**20
_MIN_REPETITION = 20
"""Times that a column is smaller in the file than it would be without compression, if it repeats itself."""
_NUM_BYTES_TO_EXPAND = 2**30


def read_whole(file: ManifestFile) -> bytes | None:
    """The content of a small file that lies far away; None: it is to be opened."""
    if file.content is not None or is_local(file.url) or (file.num_bytes or 0) > _NUM_BYTES_READ_WHOLE:
        return file.content
    filesystem, path = open_filesystem(file.url)[0], file.path
    return bytes(filesystem.cat_file(path))


def open_parquet(file: ManifestFile, content: bytes | None = None) -> pq.ParquetFile:
    """Open a manifest file so that no column is larger in memory than in the file: texts stay dictionary-encoded.

    Args:
        content: of the file, if it was read already.
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
    """Whether a column of texts or bytes may be far larger than its file: then it is kept dictionary-encoded.

    Of a large one without repetition, a dictionary would take more memory than the values.
    """
    if metadata.schema.column(column).physical_type != "BYTE_ARRAY":
        return False
    chunks = [metadata.row_group(index).column(column) for index in range(metadata.num_row_groups)]
    return all(chunk.total_uncompressed_size <= _NUM_BYTES_OF_A_DICTIONARY or _is_repetitive(chunk) for chunk in chunks)


def _is_repetitive(chunk: pq.ColumnChunkMetaData) -> bool:
    return chunk.total_uncompressed_size >= _MIN_REPETITION * chunk.total_compressed_size


def memory_of(metadata: pq.FileMetaData, row_group: int) -> int:
    """About how many bytes the rows of a row group take in memory, texts dictionary-encoded."""
    return sum(size for _, _, size, _ in _leaves(metadata, row_group))


def largest_row(metadata: pq.FileMetaData, row_group: int) -> int:
    """How many bytes the columns of one row that are not the manifest's could take at most, by the footer."""
    return sum(largest for name, _, _, largest in _leaves(metadata, row_group) if name not in MANIFEST_NAMES)


def expanding_column(metadata: pq.FileMetaData) -> str | None:
    """A column of lists that holds far more than its file: all of it may stand in one row."""
    for row_group in range(metadata.num_row_groups):
        for name, num_stored, size, largest in _leaves(metadata, row_group):
            if min(size, largest) > max(_NUM_BYTES_TO_EXPAND, _MAX_EXPANSION * num_stored):
                return name
    return None


def _leaves(metadata: pq.FileMetaData, row_group: int) -> Iterator[tuple[str, int, int, int]]:
    """The sizes of every leaf of every column in a row group.

    Yields:
        The column's name, and in bytes: what is stored, what all takes in memory, what one row may take.
    """
    group = metadata.row_group(row_group)
    for index in range(group.num_columns):
        schema, chunk = metadata.schema.column(index), group.column(index)
        is_text, is_list = schema.physical_type == "BYTE_ARRAY", schema.max_repetition_level > 0
        width = _PHYSICAL_BYTES.get(schema.physical_type, schema.length)
        if is_text:
            size = chunk.total_uncompressed_size + _INDEX_BYTES * chunk.num_values
            num_times = chunk.num_values if is_list and chunk.has_dictionary_page else int(_is_repetitive(chunk))
            largest = chunk.total_uncompressed_size * num_times  # what is in the file for real may be read
        else:
            size = width * chunk.num_values
            largest = size if is_list else width
        yield schema.path.partition(".")[0], chunk.total_compressed_size, size, largest
