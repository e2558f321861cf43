"""Checkpoints in the shape of the published ones, with random weights: same shapes, same kernels, same speed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKLWan,
    DPMSolverMultistepScheduler,
    SanaPipeline,
    SanaTransformer2DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import Gemma2Config, Gemma2Model, UMT5Config, UMT5EncoderModel

from shapes.text import VOCABULARY_SIZE, make_tokenizer


@contextmanager
def _random_weights() -> Iterator[None]:
    """Give models that are made within this context seeded bfloat16 weights on the GPU."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def build_sana_1600m(folder: Path) -> None:
    """A pipeline in the shape of Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers, with a small vocabulary."""
    with _random_weights():
        transformer = SanaTransformer2DModel(
            in_channels=32,
            out_channels=32,
            num_attention_heads=70,
            attention_head_dim=32,
            num_layers=20,
            num_cross_attention_heads=20,
            cross_attention_head_dim=112,
            cross_attention_dim=2240,
            caption_channels=2304,
            sample_size=32,
            patch_size=1,
            mlp_ratio=2.5,
        )
        vae = AutoencoderDC(
            latent_channels=32,
            attention_head_dim=32,
            encoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
            decoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
            encoder_block_out_channels=(128, 256, 512, 512, 1024, 1024),
            decoder_block_out_channels=(128, 256, 512, 512, 1024, 1024),
            encoder_layers_per_block=(2, 2, 2, 3, 3, 3),
            decoder_layers_per_block=(3, 3, 3, 3, 3, 3),
            encoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)),
            decoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)),
            upsample_block_type="interpolate",
            downsample_block_type="Conv",
            scaling_factor=0.41407,
        )
        text_encoder = Gemma2Model(Gemma2Config(vocab_size=VOCABULARY_SIZE, pad_token_id=0, eos_token_id=2))
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    SanaPipeline(make_tokenizer(300), text_encoder, vae, transformer, scheduler).save_pretrained(folder)


def build_wan_a14b(folder: Path) -> None:
    """Build one expert and the VAE of Wan-AI/Wan2.2-T2V-A14B-Diffusers; a text encoder of two layers."""
    with _random_weights():
        transformer = WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=40,
            attention_head_dim=128,
            in_channels=16,
            out_channels=16,
            text_dim=4096,
            ffn_dim=13824,
            num_layers=40,
        )
        vae = AutoencoderKLWan()
        text_encoder = UMT5EncoderModel(
            UMT5Config(
                vocab_size=VOCABULARY_SIZE,
                d_model=4096,
                num_layers=2,
                num_heads=64,
                d_ff=10240,
                pad_token_id=0,
                eos_token_id=2,
            )
        )
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
    )
    WanPipeline(make_tokenizer(512), text_encoder, vae, scheduler, transformer).save_pretrained(folder)


def with_two_experts(one_expert: Path, folder: Path) -> None:
    """A Wan 2.2 of the files of one with a single expert, which is both of its two; in memory they are two."""
    folder.mkdir()
    index = json.loads((one_expert / "model_index.json").read_text())
    index |= {"transformer_2": index["transformer"], "boundary_ratio": 0.875}
    (folder / "model_index.json").write_text(json.dumps(index))
    for part in one_expert.iterdir():
        if part.is_dir():
            (folder / part.name).symlink_to(part)
    (folder / "transformer_2").symlink_to(one_expert / "transformer")
