"""Tiny checkpoints of Wan's pipelines that take pictures and videos, with random weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
    WanVideoToVideoPipeline,
)
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel, UMT5EncoderModel

from tests.support.commands import ROOT

_SHAPES = ROOT / "checkpoints" / "wan-shapes"
_NUM_CHANNELS, _WIDTH, _IMAGE_WIDTH, _NUM_IMAGE_TOKENS = 8, 24, 16, 5
_NUM_CHANNELS_WITH_IMAGE = 2 * _NUM_CHANNELS + 4


def save(kind: str, folder: Path) -> Path:
    """Save a tiny checkpoint: `2.1`, `2.1 first and last`, `2.2`, `5B`, `5B text`, `video` or `vace`."""
    torch.manual_seed(0)
    parts: dict[str, Any] = {
        "tokenizer": AutoTokenizer.from_pretrained(_SHAPES / "tokenizer"),
        "text_encoder": UMT5EncoderModel.from_pretrained(_SHAPES / "text_encoder"),
        "scheduler": UniPCMultistepScheduler.from_pretrained(_SHAPES / "scheduler"),
    }
    pipeline: Any
    if kind == "video":
        pipeline = WanVideoToVideoPipeline(**parts, vae=_plain_vae(), transformer=_expert())
    elif kind == "vace":
        expert = _expert(vace_layers=[0, 1], vace_in_channels=2 * _NUM_CHANNELS + 64)
        pipeline = WanVACEPipeline(**parts, vae=_plain_vae(), transformer=expert)
    else:
        parts["vae"] = AutoencoderKLWan.from_pretrained(_SHAPES / "vae")
        pipeline_class = WanPipeline if kind == "5B text" else WanImageToVideoPipeline
        pipeline = pipeline_class(**parts, **_parts_of_image_to_video(kind))
    pipeline.save_pretrained(folder)
    return folder


def _parts_of_image_to_video(kind: str) -> Mapping[str, Any]:
    if kind.startswith("5B"):
        return {"transformer": _expert(), "expand_timesteps": True}
    if kind == "2.2":
        experts = [_expert(in_channels=_NUM_CHANNELS_WITH_IMAGE) for _ in range(2)]
        return {"transformer": experts[0], "transformer_2": experts[1], "boundary_ratio": 0.9}
    places = 2 * _NUM_IMAGE_TOKENS if kind == "2.1 first and last" else None
    return {
        "transformer": _expert(
            in_channels=_NUM_CHANNELS_WITH_IMAGE,
            image_dim=_IMAGE_WIDTH,
            added_kv_proj_dim=_WIDTH,
            pos_embed_seq_len=places,
        ),
        "image_encoder": _image_encoder(),
        "image_processor": CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32),
    }


def _expert(**arguments: Any) -> torch.nn.Module:
    arguments = {"in_channels": _NUM_CHANNELS} | arguments
    expert_class = WanVACETransformer3DModel if "vace_layers" in arguments else WanTransformer3DModel
    return expert_class(
        num_attention_heads=2,
        attention_head_dim=_WIDTH // 2,
        out_channels=_NUM_CHANNELS,
        text_dim=96,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        **arguments,
    )


def _plain_vae() -> AutoencoderKLWan:
    """Without patches, because the stock pipelines for videos take no other."""
    return AutoencoderKLWan(
        base_dim=8,
        z_dim=_NUM_CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1] * _NUM_CHANNELS,
        latents_std=[0.7] * _NUM_CHANNELS,
    )


def _image_encoder() -> CLIPVisionModel:
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=_IMAGE_WIDTH,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
        )
    )
