"""Measures how long items of a shape take an actor, including the time between batches. Estimates are based on it."""

from collections import deque

_NUM_BATCHES = 12
"""The number of recent batches that count."""


class Pace:
    """Measures from one batch's end to the next one's, or from the start of a chunk to the end of its first batch.

    The first batch of a size, which includes warming up, does not count, and neither does a trial.
    """

    def __init__(self) -> None:
        self._batches: deque[tuple[int, float]] = deque(maxlen=_NUM_BATCHES)
        self._warm_sizes: set[int] = set()

    def seconds_per_item(self, size: int) -> float | None:
        """Return the mean over recent batches of a size, or of the largest rendered size below it; None if none counts.

        Batches of more than half that size count as well: they are the last of their chunks, and share its start.
        """
        largest = max((num_items for num_items, _ in self._batches if num_items <= size), default=0)
        alike = [(num_items, seconds) for num_items, seconds in self._batches if largest < 2 * num_items <= 2 * largest]
        if not alike:
            return None
        return sum(seconds for _, seconds in alike) / sum(num_items for num_items, _ in alike)

    def add(self, num_items: int, seconds: float, is_trial: bool) -> None:
        """Record a rendered batch.

        Args:
            seconds: the time since the previous batch ended, or since this batch's chunk began if that was later.
            is_trial: whether the batch was more than rendered, as in a trial of a size.
        """
        if num_items in self._warm_sizes and not is_trial:
            self._batches.append((num_items, seconds))
        self._warm_sizes.add(num_items)
