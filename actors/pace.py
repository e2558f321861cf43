"""How long items of a shape take an actor, everything between them included: what estimates are made of."""

import time


class Pace:
    """Measures from one batch's end to the next one's, or from the beginning of a chunk to its first batch's end.

    Attributes:
        num_items: that count: not those of the shape's first batch, which pays for warming up, nor those drawn twice.
    """

    def __init__(self) -> None:
        self.num_items = 0
        self._seconds = 0.0
        self._is_warm = False
        self._last = 0.0

    @property
    def seconds_per_item(self) -> float:
        """The mean; there must be items."""
        return self._seconds / self.num_items

    def begin(self) -> None:
        """A chunk's items of the shape come next."""
        self._last = time.perf_counter()

    def drew(self, num_items: int, is_trial: bool) -> None:
        """A batch was drawn.

        Args:
            is_trial: more was done than drawing.
        """
        now = time.perf_counter()
        if self._is_warm and not is_trial:
            self.num_items += num_items
            self._seconds += now - self._last
        self._last, self._is_warm = now, True
