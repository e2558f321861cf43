"""Sets of 16-byte hashes in sorted arrays, 16 bytes each, so that millions of them fit into a driver's memory."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

HASH = pa.binary(16)


def hashes_of_hex(texts: Iterable[str]) -> pa.Array:
    """Convert hashes from texts of 32 hex digits."""
    data = bytes.fromhex("".join(texts))
    return pa.FixedSizeBinaryArray.from_buffers(HASH, len(data) // 16, [None, pa.py_buffer(data)])


def as_numpy(hashes: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return hashes as (hashes,), dtype S16, which sorts and compares like the bytes."""
    chunks = hashes.chunks if isinstance(hashes, pa.ChunkedArray) else [hashes]
    views = [np.frombuffer(chunk.buffers()[1], "S16")[chunk.offset :][: len(chunk)] for chunk in chunks if len(chunk)]
    return np.concatenate(views) if views else np.zeros(0, "S16")


class HashSet:
    """An immutable set of hashes.

    Args:
        hashes: (hashes,), dtype S16.
    """

    def __init__(self, hashes: np.ndarray) -> None:
        self._sorted = np.sort(hashes)

    def contains(self, hashes: np.ndarray) -> np.ndarray:
        """Return which of these hashes are in the set, (hashes,), bool.

        Args:
            hashes: (hashes,), dtype S16.
        """
        if not len(self._sorted):
            return np.zeros(len(hashes), bool)
        places = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        return self._sorted[places] == hashes
