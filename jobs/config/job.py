"""The keys of a job file, their types and defaults; `jobs.config.job_file` reads the file."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, create_model, model_validator
from pydantic_core import PydanticCustomError

from rendermill.actors.media.encoding import MediaFormat
from rendermill.jobs.config.inputs import InputsConfig
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
    """Values of arguments that a row may leave open; the pipeline has its own for those that are null.

    Further arguments of the pipeline may be added; `jobs.planning.models` checks them, as it knows the pipeline.
    """

    model_config = ConfigDict(extra="allow", frozen=True)


class Pool(_Section):
    """The actor pool of a model, in Ray's units."""

    min_actors: int = Field(1, ge=1, description="The number of actors that start with the job.")
    max_actors: int = Field(
        8, ge=1, description="Ray adds actors up to this number while work waits and the cluster has room."
    )
    num_gpus: float | None = Field(
        None, ge=0, description="The GPUs of one actor; null: one if the cluster has any, otherwise none."
    )
    num_cpus: float = Field(1, ge=0, description="The CPUs of one actor.")
    label_selector: dict[str, str] = Field(
        {}, description="The labels of the nodes that actors may run on: `{rendermill.io/group: videos}`."
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
    revision: str | None = Field(None, description="A branch, tag or commit of the Hub.")
    variant: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_]+$",
        description="The variant of the weights: `fp16` for `model.fp16.safetensors`; null: weights without a variant.",
    )
    dtype: Dtype | dict[str, Dtype] = Field(
        DEFAULT_DTYPE,
        description="The type of all weights, or by component: `{vae: float32}`; `default` is that of all others.",
    )
    defaults: Defaults = Field(Defaults(), description="The values of what a row does not set.")
    pool: Pool = Field(Pool(), description="The actors that render.")
    batch: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="The number of items rendered at once; `auto`: found by measurement of time and memory."
    )
    deadline: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="The seconds after which an item counts as hung; null: 30 times the time of others of its shape.",
    )
    compile: Literal["auto"] | bool = Field(
        "auto", description="Compile the denoiser's blocks, and the VAE decoder of an image model; `auto`: on a GPU."
    )
    reference_batch: int | None = Field(
        None,
        ge=1,
        description="`strict`: the batch size that defines the bits; null: 1, or 8 for compiled image models.",
    )
    format: MediaFormat | None = Field(
        None, description="The format of media files; null: png for images, mp4 for video."
    )
    quality: int | None = Field(
        None,
        ge=0,
        le=100,
        description="For webp and jpeg 1 … 100, null is 95; for mp4 the rate factor of x264, 1 … 51, null is 18.",
    )
    num_items_per_shard: int | None = Field(
        None, ge=1, description="`layout: webdataset`: the number of items in a tar file; null: 256 images, 8 videos."
    )
    scheduler: dict[str, Any] = Field({}, description="Changes to the config of the scheduler: `{flow_shift: 5.0}`.")
    pipeline_arguments: dict[str, Any] = Field(
        {}, description="`max_sequence_length`; for Sana also `complex_human_instruction`, a list of lines."
    )
    offload: Literal["none", "if_needed", "model", "sequential", "group"] = Field(
        "none",
        description="How diffusers keeps idle weights in CPU memory; "
        "`if_needed`, in `fast`: `model` if memory ran out otherwise.",
    )
    vae_tiling: bool = Field(False, description="Decode in tiles, which takes less memory and changes pixels a little.")
    speedups: Speedups = Field(Speedups(), description="Settings that are faster and change pixels.")

    @property
    def fixed_batch(self) -> int | None:
        """The batch size; None if it is found by measurement."""
        return None if self.batch == "auto" else self.batch


ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Job(_Section):
    """A job file."""

    name: str | None = Field(None, description="A name for people.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="The seeds of rows that have none derive from it.")
    manifest: str = Field(min_length=1, description="Parquet: a file, a folder or a glob, as a path or an fsspec URL.")
    columns: dict[str, str | None] = Field(
        {},
        description="Other names for columns of the manifest: `{caption: prompt}`; null: the column is your own, even "
        "if it is named like an argument.",
    )
    output: str = Field(min_length=1, description="A folder, as a path or an fsspec URL.")
    layout: Layout = Field(
        "files",
        description="`files`: one file for each item; `webdataset`: tar shards to train from. It cannot change later.",
    )
    shared_disk: bool = Field(
        False, description="Every node sees the same local disk. Needed for local paths on several nodes."
    )
    default_model: str | None = Field(None, description="The model of rows that name none; null: the only one.")
    reproducibility: Literal["strict", "fast"] = Field(
        "strict",
        description="`strict`: the pixels of an item never depend on its batch, and a model whose seed does not decide "
        "them is refused; `fast`: batches of any size.",
    )
    audit: Share = Field(
        0.0, description="`strict`: the share of items that two actors render, to compare the pixels: `0.1 %`."
    )
    provenance: bool = Field(
        True,
        description="Media files say how they were made: prompt, seed, model, versions, and that a model made them.",
    )
    profile: str | None = Field(
        None,
        description="The folder or URL of tuning profiles, kept for later runs; null: the driver's cache folder.",
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="Render only the first N samples of the manifest, to try a job; later rows are not read.",
    )
    max_failure_rate: Share = Field(
        0.1, description="Stop if more than this share of 1000 consecutive items failed; the next run continues."
    )
    stop_after: Duration | None = Field(
        None,
        description="Begin no chunk after this time, such as `6h`, and finish those under way; the next run continues.",
    )
    deletion_delay: Duration = Field(
        timedelta(minutes=15),
        description="How long replaced media files stay, for readers who listed the records before.",
    )
    storage_patience: Duration = Field(
        timedelta(minutes=10),
        description="How long to retry when a store fails or a disk is full, before the run stops.",
    )
    on_environment_change: Literal["keep", "stop", "rerender"] = Field(
        "keep", description="What to do with records that another device model or other library versions made."
    )
    inputs: InputsConfig = Field(InputsConfig(), description="The images and videos that rows name.")
    models: dict[ModelName, ModelConfig] = Field(min_length=1, description="The models, by the names that rows use.")
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
    def _columns_have_one_name(self) -> "Job":
        columns = {column: column if name is None else name for column, name in self.columns.items()}
        for column, name in columns.items():
            other = next((other for other in columns if columns[other] == name and other != column), None)
            if not name:
                raise _disagreement(("columns", column), "an empty name; write null to keep the column as your own")
            if other is not None:
                raise _disagreement(("columns", other), f"{column!r} becomes {name!r}, too; leave one of them")
        return self

    @model_validator(mode="after")
    def _fast_alone_may_change_pixels(self) -> "Job":
        if self.audit and self.reproducibility == "fast":
            raise _disagreement(
                ("audit",), "only `reproducibility: strict` renders an item twice alike; remove one of them"
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
