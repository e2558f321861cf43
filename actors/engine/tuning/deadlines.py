"""Decides how long a batch may take before its items count as hung. No torch here."""

from collections.abc import Hashable

_MIN_SECONDS = 300.0
_SECONDS_OF_UNKNOWN_SHAPE = 3600.0
_SECONDS_TO_COMPILE = 1800.0
_FACTOR_OVER_SLOWEST = 30.0


class Deadlines:
    """Deadlines by shape of item.

    Args:
        seconds_per_item: the job file's deadline; None: 30 times the time of the slowest item of the shape, at least
            five minutes, and one hour while no time is known.
        is_compiled: whether a shape's first batch compiles, which may take another half hour.
        reference_batch: the number of items that every forward pass has room for.
    """

    def __init__(self, seconds_per_item: float | None, is_compiled: bool, reference_batch: int = 1) -> None:
        self._seconds_per_item = seconds_per_item
        self._is_compiled = is_compiled
        self._reference_batch = reference_batch
        self._slowest: dict[Hashable, float] = {}

    def seconds(self, shape: Hashable, num_items: int) -> float:
        """Return the deadline for rendering a batch, or for encoding its prompts."""
        per_item = self._seconds_per_item
        if per_item is None and shape in self._slowest:
            per_item = max(_MIN_SECONDS, _FACTOR_OVER_SLOWEST * self._slowest[shape])
        if per_item is None:
            per_item = _SECONDS_OF_UNKNOWN_SHAPE
        compiling = _SECONDS_TO_COMPILE if self._is_compiled and shape not in self._slowest else 0.0
        return per_item * max(num_items, self._reference_batch) + compiling

    def add(self, shape: Hashable, seconds_per_item: float) -> None:
        """Record the time of a rendered batch."""
        self._slowest[shape] = max(seconds_per_item, self._slowest.get(shape, 0.0))
