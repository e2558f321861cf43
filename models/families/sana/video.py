"""SANA-Video, text and image to video: `diffusers.SanaVideoPipeline` and `SanaImageToVideoPipeline`.

The loops are the stock pipelines' `__call__` (diffusers/pipelines/sana_video), item for item, without resolution
binning.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.pipelines.sana_video.pipeline_sana_video_i2v import retrieve_latents

from rendermill.manifests.request import Request
from rendermill.models.families.input_pictures import picture
from rendermill.models.families.sana.text_to_image import Sana, SanaEmbeddings
from rendermill.models.families.video_latents import denormalized, normalized
from rendermill.models.inputs import Media
from rendermill.models.interface import Rendered
from rendermill.models.parts.frames import to_uint8
from rendermill.models.parts.noise import noise


class SanaVideo(Sana):
    """`SanaVideoPipeline`: Sana's loop with latents of several frames."""

    _compiles_decoder = False

    def _noise(self, requests: Sequence[Request], item_generators: list[torch.Generator]) -> torch.Tensor:
        pipeline, request = self._pipeline, requests[0]
        shape = (
            pipeline.transformer.config.in_channels,
            (request.num_frames - 1) // pipeline.vae_scale_factor_temporal + 1,
            request.height // pipeline.vae_scale_factor_spatial,
            request.width // pipeline.vae_scale_factor_spatial,
        )
        return noise(shape, item_generators, self._device)

    @property
    def _timestep_scale(self) -> float:
        return 1

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> Rendered:
        vae = self._pipeline.vae

        def decode(batch: torch.Tensor) -> torch.Tensor:
            return vae.decode(batch, return_dict=False)[0]

        return to_uint8(self._decoder_batches(decode, denormalized(vae, latents.to(vae.dtype))))


class SanaImageToVideo(SanaVideo):
    """`SanaImageToVideoPipeline`: the first latent frame is that of `image`, and is never denoised."""

    _input = "image"

    def _encode_image(self, media: Media, is_guided: bool) -> torch.Tensor:
        """Return latents, float32, (1, channels, 1, height / factor, width / factor)."""
        pipeline, image = self._pipeline, picture(media)
        pixels = pipeline.video_processor.preprocess(image, height=image.height, width=image.width)
        frame = pixels.to(self._device, torch.float32).unsqueeze(2).to(pipeline.vae.dtype)
        latents = retrieve_latents(pipeline.vae.encode(frame), sample_mode="argmax")
        return normalized(pipeline.vae, latents).float()

    def _beginning(self, noise: torch.Tensor, embeddings: Sequence[SanaEmbeddings]) -> torch.Tensor:
        images = [item.image for item in embeddings if item.image is not None]
        return torch.cat([torch.cat(images), noise[:, :, 1:]], dim=2)

    def _denoised(
        self,
        request: Request,
        timesteps: torch.Tensor,
        latents: torch.Tensor,
        embeds: torch.Tensor,
        mask: torch.Tensor,
        *images: torch.Tensor,
    ) -> torch.Tensor:
        frames, height, width = self._pipeline.transformer.config.patch_size
        # a timestep for each token, which is 0 in the first frame
        is_denoised = torch.ones_like(latents[:, :1, ::frames, ::height, ::width])
        is_denoised[:, :, 0] = 0
        timesteps = timesteps.view(-1, 1, 1, 1, 1) * is_denoised
        return super()._denoised(request, timesteps, latents, embeds, mask)

    def _step(
        self, prediction: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor, arguments: dict[str, Any]
    ) -> torch.Tensor:
        others = super()._step(prediction[:, :, 1:], timestep, latents[:, :, 1:], arguments)
        return torch.cat([latents[:, :, :1], others], dim=2)
