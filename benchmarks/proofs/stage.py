"""Counts the calls of a stage at proven sizes that give other bits than calls at the reference size."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from rendermill.models.parts.exact_batches import ExactBatches, shape_of
from rendermill.models.parts.operations import bits

Outputs = tuple[torch.Tensor, ...]


@dataclass
class Stage:
    """Counts of a stage's calls and trials.

    Attributes:
        calls: The number of calls at proven sizes, by the number of their items.
        num_different: The number of these calls that gave other bits than the reference.
        sabotaged: The number of operations whose sums were split, by whether the trial found it out.
        proven: For every shape of inputs, in words, the sizes that are proven and why no larger one is.
    """

    calls: Counter[int] = field(default_factory=Counter)
    num_different: int = 0
    sabotaged: Counter[bool] = field(default_factory=Counter)
    proven: set[str] = field(default_factory=set)

    def __iadd__(self, other: "Stage") -> "Stage":
        self.calls += other.calls
        self.num_different += other.num_different
        self.sabotaged += other.sabotaged
        self.proven |= other.proven
        return self

    def __str__(self) -> str:
        if not self.proven:
            return "is not called"
        sizes = ", ".join(f"{count} of {size}" for size, count in sorted(self.calls.items()))
        return (
            f"{self.num_different} of {self.calls.total()} calls at larger proven sizes differ ({sizes})"
            if self.calls
            else "no larger size is proven"
        ) + f"; {self.sabotaged[True]} of {self.sabotaged.total()} split sums were found"


class Watch:
    """Holds every call of a stage at a larger size to calls at the reference size.

    Args:
        num_calls: The number of calls after which items are not called again in other orders.
        num_orders: The number of orders in which the items of a call are called again.
    """

    def __init__(self, batches: ExactBatches, num_calls: int, num_orders: int) -> None:
        self.seen = Stage()
        self._batches, self._num_calls, self._num_orders = batches, num_calls, num_orders
        self._generator = torch.Generator().manual_seed(0)
        self._ask, self._call = batches.with_tuples, batches._call
        self._made: list[tuple[int, Outputs]] = []
        # there is no other way to see single calls
        batches.with_tuples, batches._call = self._asked, self._called  # type: ignore[method-assign]

    @property
    def is_lacking(self) -> bool:
        """Whether the stage was called at larger sizes, but not often enough."""
        return 0 < self.seen.calls.total() < self._num_calls

    def finish(self) -> Stage:
        """Return the calls seen so far, with the sizes that were proven."""
        refuted, reasons = self._batches.refuted, self._batches.reasons
        for shape, sizes in self._batches.sizes.items():
            why = f"; {refuted[shape]} may not: {reasons[shape]}" if shape in refuted else ""
            self.seen.proven.add(f"({shape}): {', '.join(map(str, sizes))} proven{why}")
        return self.seen

    def _called(self, function: Callable[..., Outputs], inputs: Sequence[torch.Tensor], size: int) -> Outputs:
        outputs = self._call(function, inputs, size)
        self._made.append((size, outputs))
        return outputs

    def _asked(self, function: Callable[..., Outputs], *inputs: torch.Tensor) -> Outputs:
        num_trials = -1
        while num_trials < self._batches.work.num_trials:  # until no size is left to try
            num_trials = self._batches.work.num_trials
            self._made.clear()
            result = self._ask(function, *inputs)
        reference, *larger = self._batches.sizes[shape_of(inputs)]
        if not larger or self.seen.calls.total() >= self._num_calls:
            return result
        starts = range(0, len(inputs[0]), reference)
        parts = [[tensor[start : start + reference] for tensor in inputs] for start in starts]
        results = [self._call(function, part, reference) for part in parts]
        expected = [torch.cat(some) for some in zip(*results, strict=True)]
        self._compare(expected)
        for _ in range(self._num_orders):
            self._made.clear()
            order = torch.randperm(len(inputs[0]), generator=self._generator)[: sum(larger)]
            self._ask(function, *(tensor[order] for tensor in inputs))
            self._compare([tensor[order] for tensor in expected])
        return result

    def _compare(self, expected: Sequence[torch.Tensor]) -> None:
        """Compare what the last calls gave, whose items followed one another."""
        start = 0
        for size, outputs in self._made:
            stop = start + len(outputs[0])
            if size > (self._batches.reference_batch or 1):
                self.seen.calls[size] += 1
                pairs = zip(outputs, (tensor[start:stop] for tensor in expected), strict=True)
                self.seen.num_different += not all(torch.equal(bits(a), bits(b)) for a, b in pairs)
            start = stop
