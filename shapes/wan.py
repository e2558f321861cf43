"""Trains checkpoints/wan-shapes: `python -m shapes.wan`.

First the autoencoder: single frames, then short clips, then whole ones. Then both experts and the text encoder
together, each expert on the noise levels that are its own, as in Wan 2.2 (https://github.com/Wan-Video/Wan2.2).
"""

import math
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch.nn import functional
from transformers import UMT5Config, UMT5EncoderModel

from shapes import video_autoencoder
from shapes.scenes import random_clip
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

SIDE, NUM_FRAMES = 64, 17
BOUNDARY_RATIO = 0.55
_BOUNDARY_TIME = BOUNDARY_RATIO / (FLOW_SHIFT - (FLOW_SHIFT - 1) * BOUNDARY_RATIO)
"""The time whose shifted noise level is the boundary."""
_NUM_LATENT_CHANNELS = 8
_TEXT_CHANNELS = 96
_MAX_SEQUENCE_LENGTH = 512
"""The length to which `WanPipeline` pads prompts, with zeros that the experts see."""
_CURRICULUM = ((1, 4, 0.25), (5, 2, 0.15), (NUM_FRAMES, 1, 0.6))
"""The frames of a clip, how many times the whole clips' batch, and share of the autoencoder's steps."""


def make_autoencoder() -> AutoencoderKLWan:
    """Make an autoencoder, 8× smaller in space and 4× in time, with 8 channels.

    Its blocks are those of Wan 2.2's 5B model, which learn fast.
    """
    vae = AutoencoderKLWan(
        base_dim=16,
        decoder_base_dim=24,
        z_dim=_NUM_LATENT_CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * _NUM_LATENT_CHANNELS,
        latents_std=[1.0] * _NUM_LATENT_CHANNELS,
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
    )
    # little noise at first, or nothing gets through
    with torch.no_grad():
        vae.quant_conv.bias[_NUM_LATENT_CHANNELS:] = -5.0
    return vae


