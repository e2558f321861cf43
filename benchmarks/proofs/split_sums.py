"""Splits the sums of single operations of a stage, and counts the trials that find it out."""

import random
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from benchmarks.proofs.cases import NUM_PROMPTS, SIZES, load, prompts, requests
from benchmarks.proofs.sabotage import Sabotage, can_be_split
from benchmarks.proofs.stage import Outputs, Stage
from rendermill.models.parts.exact_batches import ExactBatches
from rendermill.models.parts.operations import Operation, Recording

_MAX_REFERENCE_BATCH = 8


@dataclass(frozen=True)
class Call:
    """A call of a stage, as the model makes it, with twice as many items as its reference batch."""

    function: Callable[..., Outputs]
    inputs: Sequence[torch.Tensor]
    reference_batch: int

    def of(self, reference_batch: int) -> "Call":
        """Return the same call with fewer items."""
        return Call(self.function, [tensor[: 2 * reference_batch] for tensor in self.inputs], reference_batch)

    def try_out(self) -> ExactBatches:
        """Let new batches try the larger size."""
        batches = ExactBatches(self.reference_batch)
        batches.with_tuples(self.function, *self.inputs)
        return batches

    def operations(self) -> list[Operation]:
        """Return the operations at the larger size that sum something."""
        with Recording() as recording:
            self.function(*self.inputs)
        return [operation for operation in recording.operations if can_be_split(operation)]


def calls_of(checkpoint: str, dtype: str, stages: Collection[str] = ()) -> dict[str, Call]:
    """Return a call of every stage, by its name, with the smallest reference batch of which twice as much is proven.

    Args:
        stages: The names of the stages that are wanted; all if there are none.
    """
    model, generator, found = load(checkpoint, dtype), random.Random(0), {}
    wanted = {name: batches for name, batches in model.stages.items() if not stages or name in stages}
    references = {name: batches.reference_batch or 1 for name, batches in wanted.items()}
    with ExitStack() as stack:
        for batches in model.stages.values():
            stack.enter_context(batches.unpadded())
        kept = {name: _keep_first(batches) for name, batches in wanted.items()}
        batch = requests(checkpoint, 2 * _MAX_REFERENCE_BATCH, SIZES[0], generator, prompts())
        others = requests(checkpoint, NUM_PROMPTS, SIZES[0], generator, prompts())
        model.render(batch, model.encode([*batch, *others])[: len(batch)])
    for name, calls in kept.items():
        reference_batch = references[name]
        while calls and name not in found and reference_batch <= _MAX_REFERENCE_BATCH:
            call = calls[0].of(reference_batch)
            if not call.try_out().refuted:
                found[name] = call
            reference_batch *= 2
    return found


def _keep_first(batches: ExactBatches) -> list[Call]:
    """Return a list that takes the next call for which a larger size can be tried."""
    calls: list[Call] = []
    ask = batches.with_tuples

    def kept(function: Callable[..., Outputs], *inputs: torch.Tensor) -> Outputs:
        if len(inputs[0]) >= 2 * _MAX_REFERENCE_BATCH and not calls:
            calls.append(Call(function, inputs, _MAX_REFERENCE_BATCH))
        return ask(function, *inputs)

    batches.with_tuples = kept  # type: ignore[method-assign]
    return calls


def split_sums(call: Call, operations: Sequence[Operation], seen: Stage) -> None:
    """Split the sums of one operation after the other, and note which trials find it out."""
    for operation in operations:
        with Sabotage(operation) as sabotage:
            batches = call.try_out()
        assert sabotage.num_calls
        seen.sabotaged[bool(batches.refuted)] += 1
        if not batches.refuted:
            print(f"    not found: {operation.name} of {[layout.shape for layout in operation.layouts]}")
