"""How many items to draw at once: doubles while that pays, halves when memory runs out. Pure decisions, no torch."""

from collections.abc import Hashable
from dataclasses import dataclass, field

MIN_GAIN = 0.05
"""A doubling must bring at least this share of throughput to be kept."""

_NUM_MEASUREMENTS = 2
"""The first batch of a size pays for warming up, so the better of two counts."""


@dataclass
class _Shape:
    size: int
    cap: int | None = None
    is_settled: bool = False
    seconds_per_item: dict[int, list[float]] = field(default_factory=dict)


class BatchSizer:
    """Finds the batch size for every shape of item.

    Args:
        fixed: the size to keep to, or None to find it. Either way, running out of memory lowers it.
        largest: never go beyond this.
    """

    def __init__(self, fixed: int | None, largest: int = 256) -> None:
        self._fixed = fixed
        self._largest = largest
        self._shapes: dict[Hashable, _Shape] = {}

    def size(self, shape: Hashable) -> int:
        """The size of the next batch of this shape."""
        return self._shape(shape).size

    def finished(self, shape: Hashable, num_items: int, seconds: float) -> None:
        """A batch went through; short ones, of a chunk's last items, say nothing about their size."""
        state = self._shape(shape)
        if state.is_settled or num_items != state.size:
            return
        measured = state.seconds_per_item.setdefault(state.size, [])
        measured.append(seconds / num_items)
        if len(measured) < _NUM_MEASUREMENTS:
            return
        smaller = state.seconds_per_item.get(state.size // 2)
        if smaller and min(smaller) < min(measured) * (1 + MIN_GAIN):
            state.size //= 2
            state.is_settled = True
        elif state.size * 2 > min(self._largest, state.cap or self._largest):
            state.is_settled = True
        else:
            state.size *= 2

    def out_of_memory(self, shape: Hashable) -> bool:
        """A batch of the present size did not fit; returns whether a smaller one can be tried."""
        state = self._shape(shape)
        if state.size == 1:
            return False
        state.size = state.cap = state.size // 2
        state.is_settled = True
        return True

    def _shape(self, shape: Hashable) -> _Shape:
        if shape not in self._shapes:
            self._shapes[shape] = _Shape(self._fixed or 1, is_settled=self._fixed is not None)
        return self._shapes[shape]
