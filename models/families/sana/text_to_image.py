"""Sana, text to image: `diffusers.SanaPipeline`.

The loop is the stock pipeline's `__call__` (diffusers/pipelines/sana/pipeline_sana.py), item for item: guidance and
noise per item, forward passes of proven sizes in strict mode, no resolution binning.
"""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rendermill.manifests.request import Request
from rendermill.models.families.input_pictures import encode_each
from rendermill.models.inputs import Inputs, Media
from rendermill.models.interface import Model, Rendered
from rendermill.models.parts.compilation import compile_decoder, prepare_blocks
from rendermill.models.parts.exact_batches import ExactBatches
from rendermill.models.parts.frames import LARGEST_DECODER_BATCH, to_uint8
from rendermill.models.parts.loading import load_pipeline, save_memory
from rendermill.models.parts.noise import generators, noise, per_item, set_timesteps, step_arguments
from rendermill.models.parts.prompts import count_tokens_over, effective_negative_prompt, encode_unique, text_batches
from rendermill.models.parts.step_cache import Forecast
from rendermill.models.settings import Settings


class SanaEmbeddings(NamedTuple):
    """What one request is rendered from.

    Attributes:
        prompt: its embeddings, (1, tokens, channels), and `prompt_mask` their attention mask, (1, tokens).
        negative: the same of the negative prompt, for guidance.
        image: the latents of an input; (1, halves, channels, height / factor, width / factor) for a ControlNet, without
            halves for image to image.
    """

    prompt: torch.Tensor
    prompt_mask: torch.Tensor
    negative: torch.Tensor | None = None
    negative_mask: torch.Tensor | None = None
    image: torch.Tensor | None = None


