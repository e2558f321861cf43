"""A tiny random checkpoint of Kandinsky 2.2, which is two pipelines in one."""

import torch
from diffusers import (
    DDPMScheduler,
    DiffusionPipeline,
    KandinskyV22CombinedPipeline,
    PriorTransformer,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VQModel,
)
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.pipelines.texts import clip_text, clip_tokenizer

_WIDTH = 32


def _unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        in_channels=4,
        out_channels=8,
        addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(32, 64),
        layers_per_block=1,
        encoder_hid_dim=_WIDTH,
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=16,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
    )


def _movq() -> VQModel:
    torch.manual_seed(0)
    return VQModel(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        num_vq_embeddings=12,
        vq_embed_dim=4,
        norm_type="spatial",
    )


def _image_encoder() -> CLIPVisionModelWithProjection:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=_WIDTH,
        image_size=28,
        projection_dim=_WIDTH,
        intermediate_size=37,
        patch_size=14,
        num_attention_heads=4,
        num_hidden_layers=1,
    )
    return CLIPVisionModelWithProjection(config).eval()


def _prior() -> PriorTransformer:
    torch.manual_seed(0)
    prior = PriorTransformer(num_attention_heads=2, attention_head_dim=12, embedding_dim=_WIDTH, num_layers=1)
    torch.nn.init.ones_(prior.clip_std)  # which would be zero, and then nothing depends on the prompt
    return prior


def combined() -> DiffusionPipeline:
    return KandinskyV22CombinedPipeline(
        unet=_unet(),
        scheduler=DDPMScheduler(beta_schedule="linear", beta_start=0.00085, beta_end=0.012, thresholding=False),
        movq=_movq(),
        prior_prior=_prior(),
        prior_image_encoder=_image_encoder(),
        prior_text_encoder=clip_text(0, projects=True),
        prior_tokenizer=clip_tokenizer(),
        prior_scheduler=UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample"),
        prior_image_processor=CLIPImageProcessor(crop_size=28, size={"shortest_edge": 28}),
    )
