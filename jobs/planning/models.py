"""The models of a job file with every default filled in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from rendermill.actors.checkpoints.checkpoint import Checkpoint, describe
from rendermill.actors.checkpoints.files import is_on_hub
from rendermill.actors.media.encoding import FORMATS, Encoding, Limits, formats_of
from rendermill.jobs.config.job import Job, ModelConfig
from rendermill.jobs.planning.model_settings import check_scheduler, hint, settings_of
from rendermill.manifests.errors import RowProblem, UserError
from rendermill.manifests.identity import settings_hash
from rendermill.manifests.request import OPTIONAL_FIELDS
from rendermill.manifests.rows import RowValidator
from rendermill.manifests.schema import InputColumn, ModelContract
from rendermill.manifests.storage.urls import absolute
from rendermill.models import registry
from rendermill.models.arguments import Argument
from rendermill.models.capabilities import BadConfig, Family
from rendermill.models.inputs import InputSpec
from rendermill.models.inspection.generic_family import UnsupportedPipeline
from rendermill.models.settings import Settings, Speedups

_ITEMS_PER_SHARD = {"image": 256, "video": 8}


@dataclass(frozen=True)
class ResolvedModel:
    """A model of the job with every default filled in.

    Attributes:
        num_items_per_shard: None: every item is a file of its own.
        refused: Arguments of its pipeline that a table cannot give, with the reason.
        inputs: the images and videos that it takes, by name.
    """

    name: str
    checkpoint: Checkpoint
    family: Family
    settings: Settings
    contract: ModelContract
    encoding: Encoding
    num_items_per_shard: int | None
    refused: Mapping[str, str]
    inputs: Mapping[str, InputSpec]

    @property
    def max_sequence_length(self) -> int | None:
        """The number of tokens of a prompt that its text encoder takes; None: any number."""
        stock = self.family.max_sequence_length
        return cast(int | None, self.settings.pipeline_arguments.get("max_sequence_length", stock))


def resolve_model(job: Job, name: str, on_gpu: bool) -> ResolvedModel:
    """Find a model's checkpoint, check its settings, and fill in their defaults.

    Args:
        on_gpu: whether its actors have GPUs.

    Raises:
        UserError: the checkpoint is missing or of no known family, or a setting does not suit it.
    """
    config = job.models[name]
    checkpoint = _checkpoint(name, config)
    family = family_of(checkpoint, name)
    check_scheduler(name, config, checkpoint)
    configs = changed_configs(checkpoint, config)
    try:
        capabilities = family.capabilities(configs)
        pipeline_defaults = family.all_defaults(configs)
    except BadConfig as error:
        raise UserError(str(error), ("models", name, "checkpoint"), checkpoint.source) from error
    settings = settings_of(job, name, config, checkpoint, family, on_gpu)
    arguments = {argument: Argument(of_type) for argument, of_type in capabilities.further_arguments.items()}
    encoding = Encoding(_media_format(name, config, capabilities.kind), config.quality, job.provenance)
    limits = Limits(capabilities, encoding)
    argument_defaults = _argument_defaults(name, config, arguments)
    defaults = _defaults(name, config, pipeline_defaults, limits)
    asked = _asked(job, config, checkpoint, settings, encoding, has_inputs=bool(capabilities.inputs))
    inputs = {
        argument: InputColumn(spec.is_required, spec.kind == "images") for argument, spec in capabilities.inputs.items()
    }
    contract = ModelContract(defaults, limits.problem, settings_hash(asked), arguments, argument_defaults, inputs)
    per_shard = (
        (config.num_items_per_shard or _ITEMS_PER_SHARD[capabilities.kind]) if job.layout == "webdataset" else None
    )
    return ResolvedModel(
        name,
        checkpoint,
        family,
        settings,
        contract,
        encoding,
        per_shard,
        refused=capabilities.refused,
        inputs=capabilities.inputs,
    )


def _checkpoint(name: str, config: ModelConfig) -> Checkpoint:
    try:
        return describe(_place(config.checkpoint), config.revision, config.variant)
    except UserError as error:
        raise error.within("models", name) from error


def _asked(
    job: Job, config: ModelConfig, checkpoint: Checkpoint, settings: Settings, encoding: Encoding, has_inputs: bool
) -> dict[str, Any]:
    """Return what a job asks of a model for all of its rows, from which their request hashes are made."""
    asked: dict[str, Any] = {
        "checkpoint": checkpoint.identity,
        "dtype": dict(settings.dtype),
        "scheduler": dict(settings.scheduler),
        "compile": settings.compile,
        "reference_batch": settings.reference_batch,
        "vae_tiling": settings.vae_tiling,
        "pipeline_arguments": dict(settings.pipeline_arguments),
        "reproducibility": job.reproducibility,
        "format": encoding.media_format,
        "quality": config.quality,
    }
    if settings.variant is not None:
        asked["variant"] = settings.variant
    if settings.speedups != Speedups():  # outputs from before there were speedups must continue
        asked["speedups"] = settings.speedups.model_dump()
    if has_inputs and job.inputs.fit != "error":
        asked["fit"] = job.inputs.fit
    return asked


def make_validator(job: Job, models: Mapping[str, ResolvedModel]) -> RowValidator:
    """Return the validator that turns the manifest's rows into items of these models."""
    own = frozenset(column for column, name in job.columns.items() if name is None)
    return RowValidator({name: model.contract for name, model in models.items()}, job.model_of_rows, job.seed, own)


