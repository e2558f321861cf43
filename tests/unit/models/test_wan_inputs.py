"""Wan's pipelines with pictures and videos as inputs against the stock pipelines, and against themselves in batches."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from rendermill.jobs.config.job_file import parse_job
from rendermill.jobs.planning.models import ResolvedModel, resolve_model
from rendermill.manifests.errors import UserError
from rendermill.manifests.request import Request
from rendermill.models import registry
from rendermill.models.capabilities import BadConfig, Capabilities
from rendermill.models.inputs import InputKind, Inputs, Media
from rendermill.models.interface import Model
from rendermill.models.settings import Settings
from tests.support.requests import request_for
from tests.unit.models import wan_checkpoints

WIDTH, HEIGHT, NUM_FRAMES = 32, 48, 5
KINDS = {
    "2.1": ("WanImageToVideoPipeline", ["image"]),
    "2.1 first and last": ("WanImageToVideoPipeline", ["image", "last_image"]),
    "2.2": ("WanImageToVideoPipeline", ["image"]),
    "5B": ("WanImageToVideoPipeline", ["image"]),
    "5B text": ("WanPipeline", []),
    "video": ("WanVideoToVideoPipeline", ["video"]),
    "vace": ("WanVACEPipeline", ["video", "mask", "reference_images"]),
}
"""By kind of checkpoint, the pipeline and the inputs with which it is tried."""


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a kind of checkpoint, saved at its first use."""
    saved: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in saved:
            saved[kind] = wan_checkpoints.save(kind, tmp_path_factory.mktemp("wan"))
        return saved[kind]

    return folder


def load(folder: Path, kind: str, dtype: str, **settings: Any) -> Model:
    given: dict[str, Any] = {"dtype": {"default": dtype}, "compile": False, "reference_batch": None} | settings
    return registry.load(KINDS[kind][0], folder, Settings(**given), "cpu")


def request(seed: int, **fields: Any) -> Request:
    sizes = {"width": WIDTH, "height": HEIGHT, "num_frames": NUM_FRAMES, "fps": 16.0, "num_inference_steps": 4}
    return request_for(f"a cat {seed}", seed, **sizes | fields)


