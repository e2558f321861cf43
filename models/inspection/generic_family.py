"""The family of any pipeline of diffusers without a loop of its own here, from its source and its configs."""

import difflib
import math
from collections.abc import Mapping
from functools import cache, partial
from importlib.metadata import version
from typing import Annotated, Any

from pydantic import Field

from rendermill.models.capabilities import BadConfig, Capabilities, Configs, Family
from rendermill.models.inspection.config_values import ConfigValues
from rendermill.models.inspection.signatures import Signature, signature
from rendermill.models.inspection.sources import pipeline_classes

_USUAL_SIZE_MULTIPLE = 16
_USUAL_SIZE = 512
_USUAL_NUM_STEPS = 50
_USUAL_NUM_FRAMES = 17
_USUAL_FPS = 16.0
_SPATIAL_FACTORS = ("vae_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio")
"""The names that pipelines have for the number of pixels in a latent, along one side."""
_TEMPORAL_FACTORS = (
    "vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor",
    "vae_temporal_compression_factor",
)  # fmt: skip
"""The names that pipelines have for the number of frames in a latent frame."""


class UnsupportedPipeline(Exception):
    """A pipeline class that cannot be run; the message says why, and what would be right."""


@cache
def generic_family(class_name: str) -> Family:
    """Return the family of a pipeline class of the installed diffusers.

    Raises:
        UnsupportedPipeline: diffusers has no such class, or nothing that a table says would let it render.
    """
    known = signature(class_name) if class_name in pipeline_classes() else None
    if known is None:
        near = difflib.get_close_matches(class_name, pipeline_classes(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UnsupportedPipeline(f"diffusers {version('diffusers')} has no pipeline {class_name}{hint}")
    _check(known)
    return Family(
        implementation="rendermill.models.families.diffusers:Diffusers",
        defaults=_fixed_defaults(known),
        capabilities=partial(_capabilities, known),
        arguments={},  # rows and the job's defaults give them; a second place would leave open which of them counts
        reference_batch={False: 1, True: 1},
        num_items_per_chunk=1,
        speedups=("float32_matmul_precision", "attention_backend"),
        components=known.components,
        defaults_of=partial(_defaults_of, known),
    )


def _check(known: Signature) -> None:
    if known.kind is None:
        raise UnsupportedPipeline(f"{known.class_name} renders neither images nor videos")
    if "prompt" not in known.fields:
        raise UnsupportedPipeline(f"{known.class_name} takes no prompt, which every row has")
    if known.needed:
        reasons = "; ".join(f"{name}: {known.refused[name]}" for name in known.needed)
        raise UnsupportedPipeline(f"{known.class_name} cannot be given what it needs: {reasons}")


def _fixed_defaults(known: Signature) -> dict[str, Any]:
    """Return the defaults that do not depend on the checkpoint."""
    defaults: dict[str, Any] = {
        "num_inference_steps": _number(known, "num_inference_steps") or _usual_num_steps(known),
        "guidance_scale": _scale(known),
        "num_frames": 1,
    }
    if known.kind == "video":
        fps = _default(known, "fps")
        defaults["fps"] = float(fps) if isinstance(fps, int | float) and fps > 0 else _USUAL_FPS
    negative_prompt = _default(known, "negative_prompt")
    if isinstance(negative_prompt, str) and negative_prompt:
        defaults["negative_prompt"] = negative_prompt
    return defaults


def _usual_num_steps(known: Signature) -> int:
    return _USUAL_NUM_STEPS if "num_inference_steps" in known.fields else 1


def _scale(known: Signature) -> float:
    """Return the default guidance scale; 1, which is none, for a pipeline that has no guidance scale."""
    scale = _default(known, "guidance_scale")
    return float(scale) if isinstance(scale, int | float) else 1.0


def _default(known: Signature, field: str) -> Any:
    return known.defaults.get(known.fields.get(field, ""))


def _number(known: Signature, field: str) -> int | None:
    value = _default(known, field)
    return value if isinstance(value, int) and value > 0 else None


def _capabilities(known: Signature, configs: Configs) -> Capabilities:
    values = ConfigValues(known.class_name, configs)
    not_taken = {"guidance_scale": _scale(known), "num_inference_steps": 1}
    return Capabilities(
        kind=known.kind or "image",
        size_multiple=_size_multiple(values),
        frame_multiple=_frame_multiple(known, values),
        max_num_inference_steps=_num_train_timesteps(configs),
        arguments=frozenset({"negative_prompt", "guidance_scale_2"} & known.fields.keys()),
        inputs=known.inputs,
        further_arguments={name: _with_default(type_, name, known) for name, type_ in known.further.items()},
        fixed={name: value for name, value in not_taken.items() if name not in known.fields},
        refused=known.refused,
    )


def _with_default(of_type: Any, name: str, known: Signature) -> Any:
    """Return the type of an argument with its default, which counts as not asked for."""
    return Annotated[of_type, Field(known.defaults[name])] if name in known.defaults else of_type


def _size_multiple(values: ConfigValues) -> int:
    divisors = [*values.divisors("height"), *values.divisors("width")]
    factor = values.attribute(*_SPATIAL_FACTORS)
    if divisors:
        return math.lcm(*divisors, factor or 1)
    return math.lcm(_USUAL_SIZE_MULTIPLE, factor or 1)


def _frame_multiple(known: Signature, values: ConfigValues) -> int:
    """Return the number of frames in a latent frame, if the pipeline's default number of frames has one more."""
    multiple = values.attribute(*_TEMPORAL_FACTORS) or 1
    num_frames = _number(known, "num_frames") or values.default("num_frames") or multiple + 1
    return multiple if num_frames % multiple == 1 % multiple else 1


def _size_of_training(values: ConfigValues, configs: Configs) -> int:
    """Return the size in pixels that the denoiser's config names, as the number of latents."""
    latents = configs.get("unet", configs.get("transformer", {})).get("sample_size")
    factor = values.attribute(*_SPATIAL_FACTORS)
    return latents * factor if isinstance(latents, int) and latents > 0 and factor else _USUAL_SIZE


def _num_train_timesteps(configs: Configs) -> int:
    value = configs.get("scheduler", {}).get("num_train_timesteps", 1000)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadConfig(
            f"scheduler/scheduler_config.json: num_train_timesteps should be a positive whole number, not {value!r}"
        )
    return value


def _defaults_of(known: Signature, configs: Configs) -> Mapping[str, Any]:
    values, capabilities = ConfigValues(known.class_name, configs), _capabilities(known, configs)
    defaults: dict[str, Any] = {}
    for name in ("width", "height"):
        size = _number(known, name) or values.default(name) or _size_of_training(values, configs)
        defaults[name] = max(size // capabilities.size_multiple, 1) * capabilities.size_multiple
    if known.kind == "video":
        num_frames = _number(known, "num_frames") or values.default("num_frames") or _USUAL_NUM_FRAMES
        multiple = capabilities.frame_multiple
        defaults["num_frames"] = (num_frames - 1) // multiple * multiple + 1
    return defaults
