"""A tiny random checkpoint of Wan Animate, which takes a picture, and videos of poses and faces."""

import torch
from diffusers import (
    AutoencoderKLWan,
    DiffusionPipeline,
    UniPCMultistepScheduler,
    WanAnimatePipeline,
    WanAnimateTransformer3DModel,
)
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from tests.pipelines.texts import t5_text, t5_tokenizer

_FACE = 16


def _image_encoder() -> CLIPVisionModel:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=4,
        projection_dim=4,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        intermediate_size=16,
        patch_size=14,
    )
    return CLIPVisionModel(config).eval()


def animate() -> DiffusionPipeline:
    torch.manual_seed(0)
    transformer = WanAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=32,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        image_dim=4,
        rope_max_seq_len=32,
        motion_encoder_channel_sizes={"4": 16, "8": 16, "16": 16},
        motion_encoder_size=_FACE,
        motion_style_dim=8,
        motion_dim=4,
        motion_encoder_dim=16,
        face_encoder_hidden_dim=16,
        face_encoder_num_heads=2,
        inject_face_latents_blocks=2,
    )
    vae = AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    return WanAnimatePipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_text(),
        vae=vae,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        image_processor=CLIPImageProcessor(crop_size=28, size={"shortest_edge": 28}),
        image_encoder=_image_encoder(),
        transformer=transformer,
    )
