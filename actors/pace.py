"""How long items of a shape take an actor, everything between them included: what estimates are made of."""

from collections import deque

_NUM_BATCHES = 12
"""So many of the last ones count: the first batches are small, and slow while others still load."""


class Pace:
    """Measures from one batch's end to the next one's, or from the beginning of a chunk to its first batch's end.

    A shape's first batch, which pays for warming up, does not count, and neither do batches that were drawn twice.
    """

    def __init__(self) -> None:
        self._batches: deque[tuple[int, float]] = deque(maxlen=_NUM_BATCHES)
        self._is_warm = False

    @property
    def seconds_per_item(self) -> float | None:
        """The mean of the last batches; None where none counts."""
        if not self._batches:
            return None
        return sum(seconds for _, seconds in self._batches) / sum(num_items for num_items, _ in self._batches)

    def drew(self, num_items: int, seconds: float, is_trial: bool) -> None:
        """A batch was drawn.

        Args:
            seconds: since the last one's end, or since this one's chunk began, if that was later.
            is_trial: more was done than drawing.
        """
        if self._is_warm and not is_trial:
            self._batches.append((num_items, seconds))
        self._is_warm = True
