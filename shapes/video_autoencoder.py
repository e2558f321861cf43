"""`AutoencoderKLWan` on whole clips at once.

The stock model goes through a clip four frames at a time and remembers what its causal convolutions saw
(diffusers/models/autoencoders/autoencoder_kl_wan.py), which keeps memory small and a GPU idle. These functions compute
the same in one pass over all frames.
"""

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify, unpatchify


def encode(vae: AutoencoderKLWan, clips: torch.Tensor) -> torch.Tensor:
    """Return means and log variances, (clips, 2 × channels, latent frames, height / 8, width / 8).

    Args:
        vae: with residual blocks, as Wan 2.2's (`is_residual`).
        clips: (clips, 3, frames, height, width), -1 … 1; frames are a multiple of four, plus one.
    """
    encoder = vae.encoder
    hidden = encoder.conv_in(patchify(clips, vae.config.patch_size))
    for block in encoder.down_blocks:
        shortcut = block.avg_shortcut(hidden.contiguous())
        for layer in block.resnets:
            hidden = layer(hidden)
        if block.downsampler is not None:
            hidden = _resample(block.downsampler, hidden)
        hidden = hidden + shortcut
    hidden = encoder.mid_block(hidden)
    return vae.quant_conv(encoder.conv_out(encoder.nonlinearity(encoder.norm_out(hidden))))


def decode(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """Return clips, (clips, 3, frames, height, width), about -1 … 1, from latents as the encoder's means."""
    decoder = vae.decoder
    hidden = decoder.mid_block(decoder.conv_in(vae.post_quant_conv(latents)))
    for block in decoder.up_blocks:
        entered = hidden
        for layer in block.resnets:
            hidden = layer(hidden)
        if block.upsampler is not None:
            hidden = _resample(block.upsampler, hidden) + block.avg_shortcut(entered, first_chunk=True)
    hidden = decoder.conv_out(decoder.nonlinearity(decoder.norm_out(hidden)))
    return unpatchify(hidden, vae.config.patch_size)


def _resample(layer: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """A `WanResample`: in time, the first frame stands alone; the others come in pairs."""
    first, rest = hidden[:, :, :1], hidden[:, :, 1:]
    if layer.mode == "upsample3d" and rest.shape[2]:
        pairs = layer.time_conv(rest).unflatten(1, (2, -1))  # (clips, 2, channels, frames, …)
        rest = pairs.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)
        hidden = torch.cat([first, rest], 2)
    num_frames = hidden.shape[2]
    hidden = layer.resample(hidden.transpose(1, 2).flatten(0, 1)).unflatten(0, (-1, num_frames)).transpose(1, 2)
    if layer.mode == "downsample3d" and num_frames > 1:
        hidden = torch.cat([hidden[:, :, :1], layer.time_conv(hidden)], 2)
    return hidden
