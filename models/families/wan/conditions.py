"""What the pictures and videos of a request add to Wan's denoising loop, beside its prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch


class Size(NamedTuple):
    """The size at which inputs are encoded: that of the clip, in pixels and frames."""

    width: int
    height: int
    num_frames: int


@dataclass(frozen=True, eq=False)
class Condition:
    """The encoded inputs of a batch. Every field is None if the model takes no such condition.

    Attributes:
        channels: concatenated to the latents at each step, float32, (items, channels, latent frames, height, width).
        first_frame: latents that replace those of the first frame at each step and at the end, float32,
            (items, channels, 1, height, width).
        image_embeds: of the image encoder, for the expert's cross-attention, (items, pictures, tokens, channels).
        clip: the latents that noise is added to, float32, (items, channels, latent frames, height, width).
        control: what VACE's blocks see, in the expert's dtype, (items, channels, latent frames, height, width); its
            first frames are those of the reference pictures.
    """

    channels: torch.Tensor | None = None
    first_frame: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    clip: torch.Tensor | None = None
    control: torch.Tensor | None = None

    def model_input(self, latents: torch.Tensor) -> torch.Tensor:
        """Return what an expert sees in place of the latents, float32."""
        if self.channels is not None:
            return torch.cat([latents, self.channels], dim=1)
        return self.with_first_frame(latents)

    def with_first_frame(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents with those of the given first frame, if there is one."""
        if self.first_frame is None:
            return latents
        is_rendered = torch.ones_like(latents[:1, :1])
        is_rendered[:, :, 0] = 0
        # as stock, whose products and sum give the same bits as a copy only if the values are finite
        return (1 - is_rendered) * self.first_frame + is_rendered * latents


def joined(conditions: Sequence[Condition]) -> Condition:
    """Return the condition of a batch from those of its items, which have the same fields and shapes."""
    columns = {field.name: [getattr(item, field.name) for item in conditions] for field in fields(Condition)}
    return Condition(**{name: None if values[0] is None else torch.cat(values) for name, values in columns.items()})
