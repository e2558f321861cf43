"""Builds tiny checkpoints in the stock diffusers layout: `python checkpoints/build_tiny.py [FOLDER]`.

Their weights are random (seeded), so they draw patterns, not prompts; everything else about them is real: the same
pipeline classes, files and loading as checkpoints of 30 GB. Needs no network. Folders that exist are left alone.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKLWan,
    DPMSolverMultistepScheduler,
    SanaPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import Gemma2Config, Gemma2Model, PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

VOCABULARY_SIZE = 512


def tokenizer(model_max_length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, so that any script can be encoded; ends every text with `</s>`."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trained.train_from_iterator(
        [_SAMPLE_TEXT],
        trainers.BpeTrainer(
            vocab_size=VOCABULARY_SIZE,
            special_tokens=["<pad>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    trained.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=trained, pad_token="<pad>", eos_token="</s>", model_max_length=model_max_length
    )


_SAMPLE_TEXT = (
    "a photo of the red cat and a blue dog on green grass, an oil painting of a robot with a yellow hat in the city, "
    "the quick brown fox jumps over the lazy dog, a map, a portrait, a landscape with mountains at sunset"
)


def _sana_parts(guidance_embeds: bool) -> dict[str, Any]:
    text_encoder = Gemma2Model(
        Gemma2Config(
            vocab_size=VOCABULARY_SIZE,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            query_pre_attn_scalar=16,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=1,
        )
    )
    transformer = SanaTransformer2DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=32,
        sample_size=32,
        patch_size=1,
        mlp_ratio=2.5,
        guidance_embeds=guidance_embeds,
        guidance_embeds_scale=0.1,
        qk_norm="rms_norm_across_heads" if guidance_embeds else None,
    )
    vae = AutoencoderDC(
        latent_channels=8,
        attention_head_dim=8,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(8, 16, 32, 32),
        decoder_block_out_channels=(8, 16, 32, 32),
        encoder_layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        upsample_block_type="interpolate",
        downsample_block_type="Conv",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    return {
        "tokenizer": tokenizer(300),
        "text_encoder": text_encoder,
        "transformer": transformer,
        "vae": vae,
    }


def sana() -> SanaPipeline:
    """`SanaPipeline` with an 8× VAE, as Sana 1.6B but for the sizes."""
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return SanaPipeline(**_sana_parts(guidance_embeds=False), scheduler=scheduler)


def sana_sprint() -> SanaSprintPipeline:
    """`SanaSprintPipeline` with embedded guidance."""
    return SanaSprintPipeline(
        **_sana_parts(guidance_embeds=True), scheduler=SCMScheduler(prediction_type="trigflow", sigma_data=0.5)
    )


def wan() -> WanPipeline:
    """`WanPipeline` with two experts, as Wan2.2 A14B but for the sizes."""

    def expert() -> WanTransformer3DModel:
        return WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=8,
            out_channels=8,
            text_dim=32,
            freq_dim=32,
            ffn_dim=64,
            num_layers=2,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
        )

    text_encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=VOCABULARY_SIZE,
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            pad_token_id=0,
            eos_token_id=1,
        )
    )
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=8,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 8,
        latents_std=[1.0] * 8,
    )
    return WanPipeline(
        tokenizer=tokenizer(512),
        text_encoder=text_encoder,
        vae=vae,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=expert(),
        transformer_2=expert(),
        boundary_ratio=0.875,
    )


CHECKPOINTS: dict[str, Callable[[], Any]] = {"sana-tiny": sana, "sana-sprint-tiny": sana_sprint, "wan-tiny": wan}


def main() -> None:
    """Build what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    folder = parser.parse_args().folder
    for name, build in CHECKPOINTS.items():
        if not (folder / name / "model_index.json").exists():
            torch.manual_seed(0)
            build().save_pretrained(folder / name)
            print(f"built {folder / name}")


if __name__ == "__main__":
    main()