def _place(checkpoint: str) -> str:
    """Return the absolute path of a local folder; a name that may be one of the Hub stays unchanged."""
    return checkpoint if is_on_hub(checkpoint) else absolute(checkpoint)


def family_of(checkpoint: Checkpoint, name: str) -> Family:
    """Return the family of a model's checkpoint.

    Raises:
        UserError: there is none for its pipeline, or the checkpoint lacks a component that the family needs.
    """
    keys = ("models", name, "checkpoint")
    try:
        family = registry.family_of(checkpoint.pipeline_class)
    except UnsupportedPipeline as error:
        raise UserError(str(error), keys, checkpoint.source) from error
    model_index = checkpoint.configs["model_index"]
    for component in family.components:
        value = model_index.get(component)
        if not isinstance(value, list) or None in value:
            raise UserError(
                f"its model_index.json names no {component}, which {checkpoint.pipeline_class} needs",
                keys,
                checkpoint.source,
            )
    return family


def changed_configs(checkpoint: Checkpoint, config: ModelConfig) -> Mapping[str, Mapping[str, Any]]:
    """Return the checkpoint's configs with the job's changes to the scheduler."""
    if "scheduler" not in checkpoint.configs:
        return checkpoint.configs
    return {**checkpoint.configs, "scheduler": {**checkpoint.configs["scheduler"], **config.scheduler}}


def _media_format(name: str, config: ModelConfig, kind: Literal["image", "video"]) -> str:
    formats = formats_of(kind)
    media_format = config.format or formats[0]
    if media_format not in formats:
        raise UserError(
            f"this model renders {kind}s, so {' or '.join(formats)}, not {media_format}",
            ("models", name, "format"),
        )
    quality_range = FORMATS[media_format].quality_range
    if config.quality is None:
        return media_format
    if quality_range is None:
        raise UserError(f"{media_format} has none; remove it", ("models", name, "quality"))
    lowest, highest = quality_range
    if not lowest <= config.quality <= highest:
        raise UserError(
            f"{config.quality} is outside {lowest} … {highest}, the range of {media_format}",
            ("models", name, "quality"),
        )
    return media_format


def _defaults(name: str, config: ModelConfig, pipeline_defaults: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    given = config.defaults.model_dump(exclude_none=True, include={*OPTIONAL_FIELDS})
    defaults: dict[str, Any] = {**pipeline_defaults, **given}
    fields = {**dict.fromkeys(OPTIONAL_FIELDS), **defaults}
    fields["negative_prompt"] = fields["negative_prompt"] or None
    problem = limits.problem(fields)
    if problem:
        raise UserError(problem.words, ("models", name, "defaults", problem.name))
    return defaults


def _argument_defaults(name: str, config: ModelConfig, arguments: Mapping[str, Argument]) -> dict[str, Any]:
    """Return the job file's defaults for further arguments of a model's pipeline."""
    found = {}
    for argument, value in (config.defaults.model_extra or {}).items():
        keys = ("models", name, "defaults", argument)
        if argument not in arguments:
            raise UserError(f"unknown key; {hint(argument, [*OPTIONAL_FIELDS, *arguments])}", keys)
        if value is None:
            continue
        try:
            found[argument] = arguments[argument](argument, value)
        except RowProblem as problem:
            raise UserError(str(problem).removeprefix(f"{argument}: "), keys) from problem
    return found
