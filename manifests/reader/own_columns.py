"""The manifest's own columns (`schema.MANIFEST_COLUMNS`) as Python objects."""

from typing import Any

import pyarrow as pa
from pyarrow import types

from rendermill.manifests.arrow.types import row_bytes
from rendermill.manifests.arrow.values import Unreadable, python_values
from rendermill.manifests.reader.input_values import input_values
from rendermill.manifests.reader.row_group import RowGroup
from rendermill.manifests.schema import MANIFEST_COLUMNS

MAX_TEXT_BYTES = 2**16
"""The longest prompt, or other text that rendermill itself reads."""
_EXACT_WHOLE_NUMBERS = {16: 2**11, 32: 2**24}
"""The first whole number, by bits, that floating-point numbers may not represent exactly."""
_FRACTIONS = {column.name for column in MANIFEST_COLUMNS if types.is_floating(column.type)}


def own_rows(batch: pa.RecordBatch, row_group: RowGroup) -> list[dict[str, Any]]:
    """Return rows as dictionaries, with `Unreadable` in the place of values that cannot be read.

    Images and videos become `InputValue`s, which do not hold their bytes.

    Args:
        row_group: to which the rows belong.
    """
    names = batch.schema.names
    if not names:  # folders give all columns that the manifest has
        return [{} for _ in range(batch.num_rows)]
    columns = [
        input_values(column, row_group.file) if row_group.names.is_input(name) else _own_values(name, column)
        for name, column in zip(names, batch.columns, strict=True)
    ]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _own_values(name: str, column: pa.Array) -> list[Any]:
    if types.is_floating(column.type) and column.type.bit_width in _EXACT_WHOLE_NUMBERS:
        return [_exact(name, value, column.type) for value in column.to_pylist()]
    sizes = row_bytes(column)
    is_short = sizes <= MAX_TEXT_BYTES
    found = python_values(column if is_short.all() else column.filter(pa.array(is_short)))
    if _is_text(column.type) and any(isinstance(value, bytes) for value in found):
        found = [_text(value) for value in found]
    if is_short.all():
        return found
    short = iter(found)
    return [next(short) if size <= MAX_TEXT_BYTES else _too_long(size) for size in sizes]


def _too_long(num_bytes: int) -> Unreadable:
    return Unreadable("…", f"a text of {num_bytes:,} bytes; at most {MAX_TEXT_BYTES:,} are read")


def _is_text(data_type: pa.DataType) -> bool:
    data_type = data_type.value_type if types.is_dictionary(data_type) else data_type
    return types.is_string(data_type) or types.is_large_string(data_type)


def _text(value: Any) -> Any:
    return Unreadable(repr(value), f"not UTF-8: {value!r:.80}") if isinstance(value, bytes) else value


def _exact(name: str, value: float | None, data_type: pa.DataType) -> Any:
    """Return a number of a floating-point column, unless it should be whole and may have been rounded."""
    if value is None or name in _FRACTIONS or abs(value) < _EXACT_WHOLE_NUMBERS[data_type.bit_width]:
        return value
    return Unreadable(str(value), f"{value!r} is too large to be exact in a {data_type} column; use int64")