def make_text_encoder() -> UMT5EncoderModel:
    """Make a text encoder of three layers and 0.3 million parameters."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=VOCABULARY_SIZE,
            d_model=_TEXT_CHANNELS,
            d_kv=32,
            d_ff=160,
            num_layers=3,
            num_heads=3,
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=2,
        )
    )


def make_expert() -> WanTransformer3DModel:
    """Make an expert of four layers with 128 channels and 1.1 million parameters."""
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=_NUM_LATENT_CHANNELS,
        out_channels=_NUM_LATENT_CHANNELS,
        text_dim=_TEXT_CHANNELS,
        ffn_dim=384,
        num_layers=4,
    )


def train_autoencoder(training: Training, vae: AutoencoderKLWan, examples: Examples) -> None:
    """Train on single frames, short clips and whole clips, and set the latents' mean and standard deviation."""
    for num_frames, num_clips, share in _CURRICULUM:

        def loss(num_frames: int = num_frames, num_clips: int = num_clips) -> torch.Tensor:
            indices = random_indices(examples, max(1, training.batch_size // 8) * num_clips)
            clips = _excerpts(examples, indices, num_frames)
            mean, log_variance = video_autoencoder.encode(vae, clips).float().chunk(2, 1)
            log_variance = log_variance.clamp(-30, 20)
            latents = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
            divergence = (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2
            return reconstruction_loss(video_autoencoder.decode(vae, latents), clips) + 3e-5 * divergence

        num_steps = max(2, int(training.autoencoder_steps * share))
        fit(f"autoencoder, {num_frames} frames", [vae], loss, num_steps, 1e-3)
    latents = encode_all(training, vae, examples, min(len(examples), 2048)).float()
    vae.register_to_config(
        latents_mean=latents.mean((0, 2, 3, 4)).tolist(), latents_std=latents.std((0, 2, 3, 4)).tolist()
    )
    with torch.no_grad():
        clips = examples.draw(random_indices(examples, min(len(examples), 64)), SIDE)
        decibels = peak_signal_to_noise(vae.decode(vae.encode(clips).latent_dist.mean).sample, clips)
    print(f"autoencoder: {decibels:.1f} dB", flush=True)


def _excerpts(examples: Examples, indices: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Return consecutive frames of clips from a random one on, the same for all clips of the batch."""
    start = torch.randint(NUM_FRAMES - num_frames + 1, (), device=indices.device)
    return examples.draw(indices, SIDE, start + torch.arange(num_frames, device=indices.device))


@torch.no_grad()
def encode_all(
    training: Training, vae: AutoencoderKLWan, examples: Examples, num_examples: int, num_kept: int = NUM_FRAMES
) -> torch.Tensor:
    """Return latents of the first examples, not normalised, (examples, channels, 5, SIDE / 8, SIDE / 8), bfloat16.

    Args:
        num_kept: the number of a clip's first frames that are kept; the others become grey.
    """
    parts = []
    with torch.autocast(training.device.type, torch.bfloat16):
        for indices in torch.arange(num_examples, device=training.device).split(256):
            clips = examples.draw(indices, SIDE)
            clips[:, :, num_kept:] = 0
            parts.append(video_autoencoder.encode(vae, clips).chunk(2, 1)[0].bfloat16())
    return torch.cat(parts)


def normalise(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """Return latents with the mean 0 and the deviation 1 that experts see, bfloat16."""
    mean, deviation = (
        torch.tensor(values, device=latents.device).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return ((latents - mean) / deviation).bfloat16()


class ShortPromptProcessor(WanAttnProcessor):
    """Cross-attention to prompts of which one token stands for all the zeros that `WanPipeline` pads prompts with.

    The expert sees every one of those zeros. They are all alike, so that one of them, with the logarithm of their
    number added to its attention score, makes the same output.
    """

    def __init__(self, num_zeros: int) -> None:
        super().__init__()
        self._score = math.log(num_zeros)

    def __call__(self, attn: Any, hidden_states: torch.Tensor, *prompts: torch.Tensor) -> torch.Tensor:
        """Attend as `WanAttnProcessor` does, with the scores added."""
        scores = functional.pad(hidden_states.new_zeros(1, 1, 1, prompts[0].shape[1] - 1), (0, 1), value=self._score)
        return super().__call__(attn, hidden_states, prompts[0], scores, None)


def train_experts(
    training: Training,
    experts: list[WanTransformer3DModel],
    text_encoder: UMT5EncoderModel,
    examples: Examples,
    latents: torch.Tensor,
    conditions: torch.Tensor | None = None,
) -> None:
    """Train by flow matching: the high-noise expert above the boundary, the low-noise expert below it.

    Args:
        latents: of each example, normalised.
        conditions: further channels of each example, which the experts see without noise.
    """
    num_tokens = examples.mask.shape[1]
    for expert in experts:
        for block in expert.blocks:
            block.attn2.set_processor(ShortPromptProcessor(_MAX_SEQUENCE_LENGTH - num_tokens))
        compile_blocks(expert.blocks)

    def read(token_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = text_encoder(token_ids, attention_mask=mask).last_hidden_state * mask[..., None]
        return functional.pad(states, (0, 0, 0, 1))

    times = [(_BOUNDARY_TIME, 1.0), (0.0, _BOUNDARY_TIME)]

    def loss() -> torch.Tensor:
        indices = random_indices(examples, 2 * training.batch_size)
        prompts = read(examples.token_ids[indices], examples.mask[indices])
        total = torch.zeros((), device=training.device)
        halves = zip(indices.chunk(2), prompts.chunk(2), strict=True)
        for expert, (low, high), (chosen, states) in zip(experts, times, halves, strict=True):
            clean = latents[chosen].float()
            noise = torch.randn_like(clean)
            sigma = shifted(torch.empty(len(chosen), device=clean.device).uniform_(low, high))
            seen = add_noise(clean, noise, sigma)
            if conditions is not None:
                seen = torch.cat([seen, conditions[chosen].float()], 1)
            prediction = expert(
                hidden_states=seen,
                timestep=sigma * 1000,
                encoder_hidden_states=states,
                return_dict=False,
            )[0]
            total = total + functional.mse_loss(prediction.float(), noise - clean)
        return total

    fit("experts", [*experts, text_encoder], loss, training.denoiser_steps, 1.5e-3)


def main() -> None:
    """Train and save."""
    training = parse_arguments(
        "Train checkpoints/wan-shapes.",
        output="checkpoints/wan-shapes",
        autoencoder_steps=8000,
        denoiser_steps=27000,
        batch_size=256,
        num_scenes=40_000,
    )
    tokenizer = make_tokenizer(_MAX_SEQUENCE_LENGTH)
    modules = make_autoencoder(), make_text_encoder(), make_expert(), make_expert()
    vae, text_encoder, high_noise, low_noise = (module.to(training.device) for module in modules)
    examples = make_examples(training, random_clip, NUM_FRAMES, tokenizer)
    if training.autoencoder_steps:
        train_autoencoder(training, vae, examples)
        vae.save_pretrained(training.output / "vae")
    else:
        vae = AutoencoderKLWan.from_pretrained(training.output / "vae").to(training.device)
    latents = normalise(vae, encode_all(training, vae, examples, len(examples)))
    train_experts(training, [high_noise, low_noise], text_encoder, examples, latents)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT)
    pipeline = WanPipeline(
        tokenizer,
        text_encoder,
        vae,
        scheduler,
        transformer=high_noise,
        transformer_2=low_noise,
        boundary_ratio=BOUNDARY_RATIO,
    )
    pipeline.to(torch.bfloat16).save_pretrained(training.output)


if __name__ == "__main__":
    main()
