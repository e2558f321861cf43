"""Sana's relatives that take a picture, against the stock pipelines bit for bit, and against themselves in batches."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, SanaControlNetModel, SanaTransformer2DModel
from PIL import Image

from rendermill.manifests.request import Request
from rendermill.models import registry
from rendermill.models.inputs import Inputs, Media
from rendermill.models.interface import Model
from rendermill.models.settings import Settings
from tests.support.requests import request_for

DTYPES = ("bfloat16", "float32")


def picture(number: int, width: int = 64, height: int = 32) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def media(image: Image.Image) -> Media:
    return Media("image", np.asarray(image))


def renamed(checkpoint: Path, folder: Path, pipeline: str, **components: list[str]) -> Path:
    """Copy a checkpoint's files for another pipeline class."""
    shutil.copytree(checkpoint, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": pipeline} | components))
    return folder


@pytest.fixture(scope="module")
def folders(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sana")
    with_controlnet = renamed(
        checkpoints / "sana-shapes",
        folder / "controlnet",
        "SanaControlNetPipeline",
        controlnet=["diffusers", "SanaControlNetModel"],
    )
    torch.manual_seed(0)
    transformer = SanaTransformer2DModel.from_pretrained(with_controlnet / "transformer")
    names = ("num_attention_heads", "attention_head_dim", "num_cross_attention_heads", "cross_attention_head_dim")
    sizes = {name: transformer.config[name] for name in (*names, "cross_attention_dim", "caption_channels")}
    others = {name: transformer.config[name] for name in ("in_channels", "mlp_ratio", "patch_size", "sample_size")}
    controlnet = SanaControlNetModel(num_layers=2, **sizes, **others)
    for block in (*controlnet.controlnet_blocks, controlnet.input_block):
        torch.nn.init.normal_(block.weight, std=0.1)  # they begin as zero, which would add nothing
    controlnet.save_pretrained(with_controlnet / "controlnet")
    sprint = renamed(checkpoints / "sana-sprint-shapes", folder / "sprint", "SanaSprintImg2ImgPipeline")
    return {"control_image": with_controlnet, "image": sprint}


def load(folder: Path, dtype: str, reference_batch: int | None = None) -> Model:
    index = json.loads((folder / "model_index.json").read_text())
    settings = Settings(dtype={"default": dtype}, compile=False, reference_batch=reference_batch)
    return registry.load(index["_class_name"], folder, settings, "cpu")


def render(model: Model, requests: list[Request], inputs: list[Inputs]) -> np.ndarray:
    return model.render(requests, model.encode(requests, inputs)).frames.numpy()


def stock(folder: Path, dtype: str, request: Request, name: str, image: Image.Image) -> np.ndarray:
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
    arguments = {name: image, "use_resolution_binning": False, **request.further_arguments}
    if request.negative_prompt is not None:
        arguments["negative_prompt"] = request.negative_prompt
    if name == "image" and request.num_inference_steps != 2:
        arguments["intermediate_timesteps"] = None
    rendered = pipeline(
        prompt=request.prompt,
        height=request.height,
        width=request.width,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        **arguments,
    )
    return np.asarray(rendered.images[0])[None]


CASES = [
    ("control_image", {}),
    ("control_image", {"guidance_scale": 1.0, "num_inference_steps": 2}),
    ("control_image", {"negative_prompt": "blurry", "arguments": '{"controlnet_conditioning_scale":0.4}'}),
    ("image", {"num_inference_steps": 2}),
    ("image", {"num_inference_steps": 2, "arguments": '{"strength":0.3}'}),
    ("image", {"num_inference_steps": 4, "arguments": '{"strength":1.0}', "guidance_scale": 2.2}),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "fields"), CASES)
def test_loop_equals_the_stock_pipeline(folders, name: str, fields: dict[str, object], dtype: str) -> None:
    request = request_for("a red cat on a mat", seed=11, **fields)
    image = picture(1)
    ours = render(load(folders[name], dtype), [request], [{name: media(image)}])[0]
    np.testing.assert_array_equal(ours, stock(folders[name], dtype, request, name, image))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["control_image", "image"])
def test_pixels_depend_on_the_item_alone(folders, name: str, dtype: str) -> None:
    model = load(folders[name], dtype, reference_batch=1)
    # with two steps and a strength of 0.5 or more, denoising begins with noise alone, as in the stock pipeline
    arguments = '{"strength":0.3}' if name == "image" else None
    request = request_for("a blue square", seed=3, num_inference_steps=2, arguments=arguments)
    requests = [replace(request, prompt=prompt, seed=seed) for seed, prompt in enumerate(("a", "b", "a long prompt"))]
    inputs = [{name: media(picture(number))} for number in (1, 2, 1)]
    alone = [render(model, [request], [own])[0] for request, own in zip(requests, inputs, strict=True)]
    np.testing.assert_array_equal(render(model, requests, inputs), alone)
    np.testing.assert_array_equal(render(model, requests[:0:-1], inputs[:0:-1]), alone[:0:-1])
    other = render(model, requests[:1], inputs[1:2])[0]
    assert (other != alone[0]).any(), "the picture should have an effect"
