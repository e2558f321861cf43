"""Wan's pipelines in the table of families. Importing this module needs no torch, so that planning is quick."""

import math
from collections.abc import Mapping
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


def _wan_defaults(configs: Configs) -> Mapping[str, Any]:
    """Return 24 frames per second for Wan 2.2 TI2V-5B, which has a timestep for each token; the others have 16."""
    return {"fps": 24.0 if configs["model_index"].get("expand_timesteps") else 16.0}


FAMILIES: Mapping[str, Family] = {
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
        arguments={"max_sequence_length": SEQUENCE_LENGTH},
        max_sequence_length=512,
        defaults_of=_wan_defaults,
        reference_batch={False: 1, True: 1},
        num_items_per_chunk=1,
        speedups=(*FASTER_PRODUCTS, *FEWER_PASSES, "attention_backend"),
        num_items_per_swap=4,
    ),
}
