"""Proofs of batch sizes: what a trial has to find out, and that an item does not depend on its batch."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from torch.nn import functional

from benchmarks.proofs.split_sums import Call, calls_of, split_sums
from benchmarks.proofs.stage import Stage
from rendermill.manifests.request import Request
from rendermill.models import registry
from rendermill.models.parts.exact_batches import ExactBatches
from rendermill.models.parts.operations import Region
from rendermill.models.settings import Settings
from tests.support.commands import Rendermill
from tests.support.requests import request_for
from tests.unit.models.test_models import FAMILIES, load, render

LONG_PROMPTS = [
    "a large red circle above a small blue square, beside a green triangle, on a white background, in bright light",
    "two yellow squares and a purple circle that move from the left to the right over a dark and empty background",
    "an orange triangle, and below it a pink circle, and below that a brown square, all of them very close together",
    "a tiny grey square in the middle of a wide and otherwise empty picture, photographed from far away, in the rain",
]


@pytest.mark.parametrize(
    ("checkpoint", "dtype", "stages"),
    [
        ("sana-shapes", "bfloat16", ("denoiser", "VAE decoder")),
        ("sana-shapes", "float32", ("denoiser",)),
        ("wan-shapes", "bfloat16", ("low-noise denoiser",)),
    ],
)
def test_a_sum_in_another_order_is_found_in_any_operation(checkpoint: str, dtype: str, stages: tuple[str, ...]) -> None:
    calls = calls_of(checkpoint, dtype, stages)
    assert calls.keys() == set(stages), "kernels allow a larger size here, so it should be proven"
    for name, call in calls.items():
        one_of_each = {operation.name: operation for operation in call.operations()}
        seen = Stage()
        split_sums(call, list(one_of_each.values()), seen)
        assert seen.sabotaged == {True: len(one_of_each)}, f"{name}: {one_of_each.keys()}"


def test_a_sum_in_another_order_is_found_where_kernels_reach_beyond_the_image() -> None:
    torch.manual_seed(0)
    images, weight, bias = (
        torch.randn(shape, dtype=torch.bfloat16) for shape in ((2, 640, 2, 4), (640, 1, 3, 3), (640,))
    )
    call = Call(lambda items: (functional.conv2d(items, weight, bias, padding=1, groups=640),), [images], 1)
    assert not call.try_out().refuted
    seen = Stage()
    split_sums(call, call.operations(), seen)
    assert seen.sabotaged == {True: 1}


def batches_of(function: object, inputs: torch.Tensor, num_calls: int = 1) -> ExactBatches:
    batches = ExactBatches(1)
    for _ in range(num_calls):
        batches(function, inputs)
    return batches


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        (lambda x: x.sin() + len(x), "gives other bits"),
        (lambda x: x.sin() if len(x) == 1 else x.cos(), "calls cos where a smaller batch calls sin"),
        (lambda x: x - x.mean(0), "gives other bits"),
        (lambda x: torch.cumsum(x, 0), "cumsum gives other bits"),
        (lambda x: torch.stack([x.exp().flatten()[:3].sum()] * len(x)), "gives other bits"),
    ],
)
def test_a_stage_that_treats_batches_otherwise_is_refuted(stage: object, reason: str) -> None:
    batches = batches_of(stage, torch.randn(2, 8, generator=torch.Generator().manual_seed(1)))
    assert list(batches.refuted.values()) == [2]
    assert reason in next(iter(batches.reasons.values()))


class Compiled(torch.nn.Module):
    """A stage of one compiled region, with few results or with many."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = Region(torch.compile(torch.sin, backend="eager"))  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("num_values", "num_calls", "is_proven"), [(2**10, 3, False), (2**21, 1, False), (2**21, 2, True)]
)
def test_compiled_code_is_proven_once_enough_results_were_compared(
    num_values: int, num_calls: int, is_proven: bool
) -> None:
    batches = batches_of(Compiled(), torch.randn(2, num_values), num_calls)
    assert list(batches.sizes.values()) == [[1, 2] if is_proven else [1]]
    assert not batches.refuted


def test_compiled_code_that_gives_other_bits_is_refuted() -> None:
    stage = Region(lambda x: x.sin() * (1 + 1e-7 * len(x)))
    assert list(batches_of(stage, torch.randn(2, 8)).reasons.values()) == ["compiled code gives other bits"]