class Sana(Model):
    """`SanaPipeline`: 20 steps, classifier-free guidance with negative prompts."""

    _compiles_decoder = True
    _input: str | None = None
    """The name of the picture that it takes."""

    def __init__(self, folder: Path, settings: Settings, device: str) -> None:
        self._settings = settings
        self._pipeline = load_pipeline(folder, settings, device)
        self._device: torch.device = self._pipeline._execution_device
        self._text_batches, self._negative_text_batches = text_batches(settings), text_batches(settings)
        self._denoiser_batches = ExactBatches(settings.reference_batch)
        self._decoder_batches = ExactBatches(settings.reference_batch, LARGEST_DECODER_BATCH)
        stock = inspect.signature(type(self._pipeline).__call__).parameters
        names = ("max_sequence_length", "complex_human_instruction")
        self._arguments = {name: settings.pipeline_arguments.get(name, stock[name].default) for name in names}
        prepare_blocks(self._pipeline.transformer.transformer_blocks, settings)
        if settings.compile and self._compiles_decoder:
            compile_decoder(self._pipeline.vae.decoder, settings)

    @property
    def scheduler_name(self) -> str:
        return type(self._pipeline.scheduler).__name__

    @property
    def stages(self) -> Mapping[str, ExactBatches]:
        return {
            "text encoder": self._text_batches,
            "text encoder, negative": self._negative_text_batches,
            "denoiser": self._denoiser_batches,
            "VAE decoder": self._decoder_batches,
        }

    def save_memory(self) -> str | None:
        return save_memory(self._pipeline, self._settings)

    @torch.no_grad()
    def encode(self, requests: Sequence[Request], inputs: Sequence[Inputs] = ()) -> list[SanaEmbeddings]:
        encoded = self._encode_prompts(requests)
        if self._input is None:
            return encoded
        guided = [request.is_guided for request in requests]
        images = encode_each(self._encode_image, [own[self._input] for own in inputs], guided)
        return [item._replace(image=image) for item, image in zip(encoded, images, strict=True)]

    def _encode_image(self, media: Media, is_guided: bool) -> torch.Tensor:
        """Return the latents of a picture. Only models with an `_input` have this method."""
        raise NotImplementedError

    def _encode_prompts(self, requests: Sequence[Request]) -> list[SanaEmbeddings]:
        prompts = [request.prompt for request in requests]
        positive = self._encode(prompts, self._text_batches, **self._arguments)
        # the complex human instruction precedes prompts only, as in the stock pipeline
        negative = self._encode(
            [request.negative_prompt or "" for request in requests],
            self._negative_text_batches,
            **self._arguments | {"complex_human_instruction": None},
        )
        return [SanaEmbeddings(*ours, *theirs) for ours, theirs in zip(positive, negative, strict=True)]

    def count_cut_tokens(self, requests: Sequence[Request]) -> list[int]:
        instruction, limit = self._arguments["complex_human_instruction"], self._arguments["max_sequence_length"]
        num_cut = self._count_cut([request.prompt for request in requests], instruction, limit)
        negative_prompts = [effective_negative_prompt(request) for request in requests]
        return [sum(pair) for pair in zip(num_cut, self._count_cut(negative_prompts, None, limit), strict=True)]

    def _count_cut(self, prompts: list[str], instruction: list[str] | None, limit: int) -> list[int]:
        """Count as `_get_gemma_prompt_embeds` cuts: the tokens of an instruction do not count towards the limit."""
        texts, tokenizer = self._pipeline._text_preprocessing(prompts), self._pipeline.tokenizer
        if instruction:
            before = "\n".join(instruction)
            texts = [before + text for text in texts]
            limit += len(tokenizer.encode(before)) - 2
        return count_tokens_over(tokenizer, texts, limit)

    def _encode(self, prompts: list[str], batches: ExactBatches, **arguments: Any) -> list[tuple[torch.Tensor, ...]]:
        pipeline = self._pipeline
        max_length = arguments["max_sequence_length"]
        # https://huggingface.co/papers/2410.10629, section 3.1: the first token, and the last ones, of the prompt
        kept = [0, *range(-max_length + 1, 0)] if arguments["complex_human_instruction"] else slice(None)

        def encode(batch: list[str]) -> tuple[torch.Tensor, ...]:
            embeds, mask = pipeline._get_gemma_prompt_embeds(
                prompt=batch, device=self._device, dtype=pipeline.text_encoder.dtype, **arguments
            )
            return embeds[:, kept], mask[:, kept]

        return encode_unique(encode, batches, prompts)

    @torch.no_grad()
    def denoise(self, requests: Sequence[Request], embeddings: Sequence[SanaEmbeddings]) -> torch.Tensor:
        # (items, channels, height / factor, width / factor), float32; of a video with its latent frames after channels
        transformer, scheduler = self._pipeline.transformer, self._pipeline.scheduler
        has_guidance = requests[0].is_guided
        stacked = [self._stacked(item, has_guidance) for item in embeddings]
        conditions = [torch.cat(column) for column in zip(*stacked, strict=True)]
        # timesteps stay in this process's memory: reading one from a GPU would wait for the batch before
        set_timesteps(scheduler, requests[0].num_inference_steps)
        item_generators = generators(requests)
        latents = self._beginning(self._noise(requests, item_generators), embeddings)
        guidance_scale = per_item([request.guidance_scale for request in requests], latents.ndim, self._device)
        arguments = step_arguments(scheduler, generator=item_generators, eta=0.0)
        speedups, num_steps = self._settings.speedups, len(scheduler.timesteps)
        forecast = Forecast(speedups.cache_interval, num_steps)

        def predict(step: int) -> torch.Tensor:
            halves = slice(None) if has_guidance and speedups.is_guided(step, num_steps) else slice(-1, None)
            one_size = partial(self._predict, requests[0], scheduler.timesteps[step])
            prediction = self._denoiser_batches(one_size, latents, *[condition[:, halves] for condition in conditions])
            if prediction.shape[1] == 1:
                return prediction[:, 0]
            unconditional, conditional = prediction.unbind(1)
            return unconditional + guidance_scale * (conditional - unconditional)

        for step, timestep in enumerate(scheduler.timesteps):
            prediction = forecast(step, partial(predict, step))
            if transformer.config.out_channels // 2 == latents.shape[1]:
                prediction = prediction.chunk(2, dim=1)[0]  # the other half is a learned variance
            latents = self._step(prediction, timestep, latents, arguments)
        return latents

    def _beginning(self, noise: torch.Tensor, embeddings: Sequence[SanaEmbeddings]) -> torch.Tensor:
        """Return the latents that denoising begins with."""
        return noise

    def _step(
        self, prediction: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor, arguments: dict[str, Any]
    ) -> torch.Tensor:
        """Return the latents of the next timestep."""
        following: torch.Tensor
        following, *_ = self._pipeline.scheduler.step(prediction, timestep, latents, **arguments, return_dict=False)
        return following

    def _predict(
        self, request: Request, timestep: torch.Tensor, latents: torch.Tensor, *conditions: torch.Tensor
    ) -> torch.Tensor:
        """Return the denoiser's output, float32, (items, halves, channels, …).

        Args:
            request: any of the batch, for what all have in common.
            conditions: as from `_stacked`, (items, halves, …) each.
        """
        num_halves = conditions[0].shape[1]
        # (halves * items, …), negative prompts first, as in the stock pipeline
        model_input = torch.cat([latents] * num_halves)
        timesteps = torch.full((model_input.shape[0],), timestep.item(), dtype=timestep.dtype, device=self._device)
        in_halves = [condition.transpose(0, 1).flatten(0, 1) for condition in conditions]
        prediction = self._denoised(request, timesteps, model_input, *in_halves)
        return prediction.float().unflatten(0, (num_halves, -1)).transpose(0, 1)

    def _denoised(
        self,
        request: Request,
        timesteps: torch.Tensor,
        latents: torch.Tensor,
        embeds: torch.Tensor,
        mask: torch.Tensor,
        *images: torch.Tensor,
    ) -> torch.Tensor:
        """Return the transformer's output for (halves * items, …)."""
        transformer = self._pipeline.transformer
        prediction: torch.Tensor = transformer(
            latents.to(transformer.dtype),
            encoder_hidden_states=embeds.to(transformer.dtype),
            encoder_attention_mask=mask,
            timestep=timesteps * self._timestep_scale,
            return_dict=False,
        )[0]
        return prediction

    @property
    def _timestep_scale(self) -> float:
        scale: float = self._pipeline.transformer.config.timestep_scale
        return scale

    def _stacked(self, item: SanaEmbeddings, has_guidance: bool) -> tuple[torch.Tensor, ...]:
        """Return embeddings and masks, (1, halves, …): with guidance the negative prompt's half, then the prompt's."""
        if not has_guidance or item.negative is None or item.negative_mask is None:
            return item.prompt[:, None], item.prompt_mask[:, None]
        return torch.stack([item.negative, item.prompt], 1), torch.stack([item.negative_mask, item.prompt_mask], 1)

    def _noise(self, requests: Sequence[Request], item_generators: list[torch.Generator]) -> torch.Tensor:
        factor, channels = self._pipeline.vae_scale_factor, self._pipeline.transformer.config.in_channels
        return noise(
            (channels, requests[0].height // factor, requests[0].width // factor), item_generators, self._device
        )

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> Rendered:
        vae = self._pipeline.vae

        def decode(batch: torch.Tensor) -> torch.Tensor:
            return vae.decode(batch / vae.config.scaling_factor, return_dict=False)[0]

        images = self._decoder_batches(decode, latents.to(vae.dtype))
        return to_uint8(images[:, :, None])
