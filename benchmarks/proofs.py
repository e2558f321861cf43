"""What proofs of batch sizes are worth on this machine: `python -m benchmarks.proofs`.

For every stage of every checkpoint of the repository, in bfloat16 and float32: renders real prompts in batches of many
sizes, calls the stage again at its reference size wherever a larger, proven size was used, and counts the calls that
give other bits. Then splits the sums of one operation after the other (`benchmarks.sabotage`), and counts the trials
that find it out.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from benchmarks.sabotage import Sabotage, can_be_split
from manifests.schema import Request
from models import registry
from models.base import Model, Settings
from models.operations import Operation, Recording, bits, is_recording
from models.proven import ProvenBatches

_ROOT = Path(__file__).parents[1]
CASES = {
    "sana-shapes": ("SanaPipeline", {"num_inference_steps": 4}),
    "sana-sprint-shapes": ("SanaSprintPipeline", {"num_inference_steps": 2}),
    "wan-shapes": ("WanPipeline", {"num_inference_steps": 4, "num_frames": 5, "fps": 16.0}),
}
_SIZES = ((64, 32), (64, 64))
_MAX_BATCH = 16
_NUM_PROMPTS = 96
_NUM_ENCODINGS = 4
"""Of so many prompts, for each batch that is rendered: a text encoder is called less often than a denoiser."""


@dataclass
class Stage:
    """Counts of a stage's calls and trials.

    Attributes:
        calls: by size, calls with as many items at proven sizes.
        num_different: of these, calls that gave other bits than the reference.
        sabotaged: operations whose sums were split, by whether the trial found it out.
    """

    calls: Counter[int] = field(default_factory=Counter)
    num_different: int = 0
    sabotaged: Counter[bool] = field(default_factory=Counter)


def prompts() -> list[str]:
    """The prompts of the demo, which come from PartiPrompts and VBench."""
    return pq.read_table(_ROOT / "examples" / "demo.parquet")["prompt"].to_pylist()


def load(checkpoint: str, dtype: str, reference_batch: int = 1) -> Model:
    """A checkpoint of the repository, in strict mode on the CPU."""
    settings = Settings(dtype={"default": dtype}, compile=False, reference_batch=reference_batch)
    return registry.load(CASES[checkpoint][0], _ROOT / "checkpoints" / checkpoint, settings, "cpu")


def requests(checkpoint: str, num_items: int, generator: random.Random, texts: Sequence[str]) -> list[Request]:
    """Requests of one shape with random prompts and seeds."""
    width, height = generator.choice(_SIZES)
    first = Request("id", 0, "model", "", None, 0, width, height, 1, None, 4, 4.5, None)._replace(
        **CASES[checkpoint][1]
    )
    return [
        first._replace(
            prompt=prompt, seed=generator.getrandbits(60), negative_prompt=generator.choice([None, prompt[::2]])
        )
        for prompt in generator.choices(texts, k=num_items)
    ]


def watch(batches: ProvenBatches, seen: Stage) -> None:
    """Hold every call at a larger size to calls at the reference size."""
    call, reference_batch = batches._call, batches.reference_batch or 1

    def watched(function: Callable[..., Any], inputs: Sequence[torch.Tensor], size: int) -> tuple[torch.Tensor, ...]:
        result = call(function, inputs, size)
        if size > reference_batch and not is_recording():
            starts = range(0, len(inputs[0]), reference_batch)
            parts = [[tensor[start : start + reference_batch] for tensor in inputs] for start in starts]
            expected = map(torch.cat, zip(*(call(function, part, reference_batch) for part in parts), strict=True))
            seen.calls[size] += 1
            seen.num_different += not all(torch.equal(bits(a), bits(b)) for a, b in zip(result, expected, strict=True))
        return result

    batches._call = watched  # type: ignore[method-assign]  # there is no other way to see single calls


def count_calls(checkpoint: str, dtype: str, num_calls: int, max_seconds: float) -> dict[str, Stage]:
    """Render until every stage with a larger size was called often enough at proven sizes."""
    model, generator, texts = load(checkpoint, dtype), random.Random(0), prompts()
    seen = {name: Stage() for name in model.stages}
    for name, batches in model.stages.items():
        watch(batches, seen[name])
    began = time.monotonic()
    while time.monotonic() - began < max_seconds:
        batch = requests(checkpoint, generator.randint(2, _MAX_BATCH), generator, texts)
        for _ in range(_NUM_ENCODINGS):
            model.encode(requests(checkpoint, _NUM_PROMPTS, generator, texts))
        model.render(batch, model.encode(batch))
        lacking = [
            name
            for name, batches in model.stages.items()
            if seen[name].calls.total() < num_calls and any(len(sizes) > 1 for sizes in batches.sizes.values())
        ]
        if not lacking:
            break
    for name, batches in model.stages.items():
        for shape, sizes in batches.sizes.items():
            refuted = (
                f"; {batches.refuted[shape]} may not: {batches.reasons[shape]}" if shape in batches.refuted else ""
            )
            print(f"    {name} ({shape}): {', '.join(map(str, sizes))} proven{refuted}")
    return seen


@dataclass(frozen=True)
class Call:
    """A call of a stage, as the model makes it, with twice as many items as its reference batch."""

    function: Callable[..., Any]
    inputs: Sequence[torch.Tensor]
    reference_batch: int

    def try_out(self) -> ProvenBatches:
        """Let new batches try the larger size."""
        batches = ProvenBatches(self.reference_batch)
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
    found: dict[str, Call] = {}
    for reference_batch in (1, 2, 4, 8):
        if stages and found.keys() >= set(stages):
            break
        model, generator = load(checkpoint, dtype, reference_batch), random.Random(0)
        tried = {name: _keep_first(batches) for name, batches in model.stages.items() if name not in found}
        batch = requests(checkpoint, 2 * reference_batch, generator, prompts())
        model.render(
            batch, model.encode([*batch, *requests(checkpoint, _NUM_PROMPTS, generator, prompts())])[: len(batch)]
        )
        for name, calls in tried.items():
            if calls and not calls[0].try_out().refuted:
                found[name] = calls[0]
    return {name: call for name, call in found.items() if not stages or name in stages}


def _keep_first(batches: ProvenBatches) -> list[Call]:
    """A list that takes the next call for which a larger size can be tried."""
    calls: list[Call] = []
    ask = batches.with_tuples

    def kept(function: Callable[..., Any], *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        num_items = 2 * (batches.reference_batch or 1)
        if len(inputs[0]) >= num_items and not calls:
            calls.append(Call(function, [tensor[:num_items] for tensor in inputs], num_items // 2))
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


def main() -> int:
    """Print a line for every stage; the exit status says whether all calls agreed and all split sums were found."""
    parser = argparse.ArgumentParser(description="Counts what proofs of batch sizes are worth.")
    parser.add_argument("--num-calls", type=int, default=2000, help="at proven sizes, of each stage and dtype")
    parser.add_argument("--num-sabotages", type=int, default=100, help="of each stage and dtype")
    parser.add_argument("--max-minutes", type=float, default=10, help="for each checkpoint and dtype")
    given = parser.parse_args()
    torch.set_num_threads(1)
    num_bad = 0
    for checkpoint in CASES:
        for dtype in ("bfloat16", "float32"):
            print(f"{checkpoint} in {dtype}", flush=True)
            seen = count_calls(checkpoint, dtype, given.num_calls, 60 * given.max_minutes)
            for name, call in calls_of(checkpoint, dtype).items():
                operations = random.Random(0).choices(call.operations(), k=given.num_sabotages)
                split_sums(call, operations, seen[name])
            for name, stage in seen.items():
                sizes = ", ".join(f"{count} of {size}" for size, count in sorted(stage.calls.items())) or "none"
                print(
                    f"  {name}: {stage.num_different} of {stage.calls.total()} calls at larger proven sizes differ "
                    f"({sizes}); {stage.sabotaged[True]} of {stage.sabotaged.total()} split sums were found",
                    flush=True,
                )
                num_bad += stage.num_different + stage.sabotaged[False]
    return int(num_bad > 0)


if __name__ == "__main__":
    sys.exit(main())
