"""Arrow types of the user's columns: their form in records, differences between files, and the memory of rows."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}
"""Decimal digits of a whole number, by its bits."""
_MAX_DECIMAL_128 = 38
_MAX_DECIMAL_256 = 76


def carried_type(data_type: pa.DataType) -> pa.DataType:
    """Return the type in which records carry a column: the same values, in a form that all steps of a run can handle.

    Raises:
        ValueError: no record can carry it; the message says why.
    """
    if isinstance(data_type, pa.BaseExtensionType):
        return carried_type(data_type.storage_type)
    if types.is_dictionary(data_type):
        return carried_type(data_type.value_type)
    if types.is_string_view(data_type):
        return pa.string()
    if types.is_binary_view(data_type):
        return pa.binary()
    if types.is_union(data_type) or types.is_interval(data_type):
        raise ValueError(f"no record can carry a column of type {data_type}")
    if types.is_struct(data_type) and len({field.name for field in data_type}) < data_type.num_fields:
        raise ValueError("a struct in it has two fields of one name")
    return with_inner_types(data_type, carried_type)


def with_inner_types(data_type: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Return a nested type with its inner types changed, and any other type unchanged. A list view becomes a list."""
    if types.is_fixed_size_list(data_type):
        return pa.list_(change(data_type.value_type), data_type.list_size)
    if types.is_large_list(data_type) or types.is_large_list_view(data_type):
        return pa.large_list(change(data_type.value_type))
    if types.is_list(data_type) or types.is_list_view(data_type):
        return pa.list_(change(data_type.value_type))
    if types.is_map(data_type):
        return pa.map_(change(data_type.key_type), change(data_type.item_type))
    if types.is_struct(data_type):
        return pa.struct([(field.name, change(field.type)) for field in data_type])
    return data_type


def holds(settled: pa.DataType, data_type: pa.DataType) -> bool:
    """Return whether a column that records carry in type `settled` can hold every value of another type exactly."""
    plain = _small_type(carried_type(settled))
    return common_type(plain, _small_type(carried_type(data_type))) == plain


def _small_type(data_type: pa.DataType) -> pa.DataType:
    """Return the type without Arrow's 64-bit offsets, which say nothing about the values."""
    if types.is_large_string(data_type):
        return pa.string()
    if types.is_large_binary(data_type):
        return pa.binary()
    if types.is_large_list(data_type):
        return pa.list_(_small_type(data_type.value_type))
    return with_inner_types(data_type, _small_type)


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that holds every value of two carried types exactly; None if there is none."""
    if one == other or types.is_null(other):
        return one
    if types.is_null(one):
        return other
    if _is_number(one) and _is_number(other):
        return _common_number(one, other)
    for is_text, plain, large in _TEXTS:
        if is_text(one) and is_text(other):
            return large if large in (one, other) else plain
    if types.is_struct(one) and types.is_struct(other):
        return _common_struct(one, other)
    if types.is_map(one) and types.is_map(other):
        inner = common_type(one.key_type, other.key_type), common_type(one.item_type, other.item_type)
        return None if None in inner else pa.map_(*inner)
    if _is_list(one) and _is_list(other):
        value_type = common_type(one.value_type, other.value_type)
        if value_type is None:
            return None
        if types.is_fixed_size_list(one) and types.is_fixed_size_list(other) and one.list_size == other.list_size:
            return pa.list_(value_type, one.list_size)
        is_large = types.is_large_list(one) or types.is_large_list(other)
        return pa.large_list(value_type) if is_large else pa.list_(value_type)
    return None


def _is_number(data_type: pa.DataType) -> bool:
    return types.is_integer(data_type) or types.is_floating(data_type) or types.is_decimal(data_type)


def _is_list(data_type: pa.DataType) -> bool:
    return types.is_list(data_type) or types.is_large_list(data_type) or types.is_fixed_size_list(data_type)


def _is_text(data_type: pa.DataType) -> bool:
    return types.is_string(data_type) or types.is_large_string(data_type)


def _is_bytes(data_type: pa.DataType) -> bool:
    return types.is_binary(data_type) or types.is_large_binary(data_type) or types.is_fixed_size_binary(data_type)


_TEXTS = ((_is_text, pa.string(), pa.large_string()), (_is_bytes, pa.binary(), pa.large_binary()))


def _common_number(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if types.is_decimal(one) or types.is_decimal(other):
        return _common_decimal(one, other)
    common = pa.from_numpy_dtype(np.promote_types(one.to_pandas_dtype(), other.to_pandas_dtype()))
    whole = [number for number in (one, other) if types.is_integer(number)]
    # a float64 does not hold every whole number of 64 bits
    return None if types.is_floating(common) and any(number.bit_width == 64 for number in whole) else common


def _common_decimal(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if types.is_floating(one) or types.is_floating(other):
        return None
    scales = [number.scale if types.is_decimal(number) else 0 for number in (one, other)]
    digits = [number.precision if types.is_decimal(number) else _DIGITS[number.bit_width] for number in (one, other)]
    scale = max(scales)
    precision = scale + max(num_digits - own for num_digits, own in zip(digits, scales, strict=True))
    if precision > _MAX_DECIMAL_256:
        return None
    return pa.decimal128(precision, scale) if precision <= _MAX_DECIMAL_128 else pa.decimal256(precision, scale)


def _common_struct(one: pa.StructType, other: pa.StructType) -> pa.DataType | None:
    if {field.name for field in one} != {field.name for field in other}:
        return None
    common = [(field.name, common_type(field.type, other.field(field.name).type)) for field in one]
    return None if any(data_type is None for _, data_type in common) else pa.struct(common)


def as_type(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Convert an array to a type that holds its values (`carried_type`, `common_type`).

    Arrow's own cast lacks some of these conversions, and breaks list views and slices of lists of nulls.
    """
    if array.type == target:
        return array
    if isinstance(array.type, pa.BaseExtensionType):
        return as_type(array.storage, target)
    if types.is_dictionary(array.type):
        return as_type(array.dictionary_decode(), target)
    if types.is_struct(array.type):
        names = [field.name for field in array.type]
        children = array.flatten()
        inner = [as_type(children[names.index(field.name)], field.type) for field in target]
        return pa.StructArray.from_arrays(inner, fields=list(target), mask=array.is_null())
    if types.is_map(array.type):
        start, stop = array.offsets[0].as_py(), array.offsets[-1].as_py()
        keys, items = array.keys.slice(start, stop - start), array.items.slice(start, stop - start)
        inner = [as_type(keys, target.key_type), as_type(items, target.item_type)]
        return pa.MapArray.from_arrays(_offsets(_lengths(array)), *inner, type=target, mask=array.is_null())
    if types.is_fixed_size_list(target):
        values = array.values.slice(array.offset * target.list_size, len(array) * target.list_size)
        return pa.FixedSizeListArray.from_arrays(as_type(values, target.value_type), type=target, mask=array.is_null())
    if _has_lengths(array.type):
        offsets = _offsets(_lengths(array))
        values = as_type(array.flatten(), target.value_type)
        if types.is_large_list(target):
            return pa.LargeListArray.from_arrays(offsets, values, type=target, mask=array.is_null())
        return pa.ListArray.from_arrays(offsets.astype(np.int32), values, type=target, mask=array.is_null())
    return array.cast(target)


