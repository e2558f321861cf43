"""What a model family and a checkpoint can render. Importing this module needs no torch, so that planning is quick."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from rendermill.manifests.errors import Problem
from rendermill.manifests.request import BATCH_KEY, OPTIONAL_FIELDS
from rendermill.models.inputs import InputSpec

Configs = Mapping[str, Mapping[str, Any]]
"""The configs of a checkpoint: the content of the JSON file of each component by name, and of `model_index`."""

_ALWAYS_TAKEN = frozenset({"width", "height", "num_frames", "fps", "num_inference_steps", "guidance_scale"})
"""Arguments that every model takes, some of them with a single value."""
_LACKS = {"guidance_scale_2": "has no second expert"}
"""Why a model does not take an argument, if there is more to say than that it takes none."""


SEQUENCE_LENGTH = Annotated[int, Field(ge=1, le=8192)]
"""The type of `max_sequence_length`."""
FASTER_PRODUCTS = ("quantization", "float32_matmul_precision")
"""The speedups of any transformer."""
FEWER_PASSES = ("guidance_interval", "cache_interval")
"""The speedups of a loop with many steps."""


class BadConfig(Exception):
    """A checkpoint's configs do not suit its pipeline; the message names the file and what would be right."""


@dataclass(frozen=True)
class Capabilities:
    """The arguments that a checkpoint takes, and their bounds.

    Attributes:
        kind: whether it renders images or videos.
        size_multiple: width and height must be multiples of this many pixels.
        frame_multiple: a video has `frame_multiple * k + 1` frames.
        max_num_inference_steps: the scheduler's number of training steps.
        arguments: names of the arguments that it takes beside sizes, steps and `guidance_scale`.
        inputs: the images and videos that it takes, by the name of the pipeline's argument.
        further_arguments: arguments of the pipeline that are no fields of a request (`Request.arguments`), with their
            types, as pydantic takes them.
        fixed: the only value of each argument that every other model takes and this one does not.
        refused: arguments of the pipeline that a table cannot give, with the reason.
        per_item: names of the arguments in which the items of one batch may differ.
    """

    kind: Literal["image", "video"]
    size_multiple: int
    frame_multiple: int = 1
    max_num_inference_steps: int = 1000
    arguments: frozenset[str] = frozenset({"negative_prompt"})
    inputs: Mapping[str, InputSpec] = field(default_factory=dict)
    further_arguments: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    per_item: frozenset[str] = field(
        default=frozenset({"negative_prompt", "fps", "guidance_scale", "guidance_scale_2"}), kw_only=True
    )

    def __post_init__(self) -> None:
        # otherwise all items of a batch would silently be rendered with the value of the first
        unhandled = (self.arguments | _ALWAYS_TAKEN) - self.per_item - {*BATCH_KEY}
        if unhandled:
            raise ValueError(f"{', '.join(sorted(unhandled))}: neither part of the batch key nor handled per item")

    def problem(self, fields: Mapping[str, Any]) -> Problem | None:
        """Return why a request cannot be rendered, and what could be; None if it can.

        Args:
            fields: those of `manifests.request.OPTIONAL_FIELDS`, all filled in.
        """
        return (
            self._problem_of_sizes(fields)
            or self._problem_of_arguments(fields)
            or (self._problem_of_image(fields) if self.kind == "image" else self._problem_of_video(fields))
        )

    def _problem_of_sizes(self, fields: Mapping[str, Any]) -> Problem | None:
        for name in ("width", "height"):
            size = fields[name]
            if size % self.size_multiple:
                lower = size // self.size_multiple * self.size_multiple
                nearest = f"{lower} or {lower + self.size_multiple}" if lower else f"{self.size_multiple}"
                return Problem(name, f"{size} is not a multiple of {self.size_multiple}; {nearest} would be")
        steps = fields["num_inference_steps"]
        if steps > self.max_num_inference_steps:
            return Problem("num_inference_steps", f"{steps} is over the scheduler's {self.max_num_inference_steps}")
        return None

    def _problem_of_arguments(self, fields: Mapping[str, Any]) -> Problem | None:
        for name in OPTIONAL_FIELDS:
            if name not in self.arguments | _ALWAYS_TAKEN and fields[name] is not None:
                return Problem(name, f"this model {_LACKS.get(name, 'takes none')}; leave it empty")
        for name, value in self.fixed.items():
            if fields[name] != value:
                return Problem(name, "this model takes none; leave it empty")
        return None

    def _problem_of_image(self, fields: Mapping[str, Any]) -> Problem | None:
        if fields["num_frames"] != 1 or fields["fps"] is not None:
            return Problem("num_frames, fps", "this model renders images; leave them empty")
        return None

    def _problem_of_video(self, fields: Mapping[str, Any]) -> Problem | None:
        num_frames, fps, multiple = fields["num_frames"], fields["fps"], self.frame_multiple
        if num_frames % multiple != 1 % multiple:
            lower = max(num_frames - 1, 0) // multiple * multiple + 1
            return Problem("num_frames", f"{num_frames} is not {multiple}k + 1; {lower} or {lower + multiple} would be")
        if fps is None or not 0 < fps <= 1000:
            return Problem("fps", f"{fps} is outside 0 … 1000")
        return None


