"""Tiny random checkpoints of pipelines that render images, of the sizes that the tests of diffusers use."""

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ControlNetModel,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from tests.pipelines.language_models import qwen3, qwen_vl, tokenizer
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


def sd3() -> DiffusionPipeline:
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.06),
        text_encoder=clip_text(0, projects=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(1, projects=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_text(),
        tokenizer_3=t5_tokenizer(),
    )


def pixart_sigma() -> DiffusionPipeline:
    torch.manual_seed(0)
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        cross_attention_dim=24,
        num_embeds_ada_norm=1000,
        use_additional_conditions=False,
    )
    return PixArtSigmaPipeline(t5_tokenizer(), t5_text(), vae(), transformer, DPMSolverMultistepScheduler())


def qwen_image() -> DiffusionPipeline:
    torch.manual_seed(0)
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
    )
    qwen_vae = AutoencoderKLQwenImage(
        base_dim=24,
        z_dim=4,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    return QwenImagePipeline(FlowMatchEulerDiscreteScheduler(), qwen_vae, qwen_vl(), tokenizer(), transformer)


def z_image() -> DiffusionPipeline:
    torch.manual_seed(0)
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):  # which are not initialized
        torch.nn.init.ones_(token)
    return ZImagePipeline(FlowMatchEulerDiscreteScheduler(), vae(shift_factor=0.1), qwen3(), tokenizer(), transformer)


def flux2_klein() -> DiffusionPipeline:
    torch.manual_seed(0)
    transformer = Flux2Transformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    flux2_vae = AutoencoderKLFlux2(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=1,
        norm_num_groups=1,
        sample_size=32,
    )
    return Flux2KleinPipeline(
        FlowMatchEulerDiscreteScheduler(), flux2_vae, qwen3(for_generation=True), tokenizer(), transformer
    )
