"""The interface of a model family. Import of this module costs nothing: torch comes with the family's own module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch

    from rendermill.models.parts.exact_batches import ExactBatches


class RenderRequest(Protocol):
    """What a model reads of a request; sizes in pixels."""

    @property
    def prompt(self) -> str: ...
    @property
    def negative_prompt(self) -> str | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def num_frames(self) -> int: ...
    @property
    def num_inference_steps(self) -> int: ...
    @property
    def guidance_scale(self) -> float: ...
    @property
    def guidance_scale_2(self) -> float | None: ...


class BadConfig(Exception):
    """A checkpoint's configs do not suit its pipeline; the message names the file and what would be right."""


@dataclass(frozen=True)
class Rules:
    """What a checkpoint can draw.

    Attributes:
        kind: whether it draws images or videos.
        size_multiple: width and height must be multiples of this many pixels.
        frame_multiple: a video has `frame_multiple * k + 1` frames.
        takes_negative_prompt: whether a negative prompt has any effect.
        num_experts: 2 where `guidance_scale_2` steers a second, low-noise expert.
        max_num_inference_steps: the scheduler's number of training steps.
    """

    kind: Literal["image", "video"]
    size_multiple: int
    frame_multiple: int = 1
    takes_negative_prompt: bool = True
    num_experts: int = 1
    max_num_inference_steps: int = 1000

    def problem(
        self,
        *,
        width: int,
        height: int,
        num_frames: int,
        fps: float | None,
        num_inference_steps: int,
        negative_prompt: str | None,
        guidance_scale_2: float | None,
    ) -> str | None:
        """Why this cannot be drawn, in words that say what could be; None if it can."""
        for name, size in (("width", width), ("height", height)):
            if size % self.size_multiple:
                lower = size // self.size_multiple * self.size_multiple
                nearest = f"{lower} or {lower + self.size_multiple}" if lower else f"{self.size_multiple}"
                return f"{name}: {size} is not a multiple of {self.size_multiple}; {nearest} would be"
        if num_inference_steps > self.max_num_inference_steps:
            return f"num_inference_steps: {num_inference_steps} is over the scheduler's {self.max_num_inference_steps}"
        if negative_prompt and not self.takes_negative_prompt:
            return "negative_prompt: this model takes none; leave it empty"
        if guidance_scale_2 is not None and self.num_experts < 2:
            return "guidance_scale_2: this model has no second expert; leave it empty"
        if self.kind == "image":
            if num_frames != 1 or fps is not None:
                return "num_frames, fps: this model draws images; leave them empty"
        else:
            if num_frames % self.frame_multiple != 1 % self.frame_multiple:
                lower = max(num_frames - 1, 0) // self.frame_multiple * self.frame_multiple + 1
                return (
                    f"num_frames: {num_frames} is not {self.frame_multiple}k + 1; "
                    f"{lower} or {lower + self.frame_multiple} would be"
                )
            if fps is None or not 0 < fps <= 1000:
                return f"fps: {fps} is outside 0 … 1000"
        return None


@dataclass(frozen=True)
class Family:
    """A pipeline class of diffusers and how rendermill runs it.

    Attributes:
        implementation: `module:class` of the `Model`, imported where it renders.
        defaults: of the pipeline's own `__call__`; the job file's and the row's come first.
        rules: derives `Rules` from the checkpoint's configs: component name → its JSON, and `model_index.json`. Raises
            `BadConfig`.
        arguments: arguments of the pipeline that the job file may set, with their types, as pydantic takes them.
        reference_batch: strict mode's batch size by whether blocks are compiled.
        num_items_per_chunk: how many items an actor is handed at once, at most.
        speedups: which of `Speedups` it takes.
        num_items_per_swap: where components wait in CPU memory, how many items each draws before the next comes.
        max_sequence_length: tokens of a prompt that the pipeline takes unless told otherwise; None: any number.
        components: that a checkpoint has to have.
        defaults_of: defaults that depend on the checkpoint's configs, instead of those in `defaults`.
    """

    implementation: str
    defaults: Mapping[str, Any]
    rules: Callable[[Mapping[str, Mapping[str, Any]]], Rules]
    arguments: Mapping[str, Any]
    reference_batch: Mapping[bool, int]
    num_items_per_chunk: int
    speedups: Sequence[str] = ()
    num_items_per_swap: int | None = None
    max_sequence_length: int | None = None
    components: Sequence[str] = ("tokenizer", "text_encoder", "vae", "scheduler")
    defaults_of: Callable[[Mapping[str, Mapping[str, Any]]], Mapping[str, Any]] = lambda _: {}