@dataclass(frozen=True)
class Family:
    """A pipeline class of diffusers and how rendermill runs it.

    Attributes:
        implementation: `module:class` of the `Model`, imported only by processes that render.
        defaults: of the pipeline's own `__call__`; a value of the job file or the row takes precedence.
        capabilities: derives them from the checkpoint's configs; raises `BadConfig`.
        arguments: arguments of the pipeline that the job file may set, with their types, as pydantic takes them.
        reference_batch: strict mode's batch size, by whether blocks are compiled.
        num_items_per_chunk: the largest number of items that an actor receives at once.
        speedups: names of the `models.settings.Speedups` that it supports.
        num_items_per_swap: if components wait in CPU memory, the number of items that each renders before the next
            component is loaded.
        max_sequence_length: the number of tokens of a prompt that the pipeline takes by default; None: any number.
        components: names of the components that a checkpoint must have.
        defaults_of: defaults that depend on the checkpoint's configs and replace those in `defaults`.
        arguments_of: types of arguments that depend on the checkpoint's configs and replace those in `arguments`.
    """

    implementation: str
    defaults: Mapping[str, Any]
    capabilities: Callable[[Configs], Capabilities]
    arguments: Mapping[str, Any]
    reference_batch: Mapping[bool, int]
    num_items_per_chunk: int
    speedups: Sequence[str] = ()
    num_items_per_swap: int | None = None
    max_sequence_length: int | None = None
    components: Sequence[str] = ("tokenizer", "text_encoder", "vae", "scheduler")
    defaults_of: Callable[[Configs], Mapping[str, Any]] = lambda _: {}
    arguments_of: Callable[[Configs], Mapping[str, Any]] = lambda _: {}

    def all_defaults(self, configs: Configs) -> dict[str, Any]:
        """Return the defaults of a checkpoint with these configs, for what neither job file nor row sets.

        Raises:
            BadConfig: a config lacks what a default depends on.
        """
        return {**self.defaults, **self.defaults_of(configs)}

    def all_arguments(self, configs: Configs) -> dict[str, Any]:
        """Return the types of the arguments that a job file may set for a checkpoint with these configs."""
        return {**self.arguments, **self.arguments_of(configs)}


def num_train_timesteps(configs: Configs) -> int:
    """Return the largest number of steps that the scheduler has."""
    return whole_number(configs, "scheduler", "num_train_timesteps", 1000)


def whole_number(configs: Configs, component: str, key: str, default: int) -> int:
    """Return a positive whole number of a component's config.

    Args:
        default: the value that the component's class uses if its config has none.

    Raises:
        BadConfig: the value is something else.
    """
    value = configs[component].get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        file = "scheduler_config.json" if component == "scheduler" else "config.json"
        raise BadConfig(f"{component}/{file}: {key} should be a positive whole number, not {value!r}")
    return value
