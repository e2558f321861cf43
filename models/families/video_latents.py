"""Latents of video VAEs. What denoisers see has mean 0 and deviation 1 in each channel, by the VAE's statistics."""

from typing import Any

import torch
from diffusers import AutoencoderKLLTX2Video, AutoencoderKLWan


def normalized(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Return what a denoiser sees of latents that a VAE encoded, (items, channels, latent frames, height, width)."""
    mean, inverse_deviation = _statistics(vae, latents)
    return (latents - mean) * inverse_deviation


def denormalized(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Return what a VAE decodes of a denoiser's latents, (items, channels, latent frames, height, width)."""
    mean, inverse_deviation = _statistics(vae, latents)
    # stock divides by the inverse of the deviation, rounded to the latents' dtype
    return latents / inverse_deviation + mean


def _statistics(vae: Any, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the inverse deviation of a VAE's latents, (1, channels, 1, 1, 1), in the latents' dtype."""
    kind = type(vae)
    mean, deviation = torch.zeros(latents.shape[1]), torch.ones(latents.shape[1])
    if issubclass(kind, AutoencoderKLLTX2Video):
        mean, deviation = vae.latents_mean, vae.latents_std
    elif issubclass(kind, AutoencoderKLWan):
        mean, deviation = torch.tensor(vae.config["latents_mean"]), torch.tensor(vae.config["latents_std"])
    return mean.view(1, -1, 1, 1, 1).to(latents), 1.0 / deviation.view(1, -1, 1, 1, 1).to(latents)
