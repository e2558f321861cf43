"""Sana's relatives with pictures and videos: equal to the stock pipelines bit for bit, and to themselves in batches."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SanaControlNetModel,
    SanaTransformer2DModel,
    SanaVideoTransformer3DModel,
)
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
    return {"ControlNet": with_controlnet, "SprintImg2Img": sprint} | videos(checkpoints, folder)


def videos(checkpoints: Path, folder: Path) -> dict[str, Path]:
    """Make checkpoints of SANA-Video: Sana's text encoder, Wan's VAE, and a denoiser of random weights."""
    torch.manual_seed(1)
    text, vae = checkpoints / "sana-shapes", checkpoints / "wan-shapes" / "vae"
    caption_channels = SanaTransformer2DModel.load_config(text / "transformer")["caption_channels"]
    transformer = SanaVideoTransformer3DModel(
        in_channels=AutoencoderKLWan.load_config(vae)["z_dim"],
        out_channels=AutoencoderKLWan.load_config(vae)["z_dim"],
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=caption_channels,
        sample_size=8,
        rope_max_seq_len=32,
    )
    for name, pipeline, scheduler in (
        (
            "Video",
            "SanaVideoPipeline",
            DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
        ),
        ("ImageToVideo", "SanaImageToVideoPipeline", FlowMatchEulerDiscreteScheduler(shift=8.0)),
    ):
        components = {
            "transformer": ["diffusers", type(transformer).__name__],
            "vae": ["diffusers", "AutoencoderKLWan"],
        }
        components["scheduler"] = ["diffusers", type(scheduler).__name__]
        copied = renamed(text, folder / name, pipeline, **components)
        for part in ("transformer", "vae", "scheduler"):
            shutil.rmtree(copied / part)
        shutil.copytree(vae, copied / "vae")
        transformer.save_pretrained(copied / "transformer")
        scheduler.save_pretrained(copied / "scheduler")
    return {name: folder / name for name in ("Video", "ImageToVideo")}


def load(folder: Path, dtype: str, reference_batch: int | None = None) -> Model:
    index = json.loads((folder / "model_index.json").read_text())
    settings = Settings(dtype={"default": dtype}, compile=False, reference_batch=reference_batch)
    return registry.load(index["_class_name"], folder, settings, "cpu")


def render(model: Model, requests: list[Request], inputs: list[Inputs]) -> np.ndarray:
    return model.render(requests, model.encode(requests, inputs)).frames.numpy()


INPUT = {"ControlNet": "control_image", "SprintImg2Img": "image", "ImageToVideo": "image"}
"""The name of the input of those that have one."""


def inputs_of(name: str, image: Image.Image) -> dict[str, Image.Image]:
    return {INPUT[name]: image} if name in INPUT else {}


def as_media(name: str, image: Image.Image) -> Inputs:
    return {key: Media("image", np.asarray(picture)) for key, picture in inputs_of(name, image).items()}


def stock(folder: Path, dtype: str, request: Request, name: str, image: Image.Image) -> np.ndarray:
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
    arguments = {**inputs_of(name, image), "use_resolution_binning": False, **request.further_arguments}
    if request.negative_prompt is not None:
        arguments["negative_prompt"] = request.negative_prompt
    if name == "SprintImg2Img" and request.num_inference_steps != 2:
        arguments["intermediate_timesteps"] = None
    if request.num_frames > 1:
        arguments["frames"] = request.num_frames
    rendered = pipeline(
        prompt=request.prompt,
        height=request.height,
        width=request.width,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        **arguments,
    )
    frames = rendered.frames[0] if request.num_frames > 1 else rendered.images
    return np.stack([np.asarray(frame) for frame in frames])


VIDEO = {"num_frames": 5, "fps": 16.0, "num_inference_steps": 3}
CASES = [
    ("ControlNet", {}),
    ("ControlNet", {"guidance_scale": 1.0, "num_inference_steps": 2}),
    ("ControlNet", {"negative_prompt": "blurry", "arguments": '{"controlnet_conditioning_scale":0.4}'}),
    ("SprintImg2Img", {"num_inference_steps": 2}),
    ("SprintImg2Img", {"num_inference_steps": 2, "arguments": '{"strength":0.3}'}),
    ("SprintImg2Img", {"num_inference_steps": 4, "arguments": '{"strength":1.0}', "guidance_scale": 2.2}),
    ("Video", {**VIDEO, "negative_prompt": "blurry"}),
    ("Video", {**VIDEO, "guidance_scale": 1.0}),
    ("ImageToVideo", {**VIDEO, "negative_prompt": "blurry"}),
    ("ImageToVideo", {**VIDEO, "guidance_scale": 1.0}),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "fields"), CASES)
def test_loop_equals_the_stock_pipeline(folders, name: str, fields: dict[str, object], dtype: str) -> None:
    request = request_for("a red cat on a mat", seed=11, **fields)
    image = picture(1)
    ours = render(load(folders[name], dtype), [request], [as_media(name, image)])[0]
    np.testing.assert_array_equal(ours, stock(folders[name], dtype, request, name, image))


# one dtype where the trials of a batch take long: loops of the same class, and the same trials, have the other one
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("ControlNet", "bfloat16"),
        ("ControlNet", "float32"),
        ("SprintImg2Img", "float32"),
        ("Video", "bfloat16"),
        ("ImageToVideo", "float32"),
    ],
)
def test_pixels_depend_on_the_item_alone(folders, name: str, dtype: str) -> None:
    model = load(folders[name], dtype, reference_batch=1)
    # with two steps and a strength of 0.5 or more, denoising begins with noise alone, as in the stock pipeline
    fields = {"arguments": '{"strength":0.3}'} if name == "SprintImg2Img" else {}
    request = request_for(
        "a blue square", seed=3, **fields | (VIDEO if "Video" in name else {}) | {"num_inference_steps": 2}
    )
    requests = [replace(request, prompt=prompt, seed=seed) for seed, prompt in enumerate(("a", "b", "a long prompt"))]
    inputs = [as_media(name, picture(number)) for number in (1, 2, 1)]
    alone = [render(model, [request], [own])[0] for request, own in zip(requests, inputs, strict=True)]
    np.testing.assert_array_equal(render(model, requests, inputs), alone)
    np.testing.assert_array_equal(render(model, requests[:0:-1], inputs[:0:-1]), alone[:0:-1])
    other = render(model, requests[:1], inputs[1:2])[0]
    assert (other != alone[0]).any() or name not in INPUT, "the picture should have an effect"
