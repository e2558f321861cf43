"""Each family's loop against the stock pipeline's `__call__`, bit for bit, and against itself in other batches."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from rendermill.manifests.request import Request
from rendermill.models import registry
from rendermill.models.interface import Model
from rendermill.models.parts.step_cache import Forecast
from rendermill.models.quantization.pointwise import PointwiseConvolution
from rendermill.models.settings import Settings, Speedups
from tests.support.requests import request_for

FAMILIES = {
    "SanaPipeline": ("sana-shapes", {"num_inference_steps": 4}),
    "SanaSprintPipeline": ("sana-sprint-shapes", {"num_inference_steps": 2}),
    "WanPipeline": ("wan-shapes", {"num_inference_steps": 4, "num_frames": 5, "fps": 16.0}),
}


def load(checkpoints: Path, family: str, dtype: str, **settings: object) -> Model:
    folder = checkpoints / FAMILIES[family][0]
    given = {"dtype": {"default": dtype}, "compile": False, "reference_batch": None} | settings
    return registry.load(family, folder, Settings(**given), "cpu")


def render(model: Model, requests: list[Request]) -> np.ndarray:
    return model.render(requests, model.encode(requests)).frames.cpu().numpy()


def stock(checkpoints: Path, family: str, dtype: str, request: Request, **arguments: object) -> np.ndarray:
    pipeline = DiffusionPipeline.from_pretrained(
        checkpoints / FAMILIES[family][0], dtype=getattr(torch, dtype), local_files_only=True
    )
    arguments |= {
        "prompt": request.prompt,
        "height": request.height,
        "width": request.width,
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "generator": torch.Generator("cpu").manual_seed(request.seed),
        "output_type": "pil",
    }
    if request.negative_prompt is not None:
        arguments["negative_prompt"] = request.negative_prompt
    if family == "WanPipeline":
        arguments |= {"num_frames": request.num_frames, "guidance_scale_2": request.guidance_scale_2}
        return np.stack([np.asarray(frame) for frame in pipeline(**arguments).frames[0]])
    arguments["use_resolution_binning"] = False
    if family == "SanaSprintPipeline" and request.num_inference_steps != 2:
        arguments["intermediate_timesteps"] = None
    return np.asarray(pipeline(**arguments).images[0])[None]


CASES = [
    ("SanaPipeline", {}),
    ("SanaPipeline", {"negative_prompt": "blurry", "guidance_scale": 7.3}),
    ("SanaPipeline", {"guidance_scale": 1.0}),
    ("SanaSprintPipeline", {}),
    ("SanaSprintPipeline", {"num_inference_steps": 1}),
    ("SanaSprintPipeline", {"num_inference_steps": 3, "guidance_scale": 2.2}),
    ("WanPipeline", {}),
    ("WanPipeline", {"negative_prompt": "static, &amp;lt; blurry", "guidance_scale": 5.3, "guidance_scale_2": 3.1}),
    ("WanPipeline", {"guidance_scale": 1.0}),
]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(("family", "fields"), CASES)
def test_loop_equals_the_stock_pipeline(checkpoints: Path, family: str, fields: dict[str, object], dtype: str) -> None:
    request = request_for("a “red” cat\u00a0on a mat", seed=11, **FAMILIES[family][1] | fields)
    ours = render(load(checkpoints, family, dtype), [request])[0]
    theirs = stock(checkpoints, family, dtype, request)
    assert ours.std() > 1, "the checkpoint should render something"
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_pipeline_arguments_and_scheduler_settings_reach_the_pipeline(checkpoints: Path, family: str) -> None:
    request = request_for("a cat", seed=3, **FAMILIES[family][1])
    plain = render(load(checkpoints, family, "float32"), [request])[0]
    arguments = {"max_sequence_length": 16}
    if family != "WanPipeline":
        arguments["complex_human_instruction"] = None
    changed = render(load(checkpoints, family, "float32", pipeline_arguments=arguments), [request])[0]
    np.testing.assert_array_equal(changed, stock(checkpoints, family, "float32", request, **arguments))
    assert not np.array_equal(plain, changed)
    if family != "SanaSprintPipeline":
        shifted = render(load(checkpoints, family, "float32", scheduler={"flow_shift": 9.0}), [request])[0]
        assert not np.array_equal(plain, shifted)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_that_the_text_encoder_does_not_see_are_counted(checkpoints: Path, family: str) -> None:
    model = load(checkpoints, family, "float32", pipeline_arguments={"max_sequence_length": 12})
    tokenizer = model._pipeline.tokenizer
    long = "a red circle left of a blue square above a green triangle"
    num_tokens = len(tokenizer(long).input_ids)
    at_the_limit = tokenizer.decode(tokenizer(long).input_ids[1:11])
    seen = [request_for(text, 1, **FAMILIES[family][1]) for text in (long, f"  {long} ", at_the_limit, "a cat", long)]
    seen[3] = replace(seen[3], negative_prompt=None if family == "SanaSprintPipeline" else long)
    seen[4] = replace(seen[4], negative_prompt=long, guidance_scale=1.0)
    num_cut = model.count_cut_tokens(seen)
    assert num_cut[0] == num_cut[1] == num_cut[4] > 0
    assert num_cut[2] == 0
    if family == "WanPipeline":  # the others' instruction may share a token with the prompt
        assert num_cut == [num_tokens - 12, num_tokens - 12, 0, num_tokens - 12, num_tokens - 12]
    # what was counted is what has no effect: without its last words the prompt gives the same embeddings
    shorter = [replace(request, prompt=long + " on a white background") for request in seen[:1]]
    (ours,), (theirs,) = model.encode(seen[:1]), model.encode(shorter)
    kept = slice(None, -1)  # the last token ends the text
    torch.testing.assert_close(ours.prompt[:, kept], theirs.prompt[:, kept])
    assert model.count_cut_tokens(shorter)[0] > num_cut[0]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_item_does_not_depend_on_its_batch(checkpoints: Path, family: str, dtype: str) -> None:
    model = load(checkpoints, family, dtype, reference_batch=2)
    requests = [
        request_for(f"prompt {seed}", seed, guidance_scale=2.0 + seed, **FAMILIES[family][1]) for seed in range(3)
    ]
    together = render(model, requests)
    for request, frames in zip(requests, together, strict=True):
        np.testing.assert_array_equal(render(model, [request])[0], frames)
    np.testing.assert_array_equal(render(model, requests[::-1])[::-1], together)
    assert not np.array_equal(together[0], together[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_render_of_nan_is_reported(checkpoints: Path, family: str) -> None:
    model = load(checkpoints, family, "float32")
    good, bad = (request_for("a cat", seed, **FAMILIES[family][1]) for seed in (1, 2))
    embeddings = model.encode([good, bad])
    broken = embeddings[1]._replace(prompt=torch.full_like(embeddings[1].prompt, float("nan")))
    assert model.render([good, bad], [embeddings[0], broken]).is_finite.tolist() == [True, False]


@pytest.mark.parametrize("family", ["SanaPipeline", "WanPipeline"])
def test_speedups_change_pixels_but_do_not_depend_on_the_batch(checkpoints: Path, family: str) -> None:
    fields = FAMILIES[family][1] | {"num_inference_steps": 9}
    requests = [request_for("a red circle", seed, guidance_scale=2.0 + seed, **fields) for seed in range(3)]
    plain = render(load(checkpoints, family, "bfloat16", reference_batch=2), requests)
    for speedups in (Speedups(guidance_interval=(0.0, 0.5)), Speedups(cache_interval=2)):
        model = load(checkpoints, family, "bfloat16", reference_batch=2, speedups=speedups)
        rendered = render(model, requests)
        assert (rendered != plain).any(axis=(1, 2, 3, 4)).all()
        assert np.abs(rendered.astype(int) - plain).mean() < 30
        np.testing.assert_array_equal(render(model, requests[2:])[0], rendered[2])


def test_steps_in_between_are_forecast_on_the_line_through_the_last_two() -> None:
    forecast, asked = Forecast(interval=3, num_steps=12), []

    def predict(step: int) -> torch.Tensor:
        asked.append(step)
        return torch.tensor([2.0 * step + 1])

    rendered = [forecast(step, partial(predict, step)).item() for step in range(12)]
    assert asked == [0, 1, 2, 5, 8, 10, 11]
    assert rendered == [2.0 * step + 1 for step in range(12)]


def test_a_pointwise_convolution_is_a_linear_layer() -> None:
    convolution = torch.nn.Conv2d(16, 32, 1)
    features = torch.randn(2, 16, 3, 5)
    torch.testing.assert_close(PointwiseConvolution(convolution)(features), convolution(features))
