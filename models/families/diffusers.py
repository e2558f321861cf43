"""Any pipeline of diffusers, called as a whole, with one request at a time, so that no item sees another one.

What the pipeline takes, `models.inspection.signatures` reads from its source.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import TypeAdapter

from rendermill.manifests.request import Request
from rendermill.models.families.input_pictures import picture
from rendermill.models.inputs import Inputs, Media
from rendermill.models.inspection.signatures import Signature, signature
from rendermill.models.interface import Model, Rendered
from rendermill.models.parts.compilation import prepare_blocks
from rendermill.models.parts.exact_batches import ExactBatches
from rendermill.models.parts.loading import load_pipeline, save_memory
from rendermill.models.parts.outputs import FiniteWatch, audio_of, frames_of
from rendermill.models.parts.pipeline_state import SchedulerStates, seeded
from rendermill.models.settings import Settings

Conditions = Mapping[str, Any]
"""The inputs of one request as the pipeline takes them: pictures of Pillow, or lists of them, by argument."""

_DENOISERS = ("transformer", "transformer_2", "unet", "prior", "decoder")


class Diffusers(Model):
    """Calls a pipeline as its users do: `prompt`, a generator on the CPU, and pictures of Pillow in and out."""

    def __init__(self, folder: Path, settings: Settings, device: str) -> None:
        self._settings = settings
        self._pipeline = load_pipeline(folder, settings, device)
        self._pipeline.set_progress_bar_config(disable=True)
        known = signature(type(self._pipeline).__name__)
        assert known is not None  # planning found it in the same version of diffusers, and the checkpoint's name is its
        self._signature: Signature = known
        self._schedulers = SchedulerStates(self._pipeline)
        self._finite = FiniteWatch(self._pipeline)
        self._batches = ExactBatches(settings.reference_batch, largest=1)
        for denoiser in self._denoisers():
            if settings.speedups.attention_backend is not None:
                denoiser.set_attention_backend(settings.speedups.attention_backend)
            repeated = denoiser._repeated_blocks or ()  # the names of their classes; some models name none
            blocks = [module for module in denoiser.modules() if type(module).__name__ in repeated]
            prepare_blocks(torch.nn.ModuleList(blocks), settings)

    def _denoisers(self) -> list[Any]:
        components = (getattr(self._pipeline, name, None) for name in _DENOISERS)
        return [component for component in components if hasattr(component, "set_attention_backend")]

    @property
    def scheduler_name(self) -> str:
        return type(self._pipeline.scheduler).__name__ if hasattr(self._pipeline, "scheduler") else "none"

    @property
    def stages(self) -> Mapping[str, ExactBatches]:
        return {"denoiser": self._batches}

    def save_memory(self) -> str | None:
        return save_memory(self._pipeline, self._settings)

    def encode(self, requests: Sequence[Request], inputs: Sequence[Inputs] = ()) -> list[Conditions]:
        if not inputs:
            return [{} for _ in requests]
        return [{name: _as_pictures(media) for name, media in own.items()} for own in inputs]

    def count_cut_tokens(self, requests: Sequence[Request]) -> list[None]:
        return [None] * len(requests)  # each pipeline has rules of its own for what it cuts

    def denoise(self, requests: Sequence[Request], embeddings: Sequence[Conditions]) -> torch.Tensor:
        raise NotImplementedError("the pipeline denoises and decodes in one call: `render`")

    def decode(self, latents: torch.Tensor) -> Rendered:
        raise NotImplementedError("the pipeline denoises and decodes in one call: `render`")

    def render(self, requests: Sequence[Request], embeddings: Sequence[Conditions]) -> Rendered:
        self._batches.begin_work()
        alone = [self._render_alone(*pair) for pair in zip(requests, embeddings, strict=True)]
        self._batches.work.num_slots = len(alone)
        audio = [sound for one in alone for sound in one.audio or ()]
        return Rendered(
            torch.cat([one.frames for one in alone]),
            torch.cat([one.is_finite for one in alone]),
            audio=audio or None,
            audio_rate=alone[0].audio_rate,
        ).account_for(self.stages, self.denoisers)

    @torch.no_grad()
    def _render_alone(self, request: Request, conditions: Conditions) -> Rendered:
        self._schedulers.restore()
        arguments = {**self._arguments(request), **conditions}
        with seeded(request.seed), self._finite:
            output = self._pipeline(**arguments)
        flagged = getattr(output, "nsfw_content_detected", None)
        if flagged and any(flagged):
            raise ValueError("the checkpoint's safety checker replaced the picture by a black one")
        frames = torch.from_numpy(frames_of(output))[None]
        audio, rate = audio_of(output, self._pipeline)
        is_finite = self._finite.was_finite() and (audio is None or bool(audio.isfinite().all()))
        return Rendered(frames, torch.tensor([is_finite]), None if audio is None else [audio], rate)

    def _arguments(self, request: Request) -> dict[str, Any]:
        """Return the arguments of the pipeline's `__call__` that a request asks for."""
        known = self._signature
        given = {**self._settings.pipeline_arguments, **request.further_arguments}
        arguments = {
            # JSON has no tuples, and pipelines add tuples of sizes to each other
            **{name: TypeAdapter(known.further[name] | None).validate_python(value) for name, value in given.items()},
            "generator": torch.Generator("cpu").manual_seed(request.seed),
            "output_type": "pil",
        }
        for field, argument in known.fields.items():
            value = getattr(request, field)
            is_left = value is None or (value == 1 and field == "guidance_scale" and self._default(argument) is None)
            if not is_left:
                is_whole = isinstance(self._default(argument), int) and value == int(value) if field == "fps" else False
                arguments[argument] = int(value) if is_whole else value
        return arguments

    def _default(self, argument: str) -> Any:
        return self._signature.defaults.get(argument)


def _as_pictures(media: Media) -> Image.Image | list[Image.Image]:
    """Return a decoded input as the pipelines of diffusers take it."""
    if media.kind in ("image", "mask"):
        return picture(media)
    return [Image.fromarray(np.ascontiguousarray(frame)) for frame in media.frames]
