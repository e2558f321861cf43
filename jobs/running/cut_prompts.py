"""Counts the prompts of which a text encoder did not see the end."""

from collections import Counter
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc


class CutPrompts:
    """The items of a run whose prompts were cut.

    Args:
        limits: tokens that each model's text encoder takes; None: any number.
    """

    def __init__(self, limits: Mapping[str, int | None]) -> None:
        self._limits = limits
        self._longest: dict[str, int] = {}
        self.num_items: Counter[str] = Counter()

    def add(self, model: str, receipts: pa.Table) -> None:
        """Count what was committed."""
        num_tokens_cut = receipts["num_tokens_cut"]
        num_items = pc.sum(pc.greater(num_tokens_cut, 0)).as_py()
        if num_items:
            self.num_items[model] += num_items
            self._longest[model] = max(self._longest.get(model, 0), pc.max(num_tokens_cut).as_py())

    def in_words(self) -> Iterator[str]:
        """A line for each model with such items."""
        for model, count in self.num_items.items():
            prompts = "1 prompt" if count == 1 else f"{count} prompts"
            verb, longest = ("was", "by") if count == 1 else ("were", "the longest by")
            limit = self._limits[model]
            yield f"{prompts} of {model} {verb} cut to {limit} tokens, {longest} {self._longest[model]}"
