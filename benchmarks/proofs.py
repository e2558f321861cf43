"""What proofs of batch sizes are worth on this machine: `python -m benchmarks.proofs --num-processes 8`.

For every stage of every checkpoint of the repository, in bfloat16 and float32: renders real prompts, calls the stage
with the same items again and again, each time in another order, so that they meet in batches of all proven sizes, and
counts the calls that give other bits than calls at the reference size. Then splits the sums of one operation after the
other (`benchmarks.sabotage`), and counts the trials that find it out.
"""

import argparse
import math
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import pyarrow.parquet as pq
import torch

from benchmarks.sabotage import Sabotage, can_be_split
from rendermill.manifests.request import Request
from rendermill.models import registry
from rendermill.models.interface import Model
from rendermill.models.parts.exact_batches import ExactBatches, shape_of
from rendermill.models.parts.operations import Operation, Recording, bits
from rendermill.models.settings import Settings
from tests.support.requests import request_for

_ROOT = Path(__file__).parents[1]
CASES = {
    "sana-shapes": ("SanaPipeline", {"num_inference_steps": 4}),
    "sana-sprint-shapes": ("SanaSprintPipeline", {"num_inference_steps": 2}),
    "wan-shapes": ("WanPipeline", {"num_inference_steps": 4, "num_frames": 5, "fps": 16.0}),
}
_DTYPES = ("bfloat16", "float32")
_SIZES = ((64, 32), (64, 64))
_NUM_ITEMS = 30
"""Of a render: a call of each size, 16, 8, 4 and 2."""
_NUM_PROMPTS = 96
_MAX_REFERENCE_BATCH = 8
_NUM_ORDERS = {"denoiser": 3, "low-noise denoiser": 3}
"""In which a stage is called again with the items of one call, by its name: a denoiser is called for every step."""
_NUM_OTHER_ORDERS = 12

Outputs = tuple[torch.Tensor, ...]


@dataclass
class Stage:
    """Counts of a stage's calls and trials.

    Attributes:
        calls: by size, calls with as many items at proven sizes.
        num_different: of these, calls that gave other bits than the reference.
        sabotaged: operations whose sums were split, by whether the trial found it out.
        proven: in words, for every shape of inputs, the sizes that are proven, and why no larger one is.
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


def prompts() -> list[str]:
    """The prompts of the demo, which come from PartiPrompts and VBench."""
    return pq.read_table(_ROOT / "examples" / "demo.parquet")["prompt"].to_pylist()


def load(checkpoint: str, dtype: str, reference_batch: int | None = 1) -> Model:
    """A checkpoint of the repository on the CPU; in strict mode, if it has a reference batch."""
    settings = Settings(dtype={"default": dtype}, compile=False, reference_batch=reference_batch)
    return registry.load(CASES[checkpoint][0], _ROOT / "checkpoints" / checkpoint, settings, "cpu")


def requests(
    checkpoint: str, num_items: int, size: tuple[int, int], generator: random.Random, texts: Sequence[str]
) -> list[Request]:
    """Requests of one shape with random prompts and seeds."""
    width, height = size
    shared = {"width": width, "height": height} | CASES[checkpoint][1]
    return [
        request_for(
            prompt,
            generator.getrandbits(60),
            negative_prompt=generator.choice([None, prompt[::2]]),
            **shared,
        )
        for prompt in generator.choices(texts, k=num_items)
    ]


class Watch:
    """Holds every call of a stage at a larger size to calls at the reference size.

    Args:
        num_calls: after as many, items are not called again in other orders.
        num_orders: in which the items of a call are called again.
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


