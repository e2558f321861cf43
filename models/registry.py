"""The table of model families, by the pipeline class that a checkpoint's `model_index.json` names.

To add one, write its module in `families/`, and its entry here. Importing this module needs no torch, so that planning
is quick.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from rendermill.models.capabilities import (
    FASTER_PRODUCTS,
    FEWER_PASSES,
    SEQUENCE_LENGTH,
    BadConfig,
    Capabilities,
    Configs,
    Family,
    num_train_timesteps,
    whole_number,
)
from rendermill.models.families.wan import registration as wan
from rendermill.models.inspection.generic_family import generic_family
from rendermill.models.interface import Model
from rendermill.models.settings import Settings


def _sana_capabilities(configs: Configs) -> Capabilities:
    patch_size = whole_number(configs, "transformer", "patch_size", 1)
    return Capabilities(
        kind="image",
        size_multiple=math.lcm(32, _sana_vae_factor(configs) * patch_size),
        max_num_inference_steps=num_train_timesteps(configs),
    )


def _sana_sprint_capabilities(configs: Configs) -> Capabilities:
    if "sigma_data" not in configs["scheduler"]:
        raise BadConfig("scheduler/scheduler_config.json: SanaSprintPipeline needs a SCMScheduler, with `sigma_data`")
    return replace(_sana_capabilities(configs), arguments=frozenset())


def _sana_defaults(configs: Configs) -> Mapping[str, Any]:
    sample_size = configs["transformer"].get("sample_size")
    if sample_size is None:
        return {}
    size = whole_number(configs, "transformer", "sample_size", 32) * _sana_vae_factor(configs)
    return {"width": size, "height": size}


def _sana_vae_factor(configs: Configs) -> int:
    channels = configs["vae"].get("encoder_block_out_channels", [128, 256, 512, 512, 1024, 1024])
    if not isinstance(channels, list) or not channels:
        raise BadConfig(f"vae/config.json: encoder_block_out_channels should be a list of numbers, not {channels!r}")
    return int(2 ** (len(channels) - 1))


def _blank_capabilities(configs: Configs) -> Capabilities:
    return Capabilities(kind="image", size_multiple=1, max_num_inference_steps=1)


_SANA_ARGUMENTS = {"max_sequence_length": SEQUENCE_LENGTH, "complex_human_instruction": list[str] | None}
_SANA_COMPONENTS = ("tokenizer", "text_encoder", "vae", "transformer", "scheduler")

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
        speedups=(*FASTER_PRODUCTS, *FEWER_PASSES),
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
        speedups=FASTER_PRODUCTS,
    ),
    **wan.FAMILIES,
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


def family_of(pipeline_class: str) -> Family:
    """Return the family of a pipeline class: one with a loop of its own, or that of any pipeline of diffusers.

    Raises:
        UnsupportedPipeline: the installed diffusers has no such class, or a table cannot give what it needs.
    """
    return FAMILIES.get(pipeline_class) or generic_family(pipeline_class)


def implementation(pipeline_class: str) -> type[Model]:
    """Import and return the `Model` of a family, and with it torch and diffusers."""
    module, name = family_of(pipeline_class).implementation.split(":")
    model: type[Model] = getattr(import_module(module), name)
    return model


def load(pipeline_class: str, folder: Path, settings: Settings, device: str) -> Model:
    """Load a checkpoint with its family's `Model`.

    Args:
        folder: a diffusers folder with safetensors.
        device: `cuda` or `cpu`.
    """
    return implementation(pipeline_class)(folder, settings, device)
