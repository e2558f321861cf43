"""Counts the prompts that are too long for their model's text encoder."""

from collections import Counter
from collections.abc import Iterator, Mapping

import pyarrow.compute as pc

from rendermill.jobs.running.observers.observer import Commit


class CutPrompts:
    """The items of a run whose prompts were cut.

    Args:
        limits: The number of tokens that each model's text encoder takes; None: any number.

    Attributes:
        num_items: The number of these items, by model.
    """

    def __init__(self, limits: Mapping[str, int | None]) -> None:
        self._limits = limits
        self._longest: dict[str, int] = {}
        self.num_items: Counter[str] = Counter()

    def committed(self, commit: Commit) -> None:
        """Count the cut prompts of a commit."""
        num_tokens_cut = commit.receipts["num_tokens_cut"]
        num_items = pc.sum(pc.greater(num_tokens_cut, 0)).as_py()
        if num_items:
            self.num_items[commit.model] += num_items
            longest = pc.max(num_tokens_cut).as_py()
            self._longest[commit.model] = max(self._longest.get(commit.model, 0), longest)

    def in_words(self) -> Iterator[str]:
        """Describe them in a line for each model that has any."""
        for model, count in self.num_items.items():
            prompts = "1 prompt" if count == 1 else f"{count} prompts"
            verb, longest = ("was", "by") if count == 1 else ("were", "the longest by")
            limit = self._limits[model]
            yield f"{prompts} of {model} {verb} cut to {limit} tokens, {longest} {self._longest[model]}"
