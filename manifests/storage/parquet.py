"""Parquet files as bytes, written and read whole."""

from collections.abc import Sequence
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as the content of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return cast(bytes, sink.getvalue().to_pybytes())


def read_parquet(file: IO[bytes], columns: Sequence[str] | None = None, encoded: Sequence[str] = ()) -> pa.Table:
    """Read a table from an open Parquet file.

    Args:
        columns: The columns to read; those that the file lacks are left out. None reads all.
        encoded: The columns to return dictionary-encoded.
    """
    with pq.ParquetFile(file, read_dictionary=list(encoded)) as parquet:
        present = parquet.schema_arrow.names
        return parquet.read(None if columns is None else [column for column in columns if column in present])
