"""Tiny random checkpoints of Sana's relatives that have no loop here."""

import torch
from diffusers import (
    AutoencoderDC,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SanaControlNetModel,
    SanaControlNetPipeline,
    SanaImageToVideoPipeline,
    SanaSprintImg2ImgPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
)

from tests.pipelines.language_models import gemma2, tokenizer
from tests.pipelines.videos import sana_video

_TRANSFORMER = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 4,
    "num_layers": 2,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 4,
    "cross_attention_dim": 8,
    "caption_channels": 16,
    "sample_size": 8,
}


def _vae() -> AutoencoderDC:
    torch.manual_seed(0)
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_out_channels=(4, 8),
        decoder_block_out_channels=(4, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
    )


def controlnet() -> DiffusionPipeline:
    torch.manual_seed(0)
    transformer = SanaTransformer2DModel(**_TRANSFORMER)
    control = SanaControlNetModel(**_TRANSFORMER | {"num_layers": 1})
    for block in (control.input_block, *control.controlnet_blocks):  # which would be zero
        torch.nn.init.normal_(block.weight, std=0.1)
    scheduler = DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    return SanaControlNetPipeline(tokenizer(), gemma2(), _vae(), transformer, control, scheduler)


def sprint_image_to_image() -> DiffusionPipeline:
    torch.manual_seed(0)
    transformer = SanaTransformer2DModel(**_TRANSFORMER, guidance_embeds=True, qk_norm="rms_norm_across_heads")
    return SanaSprintImg2ImgPipeline(
        tokenizer(), gemma2(), _vae(), transformer, SCMScheduler(prediction_type="trigflow", sigma_data=0.5)
    )


def image_to_video() -> DiffusionPipeline:
    parts = sana_video().components
    return SanaImageToVideoPipeline(**parts | {"scheduler": FlowMatchEulerDiscreteScheduler()})
