"""How long a batch may take before its items count as hung. Pure decisions, no torch."""

from collections.abc import Hashable

_MIN_SECONDS = 300.0
_SECONDS_OF_UNKNOWN_SHAPE = 3600.0
_SECONDS_TO_COMPILE = 1800.0
_GENEROSITY = 30.0


class Deadlines:
    """Deadlines by shape of item.

    Args:
        seconds_per_item: the job file's own; None: 30 times what the slowest item of the shape took, at least five
            minutes, and an hour while nothing is known.
        is_compiled: whether a shape's first batch compiles, which may take half an hour more.
    """

    def __init__(self, seconds_per_item: float | None, is_compiled: bool) -> None:
        self._seconds_per_item = seconds_per_item
        self._is_compiled = is_compiled
        self._slowest: dict[Hashable, float] = {}

    def seconds(self, shape: Hashable, num_items: int) -> float:
        """The deadline for a batch of so many items, or for reading their prompts."""
        per_item = self._seconds_per_item
        if per_item is None and shape in self._slowest:
            per_item = max(_MIN_SECONDS, _GENEROSITY * self._slowest[shape])
        if per_item is None:
            per_item = _SECONDS_OF_UNKNOWN_SHAPE
        compiling = _SECONDS_TO_COMPILE if self._is_compiled and shape not in self._slowest else 0.0
        return per_item * num_items + compiling

    def finished(self, shape: Hashable, seconds_per_item: float) -> None:
        """A batch of this shape went through."""
        self._slowest[shape] = max(seconds_per_item, self._slowest.get(shape, 0.0))
