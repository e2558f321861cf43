"""Tiny random checkpoints of pipelines that render images, of the sizes that the tests of diffusers use."""

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from tests.pipelines.texts import clip_text, clip_tokenizer, t5_text, t5_tokenizer


def vae(latent_channels: int = 4, **changes: object) -> AutoencoderKL:
    torch.manual_seed(0)
    given = {
        "sample_size": 32,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (4, 4),
        "layers_per_block": 1,
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "norm_num_groups": 1,
        "latent_channels": latent_channels,
    }
    return AutoencoderKL(**given | changes)


def flux() -> DiffusionPipeline:
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=clip_text(0),
        text_encoder_2=t5_text(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
        vae=vae(1, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0609, scaling_factor=1.5035),
    )


def _sdxl_parts(in_channels: int = 4) -> dict[str, object]:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=32,
        in_channels=in_channels,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=64,
        norm_num_groups=1,
    )
    return {
        "unet": unet,
        "scheduler": EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, steps_offset=1, beta_schedule="scaled_linear"
        ),
        "vae": vae(),
        "text_encoder": clip_text(0),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip_text(1, projects=True),
        "tokenizer_2": clip_tokenizer(),
    }


def sdxl() -> DiffusionPipeline:
    return StableDiffusionXLPipeline(**_sdxl_parts())


def sdxl_inpaint() -> DiffusionPipeline:
    return StableDiffusionXLInpaintPipeline(**_sdxl_parts(), requires_aesthetics_score=False)


def sdxl_controlnet() -> DiffusionPipeline:
    torch.manual_seed(3)
    parts = _sdxl_parts()
    controlnet = ControlNetModel.from_unet(parts["unet"], conditioning_embedding_out_channels=(8, 16))
    for parameter in controlnet.controlnet_down_blocks.parameters():  # which would be zero
        torch.nn.init.normal_(parameter, std=0.1)
    return StableDiffusionXLControlNetPipeline(**parts, controlnet=controlnet)
