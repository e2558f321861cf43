"""Every model family, by the pipeline class that a checkpoint's `model_index.json` names.

To add one: write its module beside `sana.py`, and its entry here. Nothing here imports torch, so planning stays quick.
"""

import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from models.base import Family, Model, Rules, Settings

Configs = Mapping[str, Mapping[str, Any]]


def _sana_rules(configs: Configs, takes_negative_prompt: bool = True) -> Rules:
    vae_scale_factor = 2 ** (len(configs["vae"]["encoder_block_out_channels"]) - 1)
    return Rules(
        kind="image",
        size_multiple=math.lcm(32, vae_scale_factor * configs["transformer"]["patch_size"]),
        takes_negative_prompt=takes_negative_prompt,
        max_num_inference_steps=configs["scheduler"]["num_train_timesteps"],
    )


def _sana_sprint_rules(configs: Configs) -> Rules:
    return _sana_rules(configs, takes_negative_prompt=False)


def _wan_rules(configs: Configs) -> Rules:
    vae, expert = configs["vae"], configs.get("transformer") or configs["transformer_2"]
    return Rules(
        kind="video",
        size_multiple=math.lcm(16, vae.get("scale_factor_spatial", 8) * expert["patch_size"][1]),
        frame_multiple=vae.get("scale_factor_temporal", 4),
        num_experts=1 if configs["model_index"].get("boundary_ratio") is None else 2,
        max_num_inference_steps=configs["scheduler"]["num_train_timesteps"],
    )


def _blank_rules(configs: Configs) -> Rules:
    return Rules(kind="image", size_multiple=1, max_num_inference_steps=1)


_SANA_ARGUMENTS = {"max_sequence_length": int, "complex_human_instruction": list}

_FASTER_PRODUCTS = ("quantization", "float32_matmul_precision")
_FEWER_PASSES = ("guidance_interval", "cache_interval")

FAMILIES: Mapping[str, Family] = {
    "SanaPipeline": Family(
        implementation="models.sana:Sana",
        defaults={"width": 1024, "height": 1024, "num_frames": 1, "num_inference_steps": 20, "guidance_scale": 4.5},
        rules=_sana_rules,
        arguments=_SANA_ARGUMENTS,
        reference_batch={False: 1, True: 8},
        num_items_per_chunk=64,
        speedups=(*_FASTER_PRODUCTS, *_FEWER_PASSES),
    ),
    "SanaSprintPipeline": Family(
        implementation="models.sana:SanaSprint",
        defaults={"width": 1024, "height": 1024, "num_frames": 1, "num_inference_steps": 2, "guidance_scale": 4.5},
        rules=_sana_sprint_rules,
        arguments=_SANA_ARGUMENTS,
        reference_batch={False: 1, True: 8},
        num_items_per_chunk=256,
        speedups=_FASTER_PRODUCTS,
    ),
    "WanPipeline": Family(
        implementation="models.wan:Wan",
        defaults={
            "width": 832,
            "height": 480,
            "num_frames": 81,
            "fps": 16.0,
            "num_inference_steps": 50,
            "guidance_scale": 5.0,
        },
        rules=_wan_rules,
        arguments={"max_sequence_length": int},
        reference_batch={False: 1, True: 1},
        num_items_per_chunk=1,
        speedups=(*_FASTER_PRODUCTS, *_FEWER_PASSES, "attention_backend"),
        num_items_per_swap=4,
    ),
    "BlankPipeline": Family(
        implementation="models.blank:Blank",
        defaults={"width": 64, "height": 64, "num_frames": 1, "num_inference_steps": 1, "guidance_scale": 1.0},
        rules=_blank_rules,
        arguments={},
        reference_batch={False: 1, True: 1},
        num_items_per_chunk=8192,
    ),
}


def load(pipeline_class: str, folder: Path, settings: Settings, device: str) -> Model:
    """Load a checkpoint with its family's `Model`."""
    module, name = FAMILIES[pipeline_class].implementation.split(":")
    implementation: type[Model] = getattr(import_module(module), name)
    return implementation(folder, settings, device)
