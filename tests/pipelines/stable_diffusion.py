"""Tiny random checkpoints of Stable Diffusion 1 and of what is made of it."""

import torch
from diffusers import (
    AnimateDiffPipeline,
    DDIMScheduler,
    DiffusionPipeline,
    MotionAdapter,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)

from tests.pipelines.images import vae
from tests.pipelines.texts import clip_text, clip_tokenizer


def _unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=32,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=2,
    )


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


def text() -> DiffusionPipeline:
    return StableDiffusionPipeline(
        vae(), clip_text(0), clip_tokenizer(), _unet(), _scheduler(), None, None, requires_safety_checker=False
    )


def animate() -> DiffusionPipeline:
    torch.manual_seed(1)
    adapter = MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_norm_num_groups=2,
        motion_num_attention_heads=2,
    )
    return AnimateDiffPipeline(vae(), clip_text(0), clip_tokenizer(), _unet(), adapter, _scheduler())