def row_bytes(array: pa.Array) -> np.ndarray:
    """Return the memory that each row of an array takes without dictionary encoding: (rows,), int64, bytes."""
    data_type = array.type
    if types.is_null(data_type):
        return np.zeros(len(array), np.int64)
    if isinstance(data_type, pa.BaseExtensionType):
        return row_bytes(array.storage)
    if types.is_dictionary(data_type):
        sizes = np.append(row_bytes(array.dictionary), 0)  # the last is for nulls
        return sizes[pc.fill_null(array.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)]
    if types.is_struct(data_type):
        return sum((row_bytes(child) for child in array.flatten()), np.zeros(len(array), np.int64))
    if types.is_map(data_type) or _has_lengths(data_type):
        lengths = _lengths(array)
        if types.is_map(data_type):
            start, stop = array.offsets[0].as_py(), array.offsets[-1].as_py()
            inner = row_bytes(array.keys.slice(start, stop - start)) + row_bytes(array.items.slice(start, stop - start))
        else:
            inner = row_bytes(array.flatten())
        return np.diff(np.append(0, np.cumsum(inner))[_offsets(lengths)])
    if _is_text(data_type) or types.is_binary(data_type) or types.is_large_binary(data_type):
        return pc.fill_null(pc.binary_length(array).cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    if types.is_string_view(data_type) or types.is_binary_view(data_type):
        return row_bytes(array.cast(pa.large_binary()))
    return np.full(len(array), -(-data_type.bit_width // 8), np.int64)


def _has_lengths(data_type: pa.DataType) -> bool:
    return _is_list(data_type) or types.is_list_view(data_type) or types.is_large_list_view(data_type)


def _lengths(array: pa.Array) -> np.ndarray:
    """Return the number of values in each list or map of an array: (rows,), int64, 0 for null."""
    if types.is_map(array.type):
        return np.diff(array.offsets.to_numpy(zero_copy_only=False)).astype(np.int64)
    lengths = pc.fill_null(pc.list_value_length(array).cast(pa.int64()), 0)
    return lengths.to_numpy(zero_copy_only=False)


def _offsets(lengths: np.ndarray | Sequence[int]) -> np.ndarray:
    return np.append(0, np.cumsum(lengths)).astype(np.int64)
