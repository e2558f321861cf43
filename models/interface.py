"""The interface of a model family. Import of this module costs nothing: torch comes with the family's own module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rendermill.manifests.request import Request
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
        num_slots: the number of items that all calls of the denoiser had room for.
        num_padding: the number of these slots that were filled with copies of another item.
        num_trials: the number of trials of a larger batch size, which took additional time.
        refuted_size: the smallest batch size that may change pixels; None if no such size is known.
    """

    frames: torch.Tensor
    is_finite: torch.Tensor
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
    """A loaded pipeline that draws batches. An item's result depends on the item alone, never on its neighbours."""

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
        """The class of the scheduler."""

    @abstractmethod
    def encode(self, requests: Sequence[Request]) -> list[Any]:
        """Encode the prompts of a chunk in one go.

        Returns:
            For each request what `render` wants back for it.
        """

    def count_cut_tokens(self, requests: Sequence[Request]) -> list[int]:
        """For each request the number of tokens of its prompts that `encode` leaves out, as they are too many."""
        return [0] * len(requests)

    @abstractmethod
    def denoise(self, requests: Sequence[Request], embeddings: Sequence[Any]) -> torch.Tensor:
        """Draw the latents of requests of one shape (`Request.shape`).

        Args:
            embeddings: of these requests, from `encode`.

        Returns:
            Float32, (items, …).
        """

    @abstractmethod
    def decode(self, latents: torch.Tensor) -> Rendered:
        """Turn latents into frames."""

    def render(self, requests: Sequence[Request], embeddings: Sequence[Any]) -> Rendered:
        """Denoise and decode a batch, and account for the work of its stages."""
        stages = self.stages
        for batches in stages.values():
            batches.begin_work()
        return self.decode(self.denoise(requests, embeddings)).account_for(stages, self.denoisers)

    def rehearse(self, request: Request, embeddings: Any) -> None:
        """Draw an item alone, eagerly and unpadded, and drop it: what it takes of memory is known then."""
        import torch

        with ExitStack() as rehearsal:
            rehearsal.enter_context(torch.compiler.set_stance("force_eager"))
            for batches in self.stages.values():
                rehearsal.enter_context(batches.unpadded())
            self.render([request], [embeddings])

    @property
    @abstractmethod
    def stages(self) -> Mapping[str, ExactBatches]:
        """The sizes at which each stage is called, by the stage's name in words."""

    @property
    def denoisers(self) -> Sequence[str]:
        """The names of the stages that the batch size is chosen for."""
        return ("denoiser",)

    @abstractmethod
    def save_memory(self) -> str | None:
        """Give up some speed, and bits, for memory, as far as the settings allow; each call goes one step further.

        Returns:
            What was done, in words; None where nothing is left to do.
        """
