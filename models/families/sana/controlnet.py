"""Sana with a ControlNet: `diffusers.SanaControlNetPipeline`.

The loop is the stock pipeline's `__call__` (diffusers/pipelines/sana/pipeline_sana_controlnet.py), item for item.
"""

from pathlib import Path

import torch

from rendermill.manifests.request import Request
from rendermill.models.families.input_pictures import picture
from rendermill.models.families.sana.text_to_image import Sana, SanaEmbeddings
from rendermill.models.inputs import Media
from rendermill.models.parts.compilation import prepare_blocks
from rendermill.models.settings import Settings


class SanaControlNet(Sana):
    """`SanaControlNetPipeline`: a ControlNet adds to the denoiser's blocks what it makes of `control_image`."""

    _input = "control_image"

    def __init__(self, folder: Path, settings: Settings, device: str) -> None:
        super().__init__(folder, settings, device)
        prepare_blocks(self._pipeline.controlnet.transformer_blocks, settings)

    def _encode_image(self, media: Media, is_guided: bool) -> torch.Tensor:
        """Return latents, (1, halves, channels, height / factor, width / factor).

        With guidance both halves are encoded together, as in the stock pipeline, although they are the same picture.
        """
        pipeline, image = self._pipeline, picture(media)
        pixels = pipeline.image_processor.preprocess(image, height=image.height, width=image.width)
        # contiguous, as the stock pipeline repeats it: convolutions sum in another order in another memory layout
        pixels = pixels.contiguous().to(self._device, pipeline.vae.dtype)
        halves = torch.cat([pixels] * (1 + is_guided))
        latents: torch.Tensor = pipeline.vae.encode(halves).latent * pipeline.vae.config.scaling_factor
        return latents[None]

    def _stacked(self, item: SanaEmbeddings, has_guidance: bool) -> tuple[torch.Tensor, ...]:
        assert item.image is not None
        return *super()._stacked(item, has_guidance), item.image

    def _denoised(
        self,
        request: Request,
        timesteps: torch.Tensor,
        latents: torch.Tensor,
        embeds: torch.Tensor,
        mask: torch.Tensor,
        *images: torch.Tensor,
    ) -> torch.Tensor:
        transformer, controlnet = self._pipeline.transformer, self._pipeline.controlnet
        (image,) = images
        added = controlnet(
            latents.to(controlnet.dtype),
            encoder_hidden_states=embeds.to(controlnet.dtype),
            encoder_attention_mask=mask,
            timestep=timesteps,
            return_dict=False,
            controlnet_cond=image,
            conditioning_scale=request.further_arguments.get("controlnet_conditioning_scale", 1.0),
        )[0]
        prediction: torch.Tensor = transformer(
            latents.to(transformer.dtype),
            encoder_hidden_states=embeds.to(transformer.dtype),
            encoder_attention_mask=mask,
            timestep=timesteps,
            return_dict=False,
            controlnet_block_samples=tuple(block.to(transformer.dtype) for block in added),
        )[0]
        return prediction
