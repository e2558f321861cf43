"""Trains checkpoints/sana-shapes: `python -m shapes.sana`.

First the autoencoder, on pictures alone; then the denoiser and its text encoder together, by flow matching as in Sana
(https://arxiv.org/abs/2410.10629).
"""

import torch
from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel
from torch.nn import functional
from transformers import Gemma2Config, Gemma2Model

from shapes.scenes import random_picture
from shapes.text import VOCABULARY_SIZE, make_tokenizer
from shapes.training import (
    FLOW_SHIFT,
    Examples,
    Training,
    add_noise,
    compile_blocks,
    fit,
    make_examples,
    parse_arguments,
    peak_signal_to_noise,
    random_indices,
    reconstruction_loss,
    shifted,
)

SIDE = 128
_NUM_LATENT_CHANNELS = 8
_TEXT_CHANNELS = 96
_LATENT_NOISE = 0.1
"""The standard deviation added to latents in the autoencoder's training, so that it forgives small errors."""


def make_autoencoder() -> AutoencoderDC:
    """Make an autoencoder to latents 8× smaller with 8 channels; it has 0.6 million parameters."""
    return AutoencoderDC(
        latent_channels=_NUM_LATENT_CHANNELS,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(16, 32, 64, 64),
        decoder_block_out_channels=(32, 64, 64, 64),
        encoder_layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        upsample_block_type="interpolate",
        downsample_block_type="Conv",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    )


