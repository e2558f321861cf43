"""One process's part of the work on a checkpoint."""

import random
import time
from dataclasses import dataclass

import torch

from benchmarks.proofs.cases import NUM_ITEMS, NUM_PROMPTS, SIZES, load, prompts, requests
from benchmarks.proofs.split_sums import calls_of, split_sums
from benchmarks.proofs.stage import Stage, Watch

_NUM_ORDERS = {"denoiser": 3, "low-noise denoiser": 3}
"""The number of orders in which the items of a call are called again; a denoiser is called for every step."""
_NUM_OTHER_ORDERS = 12


@dataclass(frozen=True)
class Share:
    """One process's part of the work on a checkpoint.

    Attributes:
        index: The number of the share; it decides the prompts, seeds and the size of its items.
        num_calls: The number of calls of each stage.
        sabotages: The numbers of the sabotages that are its own.
    """

    checkpoint: str
    dtype: str
    index: int
    num_calls: int
    sabotages: range
    max_seconds: float

    def run(self) -> dict[str, Stage]:
        """Render, and return the calls of each stage."""
        torch.set_num_threads(1)
        seen = self._count_calls()
        if self.sabotages:
            for name, call in calls_of(self.checkpoint, self.dtype).items():
                chosen = random.Random(0).choices(call.operations(), k=self.sabotages.stop)
                split_sums(call, [chosen[number] for number in self.sabotages], seen[name])
        return seen

    def _count_calls(self) -> dict[str, Stage]:
        """Render until every stage with a larger size was called often enough at proven sizes."""
        model, generator, texts = load(self.checkpoint, self.dtype), random.Random(self.index), prompts()
        watches = {
            name: Watch(batches, self.num_calls, _NUM_ORDERS.get(name, _NUM_OTHER_ORDERS))
            for name, batches in model.stages.items()
        }
        encoders = {name for name in watches if name.startswith("text encoder")}
        lacking, began = set(watches), time.monotonic()
        while lacking and time.monotonic() - began < self.max_seconds:
            num_prompts = NUM_PROMPTS if lacking & encoders else NUM_ITEMS
            batch = requests(self.checkpoint, num_prompts, SIZES[self.index % len(SIZES)], generator, texts)
            embeddings = model.encode(batch)
            if lacking - encoders:
                model.render(batch[:NUM_ITEMS], embeddings[:NUM_ITEMS])
            lacking = {name for name, watch in watches.items() if watch.is_lacking}
        return {name: watch.finish() for name, watch in watches.items()}
