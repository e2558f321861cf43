"""Wan's pipelines in the table of families. Importing this module needs no torch, so that planning is quick."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

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


def _wan_capabilities(configs: Configs) -> Capabilities:
    experts = [name for name in ("transformer", "transformer_2") if name in configs]
    boundary_ratio = configs["model_index"].get("boundary_ratio")
    _check_experts(experts, boundary_ratio)
    patch_size = configs[experts[0]].get("patch_size", [1, 2, 2])
    if not isinstance(patch_size, list) or [type(size) for size in patch_size] != [int] * 3:
        raise BadConfig(f"{experts[0]}/config.json: patch_size should be three whole numbers, not {patch_size!r}")
    return Capabilities(
        kind="video",
        size_multiple=math.lcm(16, whole_number(configs, "vae", "scale_factor_spatial", 8) * patch_size[1]),
        frame_multiple=whole_number(configs, "vae", "scale_factor_temporal", 4),
        max_num_inference_steps=num_train_timesteps(configs),
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


def _image_capabilities(configs: Configs) -> Capabilities:
    """Return what `WanImageToVideoPipeline` takes: Wan 2.1's model for first and last pictures needs both of them."""
    capabilities = _wan_capabilities(configs)
    model_index, num_channels = configs["model_index"], whole_number(configs, "vae", "z_dim", 16)
    has_token_times = bool(model_index.get("expand_timesteps"))
    _check_in_channels(configs, num_channels if has_token_times else 2 * num_channels + capabilities.frame_multiple)
    has_image_embeds = _has_image_embeds(configs)
    for name in ("image_encoder", "image_processor") if has_image_embeds else ():
        if None in (model_index.get(name) or [None]):
            raise BadConfig(
                f"model_index.json: with image_dim in transformer/config.json it needs {name}, and has none"
            )
    needs_both = has_image_embeds and configs["transformer"].get("pos_embed_seq_len") is not None
    takes_last = needs_both or not (has_image_embeds or has_token_times)
    last = {"last_image": InputSpec("image", is_required=needs_both)} if takes_last else {}
    return replace(capabilities, inputs={"image": InputSpec("image"), **last})


def _has_image_embeds(configs: Configs) -> bool:
    return configs.get("transformer", {}).get("image_dim") is not None


def _image_arguments(configs: Configs) -> Mapping[str, Any]:
    """Return the only `max_sequence_length` for which `WanAttnProcessor` tells image tokens from those of the text."""
    return {"max_sequence_length": Literal[512]} if _has_image_embeds(configs) else {}


def _check_in_channels(configs: Configs, expected: int) -> None:
    """Raise `BadConfig` if an expert does not take the conditions beside the latents."""
    for name in ("transformer", "transformer_2"):
        if name in configs and (found := whole_number(configs, name, "in_channels", 16)) != expected:
            raise BadConfig(f"{name}/config.json: in_channels should be {expected} for pictures as inputs, not {found}")


def _video_capabilities(configs: Configs) -> Capabilities:
    _check_plain_vae(configs)
    strength = Annotated[float, Field(0.8, gt=0, le=1)]
    return replace(
        _wan_capabilities({**configs, "model_index": {}}),
        inputs={"video": InputSpec("video")},
        further_arguments={"strength": strength},
    )


def _vace_capabilities(configs: Configs) -> Capabilities:
    _check_plain_vae(configs)
    scale = Annotated[float, Field(allow_inf_nan=False)]
    return replace(
        _wan_capabilities(configs),
        inputs={
            "video": InputSpec("video", is_required=False),
            "mask": InputSpec("mask video", is_required=False),
            "reference_images": InputSpec("images", is_required=False, has_size_of_output=False),
        },
        further_arguments={"conditioning_scale": Annotated[scale | list[scale], Field(1.0)]},
    )


def _check_plain_vae(configs: Configs) -> None:
    """Raise `BadConfig` for Wan 2.2 TI2V-5B's VAE, whose patches the pipelines for videos do not count."""
    if configs["vae"].get("patch_size") is not None:
        pipeline_class = configs["model_index"]["_class_name"]
        raise BadConfig(f"vae/config.json: {pipeline_class} takes VAEs without patch_size alone, such as Wan 2.1's")


def _wan_defaults(configs: Configs) -> Mapping[str, Any]:
    """Return 24 frames per second for Wan 2.2 TI2V-5B, which has a timestep for each token; the others have 16."""
    return {"fps": 24.0 if configs["model_index"].get("expand_timesteps") else 16.0}


_TEXT_TO_VIDEO = Family(
    implementation="rendermill.models.families.wan.loop:Wan",
    defaults={"width": 832, "height": 480, "num_frames": 81, "num_inference_steps": 50, "guidance_scale": 5.0},
    capabilities=_wan_capabilities,
    arguments={"max_sequence_length": SEQUENCE_LENGTH},
    max_sequence_length=512,
    defaults_of=_wan_defaults,
    reference_batch={False: 1, True: 1},
    num_items_per_chunk=1,
    speedups=(*FASTER_PRODUCTS, *FEWER_PASSES, "attention_backend"),
    num_items_per_swap=4,
)

FAMILIES: Mapping[str, Family] = {
    "WanPipeline": _TEXT_TO_VIDEO,
    "WanImageToVideoPipeline": replace(
        _TEXT_TO_VIDEO,
        implementation="rendermill.models.families.wan.image_to_video:WanImageToVideo",
        capabilities=_image_capabilities,
        arguments_of=_image_arguments,
    ),
    "WanVideoToVideoPipeline": replace(
        _TEXT_TO_VIDEO,
        implementation="rendermill.models.families.wan.video_to_video:WanVideoToVideo",
        capabilities=_video_capabilities,
    ),
    "WanVACEPipeline": replace(
        _TEXT_TO_VIDEO,
        implementation="rendermill.models.families.wan.vace:WanVace",
        capabilities=_vace_capabilities,
    ),
}
