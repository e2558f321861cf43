"""The table of model families, by the pipeline class that a checkpoint's `model_index.json` names.

To add one, write its module in `families/`, and its entry here. Importing this module needs no torch, so that planning
is quick.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from rendermill.models.capabilities import BadConfig, Capabilities, Configs, Family
from rendermill.models.interface import Model
from rendermill.models.settings import Settings


def _sana_capabilities(configs: Configs) -> Capabilities:
    patch_size = _whole_number(configs, "transformer", "patch_size", 1)
    return Capabilities(
        kind="image",
        size_multiple=math.lcm(32, _sana_vae_factor(configs) * patch_size),
        max_num_inference_steps=_num_train_timesteps(configs),
    )


def _sana_sprint_capabilities(configs: Configs) -> Capabilities:
    if "sigma_data" not in configs["scheduler"]:
        raise BadConfig("scheduler/scheduler_config.json: SanaSprintPipeline needs a SCMScheduler, with `sigma_data`")
    return replace(_sana_capabilities(configs), arguments=frozenset())


def _sana_defaults(configs: Configs) -> Mapping[str, Any]:
    sample_size = configs["transformer"].get("sample_size")
    if sample_size is None:
        return {}
    size = _whole_number(configs, "transformer", "sample_size", 32) * _sana_vae_factor(configs)
    return {"width": size, "height": size}


def _sana_vae_factor(configs: Configs) -> int:
    channels = configs["vae"].get("encoder_block_out_channels", [128, 256, 512, 512, 1024, 1024])
    if not isinstance(channels, list) or not channels:
        raise BadConfig(f"vae/config.json: encoder_block_out_channels should be a list of numbers, not {channels!r}")
    return int(2 ** (len(channels) - 1))


def _wan_capabilities(configs: Configs) -> Capabilities:
    experts = [name for name in ("transformer", "transformer_2") if name in configs]
    boundary_ratio = configs["model_index"].get("boundary_ratio")
    _check_experts(experts, boundary_ratio)
    patch_size = configs[experts[0]].get("patch_size", [1, 2, 2])
    if not isinstance(patch_size, list) or [type(size) for size in patch_size] != [int] * 3:
        raise BadConfig(f"{experts[0]}/config.json: patch_size should be three whole numbers, not {patch_size!r}")
    return Capabilities(
        kind="video",
        size_multiple=math.lcm(16, _whole_number(configs, "vae", "scale_factor_spatial", 8) * patch_size[1]),
        frame_multiple=_whole_number(configs, "vae", "scale_factor_temporal", 4),
        max_num_inference_steps=_num_train_timesteps(configs),
        arguments=frozenset({"negative_prompt"} if boundary_ratio is None else {"negative_prompt", "guidance_scale_2"}),
    )


def _check_experts(experts: list[str], boundary_ratio: Any) -> None:
    """Raise `BadConfig` if some timesteps have no expert."""
    if boundary_ratio is None:
        needed = ["transformer"]
    elif isinstance(boundary_ratio, int | float) and 0 <= boundary_ratio <= 1:
        needed = [*["transformer"] * (boundary_ratio < 1), *["transformer_2"] * (boundary_ratio > 0)]
    else:
        raise BadConfig(f"model_index.json: boundary_ratio should be a number from 0 to 1, not {boundary_ratio!r}")
    lacking = [name for name in needed if name not in experts]
    if lacking:
        raise BadConfig(f"model_index.json: with boundary_ratio {boundary_ratio} it needs {lacking[0]}, and has none")


def _wan_defaults(configs: Configs) -> Mapping[str, Any]:
    """Return 24 frames per second for Wan 2.2 TI2V-5B, which has a timestep for each token; the others have 16."""
    return {"fps": 24.0 if configs["model_index"].get("expand_timesteps") else 16.0}


def _num_train_timesteps(configs: Configs) -> int:
    return _whole_number(configs, "scheduler", "num_train_timesteps", 1000)


def _whole_number(configs: Configs, component: str, key: str, default: int) -> int:
    """Return a positive whole number of a component's config.

    Args:
        default: the value that the component's class uses if its config has none.

    Raises:
        BadConfig: the value is something else.
    """
    value = configs[component].get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        file = "scheduler_config.json" if component == "scheduler" else "config.json"
        raise BadConfig(f"{component}/{file}: {key} should be a positive whole number, not {value!r}")
    return value


def _blank_capabilities(configs: Configs) -> Capabilities:
    return Capabilities(kind="image", size_multiple=1, max_num_inference_steps=1)


_SEQUENCE_LENGTH = Annotated[int, Field(ge=1, le=8192)]
_SANA_ARGUMENTS = {"max_sequence_length": _SEQUENCE_LENGTH, "complex_human_instruction": list[str] | None}
_SANA_COMPONENTS = ("tokenizer", "text_encoder", "vae", "transformer", "scheduler")

_FASTER_PRODUCTS = ("quantization", "float32_matmul_precision")
_FEWER_PASSES = ("guidance_interval", "cache_interval")

FAMILIES: Mapping[str, Family] = {
    "SanaPipeline": Family(
        implementation="rendermill.models.families.sana:Sana",
        defaults={"width": 1024, "height": 1024, "num_frames": 1, "num_inference_steps": 20, "guidance_scale": 4.5},
        capabilities=_sana_capabilities,
        arguments=_SANA_ARGUMENTS,
        max_sequence_length=300,
        components=_SANA_COMPONENTS,
        defaults_of=_sana_defaults,
        reference_batch={False: 1, True: 8},
        num_items_per_chunk=64,
        speedups=(*_FASTER_PRODUCTS, *_FEWER_PASSES),
    ),
    "SanaSprintPipeline": Family(
        implementation="rendermill.models.families.sana:SanaSprint",
        defaults={"width": 1024, "height": 1024, "num_frames": 1, "num_inference_steps": 2, "guidance_scale": 4.5},
        capabilities=_sana_sprint_capabilities,
        arguments=_SANA_ARGUMENTS,
        max_sequence_length=300,
        components=_SANA_COMPONENTS,
        defaults_of=_sana_defaults,
        reference_batch={False: 1, True: 8},
        num_items_per_chunk=256,
        speedups=_FASTER_PRODUCTS,
    ),
    "WanPipeline": Family(
        implementation="rendermill.models.families.wan.loop:Wan",
        defaults={
            "width": 832,
            "height": 480,
            "num_frames": 81,
            "num_inference_steps": 50,
            "guidance_scale": 5.0,
        },
        capabilities=_wan_capabilities,
        arguments={"max_sequence_length": _SEQUENCE_LENGTH},
        max_sequence_length=512,
        defaults_of=_wan_defaults,
        reference_batch={False: 1, True: 1},
        num_items_per_chunk=1,
        speedups=(*_FASTER_PRODUCTS, *_FEWER_PASSES, "attention_backend"),
        num_items_per_swap=4,
    ),
    "BlankPipeline": Family(
        implementation="rendermill.models.families.blank:Blank",
        defaults={"width": 64, "height": 64, "num_frames": 1, "num_inference_steps": 1, "guidance_scale": 1.0},
        capabilities=_blank_capabilities,
        arguments={},
        reference_batch={False: 1, True: 1},
        num_items_per_chunk=8192,
        components=(),
    ),
}


def implementation(pipeline_class: str) -> type[Model]:
    """Import and return the `Model` of a family, and with it torch and diffusers."""
    module, name = FAMILIES[pipeline_class].implementation.split(":")
    model: type[Model] = getattr(import_module(module), name)
    return model


def load(pipeline_class: str, folder: Path, settings: Settings, device: str) -> Model:
    """Load a checkpoint with its family's `Model`.

    Args:
        folder: a diffusers folder with safetensors.
        device: `cuda` or `cpu`.
    """
    return implementation(pipeline_class)(folder, settings, device)
