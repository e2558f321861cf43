"""Sana Sprint, text to image and image to image: `diffusers.SanaSprintPipeline` and `SanaSprintImg2ImgPipeline`.

The loops are the stock pipelines' `__call__` (diffusers/pipelines/sana), item for item.
"""

import inspect
from collections.abc import Sequence
from functools import partial

import torch
from diffusers import SanaSprintImg2ImgPipeline

from rendermill.manifests.request import Request
from rendermill.models.families.input_pictures import picture
from rendermill.models.families.sana.text_to_image import Sana, SanaEmbeddings
from rendermill.models.inputs import Media
from rendermill.models.parts.noise import generators, per_item, set_timesteps

_STRENGTH: float = inspect.signature(SanaSprintImg2ImgPipeline.__call__).parameters["strength"].default


class SanaSprint(Sana):
    """`SanaSprintPipeline`: 1–4 steps, guidance embedded in the model, noise between steps."""

    def _encode_prompts(self, requests: Sequence[Request]) -> list[SanaEmbeddings]:
        encoded = self._encode([request.prompt for request in requests], self._text_batches, **self._arguments)
        return [SanaEmbeddings(*tensors) for tensors in encoded]

    @torch.no_grad()
    def denoise(self, requests: Sequence[Request], embeddings: Sequence[SanaEmbeddings]) -> torch.Tensor:
        transformer, scheduler = self._pipeline.transformer, self._pipeline.scheduler
        sigma_data = scheduler.config.sigma_data
        num_inference_steps = requests[0].num_inference_steps
        embeds = torch.cat([item.prompt for item in embeddings])
        mask = torch.cat([item.prompt_mask for item in embeddings])
        guidance = per_item([request.guidance_scale for request in requests], 1, self._device).to(embeds.dtype)
        guidance = guidance * transformer.config.guidance_embeds_scale
        set_timesteps(
            scheduler,
            num_inference_steps,
            device=self._device,
            intermediate_timesteps=1.3 if num_inference_steps == 2 else None,  # the stock pipeline's default
        )
        item_generators = generators(requests)
        latents = self._noise(requests, item_generators) * sigma_data
        latents, timesteps = self._begin(requests[0], embeddings, latents)

        for timestep in timesteps[:-1]:
            predict = partial(self._predict_trigflow, timestep)
            prediction = self._denoiser_batches(predict, latents, embeds, mask, guidance)
            latents, denoised = scheduler.step(
                prediction, timestep, latents, generator=item_generators, return_dict=False
            )
        return denoised / sigma_data

    def _begin(
        self, request: Request, embeddings: Sequence[SanaEmbeddings], noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the latents that denoising begins with, and its timesteps.

        Args:
            request: any of the batch.
            noise: times the deviation of the data.
        """
        return noise, self._pipeline.scheduler.timesteps

    def _predict_trigflow(
        self,
        timestep: torch.Tensor,
        latents: torch.Tensor,
        embeds: torch.Tensor,
        mask: torch.Tensor,
        guidance: torch.Tensor,
    ) -> torch.Tensor:
        """Convert the denoiser's output from flow matching to TrigFlow (https://huggingface.co/papers/2503.09641)."""
        transformer, sigma_data = self._pipeline.transformer, self._pipeline.scheduler.config.sigma_data
        angle = timestep.expand(latents.shape[0])
        time = torch.sin(angle) / (torch.cos(angle) + torch.sin(angle))
        time_4d = time.view(-1, 1, 1, 1)
        scale = torch.sqrt(time_4d**2 + (1 - time_4d) ** 2)
        model_input = latents / sigma_data * scale
        prediction = transformer(
            model_input.to(transformer.dtype),
            encoder_hidden_states=embeds.to(transformer.dtype),
            encoder_attention_mask=mask,
            guidance=guidance,
            timestep=time,
            return_dict=False,
        )[0]
        prediction = (1 - 2 * time_4d) * model_input + (1 - 2 * time_4d + 2 * time_4d**2) * prediction
        return (prediction / scale).float() * sigma_data


class SanaSprintImageToImage(SanaSprint):
    """`SanaSprintImg2ImgPipeline`: begins with a noisy `image`; less `strength` means fewer steps and less noise."""

    _input = "image"

    def _encode_image(self, media: Media, is_guided: bool) -> torch.Tensor:
        """Return latents, (1, channels, height / factor, width / factor), times the deviation of the data."""
        pipeline = self._pipeline
        image = picture(media)
        pixels = pipeline.image_processor.preprocess(image, height=image.height, width=image.width)
        latents: torch.Tensor = pipeline.vae.encode(pixels.to(self._device, pipeline.vae.dtype)).latent
        return latents * pipeline.vae.config.scaling_factor * pipeline.scheduler.config.sigma_data

    def _begin(
        self, request: Request, embeddings: Sequence[SanaEmbeddings], noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        strength = request.further_arguments.get("strength", _STRENGTH)
        timesteps, _ = self._pipeline.get_timesteps(request.num_inference_steps, strength, self._device)
        images = torch.cat([item.image for item in embeddings if item.image is not None])
        return torch.cos(timesteps[:1]) * images + torch.sin(timesteps[:1]) * noise, timesteps
