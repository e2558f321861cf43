"""Origins of records: the model, device and environment that made them."""

import threading
from typing import NamedTuple

import numpy as np
import pyarrow as pa


class Origin(NamedTuple):
    """The origin of a record: the values of its columns with these names."""

    model: str
    device: str
    environment: str


class Origins:
    """A number for each origin, so that the index of records has one small column instead of three large ones.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._numbers: dict[Origin, int] = {}
        self._adding = threading.Lock()

    def __getitem__(self, origin: Origin) -> int:
        return self._numbers[origin]

    def of(self, numbers: set[int]) -> list[Origin]:
        """Return the origins with these numbers."""
        return [origin for origin, number in self._numbers.items() if number in numbers]

    def numbers(self, table: pa.Table) -> pa.Array:
        """Return the number of each row's origin, int16, and give new origins new numbers."""
        columns = [table[name].combine_chunks().dictionary_encode() for name in Origin._fields]
        sizes = [max(1, len(column.dictionary)) for column in columns]
        codes = np.ravel_multi_index([column.indices.to_numpy() for column in columns], sizes)
        _, rows, origin_of_row = np.unique(codes, return_index=True, return_inverse=True)
        with self._adding:
            origins = [Origin(*(column[row].as_py() for column in columns)) for row in rows]
            numbers = [self._numbers.setdefault(origin, len(self._numbers)) for origin in origins]
        return pa.array(np.array(numbers, np.int16)[origin_of_row])
