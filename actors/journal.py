"""Knows what every renderer is drawing, so that a death of its process names the items that may have caused it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

MAX_DEATHS_ALONE = 3
"""An item that was drawn alone so often when the process died is at fault. Once or twice may be chance: processes are
killed for other reasons too."""


@dataclass(frozen=True)
class Suspicion:
    """What speaks against an item.

    Attributes:
        num_deaths: of processes that were drawing it, alone or with others.
        num_deaths_alone: of these, those that were drawing nothing else.
        last_words: type and message of the error for which the last of them had to go; None if it went without a word.
    """

    num_deaths: int
    num_deaths_alone: int
    last_words: tuple[str, str] | None


@dataclass
class _Attempt:
    items: frozenset[str]
    last_words: tuple[str, str] | None = None


class Journal:
    """A small actor beside the driver, which outlives the renderers. Items go by their request hashes."""

    def __init__(self) -> None:
        self._attempts: dict[str, _Attempt] = {}
        self._num_deaths: Counter[str] = Counter()
        self._num_deaths_alone: Counter[str] = Counter()
        self._last_words: dict[str, tuple[str, str] | None] = {}
        self._is_stopping = False

    def open_chunk(self, items: Sequence[str]) -> dict[str, Suspicion] | None:
        """A renderer takes a chunk, perhaps one over which another renderer died.

        Returns:
            Those of the items that were being drawn at a death; None if no more chunks are to be drawn.
        """
        for name, attempt in list(self._attempts.items()):
            if not attempt.items.isdisjoint(items):
                del self._attempts[name]
                self._count_death(attempt)
        if self._is_stopping:
            return None
        return {
            item: Suspicion(self._num_deaths[item], self._num_deaths_alone[item], self._last_words[item])
            for item in items
            if item in self._last_words
        }

    def began(self, attempt: str, items: Sequence[str]) -> None:
        """A renderer is about to draw these items together; the attempt is a name of its own."""
        self._attempts[attempt] = _Attempt(frozenset(items))

    def ended(self, attempt: str) -> None:
        """Its items were drawn, or failed without harm to the process."""
        self._attempts.pop(attempt, None)

    def dying(self, attempt: str, error_type: str, error: str) -> None:
        """The process has to go for an error with its items."""
        if attempt in self._attempts:
            self._attempts[attempt].last_words = error_type, error

    def stop(self) -> None:
        """Let the chunks that are being drawn end, and no other begin."""
        self._is_stopping = True

    def _count_death(self, attempt: _Attempt) -> None:
        for item in attempt.items:
            self._num_deaths[item] += 1
            self._num_deaths_alone[item] += len(attempt.items) == 1
            self._last_words[item] = attempt.last_words
