"""How fast a model goes just now: what the last minute brought."""

import time
from collections import deque

_SECONDS = 60.0


class Rate:
    """Items a second over the last minute, or since the beginning where that is shorter."""

    def __init__(self) -> None:
        self._arrivals: deque[tuple[float, int]] = deque()
        self._began = time.monotonic()

    def add(self, num_items: int) -> None:
        """Take note that so many items are done."""
        self._arrivals.append((time.monotonic(), num_items))

    def per_second(self) -> float:
        """The rate now."""
        now = time.monotonic()
        while self._arrivals and self._arrivals[0][0] < now - _SECONDS:
            self._arrivals.popleft()
        seconds = min(_SECONDS, now - self._began)
        return sum(num_items for _, num_items in self._arrivals) / seconds if seconds else 0.0
