"""Frames: the last step from a decoder's output to pixels."""

import torch

from rendermill.models.interface import Rendered

LARGEST_DECODER_BATCH = 8
"""The most items that an image decoder takes at once: more are no faster, and take more memory each than a denoiser."""


def to_uint8(decoded: torch.Tensor) -> Rendered:
    """Convert a decoder's output to frames.

    Rounds as `diffusers.VaeImageProcessor.postprocess` with `output_type="pil"` does.

    Args:
        decoded: (items, 3, frames, height, width) in -1 … 1, of any dtype.
    """
    is_finite = torch.isfinite(decoded).flatten(1).all(dim=1)
    frames = (decoded * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1).float()
    return Rendered((frames * 255).round().to(torch.uint8).contiguous(), is_finite)
