"""Holds a tiny checkpoint of any pipeline against the promises: stock's bits, and the seed alone decides."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from rendermill.actors.checkpoints.checkpoint import Checkpoint, describe
from rendermill.actors.engine.engine import Engine
from rendermill.actors.engine.outcome import Outcome
from rendermill.manifests.request import Request
from rendermill.models.inputs import Inputs, Media
from rendermill.models.registry import family_of
from rendermill.models.settings import Settings
from tests.pipelines.conditions import condition
from tests.support.requests import request_for

SETTINGS = Settings(dtype={"default": "float32"}, compile=False, reference_batch=1)


@dataclass(frozen=True)
class Case:
    """A pipeline to try.

    Attributes:
        build: makes it, tiny and random.
        fields: of the request, if they differ from the defaults of the test.
        arguments: further arguments of its call, the same for all requests.
    """

    build: Callable[[], DiffusionPipeline]
    fields: Mapping[str, Any]
    arguments: Mapping[str, Any]


def save(case: Case, folder: Path) -> Checkpoint:
    case.build().save_pretrained(folder)
    return describe(str(folder), None)


def request_of(checkpoint: Checkpoint, case: Case, seed: int) -> Request:
    family = family_of(checkpoint.pipeline_class)
    capabilities = family.capabilities(checkpoint.configs)
    sizes = {"width": max(64, capabilities.size_multiple), "height": max(32, capabilities.size_multiple)}
    if capabilities.kind == "video":
        sizes["num_frames"] = capabilities.frame_multiple + 1 if capabilities.frame_multiple > 1 else 8
    defaults = family.all_defaults(checkpoint.configs) | sizes | {"num_inference_steps": 3}
    return request_for("a red circle", seed, **defaults | case.fields, request_hash=f"{seed:032x}")


def conditions_of(checkpoint: Checkpoint, request: Request) -> Inputs:
    specs = family_of(checkpoint.pipeline_class).capabilities(checkpoint.configs).inputs
    return {
        name: condition(spec, request.width, request.height, request.num_frames, seed)
        for seed, (name, spec) in enumerate(specs.items())
    }


def engine_for(checkpoint: Checkpoint, case: Case) -> Engine:
    return Engine.load(checkpoint, SETTINGS.model_copy(update={"pipeline_arguments": dict(case.arguments)}))


def render(engine: Engine, request: Request, inputs: Inputs) -> Outcome:
    outcome = engine.render_one(request, inputs=inputs)
    assert outcome.error is None, outcome.error
    return outcome


def stock(folder: Path, case: Case, request: Request, inputs: Inputs) -> np.ndarray:
    """Return what the pipeline's users get: its frames as Pillow's pictures, (frames, height, width, 3)."""
    output = call_stock(folder, case, request, inputs)
    item = (output.frames if hasattr(output, "frames") else output.images)[0]
    return np.stack([np.asarray(frame) for frame in ([item] if isinstance(item, Image.Image) else item)])


def call_stock(folder: Path, case: Case, request: Request, inputs: Inputs) -> Any:
    """Return the output of the stock pipeline."""
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    names = family_names(type(pipeline).__call__)
    fields = ("prompt", "width", "height", "num_frames", "num_inference_steps", "guidance_scale")
    arguments = {name: getattr(request, name) for name in fields if name in names}
    if "frames" in names:
        arguments["frames"] = request.num_frames
    if "frame_rate" in names:
        arguments["frame_rate"] = request.fps
    if request.negative_prompt is not None:
        arguments["negative_prompt"] = request.negative_prompt
    pictures = {name: as_pictures(media) for name, media in inputs.items()}
    with global_seed(request.seed):
        return pipeline(
            **arguments,
            **case.arguments,
            **pictures,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            output_type="pil",
        )


def family_names(call: Any) -> set[str]:
    code = getattr(call, "__wrapped__", call).__code__
    return set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


def as_pictures(media: Media) -> Any:
    if media.kind in ("image", "mask"):
        return Image.fromarray(np.asarray(media.frames))
    return [Image.fromarray(frame) for frame in media.frames]


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    yield


def hold(case: Case, folder: Path) -> None:
    """Hold a pipeline against stock and against itself."""
    checkpoint = save(case, folder)
    request = request_of(checkpoint, case, seed=7)
    inputs = conditions_of(checkpoint, request)
    engine = engine_for(checkpoint, case)
    with global_seed(1):
        first = render(engine, request, inputs)
    other = render(engine, replace(request, seed=8, request_hash="8"), inputs)
    with global_seed(2):
        again = render(engine, request, inputs)
    assert first.frames is not None
    assert first.frames.std() > 1, "the checkpoint should render something"
    np.testing.assert_array_equal(again.frames, first.frames)
    assert not np.array_equal(other.frames, first.frames)
    np.testing.assert_array_equal(first.frames, stock(folder, case, request, inputs))