def test_a_job_gives_the_same_pixels_in_batches_of_any_size(rendermill: Rendermill) -> None:
    sizes = ("1", "2", "3")
    for size in sizes:
        rendermill.model(f"wan-{size}", "wan-shapes", dtype="bfloat16", batch=int(size))
    rows = [
        {"id": f"{size} {index}", "model": f"wan-{size}", "prompt": prompt, "seed": index}
        for size in sizes
        for index, prompt in enumerate(LONG_PROMPTS)
    ]
    rendermill.manifest(rows)
    assert rendermill.generate().status == 0
    hashes: dict[str, set[str]] = {}
    for record in rendermill.table("metadata"):
        hashes.setdefault(record["id"].split()[1], set()).add(record["pixel_sha256"])
    assert {index: len(found) for index, found in hashes.items()} == dict.fromkeys("0123", 1)


SCHEDULERS: dict[str, dict[str, Any]] = {
    "FlowMatchLCMScheduler": {"shift": 3.0},
    "FlowMatchEulerDiscreteScheduler": {"shift": 3.0, "stochastic_sampling": True},
    "DPMSolverMultistepScheduler": {
        "algorithm_type": "sde-dpmsolver++",
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": 3.0,
    },
}


def with_scheduler(checkpoints: Path, family: str, scheduler: str, folder: Path) -> Path:
    """A checkpoint of this family, with another scheduler."""
    shutil.copytree(checkpoints / FAMILIES[family][0], folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", scheduler]}))
    config = {"_class_name": scheduler, "num_train_timesteps": 1000} | SCHEDULERS[scheduler]
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("family", ["SanaPipeline", "WanPipeline"])
def test_noise_between_steps_is_the_item_s_own(checkpoints: Path, tmp_path: Path, family: str, scheduler: str) -> None:
    folder = with_scheduler(checkpoints, family, scheduler, tmp_path / "checkpoint")
    model = registry.load(
        family, folder, Settings(dtype={"default": "float32"}, compile=False, reference_batch=1), "cpu"
    )
    requests = [request_for("a red circle", seed, **FAMILIES[family][1]) for seed in (5, 6)]
    torch.manual_seed(1)
    together = render(model, requests)
    torch.manual_seed(2)
    np.testing.assert_array_equal(render(model, requests[1:])[0], together[1])
    np.testing.assert_array_equal(stock_with_noise(folder, family, requests[1]), together[1])


def stock_with_noise(folder: Path, family: str, request: Request) -> np.ndarray:
    """The stock pipeline's frames, with the noise that Wan draws from the global generator drawn from the item's."""
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    generator = torch.Generator("cpu").manual_seed(request.seed)
    arguments = {
        "prompt": request.prompt,
        "width": request.width,
        "height": request.height,
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "output_type": "pil",
    }
    if family == "SanaPipeline":
        image = pipeline(**arguments, generator=generator, use_resolution_binning=False).images[0]
        return np.asarray(image)[None]
    latents = pipeline.prepare_latents(1, 8, request.height, request.width, request.num_frames, generator=generator)
    torch.set_rng_state(generator.get_state())
    frames = pipeline(**arguments, num_frames=request.num_frames, latents=latents).frames[0]
    return np.stack([np.asarray(frame) for frame in frames])


def test_a_timestep_may_come_twice(checkpoints: Path) -> None:
    scheduler = {"num_train_timesteps": 20}
    model = load(checkpoints, "SanaPipeline", "float32", scheduler=scheduler)
    assert render(model, [request_for("a red circle", 5, num_inference_steps=15)]).std() > 1


def test_a_trial_that_cannot_be_made_costs_no_item() -> None:
    region = Region(lambda items, others: items * others.mean())
    batches, items = ExactBatches(1), torch.randn(4, 8)
    result = batches(lambda part: region(part, torch.ones(len(part) + 1)), items)
    torch.testing.assert_close(result, items)
    assert list(batches.refuted.values()) == [2]
    shared = batches_of(lambda part: part * region(torch.ones(3), torch.ones(3)).mean(), items[:2])
    assert not shared.refuted, "nothing of the region's call belongs to an item"
