"""Sana's pipelines in the table of families. Importing this module needs no torch, so that planning is quick."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

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
from rendermill.models.inputs import InputSpec


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


def _sana_sprint_image_to_image_capabilities(configs: Configs) -> Capabilities:
    return replace(
        _sana_sprint_capabilities(configs),
        inputs={"image": InputSpec("image")},
        further_arguments={"strength": Annotated[float, Field(ge=0.001, le=1)]},
    )


def _sana_controlnet_capabilities(configs: Configs) -> Capabilities:
    return replace(
        _sana_capabilities(configs),
        inputs={"control_image": InputSpec("image")},
        further_arguments={"controlnet_conditioning_scale": Annotated[float, Field(allow_inf_nan=False)]},
    )


def _sana_video_capabilities(configs: Configs) -> Capabilities:
    vae = configs["vae"]
    names = (
        ("spatial_compression_ratio", "temporal_compression_ratio")
        if "spatial_compression_ratio" in vae
        else ("scale_factor_spatial", "scale_factor_temporal")
    )
    patch_size = configs["transformer"].get("patch_size", [1, 2, 2])
    if not isinstance(patch_size, list) or [type(size) for size in patch_size] != [int] * 3:
        raise BadConfig(f"transformer/config.json: patch_size should be three whole numbers, not {patch_size!r}")
    return Capabilities(
        kind="video",
        size_multiple=math.lcm(32, whole_number(configs, "vae", names[0], 8) * patch_size[1]),
        frame_multiple=whole_number(configs, "vae", names[1], 4),
        max_num_inference_steps=num_train_timesteps(configs),
    )


def _sana_image_to_video_capabilities(configs: Configs) -> Capabilities:
    return replace(_sana_video_capabilities(configs), inputs={"image": InputSpec("image")})


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


_SANA_ARGUMENTS = {"max_sequence_length": SEQUENCE_LENGTH, "complex_human_instruction": list[str] | None}
_SANA_COMPONENTS = ("tokenizer", "text_encoder", "vae", "transformer", "scheduler")

_SANA = Family(
    implementation="rendermill.models.families.sana.text_to_image:Sana",
    defaults={"width": 1024, "height": 1024, "num_frames": 1, "num_inference_steps": 20, "guidance_scale": 4.5},
    capabilities=_sana_capabilities,
    arguments=_SANA_ARGUMENTS,
    max_sequence_length=300,
    components=_SANA_COMPONENTS,
    defaults_of=_sana_defaults,
    reference_batch={False: 1, True: 8},
    num_items_per_chunk=64,
    speedups=(*FASTER_PRODUCTS, *FEWER_PASSES),
)
_SPRINT = replace(
    _SANA,
    implementation="rendermill.models.families.sana.sprint:SanaSprint",
    defaults={**_SANA.defaults, "num_inference_steps": 2},
    capabilities=_sana_sprint_capabilities,
    num_items_per_chunk=256,
    speedups=FASTER_PRODUCTS,
)
_VIDEO = Family(
    implementation="rendermill.models.families.sana.video:SanaVideo",
    defaults={
        "width": 832,
        "height": 480,
        "num_frames": 81,
        "fps": 16.0,
        "num_inference_steps": 50,
        "guidance_scale": 6.0,
    },
    capabilities=_sana_video_capabilities,
    arguments=_SANA_ARGUMENTS,
    max_sequence_length=300,
    components=_SANA_COMPONENTS,
    reference_batch={False: 1, True: 1},
    num_items_per_chunk=1,
    speedups=(*FASTER_PRODUCTS, *FEWER_PASSES),
)

FAMILIES: Mapping[str, Family] = {
    "SanaPipeline": _SANA,
    "SanaSprintPipeline": _SPRINT,
    "SanaSprintImg2ImgPipeline": replace(
        _SPRINT,
        implementation="rendermill.models.families.sana.sprint:SanaSprintImageToImage",
        capabilities=_sana_sprint_image_to_image_capabilities,
    ),
    "SanaControlNetPipeline": replace(
        _SANA,
        implementation="rendermill.models.families.sana.controlnet:SanaControlNet",
        capabilities=_sana_controlnet_capabilities,
        components=(*_SANA_COMPONENTS, "controlnet"),
    ),
    "SanaVideoPipeline": _VIDEO,
    "SanaImageToVideoPipeline": replace(
        _VIDEO,
        implementation="rendermill.models.families.sana.video:SanaImageToVideo",
        capabilities=_sana_image_to_video_capabilities,
    ),
}
