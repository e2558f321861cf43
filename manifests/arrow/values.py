"""Arrow values as Python objects, including values that Python cannot represent."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rendermill.manifests.arrow.types import with_inner_types


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value that makes its row invalid.

    Attributes:
        shown: the value, or the part of it that can be shown.
        problem: what is wrong with it.
    """

    shown: str
    problem: str

    def __str__(self) -> str:
        return self.shown


def python_values(array: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Convert a column to Python objects.

    A value that Python cannot represent becomes the value that Arrow stores for it: a whole number for a date beyond
    the year 9999 or a time in an unknown zone, bytes for a text that is not UTF-8.
    """
    try:
        return (array.dictionary_decode() if pa.types.is_dictionary(array.type) else array).to_pylist()
    except (ValueError, OverflowError):
        return [_python_value(array.slice(index, 1)) for index in range(len(array))]


def python_rows(table: pa.Table | pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of a table, with values as `python_values` converts them."""
    names = table.schema.names
    if not names:
        yield from ({} for _ in range(table.num_rows))
        return
    for values in zip(*map(python_values, table.columns), strict=True):
        yield dict(zip(names, values, strict=True))


def _python_value(value: pa.Array | pa.ChunkedArray) -> Any:
    """Convert a column of one value."""
    try:
        return value.to_pylist()[0]
    except (ValueError, OverflowError):
        return value.cast(_stored_type(value.type)).to_pylist()[0]


def _stored_type(data_type: pa.DataType) -> pa.DataType:
    """Return the type with numbers for dates and times, and bytes for texts."""
    types = pa.types
    if types.is_dictionary(data_type):
        return _stored_type(data_type.value_type)
    if types.is_string(data_type) or types.is_large_string(data_type) or types.is_string_view(data_type):
        return pa.large_binary()
    if types.is_timestamp(data_type) or types.is_time64(data_type) or types.is_duration(data_type):
        return pa.int64()
    if types.is_date64(data_type):
        return pa.int64()
    if types.is_date32(data_type) or types.is_time32(data_type):
        return pa.int32()
    return with_inner_types(data_type, _stored_type)
