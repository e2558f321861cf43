"""The interface of model families. Importing this module needs no torch, which comes with a family's own module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rendermill.manifests.request import Request
from rendermill.models.inputs import Inputs
from rendermill.models.settings import Settings

if TYPE_CHECKING:
    import torch

    from rendermill.models.parts.exact_batches import ExactBatches


@dataclass
class Rendered:
    """A batch of rendered items, still on the device, and what rendering them took.

    Attributes:
        frames: uint8, (items, frames, height, width, 3), RGB.
        is_finite: bool, (items,); False where the decoder's output holds NaN or infinity.
        audio: the sound of each item, float32, (channels, samples), -1 … 1; None if the model makes none.
        audio_rate: samples per second of the sound.
        num_slots: the number of items that all calls of the denoiser had room for.
        num_padding: the number of these slots that were filled with copies of another item.
        num_trials: the number of trials of a larger batch size, which took additional time.
        refuted_size: the smallest batch size that may change pixels; None if no such size is known.
    """

    frames: torch.Tensor
    is_finite: torch.Tensor
    audio: Sequence[torch.Tensor] | None = None
    audio_rate: int | None = None
    num_slots: int = 0
    num_padding: int = 0
    num_trials: int = 0
    refuted_size: int | None = None

    def account_for(self, stages: Mapping[str, ExactBatches], denoisers: Sequence[str]) -> Rendered:
        """Take over what the stages of the model did for this batch; returns this object.

        Args:
            stages: as `Model.stages`.
            denoisers: as `Model.denoisers`.
        """
        denoising = [stages[name].work for name in denoisers]
        self.num_slots = sum(work.num_slots for work in denoising)
        self.num_padding = sum(work.num_padding for work in denoising)
        self.num_trials = sum(batches.work.num_trials for batches in stages.values())
        refuted_sizes = [work.refuted_size for work in denoising if work.refuted_size is not None]
        self.refuted_size = min(refuted_sizes, default=None)
        return self


class Model(ABC):
    """A loaded pipeline that renders batches. An item's pixels depend on the item alone, never on its neighbours.

    To render a chunk of requests: `encode` all of them, then `render` one batch after another. If memory runs out,
    `save_memory` and render again. What the model can render, its `models.capabilities.Capabilities` say.
    """

    @abstractmethod
    def __init__(self, folder: Path, settings: Settings, device: str) -> None:
        """Load a checkpoint.

        Args:
            folder: a diffusers folder with safetensors.
            device: `cuda` or `cpu`.
        """

    @property
    @abstractmethod
    def scheduler_name(self) -> str:
        """The name of the scheduler's class, as in records."""

    @abstractmethod
    def encode(self, requests: Sequence[Request], inputs: Sequence[Inputs] = ()) -> list[Any]:
        """Encode the prompts and the inputs of a chunk.

        Args:
            requests: of any shapes.
            inputs: of each request, by the name of the pipeline's argument; empty if no request has any.

        Returns:
            For each request its embeddings, which `render` takes.
        """

    def count_cut_tokens(self, requests: Sequence[Request]) -> Sequence[int | None]:
        """Return for each request the number of tokens of its prompts that `encode` cuts off; None: unknown."""
        return [0] * len(requests)

    @abstractmethod
    def denoise(self, requests: Sequence[Request], embeddings: Sequence[Any]) -> torch.Tensor:
        """Denoise a batch: the first step of `render`.

        Args:
            requests: of one shape (`Request.shape`).
            embeddings: of these requests, from `encode`.

        Returns:
            Latents, float32, (items, …).
        """

    @abstractmethod
    def decode(self, latents: torch.Tensor) -> Rendered:
        """Decode latents to frames: the second step of `render`.

        Args:
            latents: from `denoise`.
        """

    def render(self, requests: Sequence[Request], embeddings: Sequence[Any]) -> Rendered:
        """Render a batch: denoise it, decode it, and count the work of the stages.

        Args:
            requests: of one shape (`Request.shape`).
            embeddings: of these requests, from `encode`.

        Raises:
            torch.OutOfMemoryError: the batch does not fit into the device's memory.
        """
        stages = self.stages
        for batches in stages.values():
            batches.begin_work()
        return self.decode(self.denoise(requests, embeddings)).account_for(stages, self.denoisers)

    def rehearse(self, request: Request, embeddings: Any) -> None:
        """Render an item alone, eagerly and without padding, and drop the result, to measure the memory it takes."""
        import torch

        with ExitStack() as rehearsal:
            rehearsal.enter_context(torch.compiler.set_stance("force_eager"))
            for batches in self.stages.values():
                rehearsal.enter_context(batches.unpadded())
            self.render([request], [embeddings])

    @property
    @abstractmethod
    def stages(self) -> Mapping[str, ExactBatches]:
        """The batch sizes of each stage, by the stage's name in words."""

    @property
    def denoisers(self) -> Sequence[str]:
        """The names of the stages for which the batch size is chosen."""
        return ("denoiser",)

    @abstractmethod
    def save_memory(self) -> str | None:
        """Use less memory at the cost of speed and equal bits, if the settings allow it; each call takes one more step.

        Returns:
            What was done, in words; None if nothing is left to do.
        """
