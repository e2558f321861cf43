"""The job file: what it may hold, how it is read, and mistakes in it as one line each."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from manifests.errors import UserError, one_line

_ENVIRONMENT_PREFIX = "RENDERMILL_"

Dtype = Literal["bfloat16", "float16", "float32"]


def _duration(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    import pandas as pd  # slow to import, and most job files have no durations

    try:
        return pd.Timedelta(value).to_pytimedelta()
    except ValueError as error:
        raise ValueError("should be a duration such as 30s, 10min or 6h") from error


def _share(value: Any) -> Any:
    if not isinstance(value, str) or not value.rstrip().endswith("%"):
        return value
    try:
        return float(value.rstrip().removesuffix("%")) / 100
    except ValueError as error:
        raise ValueError("should be a share such as 0.001 or 0.1 %") from error


Share = Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)]
Duration = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0))]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Defaults(_Section):
    """What a row leaves open; what is null here too comes from the pipeline's own defaults."""

    negative_prompt: str | None = Field(None, description="What to keep out.")
    width: int | None = Field(None, ge=1, description="Pixels.")
    height: int | None = Field(None, ge=1, description="Pixels.")
    num_frames: int | None = Field(None, ge=1, description="Frames of a video.")
    fps: float | None = Field(None, gt=0, allow_inf_nan=False, description="Frames per second.")
    num_inference_steps: int | None = Field(None, ge=1, description="Denoising steps.")
    guidance_scale: float | None = Field(None, allow_inf_nan=False, description="Guidance; 1 or less: none.")
    guidance_scale_2: float | None = Field(None, allow_inf_nan=False, description="Of Wan's low-noise expert.")


class Pool(_Section):
    """A model's actor pool, in Ray's units."""

    min_actors: int = Field(1, ge=1, description="Actors that start with the job.")
    max_actors: int = Field(
        8, ge=1, description="Ray adds actors up to here while work waits and the cluster has room."
    )
    num_gpus: float | None = Field(
        None, ge=0, description="GPUs an actor takes; null: one where the cluster has any, else none."
    )
    num_cpus: float = Field(1, ge=0, description="CPUs an actor takes.")

    @model_validator(mode="after")
    def _ordered(self) -> "Pool":
        if self.max_actors < self.min_actors:
            raise ValueError(f"max_actors {self.max_actors} is less than min_actors {self.min_actors}")
        return self


class ModelConfig(_Section):
    """One model of a job."""

    checkpoint: str = Field(
        min_length=1, description="A diffusers folder, an fsspec URL of one, or a repository of the Hugging Face Hub."
    )
    revision: str | None = Field(None, description="The Hub's branch, tag or commit.")
    dtype: Dtype | dict[str, Dtype] = Field(
        "bfloat16", description="Of all weights, or by component: `{default: bfloat16, vae: float32}`."
    )
    defaults: Defaults = Field(Defaults(), description="What a row leaves open.")
    pool: Pool = Field(Pool(), description="The actors that draw.")
    batch: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="Items drawn at once; `auto`: as many as pay and fit, by measurement."
    )
    deadline: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds an item may take before it counts as hung; null: 30 times what others of its shape took.",
    )
    compile: Literal["auto"] | bool = Field(
        "auto", description="Compile the denoiser's blocks and an image model's VAE decoder; `auto`: on a GPU."
    )
    reference_batch: int | None = Field(
        None,
        ge=1,
        description="Strict mode's batch, whose bits count; null: 1 eager; compiled 8 for images, 1 for video.",
    )
    format: Literal["png", "webp", "jpeg", "mp4"] | None = Field(
        None, description="null: png for images, mp4 for video."
    )
    quality: int | None = Field(
        None,
        ge=0,
        le=100,
        description="webp and jpeg: 1 … 100, null is 95; mp4: x264's rate factor, 0 … 51, null is 18.",
    )
    scheduler: dict[str, Any] = Field({}, description="Changes to the scheduler's config: `{flow_shift: 5.0}`.")
    pipeline_arguments: dict[str, Any] = Field(
        {}, description="`max_sequence_length`; for Sana also `complex_human_instruction`, a list of lines."
    )
    offload: Literal["none", "if_needed", "model", "sequential", "group"] = Field(
        "none",
        description="diffusers' ways to keep weights in CPU memory while they are idle; "
        "`if_needed`, in `fast`: `model` once memory ran out all the same.",
    )
    vae_tiling: bool = Field(False, description="Decode in tiles, in less memory; changes pixels a little.")

    @property
    def fixed_batch(self) -> int | None:
        """The batch size where it is a number."""
        return None if self.batch == "auto" else self.batch


ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Job(_Section):
    """A job file."""

    name: str | None = Field(None, description="For people.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seeds of rows without a seed of their own derive from it.")
    manifest: str = Field(min_length=1, description="Parquet: a file, a folder or a glob; any fsspec URL.")
    output: str = Field(min_length=1, description="A folder or URL.")
    shared_disk: bool = Field(False, description="Every node sees local paths; needed for them on several nodes.")
    default_model: str | None = Field(None, description="Of rows that name none; null: the only one.")
    reproducibility: Literal["strict", "fast"] = Field(
        "strict", description="`strict`: an item's pixels never depend on its batch; `fast`: any batch at any moment."
    )
    audit: Share = Field(
        0.0, description="Share of the items that are drawn twice, by two actors, and compared: `0.1 %`. Strict only."
    )
    profile: str | None = Field(
        None,
        description="Folder or URL where batch sizes found are kept for later runs; null: the driver's cache folder.",
    )
    limit: int | None = Field(None, ge=1, description="Only the manifest's first so many samples, to try a job out.")
    max_failure_rate: Share = Field(
        0.1, description="Stop, resumable, when more than this share of a thousand items in a row failed."
    )
    stop_after: Duration | None = Field(
        None, description="`6h`: begin no chunk after so long, end what is being drawn; the next run goes on."
    )
    storage_patience: Duration = Field(
        timedelta(minutes=10), description="How long to wait for a store that fails, or a full disk, before stopping."
    )
    on_environment_change: Literal["keep", "stop", "rerender"] = Field(
        "keep", description="What to do with records that another device model or other library versions made."
    )
    models: dict[ModelName, ModelConfig] = Field(min_length=1, description="By a name that rows may use.")

    @model_validator(mode="after")
    def _has_default_model(self) -> "Job":
        if self.default_model is not None and self.default_model not in self.models:
            raise ValueError(f"default_model {self.default_model!r} is not among models: {', '.join(self.models)}")
        return self

    @model_validator(mode="after")
    def _fast_alone_may_change_pixels(self) -> "Job":
        if self.audit and self.reproducibility == "fast":
            raise ValueError("audit: only `reproducibility: strict` draws an item twice alike; remove one of them")
        for name, model in self.models.items():
            if model.offload == "if_needed" and self.reproducibility == "strict":
                raise ValueError(f"models.{name}.offload: if_needed is for `reproducibility: fast`; write `model` here")
        return self

    @property
    def model_of_rows(self) -> str | None:
        """The model of rows that name none: `default_model`, or the only one."""
        return self.default_model or (next(iter(self.models)) if len(self.models) == 1 else None)