def media(name: str, seed: int) -> Media:
    """Random pixels; a video has more frames than are asked for, a list two pictures of other sizes."""
    random = np.random.default_rng(seed)
    size: tuple[int, ...] = (HEIGHT, WIDTH)
    if name == "reference_images":
        pictures = [random.integers(256, size=(*size, 3), dtype=np.uint8) for size in ((20, 33), (70, 64))]
        return Media("images", pictures, sha256=f"{name} {seed}")
    kind: InputKind = {"mask": "mask video", "video": "video"}.get(name, "image")
    num_frames = () if kind == "image" else (NUM_FRAMES + 2,)
    num_channels = () if name == "mask" else (3,)
    pixels = random.integers(256, size=(*num_frames, *size, *num_channels), dtype=np.uint8)
    return Media(kind, pixels // 128 * 255 if name == "mask" else pixels, sha256=f"{kind} {seed}")


def inputs_of(names: Sequence[str], seed: int) -> Inputs:
    return {name: media(name, seed + place) for place, name in enumerate(names)}


def render(model: Model, requests: list[Request], inputs: list[Inputs]) -> np.ndarray:
    return model.render(requests, model.encode(requests, inputs)).frames.cpu().numpy()


def stock(folder: Path, dtype: str, asked: Request, inputs: Inputs) -> np.ndarray:
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
    arguments: dict[str, Any] = {
        "prompt": asked.prompt,
        "negative_prompt": asked.negative_prompt,
        "height": HEIGHT,
        "width": WIDTH,
        "num_inference_steps": asked.num_inference_steps,
        "guidance_scale": asked.guidance_scale,
        "generator": torch.Generator("cpu").manual_seed(asked.seed),
        "output_type": "pil",
        **asked.further_arguments,
    }
    if type(pipeline).__name__ != "WanVideoToVideoPipeline":
        arguments |= {"num_frames": NUM_FRAMES, "guidance_scale_2": asked.guidance_scale_2}
    for name, given in inputs.items():
        frames = [given.frames] if given.kind == "image" else given.frames
        pictures = [Image.fromarray(frame) for frame in frames][:NUM_FRAMES]
        arguments[name] = pictures[0] if given.kind == "image" else pictures
    return np.stack([np.asarray(frame) for frame in pipeline(**arguments).frames[0]])


CASES = [
    ("2.1", ["image"], {"guidance_scale": 1.0}),
    ("2.1", ["image"], {"negative_prompt": "static"}),
    ("2.1 first and last", ["image", "last_image"], {}),
    ("2.2", ["image"], {"guidance_scale": 3.3, "guidance_scale_2": 5.7}),
    ("2.2", ["image", "last_image"], {}),
    ("5B", ["image"], {}),
    ("5B text", [], {}),
    ("video", ["video"], {"num_inference_steps": 6}),
    ("video", ["video"], {"arguments": '{"strength":0.5}', "guidance_scale": 7.1}),
    ("vace", ["video", "mask", "reference_images"], {"arguments": '{"conditioning_scale":0.6}'}),
    ("vace", ["video"], {"arguments": '{"conditioning_scale":[1.5,0.25]}'}),
    ("vace", [], {}),
]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(("kind", "names", "fields"), CASES)
def test_loop_equals_the_stock_pipeline(
    folder_of: Callable[[str], Path], kind: str, names: list[str], fields: dict[str, Any], dtype: str
) -> None:
    asked, inputs = request(11, **fields), inputs_of(names, 1)
    model = load(folder_of(kind), kind, dtype)
    ours = render(model, [asked], [inputs])[0]
    np.testing.assert_array_equal(ours, stock(folder_of(kind), dtype, asked, inputs))
    assert ours.std() > 1, "the checkpoint should render something"
    for name in names:
        changed = render(model, [asked], [{**inputs, name: media(name, 77)}])[0]
        assert not np.array_equal(changed, ours), f"{name} should matter"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_item_does_not_depend_on_its_batch(folder_of: Callable[[str], Path], kind: str, dtype: str) -> None:
    model = load(folder_of(kind), kind, dtype, reference_batch=1)
    requests = [request(seed, guidance_scale=2.0 + seed, num_inference_steps=2) for seed in range(3)]
    inputs = [inputs_of(KINDS[kind][1], 10 * seed) for seed in range(3)]
    if kind == "vace":  # the others have other numbers of reference pictures
        inputs[1] = {"reference_images": replace(media("reference_images", 5), frames=[media("image", 6).frames])}
        inputs[2] = {}
    together = render(model, requests, inputs)
    for place, (asked, own) in enumerate(zip(requests, inputs, strict=True)):
        np.testing.assert_array_equal(render(model, [asked], [own])[0], together[place])
    np.testing.assert_array_equal(render(model, requests[::-1], inputs[::-1])[::-1], together)
    np.testing.assert_array_equal(render(model, requests[1:], inputs[1:]), together[1:])
    assert not np.array_equal(together[0], together[1])


def test_an_input_of_several_requests_is_encoded_once(
    folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folder_of("2.1"), "2.1", "float32")
    encoded = []
    encode = model._pipeline.encode_image
    monkeypatch.setattr(model._pipeline, "encode_image", lambda *given: encoded.append(given) or encode(*given))
    requests = [request(1), request(2), request(3), request(4, num_frames=9)]
    model.encode(requests, [inputs_of(["image"], seed) for seed in (5, 5, 6, 5)])
    assert len(encoded) == 3, "two pictures, one of them for two lengths"


@pytest.mark.parametrize(
    ("kind", "names", "fields", "problem"),
    [
        ("2.2", [], {}, "image: this model needs one"),
        ("2.2", ["image", "last_image"], {"num_frames": 1}, "last_image: a clip of one frame has no other last one"),
        ("video", ["video"], {"num_frames": 9}, "video: it has 7 frames, fewer than the 9 of `num_frames`"),
        ("video", ["video"], {"arguments": '{"strength":0.1}'}, "strength: 0.1 of 4 steps is no step at all"),
        ("vace", ["mask"], {}, "mask: it has no effect without a `video`"),
        ("vace", [], {"arguments": '{"conditioning_scale":[1.0]}'}, "conditioning_scale: 1 numbers, but 2 layers"),
    ],
)
def test_inputs_that_do_not_suit_are_refused_in_words(
    folder_of: Callable[[str], Path], kind: str, names: list[str], fields: dict[str, Any], problem: str
) -> None:
    model = load(folder_of(kind), kind, "float32")
    with pytest.raises(ValueError, match=problem):
        render(model, [request(1, **fields)], [inputs_of(names, 1)])


def test_image_embeddings_need_the_usual_number_of_text_tokens(folder_of: Callable[[str], Path]) -> None:
    def resolve(kind: str) -> ResolvedModel:
        model = {"checkpoint": str(folder_of(kind)), "pipeline_arguments": {"max_sequence_length": 64}}
        job = parse_job({"manifest": "m", "output": "o", "models": {"model": model}}, "job.yaml")
        return resolve_model(job, "model", on_gpu=False)

    assert resolve("2.2").max_sequence_length == 64
    with pytest.raises(UserError, match="should be 512, got 64"):
        resolve("2.1")


def capabilities_of(folder: Path, **changes: dict[str, Any]) -> Capabilities:
    configs = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/*config.json")}
    configs["model_index"] = json.loads((folder / "model_index.json").read_text())
    for name, changed in changes.items():
        configs[name] |= changed
    return registry.FAMILIES[configs["model_index"]["_class_name"]].capabilities(configs)


def test_the_checkpoint_decides_which_inputs_a_model_takes(folder_of: Callable[[str], Path]) -> None:
    found = {kind: capabilities_of(folder_of(kind)) for kind in KINDS}
    required = {kind: {name: spec.is_required for name, spec in own.inputs.items()} for kind, own in found.items()}
    assert required == {
        "2.1": {"image": True},
        "2.1 first and last": {"image": True, "last_image": True},
        "2.2": {"image": True, "last_image": False},
        "5B": {"image": True},
        "5B text": {},
        "video": {"video": True},
        "vace": {"video": False, "mask": False, "reference_images": False},
    }
    assert "guidance_scale_2" in found["2.2"].arguments
    assert "guidance_scale_2" not in found["2.1"].arguments | found["video"].arguments


@pytest.mark.parametrize(
    ("kind", "changes", "problem"),
    [
        ("2.2", {"transformer_2": {"in_channels": 8}}, "transformer_2/config.json: in_channels should be 20"),
        ("2.1", {"model_index": {"image_encoder": [None, None]}}, "it needs image_encoder, and has none"),
        ("video", {"vae": {"patch_size": 2}}, "WanVideoToVideoPipeline takes VAEs without patch_size alone"),
    ],
)
def test_checkpoints_that_do_not_suit_are_refused_in_words(
    folder_of: Callable[[str], Path], kind: str, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(BadConfig, match=problem):
        capabilities_of(folder_of(kind), **changes)
