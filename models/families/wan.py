"""Wan 2.1 and 2.2, text to video: `diffusers.WanPipeline`, with one expert or a high-noise and a low-noise one.

The loop is the stock pipeline's `__call__` (diffusers/pipelines/wan/pipeline_wan.py), item for item.
"""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import WanPipeline
from diffusers.pipelines.wan.pipeline_wan import prompt_clean

from rendermill.manifests.request import Request
from rendermill.models.inputs import Inputs
from rendermill.models.interface import Model, Rendered
from rendermill.models.parts.compilation import prepare_blocks
from rendermill.models.parts.exact_batches import ExactBatches
from rendermill.models.parts.frames import to_uint8
from rendermill.models.parts.loading import load_pipeline, save_memory
from rendermill.models.parts.noise import generators, noise, per_item, set_timesteps, step_arguments
from rendermill.models.parts.prompts import count_tokens_over, effective_negative_prompt, encode_unique, text_batches
from rendermill.models.parts.step_cache import Forecast
from rendermill.models.settings import Settings


class PromptEmbeddings(NamedTuple):
    """One prompt's and its negative prompt's embeddings, (1, tokens, channels) each."""

    prompt: torch.Tensor
    negative: torch.Tensor


class Wan(Model):
    """`WanPipeline`; the high-noise expert has the timesteps from `boundary_ratio` up, the low-noise one the rest."""

    def __init__(self, folder: Path, settings: Settings, device: str) -> None:
        self._settings = settings
        self._pipeline = load_pipeline(folder, settings, device)
        self._device: torch.device = self._pipeline._execution_device
        self._text_batches = text_batches(settings)
        # many clips share one swap of experts to keep swaps few; they are not meant for one pass
        largest = (settings.reference_batch or 1) if settings.offload == "model" else None
        self._expert_batches = [ExactBatches(settings.reference_batch, largest) for _ in range(2)]
        self._decoder_batches = ExactBatches(settings.reference_batch, largest)
        stock = inspect.signature(WanPipeline.__call__).parameters["max_sequence_length"].default
        self._max_sequence_length = settings.pipeline_arguments.get("max_sequence_length", stock)
        self._experts = [self._pipeline.transformer, self._pipeline.transformer_2]
        for expert in filter(None, self._experts):
            if settings.speedups.attention_backend is not None:
                expert.set_attention_backend(settings.speedups.attention_backend)
            prepare_blocks(expert.blocks, settings)

    @property
    def scheduler_name(self) -> str:
        return type(self._pipeline.scheduler).__name__

    @property
    def stages(self) -> Mapping[str, ExactBatches]:
        return {
            "text encoder": self._text_batches,
            "denoiser": self._expert_batches[0],
            "low-noise denoiser": self._expert_batches[1],
            "VAE decoder": self._decoder_batches,
        }

    @property
    def denoisers(self) -> Sequence[str]:
        return ("denoiser", "low-noise denoiser")

    def save_memory(self) -> str | None:
        return save_memory(self._pipeline, self._settings)

    @torch.no_grad()
    def encode(self, requests: Sequence[Request], inputs: Sequence[Inputs] = ()) -> list[PromptEmbeddings]:
        def encode(batch: list[str]) -> tuple[torch.Tensor, ...]:
            return (
                self._pipeline._get_t5_prompt_embeds(
                    prompt=batch, max_sequence_length=self._max_sequence_length, device=self._device
                ),
            )

        prompts = [request.prompt for request in requests]
        negative_prompts = [request.negative_prompt or "" for request in requests]
        encoded = [embeds for (embeds,) in encode_unique(encode, self._text_batches, prompts + negative_prompts)]
        return [PromptEmbeddings(*pair) for pair in zip(encoded[: len(prompts)], encoded[len(prompts) :], strict=True)]

    def count_cut_tokens(self, requests: Sequence[Request]) -> list[int]:
        prompts = [request.prompt for request in requests]
        negative_prompts = [effective_negative_prompt(request) for request in requests]
        texts = [prompt_clean(text) for text in prompts + negative_prompts]
        num_cut = count_tokens_over(self._pipeline.tokenizer, texts, self._max_sequence_length)
        return [sum(pair) for pair in zip(num_cut[: len(prompts)], num_cut[len(prompts) :], strict=True)]

    @torch.no_grad()
    def denoise(self, requests: Sequence[Request], embeddings: Sequence[PromptEmbeddings]) -> torch.Tensor:
        # (items, channels, latent frames, height / factor, width / factor), float32
        pipeline, scheduler = self._pipeline, self._pipeline.scheduler
        any_expert = self._experts[0] or self._experts[1]
        dtype = any_expert.dtype
        has_guidance = requests[0].is_guided
        high_guidance = per_item([request.guidance_scale for request in requests], 5, self._device)
        low_guidance = per_item(
            [
                request.guidance_scale if request.guidance_scale_2 is None else request.guidance_scale_2
                for request in requests
            ],
            5,
            self._device,
        )
        prompt_embeds = torch.cat([item.prompt for item in embeddings]).to(dtype)
        negative_embeds = torch.cat([item.negative for item in embeddings]).to(dtype)
        set_timesteps(scheduler, requests[0].num_inference_steps, device=self._device)
        item_generators = generators(requests)
        arguments = step_arguments(scheduler, generator=item_generators)
        latents = noise(
            (
                any_expert.config.in_channels,
                (requests[0].num_frames - 1) // pipeline.vae_scale_factor_temporal + 1,
                requests[0].height // pipeline.vae_scale_factor_spatial,
                requests[0].width // pipeline.vae_scale_factor_spatial,
            ),
            item_generators,
            self._device,
        )
        boundary_ratio = pipeline.config.boundary_ratio
        boundary = None if boundary_ratio is None else boundary_ratio * scheduler.config.num_train_timesteps

        speedups, num_steps = self._settings.speedups, len(scheduler.timesteps)
        forecast = Forecast(speedups.cache_interval, num_steps)
        has_changed = False

        def predict(step: int, number: int, guidance_scale: torch.Tensor) -> torch.Tensor:
            batches = self._expert_batches[number]
            one_size = partial(self._predict, self._experts[number], scheduler.timesteps[step])
            model_input = latents.to(dtype)
            prediction = batches(one_size, model_input, prompt_embeds)
            if not has_guidance or not speedups.is_guided(step, num_steps):
                return prediction
            unconditional = batches(one_size, model_input, negative_embeds)
            # as stock: a product of bf16 with a Python number is computed in float32 and rounded once
            difference = (guidance_scale * (prediction - unconditional).float()).to(prediction.dtype)
            return unconditional + difference

        for step, timestep in enumerate(scheduler.timesteps):
            is_high_noise = boundary is None or timestep >= boundary
            if not is_high_noise and not has_changed:
                forecast.forget()
                has_changed = True
            expert = (0, high_guidance) if is_high_noise else (1, low_guidance)
            prediction = forecast(step, partial(predict, step, *expert))
            latents = scheduler.step(prediction, timestep, latents, **arguments, return_dict=False)[0]
        return latents

    def _predict(
        self, expert: torch.nn.Module, timestep: torch.Tensor, latents: torch.Tensor, embeds: torch.Tensor
    ) -> torch.Tensor:
        return expert(
            hidden_states=latents,
            timestep=self._expert_timestep(timestep, latents),
            encoder_hidden_states=embeds,
            return_dict=False,
        )[0]

    def _expert_timestep(self, timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Return a timestep for each item, or for each token with Wan 2.2 TI2V-5B (`expand_timesteps`)."""
        if not self._pipeline.config.expand_timesteps:
            return timestep.expand(latents.shape[0])
        num_tokens = latents[0, 0, :, ::2, ::2].numel()
        return timestep.float().expand(latents.shape[0], num_tokens)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> Rendered:
        vae = self._pipeline.vae
        latents = latents.to(vae.dtype)
        mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1).to(latents)
        # stock divides by the inverse of the deviation, rounded to the latents' dtype
        inverse_deviation = 1.0 / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1).to(latents)
        latents = latents / inverse_deviation + mean

        def decode(batch: torch.Tensor) -> torch.Tensor:
            return vae.decode(batch, return_dict=False)[0]

        return to_uint8(self._decoder_batches(decode, latents))
