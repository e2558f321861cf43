"""`WanImageToVideoPipeline`: Wan 2.1 with image embeddings, 2.2 A14B, TI2V-5B, and first and last picture.

The conditions are those of diffusers/pipelines/wan/pipeline_wan_i2v.py, whose own methods encode them.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from rendermill.models.families.input_pictures import pictures
from rendermill.models.families.wan.conditions import Condition, Size
from rendermill.models.families.wan.loop import Wan
from rendermill.models.inputs import Inputs
from rendermill.models.settings import Settings


class WanImageToVideo(Wan):
    """`WanImageToVideoPipeline`: a clip that begins with the `image`, and ends with the `last_image` if it is given."""

    def __init__(self, folder: Path, settings: Settings, device: str) -> None:
        super().__init__(folder, settings, device)
        high_noise = self._experts[0]
        self._has_image_embeds = high_noise is not None and high_noise.config.image_dim is not None

    def condition(self, inputs: Inputs, size: Size) -> Condition:
        if "image" not in inputs:
            raise ValueError("image: this model needs one")
        given = pictures(inputs, "image") + pictures(inputs, "last_image")
        if len(given) > 1 and size.num_frames < 2:
            raise ValueError("last_image: a clip of one frame has no other last one; leave it empty")
        condition = self._encoded(given, size)
        if self._pipeline.config.expand_timesteps:
            return Condition(first_frame=condition)
        if not self._has_image_embeds:
            return Condition(channels=condition)
        embeds = self._pipeline.encode_image(given, self._device).to(self._any_expert.dtype)
        return Condition(channels=condition, image_embeds=embeds[None])

    def _encoded(self, given: Sequence[Image.Image], size: Size) -> torch.Tensor:
        """Return the latents of the first frame, or those of a clip with empty frames behind the mask of the given."""
        pipeline, (width, height) = self._pipeline, (size.width, size.height)
        first, *last = [
            pipeline.video_processor.preprocess(picture, height=height, width=width).to(self._device, torch.float32)
            for picture in given
        ]
        condition: torch.Tensor = pipeline.prepare_latents(
            first,
            1,
            pipeline.vae.config.z_dim,
            height,
            width,
            size.num_frames,
            torch.float32,
            self._device,
            latents=torch.empty(0),  # otherwise it would make noise, which is each item's own
            last_image=last[0] if last else None,
        )[1]
        return condition