@dataclass(frozen=True)
class Speedups:
    """What trades likeness to the stock pipeline for speed. Each acts on an item alone, so strict mode's promise holds.

    Attributes:
        quantization: `float8`: matrix products of the denoiser's blocks; see `models.quantization.float8`.
        float32_matmul_precision: as `torch.set_float32_matmul_precision` names it; None: `highest`.
        attention_backend: as diffusers names it; None: its default.
        guidance_interval: the share of the steps, from and to, that are guided; None: all.
        cache_interval: see `models.parts.step_cache.Forecast`; None: every step is computed.
    """

    quantization: Literal["float8"] | None = None
    float32_matmul_precision: Literal["high", "medium"] | None = None
    attention_backend: str | None = None
    guidance_interval: tuple[float, float] | None = None
    cache_interval: int | None = None

    def is_guided(self, step: int, num_steps: int) -> bool:
        """Whether a step, 0 … num_steps - 1, is within the guidance interval."""
        first, last = self.guidance_interval or (0.0, 1.0)
        return first * num_steps <= step < last * num_steps


@dataclass(frozen=True)
class Settings:
    """How to load and run a model; see docs/job-file.md for each.

    Attributes:
        dtype: of each component by name, `default` for the others; names of torch dtypes.
        compile: compile the denoiser's blocks, and an image model's VAE decoder.
        reference_batch: in strict mode, the number of items in a forward pass of denoiser and VAE whose bits count;
            None (`fast`): as many as come.
        variant: of the weights, such as `fp16`.
    """

    dtype: Mapping[str, str]
    compile: bool
    reference_batch: int | None
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    pipeline_arguments: Mapping[str, Any] = field(default_factory=dict)
    offload: Literal["none", "if_needed", "model", "sequential", "group"] = "none"
    vae_tiling: bool = False
    speedups: Speedups = Speedups()
    variant: str | None = None


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
    def encode(self, requests: Sequence[RenderRequest]) -> list[Any]:
        """Encode the prompts of a chunk in one go.

        Returns:
            For each request what `render` wants back for it.
        """

    def count_cut_tokens(self, requests: Sequence[RenderRequest]) -> list[int]:
        """For each request the number of tokens of its prompts that `encode` leaves out, as they are too many."""
        return [0] * len(requests)

    @abstractmethod
    def denoise(self, requests: Sequence[RenderRequest], embeddings: Sequence[Any]) -> torch.Tensor:
        """Draw the latents of requests of one shape (`Request.shape`).

        Args:
            embeddings: of these requests, from `encode`.

        Returns:
            Float32, (items, …).
        """

    @abstractmethod
    def decode(self, latents: torch.Tensor) -> Rendered:
        """Turn latents into frames."""

    def render(self, requests: Sequence[RenderRequest], embeddings: Sequence[Any]) -> Rendered:
        """Denoise and decode a batch, and account for the work of its stages."""
        stages = self.stages
        for batches in stages.values():
            batches.begin_work()
        return self.decode(self.denoise(requests, embeddings)).account_for(stages, self.denoisers)

    def rehearse(self, request: RenderRequest, embeddings: Any) -> None:
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
