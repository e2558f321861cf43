"""Finds how many items to render at once: doubles while that pays and fits, halves if memory runs out. No torch here.

Throughput has a knee: beyond it a larger batch costs memory and gains nothing. Memory is predicted from the peaks of
smaller batches, so that no batch has to fail for the limit to be found.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import pairwise

MIN_GAIN = 0.05
"""The share of throughput that a doubling has to gain for the search to go on."""

_GAIN_WORTH_KEEPING = 0.01
"""The share of throughput for which the doubling that ended the search is kept."""

MEMORY_MARGIN = 0.1
"""The share of the memory that is left free: allocators fragment it, and other processes take some."""

_NUM_MEASUREMENTS = 2
"""The number of batches measured for each size. The faster one counts, as the first one includes warming up."""


@dataclass
class Learned:
    """The knowledge of one shape of item that is kept for the next run.

    Attributes:
        size: the number of items to render at once.
        is_settled: whether larger batches are known not to pay, or not to be possible.
        cap: the largest size that may be tried; None: any.
        seconds_per_item: by size, the last measurements (at most two).
        peak_bytes: by size, the largest amount of device memory that this process had allocated; 0: before the batch.
    """

    size: int
    is_settled: bool = False
    cap: int | None = None
    seconds_per_item: dict[int, list[float]] = field(default_factory=dict)
    peak_bytes: dict[int, int] = field(default_factory=dict)

    def predicted_peak(self, num_items: int) -> int | None:
        """Return the memory in bytes that a batch should need, by the steepest rise measured; None if unknown."""
        if num_items in self.peak_bytes:
            return self.peak_bytes[num_items]
        sizes = sorted(self.peak_bytes)
        if len(sizes) < 2:
            return None
        rises = [
            (self.peak_bytes[larger] - self.peak_bytes[smaller]) / (larger - smaller)
            for smaller, larger in pairwise(sizes)
        ]
        return int(self.peak_bytes[sizes[-1]] + max(*rises, 0) * (num_items - sizes[-1]))


class BatchSizer:
    """Finds the batch size for every shape of item.

    Args:
        fixed: the size to use; None: search for it. If memory runs out, the size is lowered in both cases.
        smallest: the lower limit: strict mode's reference batch.
        first: the size at which the search starts; at least `smallest`.
        largest: the upper limit of the search.
    """

    def __init__(self, fixed: int | None, smallest: int = 1, first: int = 1, largest: int = 256) -> None:
        self._fixed = fixed
        self._smallest = smallest
        self._first = max(first, smallest)
        self._largest = largest
        self._shapes: dict[Hashable, Learned] = {}

    def learned(self, shape: Hashable) -> Learned:
        """Return what is known of a shape. Callers must not change it."""
        if shape not in self._shapes:
            self._shapes[shape] = Learned(self._fixed or self._first, is_settled=self._fixed is not None)
        return self._shapes[shape]

    def start_from(self, shape: Hashable, learned: Learned) -> None:
        """Continue the search for a shape where an earlier run ended."""
        if self._fixed is None:
            self._shapes[shape] = learned

    def size(self, shape: Hashable, available_bytes: int | None = None) -> int:
        """Return the size of the next batch of a shape.

        Args:
            available_bytes: the device memory that this process has or could get; None: memory is not limited.
        """
        state = self.learned(shape)
        size = state.size
        while size > self._smallest and not _fits(state, size, available_bytes):
            size //= 2  # for this batch only: the process that takes the memory may end
        return max(size, min(self._smallest, state.size))

    def add(self, shape: Hashable, num_items: int, seconds: float | None, peak_bytes: int | None = None) -> None:
        """Record a rendered batch. One that is shorter than the current size, at the end of a chunk, decides nothing.

        Args:
            seconds: the device's time; None if the batch was more than rendered, as in a trial of a size.
            peak_bytes: the largest amount of device memory that this process had allocated; None: unknown.
        """
        state = self.learned(shape)
        if peak_bytes is not None:
            state.peak_bytes[num_items] = max(peak_bytes, state.peak_bytes.get(num_items, 0))
        if seconds is None:
            return
        measured = state.seconds_per_item.setdefault(num_items, [])
        measured.append(seconds / num_items)
        del measured[:-_NUM_MEASUREMENTS]
        if state.is_settled or num_items != state.size or len(measured) < _NUM_MEASUREMENTS:
            return
        smaller = state.seconds_per_item.get(state.size // 2)
        if smaller and min(smaller) < min(measured) * (1 + MIN_GAIN):
            if min(smaller) < min(measured) * (1 + _GAIN_WORTH_KEEPING):
                state.size //= 2
            state.is_settled = True
        elif state.size * 2 > min(self._largest, state.cap or self._largest):
            state.is_settled = True
        else:
            state.size *= 2

    def forbid(self, shape: Hashable, num_items: int) -> None:
        """Use only batches smaller than this size from now on, because it changes the reference's pixels."""
        state = self.learned(shape)
        state.cap = max(self._smallest, num_items // 2)
        if state.size >= num_items:
            state.size, state.is_settled = state.cap, True

    def shrink(self, shape: Hashable, num_items: int) -> bool:
        """Lower the size after a batch did not fit into memory; return whether a smaller one is allowed."""
        state = self.learned(shape)
        if num_items <= self._smallest:
            return False
        state.size = state.cap = max(self._smallest, num_items // 2)
        state.is_settled = True
        return True


def _fits(state: Learned, num_items: int, available_bytes: int | None) -> bool:
    if available_bytes is None:
        return True
    predicted = state.predicted_peak(num_items)
    return predicted is None or predicted <= available_bytes * (1 - MEMORY_MARGIN)