@dataclass(frozen=True)
class Share:
    """One process's part of the work on a checkpoint.

    Attributes:
        index: of the share; decides the prompts, seeds and the size of its items.
        num_calls: of each stage.
        sabotages: the numbers of those that are its own.
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
            num_prompts = _NUM_PROMPTS if lacking & encoders else _NUM_ITEMS
            batch = requests(self.checkpoint, num_prompts, _SIZES[self.index % len(_SIZES)], generator, texts)
            embeddings = model.encode(batch)
            if lacking - encoders:
                model.render(batch[:_NUM_ITEMS], embeddings[:_NUM_ITEMS])
            lacking = {name for name, watch in watches.items() if watch.is_lacking}
        return {name: watch.finish() for name, watch in watches.items()}


@dataclass(frozen=True)
class Call:
    """A call of a stage, as the model makes it, with twice as many items as its reference batch."""

    function: Callable[..., Outputs]
    inputs: Sequence[torch.Tensor]
    reference_batch: int

    def of(self, reference_batch: int) -> "Call":
        """The same call with fewer items."""
        return Call(self.function, [tensor[: 2 * reference_batch] for tensor in self.inputs], reference_batch)

    def try_out(self) -> ExactBatches:
        """Let new batches try the larger size."""
        batches = ExactBatches(self.reference_batch)
        batches.with_tuples(self.function, *self.inputs)
        return batches

    def operations(self) -> list[Operation]:
        """The operations at the larger size that sum something."""
        with Recording() as recording:
            self.function(*self.inputs)
        return [operation for operation in recording.operations if can_be_split(operation)]


def calls_of(checkpoint: str, dtype: str, stages: Collection[str] = ()) -> dict[str, Call]:
    """A call of every stage, by its name, with the smallest reference batch of which twice as much is proven.

    Args:
        stages: the names of those that are wanted; all if there are none.
    """
    model, generator, found = load(checkpoint, dtype), random.Random(0), {}
    wanted = {name: batches for name, batches in model.stages.items() if not stages or name in stages}
    references = {name: batches.reference_batch or 1 for name, batches in wanted.items()}
    with ExitStack() as stack:
        for batches in model.stages.values():
            stack.enter_context(batches.unpadded())
        kept = {name: _keep_first(batches) for name, batches in wanted.items()}
        batch = requests(checkpoint, 2 * _MAX_REFERENCE_BATCH, _SIZES[0], generator, prompts())
        others = requests(checkpoint, _NUM_PROMPTS, _SIZES[0], generator, prompts())
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
    """A list that takes the next call for which a larger size can be tried."""
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


def shares(given: argparse.Namespace) -> list[list[Share]]:
    """The work on each checkpoint and dtype, in a share for each process."""
    num_shares = max(given.num_processes, len(_SIZES))
    return [
        [
            Share(
                checkpoint,
                dtype,
                index,
                math.ceil(given.num_calls / num_shares),
                range(index, given.num_sabotages, num_shares),
                60 * given.max_minutes,
            )
            for index in range(num_shares)
        ]
        for checkpoint in given.checkpoints
        for dtype in given.dtypes
    ]


def main() -> int:
    """Print a line for every stage; the exit status says whether all calls agreed and all split sums were found."""
    parser = argparse.ArgumentParser(description="Counts what proofs of batch sizes are worth.")
    parser.add_argument("--num-calls", type=int, default=2000, help="at proven sizes, of each stage and dtype")
    parser.add_argument("--num-sabotages", type=int, default=100, help="of each stage and dtype")
    parser.add_argument("--max-minutes", type=float, default=10, help="of a process, for each checkpoint and dtype")
    parser.add_argument("--num-processes", type=int, default=1)
    parser.add_argument("--checkpoints", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--dtypes", nargs="*", choices=_DTYPES, default=list(_DTYPES))
    given = parser.parse_args()
    num_bad = 0
    with ProcessPoolExecutor(given.num_processes, get_context("spawn")) as pool:
        for own, results in [(some, [pool.submit(share.run) for share in some]) for some in shares(given)]:
            print(f"{own[0].checkpoint} in {own[0].dtype}", flush=True)
            seen: dict[str, Stage] = defaultdict(Stage)
            for result in results:
                for name, stage in result.result().items():
                    seen[name] += stage
            for name, stage in seen.items():
                print(f"  {name} {stage}", *sorted(stage.proven), sep="\n    ", flush=True)
                num_bad += stage.num_different + stage.sabotaged[False]
    return int(num_bad > 0)


if __name__ == "__main__":
    sys.exit(main())
