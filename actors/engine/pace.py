"""How long items of a shape take an actor, everything between them included: what estimates are made of."""

from collections import deque

_NUM_BATCHES = 12
"""The number of the last batches that count."""


class Pace:
    """Measures from one batch's end to the next one's, or from the beginning of a chunk to its first batch's end.

    A size's first batch, which pays for warming up, does not count, and neither do batches that were drawn twice.
    """

    def __init__(self) -> None:
        self._batches: deque[tuple[int, float]] = deque(maxlen=_NUM_BATCHES)
        self._warm_sizes: set[int] = set()

    def seconds_per_item(self, size: int) -> float | None:
        """The mean of the last batches of a size, or of the largest below it that was drawn; None where none counts.

        Those over half of it count as well: they are the last of their chunks, and share its beginning.
        """
        drawn = max((num_items for num_items, _ in self._batches if num_items <= size), default=0)
        alike = [(num_items, seconds) for num_items, seconds in self._batches if drawn < 2 * num_items <= 2 * drawn]
        if not alike:
            return None
        return sum(seconds for _, seconds in alike) / sum(num_items for num_items, _ in alike)

    def drew(self, num_items: int, seconds: float, is_trial: bool) -> None:
        """A batch was drawn.

        Args:
            seconds: since the last one's end, or since this one's chunk began, if that was later.
            is_trial: more was done than drawing.
        """
        if num_items in self._warm_sizes and not is_trial:
            self._batches.append((num_items, seconds))
        self._warm_sizes.add(num_items)
