"""The keys of a job file, their types and defaults; `jobs.config.job_file` reads the file."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, create_model, model_validator
from pydantic_core import PydanticCustomError

from rendermill.actors.media.encoding import MediaFormat
from rendermill.jobs.config.quantities import Duration
from rendermill.manifests.output.layout import Layout
from rendermill.manifests.request import OPTIONAL_FIELDS
from rendermill.models.settings import Share, Speedups

Dtype = Literal["bfloat16", "float16", "float32"]
DEFAULT_DTYPE: Dtype = "bfloat16"


def _disagreement(keys: tuple[str, ...], problem: str) -> PydanticCustomError:
    """An error about several keys, which is reported at one of them; pydantic would report it at their section."""
    return PydanticCustomError("disagreement", "{problem}", {"keys": keys, "problem": problem})


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_OPTIONAL: dict[str, Any] = {
    name: (field.kind.in_job_file | None, Field(None, description=field.meaning))
    for name, field in OPTIONAL_FIELDS.items()
}
_Defaults: Any = create_model("Defaults", __base__=_Section, **_OPTIONAL)


class Defaults(_Defaults):
    """Values of a request's fields that a row may leave open; the pipeline has its own for those that are null."""


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
    label_selector: dict[str, str] = Field(
        {}, description="Labels of the nodes that actors may be on: `{rendermill.io/group: videos}`."
    )

    @model_validator(mode="after")
    def _ordered(self) -> "Pool":
        if self.max_actors < self.min_actors:
            raise _disagreement(("max_actors",), f"{self.max_actors} is less than min_actors {self.min_actors}")
        return self


class ModelConfig(_Section):
    """One model of a job."""

    checkpoint: str = Field(
        min_length=1, description="A diffusers folder, an fsspec URL of one, or a repository of the Hugging Face Hub."
    )
    revision: str | None = Field(None, description="The Hub's branch, tag or commit.")
    variant: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_]+$",
        description="Of the weights, as in `model.fp16.safetensors`: `fp16`; null: weights without a variant.",
    )
    dtype: Dtype | dict[str, Dtype] = Field(
        DEFAULT_DTYPE,
        description="Of all weights, or by component: `{vae: float32}`; of others `default`, which is bfloat16.",
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
    format: MediaFormat | None = Field(None, description="null: png for images, mp4 for video.")
    quality: int | None = Field(
        None,
        ge=0,
        le=100,
        description="webp and jpeg: 1 … 100, null is 95; mp4: x264's rate factor, 1 … 51, null is 18.",
    )
    num_items_per_shard: int | None = Field(
        None, ge=1, description="`layout: webdataset`: items in a tar file; null: 256 images, 8 videos."
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
    speedups: Speedups = Field(Speedups(), description="What is faster and changes pixels.")

    @property
    def fixed_batch(self) -> int | None:
        """The batch size; None if it is found by measurement."""
        return None if self.batch == "auto" else self.batch


ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Job(_Section):
    """A job file."""

    name: str | None = Field(None, description="For people.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seeds of rows without a seed of their own derive from it.")
    manifest: str = Field(min_length=1, description="Parquet: a file, a folder or a glob; any fsspec URL.")
    output: str = Field(min_length=1, description="A folder or URL.")
    layout: Layout = Field(
        "files",
        description="`files`: an item a file; `webdataset`: tar shards to train from. An output keeps its first run's.",
    )
    shared_disk: bool = Field(False, description="Every node sees local paths; needed for them on several nodes.")
    default_model: str | None = Field(None, description="Of rows that name none; null: the only one.")
    reproducibility: Literal["strict", "fast"] = Field(
        "strict", description="`strict`: an item's pixels never depend on its batch; `fast`: any batch at any moment."
    )
    audit: Share = Field(
        0.0, description="Share of the items that are drawn twice, by two actors, and compared: `0.1 %`. Strict only."
    )
    provenance: bool = Field(
        True, description="Files say how they were made: prompt, seed, model, versions, and that a model made them."
    )
    profile: str | None = Field(
        None,
        description="Folder or URL where batch sizes found are kept for later runs; null: the driver's cache folder.",
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="Only the manifest's first N samples, to try a job out; what lies behind them is not read.",
    )
    max_failure_rate: Share = Field(
        0.1, description="Stop, resumable, when more than this share of a thousand items in a row failed."
    )
    stop_after: Duration | None = Field(
        None, description="`6h`: begin no chunk after so long, end what is being drawn; the next run goes on."
    )
    deletion_delay: Duration = Field(
        timedelta(minutes=15),
        description="How long media stay that gave way to newer ones, for readers who listed the records before.",
    )
    storage_patience: Duration = Field(
        timedelta(minutes=10), description="How long to wait for a store that fails, or a full disk, before stopping."
    )
    on_environment_change: Literal["keep", "stop", "rerender"] = Field(
        "keep", description="What to do with records that another device model or other library versions made."
    )
    models: dict[ModelName, ModelConfig] = Field(min_length=1, description="By a name that rows may use.")
    _templates: Mapping[tuple[str, ...], str] = PrivateAttr(default_factory=dict)

    @property
    def templates(self) -> Mapping[tuple[str, ...], str]:
        """The texts of values that come from environment variables, by keys; see `jobs.config.environment_values`."""
        return self._templates

    def with_templates(self, templates: Mapping[tuple[str, ...], str]) -> "Job":
        """Return a copy of the job with these templates."""
        job = self.model_copy()
        job._templates = templates
        return job

    @model_validator(mode="after")
    def _has_default_model(self) -> "Job":
        if self.default_model is not None and self.default_model not in self.models:
            known = ", ".join(self.models)
            raise _disagreement(("default_model",), f"{self.default_model!r} is not among models: {known}")
        return self

    @model_validator(mode="after")
    def _fast_alone_may_change_pixels(self) -> "Job":
        if self.audit and self.reproducibility == "fast":
            raise _disagreement(
                ("audit",), "only `reproducibility: strict` draws an item twice alike; remove one of them"
            )
        for name, model in self.models.items():
            if model.offload == "if_needed" and self.reproducibility == "strict":
                raise _disagreement(
                    ("models", name, "offload"), "if_needed is for `reproducibility: fast`; write `model` here"
                )
        return self

    @model_validator(mode="after")
    def _shards_alone_have_a_size(self) -> "Job":
        for name, model in self.models.items():
            if model.num_items_per_shard is not None and self.layout != "webdataset":
                raise _disagreement(
                    ("models", name, "num_items_per_shard"), "only `layout: webdataset` has shards; remove it"
                )
        return self

    @property
    def model_of_rows(self) -> str | None:
        """The model of rows that name none: `default_model`, or else the only model; None if there are several."""
        return self.default_model or (next(iter(self.models)) if len(self.models) == 1 else None)