def load_job(path: str, overrides: Sequence[str] = ()) -> Job:
    """Read a job file.

    Later wins: files named by `extends`, the file itself, `RENDERMILL_…` variables of the environment
    (`RENDERMILL_MODELS__SANA__BATCH=4`), overrides.

    Args:
        overrides: `key=value`, with dots in keys: `models.sana.batch=4`.

    Raises:
        UserError: a mistake in any of these, as one line that names the key.
    """
    environment = [
        f"{name.removeprefix(_ENVIRONMENT_PREFIX).lower().replace('__', '.')}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith(_ENVIRONMENT_PREFIX)
    ]
    for override in overrides:
        if "=" not in override:
            raise UserError(f"{override!r}: an override is written key=value, for example models.sana.batch=4")
    merged: Any = OmegaConf.create({})
    try:
        for layer in (*_layers(Path(path), ()), OmegaConf.from_dotlist([*environment, *overrides])):
            merged = OmegaConf.merge(merged, layer)
        resolved = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: {one_line(error)}") from error
    return parse_job(resolved, path)


def parse_job(content: Any, source: str) -> Job:
    """Check a job's content.

    Raises:
        UserError: names the source and the key, what is wrong and what would be right.
    """
    try:
        return Job.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{source}: {_explain(error)}") from error


def _layers(path: Path, seen: tuple[Path, ...]) -> list[Any]:
    """The file's content after that of the files it extends."""
    if path.resolve() in [earlier.resolve() for earlier in seen]:
        raise UserError(f"{path}: extends itself, by way of {' → '.join(map(str, seen))}")
    try:
        content = OmegaConf.load(path)
    except FileNotFoundError as error:
        named_by = f", which {seen[-1]} extends" if seen else ""
        raise UserError(f"{path}: no such job file{named_by}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {one_line(error)}") from error
    if not isinstance(content, DictConfig):
        raise UserError(f"{path}: a job file holds keys and values, such as `manifest: prompts.parquet`")
    extended = content.pop("extends", None)
    return [*_layers(path.parent / extended, (*seen, path)), content] if extended else [content]


def _explain(error: ValidationError) -> str:
    """The first problem that pydantic found, as a line."""
    problems = error.errors(include_url=False)
    first = _keys(problems[0])
    # a union's branches all complain; the one that got deepest is the one that was meant
    problem = max(
        (other for other in problems if _keys(other)[: len(first)] == first), key=lambda other: len(_keys(other))
    )
    location = _keys(problem)
    key = ".".join(location) or "job"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        return f"{key}: unknown key; " + (f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}")
    if problem["type"] == "missing":
        return f"{key}: missing, and needed"
    # a value that may be of several types has a problem with each of them
    messages = [_lower_first(other["msg"]) for other in problems if _keys(other) == location]
    shown = problem["input"]
    got = "" if isinstance(shown, Mapping | list | BaseModel) else f", got {shown!r}"
    return f"{key}: {' or '.join(dict.fromkeys(messages))}{got}"


def _lower_first(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return message[0].lower() + message[1:]


def _keys(problem: Mapping[str, Any]) -> list[str]:
    """The keys that lead to a problem, without the branches of a union, which pydantic names among them."""
    return [
        str(part)
        for part in problem["loc"]
        if not re.search(r"[\[(]|^(constrained-)?(int|bool|str|dict|list)$", str(part))
    ]


def _known_keys(location: Sequence[str]) -> list[str]:
    """The keys of the section at a location."""
    section: type[BaseModel] = Job
    annotation: Any = Job
    for part in location:
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]  # the part is a model's name
        else:
            annotation = section.model_fields[part].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            section = annotation
    return list(section.model_fields)
