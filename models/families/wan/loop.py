"""Wan 2.1 and 2.2 with one expert or a high-noise and a low-noise one: the loop that all of its pipelines share.

The loop is the stock pipelines' `__call__` (diffusers/pipelines/wan/pipeline_wan*.py), item for item.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rendermill.manifests.request import Request
from rendermill.models.families.input_pictures import encode_each
from rendermill.models.families.video_latents import denormalized
from rendermill.models.families.wan.conditions import Condition, Size, joined
from rendermill.models.families.wan.prediction import Expert, Prediction
from rendermill.models.families.wan.text import count_cut_tokens, encode_texts
from rendermill.models.inputs import Inputs
from rendermill.models.interface import Model, Rendered
from rendermill.models.parts.compilation import prepare_blocks
from rendermill.models.parts.exact_batches import ExactBatches
from rendermill.models.parts.frames import to_uint8
from rendermill.models.parts.loading import load_pipeline, save_memory
from rendermill.models.parts.noise import generators, noise, per_item, set_timesteps, step_arguments
from rendermill.models.parts.prompts import text_batches
from rendermill.models.parts.step_cache import Forecast
from rendermill.models.settings import Settings


class Embeddings(NamedTuple):
    """One request's encoded prompt and negative prompt, (1, tokens, channels) each, and inputs."""

    prompt: torch.Tensor
    negative: torch.Tensor
    condition: Condition


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
        stock = inspect.signature(type(self._pipeline).__call__).parameters["max_sequence_length"].default
        self._max_sequence_length = settings.pipeline_arguments.get("max_sequence_length", stock)
        self._experts = [self._pipeline.transformer, getattr(self._pipeline, "transformer_2", None)]
        for expert in filter(None, self._experts):
            if settings.speedups.attention_backend is not None:
                expert.set_attention_backend(settings.speedups.attention_backend)
            prepare_blocks(expert.blocks, settings)
        self._any_expert: Any = self._experts[0] or self._experts[1]

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
    def encode(self, requests: Sequence[Request], inputs: Sequence[Inputs] = ()) -> list[Embeddings]:
        prompts = [request.prompt for request in requests]
        negative_prompts = [request.negative_prompt or "" for request in requests]
        encoded = encode_texts(
            self._pipeline, self._text_batches, prompts + negative_prompts, self._max_sequence_length
        )
        sizes = [Size(request.width, request.height, request.num_frames) for request in requests]
        conditions = encode_each(self.condition, inputs or [{}] * len(requests), sizes)
        return [
            Embeddings(*item) for item in zip(encoded[: len(prompts)], encoded[len(prompts) :], conditions, strict=True)
        ]

    def condition(self, inputs: Inputs, size: Size) -> Condition:
        """Encode the inputs of an item.

        Raises:
            ValueError: they do not suit; the message begins with the input's name.
        """
        return Condition()

    def count_cut_tokens(self, requests: Sequence[Request]) -> list[int]:
        return count_cut_tokens(self._pipeline.tokenizer, requests, self._max_sequence_length)

    @torch.no_grad()
    def denoise(self, requests: Sequence[Request], embeddings: Sequence[Embeddings]) -> torch.Tensor:
        # (items, channels, latent frames, height / factor, width / factor), float32
        scheduler, speedups = self._pipeline.scheduler, self._settings.speedups
        condition = joined([item.condition for item in embeddings])
        timesteps = self.begin(requests[0])
        item_generators = generators(requests)
        arguments = step_arguments(scheduler, generator=item_generators)
        latents = self.first_latents(requests, condition, timesteps, item_generators)
        predict = self._prediction(requests, embeddings, condition)
        experts = self._experts_with_guidance(requests)
        forecast = Forecast(speedups.cache_interval, len(timesteps))
        network = None
        for step, (timestep, expert) in enumerate(self._each_step(timesteps, experts)):
            if expert.network is not network:
                forecast.forget()
                network = expert.network
            is_guided = requests[0].is_guided and speedups.is_guided(step, len(timesteps))
            prediction = forecast(step, partial(predict, expert, timestep, latents, is_guided))
            latents = scheduler.step(prediction, timestep, latents, **arguments, return_dict=False)[0]
        return condition.with_first_frame(latents)

    def begin(self, request: Request) -> torch.Tensor:
        """Set the scheduler to the first step of a batch, and return the timesteps."""
        scheduler = self._pipeline.scheduler
        set_timesteps(scheduler, request.num_inference_steps, device=self._device)
        timesteps: torch.Tensor = scheduler.timesteps
        return timesteps

    def first_latents(
        self,
        requests: Sequence[Request],
        condition: Condition,
        timesteps: torch.Tensor,
        item_generators: list[torch.Generator],
    ) -> torch.Tensor:
        """Return the latents of the first step, float32: noise, and what the items' inputs add to it."""
        return noise(self.latent_shape(requests[0]), item_generators, self._device)

    def latent_shape(self, request: Request) -> tuple[int, ...]:
        """Return the shape of one item's latents: (channels, latent frames, height, width)."""
        pipeline = self._pipeline
        return (
            pipeline.vae.config.z_dim,
            (request.num_frames - 1) // pipeline.vae_scale_factor_temporal + 1,
            request.height // pipeline.vae_scale_factor_spatial,
            request.width // pipeline.vae_scale_factor_spatial,
        )

    def constants(self, request: Request) -> Mapping[str, Any]:
        """Return the further arguments of the experts that all items of a batch share."""
        return {}

    def _prediction(
        self, requests: Sequence[Request], embeddings: Sequence[Embeddings], condition: Condition
    ) -> Prediction:
        dtype = self._any_expert.dtype
        prompts = torch.cat([item.prompt for item in embeddings]).to(dtype)
        negative_prompts = torch.cat([item.negative for item in embeddings]).to(dtype)
        has_token_times = self._pipeline.config.get("expand_timesteps", False)
        return Prediction((prompts, negative_prompts), condition, has_token_times, self.constants(requests[0]))

    def _experts_with_guidance(self, requests: Sequence[Request]) -> list[Expert]:
        high = [request.guidance_scale for request in requests]
        low = [
            request.guidance_scale if request.guidance_scale_2 is None else request.guidance_scale_2
            for request in requests
        ]
        return [
            Expert(network, batches, per_item(scales, 5, self._device))
            for network, batches, scales in zip(self._experts, self._expert_batches, (high, low), strict=True)
        ]

    def _each_step(self, timesteps: torch.Tensor, experts: Sequence[Expert]) -> Iterator[tuple[torch.Tensor, Expert]]:
        """Yield each timestep with the expert whose noise level it is."""
        boundary_ratio = self._pipeline.config.get("boundary_ratio")
        num_train_timesteps = self._pipeline.scheduler.config.num_train_timesteps
        for timestep in timesteps:
            is_high_noise = boundary_ratio is None or timestep >= boundary_ratio * num_train_timesteps
            yield timestep, experts[0] if is_high_noise else experts[1]

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> Rendered:
        vae = self._pipeline.vae

        def decode(batch: torch.Tensor) -> torch.Tensor:
            return vae.decode(batch, return_dict=False)[0]

        return to_uint8(self._decoder_batches(decode, denormalized(vae, latents.to(vae.dtype))))
