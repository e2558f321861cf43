"""Reads the header of a safetensors file: which tensors it holds, and whether the file is complete."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

GIT_LFS_POINTER = b"version https://git-lfs"
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
_BITS = {"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32} | {
    "F16": 16, "BF16": 16, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8
}  # fmt: skip


class Tensor(NamedTuple):
    """A tensor as a header describes it.

    Attributes:
        dtype: as safetensors names it, such as `BF16`.
    """

    dtype: str
    shape: tuple[int, ...]


class DamagedFile(Exception):
    """A file is no valid safetensors file. The message begins with a verb, such as "is empty"."""


def read_header(read: Callable[[int, int], bytes], num_bytes: int) -> Mapping[str, Tensor]:
    """Return the tensors of a safetensors file by name.

    Args:
        read: returns the file's bytes from a position up to, not including, another one.
        num_bytes: size of the file.

    Raises:
        DamagedFile: the file is no safetensors file or not the whole of one.
    """
    if num_bytes == 0:
        raise DamagedFile("is empty")
    start = read(0, min(num_bytes, len(GIT_LFS_POINTER)))
    if start == GIT_LFS_POINTER:
        raise DamagedFile("is a pointer of Git LFS and not the file itself; fetch it with: git lfs pull")
    header_bytes = int.from_bytes(start[:_LENGTH_BYTES], "little")
    begin = _LENGTH_BYTES + header_bytes
    if num_bytes < _LENGTH_BYTES or header_bytes > _MAX_HEADER_BYTES:
        raise DamagedFile("is no safetensors file")
    if begin > num_bytes:
        raise DamagedFile("ends within its header; copy it again")
    try:
        content = json.loads(read(_LENGTH_BYTES, begin))
        content.pop("__metadata__", None)
        ends = [_end(name, tensor) for name, tensor in content.items()]
        tensors = {name: Tensor(tensor["dtype"], tuple(tensor["shape"])) for name, tensor in content.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFile("is no safetensors file: its header cannot be read") from error
    expected = begin + max(ends, default=0)
    if num_bytes != expected:
        raise DamagedFile(f"has {num_bytes} bytes, and its header says {expected}; copy it again")
    return tensors


def _end(name: str, tensor: Mapping[str, Any]) -> int:
    """Return the offset in bytes at which a tensor's data end, counted from the end of the header."""
    begin, end = tensor["data_offsets"]
    bits = _BITS.get(tensor["dtype"])
    if bits is not None and (end - begin) * 8 != math.prod(tensor["shape"]) * bits:
        raise ValueError(name)
    return int(end)
