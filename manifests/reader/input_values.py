"""Columns with images and videos: URLs, paths, bytes, or structs of them, each as an `InputValue`."""

import hashlib
import posixpath
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyarrow import types

from rendermill.manifests.arrow.values import Unreadable
from rendermill.manifests.inputs import InputValue
from rendermill.manifests.reader.files import ManifestFile
from rendermill.manifests.secrets import mask_secrets

_MAX_URL_BYTES = 2**16


def input_values(array: pa.Array, file: ManifestFile) -> list[Any]:
    """Return for each row of a column an `InputValue`, a list of them, None, or `Unreadable`.

    A struct has `bytes`, `path` or both, as Hugging Face's `datasets` writes it. Bytes are hashed and not kept. Those
    that a dictionary holds once for many rows are hashed once.

    Args:
        file: to whose folder paths are relative.
    """
    return _values(array, lambda text: _reference(text, file))


def inline_bytes(array: pa.Array) -> pa.Array:
    """Return the bytes that a column itself holds: large_binary, or a list of large_binary; null where it has none."""
    if isinstance(array.type, pa.BaseExtensionType):
        return inline_bytes(array.storage)
    if types.is_dictionary(array.type):
        return inline_bytes(array.dictionary).take(array.indices)
    if types.is_struct(array.type) and "bytes" in [field.name for field in array.type]:
        return inline_bytes(array.flatten()[array.type.get_field_index("bytes")])
    if _is_bytes(array.type):
        return array.cast(pa.large_binary())
    if _is_list(array.type):
        found = [None if row.values is None else inline_bytes(row.values).to_pylist() for row in array]
        return pa.array(found, pa.list_(pa.large_binary()))
    return pa.nulls(len(array), pa.large_binary())


def _values(array: pa.Array, reference: Callable[[bytes], InputValue | Unreadable]) -> list[Any]:
    data_type = array.type
    if isinstance(data_type, pa.BaseExtensionType):
        return _values(array.storage, reference)
    if types.is_dictionary(data_type):
        found = _values(array.dictionary, reference)
        return [None if index is None else found[index] for index in array.indices.to_pylist()]
    if types.is_struct(data_type):
        fields = {field.name: child for field, child in zip(data_type, array.flatten(), strict=True)}
        columns = [_values(fields[name], reference) for name in ("bytes", "path") if name in fields]
        if not columns:
            return [Unreadable("…", "a struct without a field `bytes` or `path`")] * len(array)
        return [next((value for value in row if value is not None), None) for row in zip(*columns, strict=True)]
    if _is_list(data_type):
        return [None if row.values is None else _values(row.values, reference) for row in array]
    if types.is_null(data_type):
        return [None] * len(array)
    if _is_text(data_type):
        texts = array.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
        return [reference(text) if text else None for text in texts]
    if _is_bytes(data_type):
        return [_inline(value.as_buffer()) if value.is_valid else None for value in array.cast(pa.large_binary())]
    return [Unreadable("…", f"a column of type {data_type} holds no image")] * len(array)


def _inline(data: pa.Buffer) -> InputValue:
    return InputValue(sha256=hashlib.sha256(data).hexdigest(), num_bytes=data.size)


def _reference(text: bytes, file: ManifestFile) -> InputValue | Unreadable:
    if len(text) > _MAX_URL_BYTES:
        return Unreadable("…", f"a text of {len(text):,} bytes is no URL or path")
    try:
        given = text.decode()
    except UnicodeDecodeError:
        return Unreadable(repr(text), f"not UTF-8: {text!r:.80}")
    if "://" in given or given.startswith("/"):
        return InputValue(mask_secrets(given), given)
    if "::" in file.url:
        return Unreadable(given, f"{given} is a relative path, which needs a manifest in a plain folder; give a URL")
    below = posixpath.normpath(posixpath.join(file.folder_below_root, given))
    scheme, separator, folder = file.root_name.rpartition("://")
    place = f"{scheme}{separator}{posixpath.normpath(f'{folder}/{below}')}"
    return InputValue(mask_secrets(place), place) if below.startswith("..") else InputValue(below, below)


def _is_text(data_type: pa.DataType) -> bool:
    return types.is_string(data_type) or types.is_large_string(data_type) or types.is_string_view(data_type)


def _is_bytes(data_type: pa.DataType) -> bool:
    return types.is_binary(data_type) or types.is_large_binary(data_type) or types.is_binary_view(data_type)


def _is_list(data_type: pa.DataType) -> bool:
    return types.is_list(data_type) or types.is_large_list(data_type) or types.is_fixed_size_list(data_type)