def make_text_encoder() -> Gemma2Model:
    """Make a text encoder of three layers and 0.3 million parameters."""
    return Gemma2Model(
        Gemma2Config(
            vocab_size=VOCABULARY_SIZE,
            hidden_size=_TEXT_CHANNELS,
            intermediate_size=192,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=3,
            head_dim=32,
            query_pre_attn_scalar=32,
            use_cache=False,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def make_transformer(*, guidance_embeds: bool = False) -> SanaTransformer2DModel:
    """Make a transformer of seven layers with 128 channels and 2 million parameters."""
    return SanaTransformer2DModel(
        in_channels=_NUM_LATENT_CHANNELS,
        out_channels=_NUM_LATENT_CHANNELS,
        num_attention_heads=4,
        attention_head_dim=32,
        num_layers=7,
        num_cross_attention_heads=4,
        cross_attention_head_dim=32,
        cross_attention_dim=128,
        caption_channels=_TEXT_CHANNELS,
        sample_size=16,
        patch_size=2,
        interpolation_scale=1,
        qk_norm="rms_norm_across_heads",
        guidance_embeds=guidance_embeds,
        # times of 0 … 1, as Sprint's pipeline gives them, so that Sprint can start from these weights
        timestep_scale=1.0 if guidance_embeds else 0.001,
    )


def embed(
    text_encoder: Gemma2Model, token_ids: torch.Tensor, mask: torch.Tensor, has_instruction: bool
) -> torch.Tensor:
    """Return embeddings of captions, (captions, tokens, channels), as `SanaPipeline.encode_prompt` gives them.

    Args:
        text_encoder: reads token ids and mask, (captions, tokens).
        token_ids: without the instruction.
        mask: 1 where there is a token.
        has_instruction: whether the captions follow the instruction, whose own embedding the pipeline drops.
    """
    if not has_instruction:
        return text_encoder(token_ids, attention_mask=mask)[0]
    instruction = torch.full_like(token_ids[:, :1], VOCABULARY_SIZE - 1)
    token_ids = torch.cat([token_ids[:, :1], instruction, token_ids[:, 1:]], 1)
    states = text_encoder(token_ids, attention_mask=torch.cat([mask[:, :1], mask], 1))[0]
    return torch.cat([states[:, :1], states[:, 2:]], 1)


def train_autoencoder(training: Training, vae: AutoencoderDC, examples: Examples) -> None:
    """Train on pictures, and set the scaling factor that makes latents' standard deviation one."""

    def loss() -> torch.Tensor:
        pictures = examples.draw(random_indices(examples, training.batch_size // 2), SIDE)[:, :, 0]
        latents = vae.encoder(pictures.contiguous(memory_format=torch.channels_last))
        drawn = vae.decoder(latents + _LATENT_NOISE * torch.randn_like(latents))
        return reconstruction_loss(drawn, pictures) + 1e-3 * latents.float().square().mean()

    vae.to(memory_format=torch.channels_last)
    fit("autoencoder", [vae], loss, training.autoencoder_steps, 2e-3)
    latents = encode_all(training, vae, examples, min(len(examples), 4096))
    vae.register_to_config(scaling_factor=1 / latents.float().std().item())
    with torch.no_grad():
        pictures = examples.draw(random_indices(examples, min(len(examples), 256)), SIDE)[:, :, 0]
        decibels = peak_signal_to_noise(vae.decoder(vae.encoder(pictures)), pictures)
    print(f"autoencoder: {decibels:.1f} dB", flush=True)


@torch.no_grad()
def encode_all(training: Training, vae: AutoencoderDC, examples: Examples, num_examples: int) -> torch.Tensor:
    """Return latents of the first examples, not scaled, (examples, channels, SIDE / 8, SIDE / 8), bfloat16."""
    parts = []
    with torch.autocast(training.device.type, torch.bfloat16):
        for indices in torch.arange(num_examples, device=training.device).split(1024):
            parts.append(vae.encoder(examples.draw(indices, SIDE)[:, :, 0]).bfloat16())
    return torch.cat(parts)


def train_denoiser(
    training: Training,
    transformer: SanaTransformer2DModel,
    text_encoder: Gemma2Model,
    examples: Examples,
    latents: torch.Tensor,
) -> None:
    """Train by flow matching: predict noise minus latents. Half of the captions follow the instruction."""
    compile_blocks(transformer.transformer_blocks)

    def loss() -> torch.Tensor:
        indices = random_indices(examples, training.batch_size)
        clean = latents[indices].float()
        noise = torch.randn_like(clean)
        sigma = shifted(torch.sigmoid(torch.randn(len(indices), device=clean.device)))
        mask = examples.mask[indices]
        prompts = [
            embed(text_encoder, token_ids, part, has_instruction)
            for token_ids, part, has_instruction in zip(
                examples.token_ids[indices].chunk(2), mask.chunk(2), (True, False), strict=True
            )
        ]
        prediction = transformer(
            add_noise(clean, noise, sigma),
            encoder_hidden_states=torch.cat(prompts),
            encoder_attention_mask=mask,
            timestep=sigma,
            return_dict=False,
        )[0]
        return functional.mse_loss(prediction.float(), noise - clean)

    fit("denoiser", [transformer, text_encoder], loss, training.denoiser_steps, 1.5e-3)


def main() -> None:
    """Train and save."""
    training = parse_arguments(
        "Train checkpoints/sana-shapes.",
        output="checkpoints/sana-shapes",
        autoencoder_steps=3000,
        denoiser_steps=16000,
        batch_size=256,
        num_scenes=120_000,
    )
    tokenizer = make_tokenizer(300)
    vae, text_encoder, transformer = (
        module.to(training.device) for module in (make_autoencoder(), make_text_encoder(), make_transformer())
    )
    examples = make_examples(training, random_picture, 1, tokenizer)
    if training.autoencoder_steps:
        train_autoencoder(training, vae, examples)
        vae.save_pretrained(training.output / "vae")
    else:
        vae = AutoencoderDC.from_pretrained(training.output / "vae").to(training.device)
    latents = encode_all(training, vae, examples, len(examples)) * vae.config.scaling_factor
    train_denoiser(training, transformer, text_encoder, examples, latents)
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT
    )
    pipeline = SanaPipeline(tokenizer, text_encoder, vae, transformer, scheduler)
    pipeline.to(torch.bfloat16).save_pretrained(training.output)


if __name__ == "__main__":
    main()
