"""The models and the requests with which proofs of batch sizes are tried."""

import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from rendermill.manifests.request import Request
from rendermill.models import registry
from rendermill.models.interface import Model
from rendermill.models.settings import Settings
from tests.support.requests import request_for

_ROOT = Path(__file__).parents[2]
CASES = {
    "sana-shapes": ("SanaPipeline", {"num_inference_steps": 4}),
    "sana-sprint-shapes": ("SanaSprintPipeline", {"num_inference_steps": 2}),
    "wan-shapes": ("WanPipeline", {"num_inference_steps": 4, "num_frames": 5, "fps": 16.0}),
}
DTYPES = ("bfloat16", "float32")
SIZES = ((64, 32), (64, 64))
NUM_ITEMS = 30
"""The number of items of a render: enough for a call of each size, 16, 8, 4 and 2."""
NUM_PROMPTS = 96
"""The number of prompts that are encoded at once."""


def prompts() -> list[str]:
    """Return the prompts of the demo, which come from PartiPrompts and VBench."""
    return pq.read_table(_ROOT / "examples" / "demo.parquet")["prompt"].to_pylist()


def load(checkpoint: str, dtype: str, reference_batch: int | None = 1) -> Model:
    """Load a checkpoint of the repository on the CPU; in strict mode, if it has a reference batch."""
    settings = Settings(dtype={"default": dtype}, compile=False, reference_batch=reference_batch)
    return registry.load(CASES[checkpoint][0], _ROOT / "checkpoints" / checkpoint, settings, "cpu")


def requests(
    checkpoint: str, num_items: int, size: tuple[int, int], generator: random.Random, texts: Sequence[str]
) -> list[Request]:
    """Return requests of one shape with random prompts and seeds."""
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
