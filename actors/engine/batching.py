"""How many items to draw at once: doubles while that pays and fits, halves when memory runs out. No torch here.

Throughput has a knee: beyond it a larger batch costs memory and brings nothing. Memory is predicted from the peaks of
smaller batches, so that no batch has to fail for its limit to be found.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import pairwise

MIN_GAIN = 0.05
"""A doubling must bring at least this share of throughput to be kept."""

_GAIN_WORTH_KEEPING = 0.01
"""A doubling that was tried and ended the search is kept if it brought so much all the same."""

MEMORY_MARGIN = 0.1
"""Share of the memory that is left alone: allocators break it into pieces, and other processes take some."""

_NUM_MEASUREMENTS = 2
"""The first batch of a size pays for warming up, so the better of two counts."""


@dataclass
class Learned:
    """What is known of one shape of item, and worth keeping for the next run.

    Attributes:
        size: items to draw at once.
        is_settled: whether larger batches are known not to pay, or not to go.
        cap: the largest size that may be tried; None: any.
        seconds_per_item: by size, measured, at most two values each.
        peak_bytes: by size, the device memory that this process had allocated at most; 0: before the batch.
    """

    size: int
    is_settled: bool = False
    cap: int | None = None
    seconds_per_item: dict[int, list[float]] = field(default_factory=dict)
    peak_bytes: dict[int, int] = field(default_factory=dict)

    def predicted_peak(self, num_items: int) -> int | None:
        """Memory in bytes that a batch should need, by the steepest rise measured so far; None: not known yet."""
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
        fixed: the size to keep to, or None to find it. Either way, running out of memory lowers it.
        smallest: what cannot be undercut: strict mode's reference batch.
        first: where the search starts, at least at `smallest`.
        largest: never go beyond this.
    """

    def __init__(self, fixed: int | None, smallest: int = 1, first: int = 1, largest: int = 256) -> None:
        self._fixed = fixed
        self._smallest = smallest
        self._first = max(first, smallest)
        self._largest = largest
        self._shapes: dict[Hashable, Learned] = {}

    def learned(self, shape: Hashable) -> Learned:
        """What is known of a shape; to be read, not changed."""
        if shape not in self._shapes:
            self._shapes[shape] = Learned(self._fixed or self._first, is_settled=self._fixed is not None)
        return self._shapes[shape]

    def start_from(self, shape: Hashable, learned: Learned) -> None:
        """Begin where an earlier run ended."""
        if self._fixed is None:
            self._shapes[shape] = learned

    def size(self, shape: Hashable, available_bytes: int | None = None) -> int:
        """The size of the next batch of this shape.

        Args:
            available_bytes: device memory that this process has or could get; None: of no concern.
        """
        state = self.learned(shape)
        size = state.size
        while size > self._smallest and not _fits(state, size, available_bytes):
            size //= 2  # for now: what takes the memory may go again
        return max(size, min(self._smallest, state.size))

    def finished(self, shape: Hashable, num_items: int, seconds: float | None, peak_bytes: int | None = None) -> None:
        """A batch went through; short ones, of a chunk's last items, say nothing about their size.

        Args:
            seconds: None where more was done than drawing, as in a trial of a size.
            peak_bytes: device memory that this process had allocated at most; None: unknown.
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
        """Batches of this size and more are not to be drawn: they would not give the reference's pixels."""
        state = self.learned(shape)
        state.cap = max(self._smallest, num_items // 2)
        if state.size >= num_items:
            state.size, state.is_settled = state.cap, True

    def out_of_memory(self, shape: Hashable, num_items: int) -> bool:
        """A batch of so many items did not fit; returns whether a smaller one can be tried."""
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
