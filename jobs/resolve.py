"""Turns the models of a job file into what planning and rendering need, and checks all that can be checked by then."""

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from actors.checkpoints import Checkpoint, describe, is_on_hub
from actors.encoding import EncodableRules, Encoding
from jobs.capacity import Cluster, check_resources, gpus_per_actor
from jobs.cluster import check_disks
from jobs.config import Job, ModelConfig
from manifests.errors import UserError
from manifests.identity import settings_hash
from manifests.rows import RowValidator
from manifests.schema import ModelContract
from manifests.storage import absolute
from models.base import Family, Rules, Settings, Speedups
from models.registry import FAMILIES

_FORMATS = {"image": ("png", "webp", "jpeg"), "video": ("mp4",)}
_ITEMS_PER_SHARD = {"image": 256, "video": 8}
_QUALITY = {"webp": (1, 100), "jpeg": (1, 100), "mp4": (1, 51)}
"""x264's 0 is lossless, in a profile (High 4:4:4 Predictive) that players refuse."""


@dataclass(frozen=True)
class ResolvedModel:
    """A model of the job with every default filled in.

    Attributes:
        num_items_per_shard: None: every item is a file of its own.
    """

    name: str
    checkpoint: Checkpoint
    family: Family
    settings: Settings
    contract: ModelContract
    encoding: Encoding
    num_items_per_shard: int | None


def resolve_models(job: Job, here: Cluster) -> tuple[dict[str, float], dict[str, ResolvedModel]]:
    """Check that a job can run on a cluster, and settle its models.

    Returns:
        By model: the GPUs that an actor takes, and the model.

    Raises:
        UserError: the cluster cannot hold its pools or does not see its files; or as in `resolve_model`.
    """
    check_disks(job, here)
    check_resources(job, here)
    num_gpus = {name: gpus_per_actor(job, name, here) for name in job.models}
    return num_gpus, {name: resolve_model(job, name, on_gpu=num_gpus[name] > 0) for name in job.models}


def resolve_model(job: Job, name: str, on_gpu: bool) -> ResolvedModel:
    """Find a model's checkpoint and settle its settings.

    Args:
        on_gpu: whether its actors have GPUs.

    Raises:
        UserError: the checkpoint is missing or of no known family, or a setting does not suit it.
    """
    config = job.models[name]
    try:
        checkpoint = describe(_place(config.checkpoint), config.revision)
    except UserError as error:
        raise UserError(f"models.{name}.{error}") from error
    family = FAMILIES.get(checkpoint.pipeline_class)
    if family is None:
        raise UserError(
            f"models.{name}.checkpoint {checkpoint.source}: it is a {checkpoint.pipeline_class}; "
            f"known are {', '.join(FAMILIES)}"
        )
    try:
        rules = family.rules(checkpoint.configs)
    except KeyError as error:
        raise UserError(f"models.{name}.checkpoint {checkpoint.source}: its configs lack {error}") from error
    settings = _settings(job, name, config, family, on_gpu)
    encoding = Encoding(_media_format(name, config, rules), config.quality, job.provenance)
    encodable = EncodableRules(rules, encoding)
    defaults = _defaults(name, config, family, encodable)
    asked = {
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
    if settings.speedups != Speedups():  # so that outputs from before there were any go on
        asked["speedups"] = asdict(settings.speedups)
    contract = ModelContract(defaults, encodable, settings_hash(asked))
    per_shard = (config.num_items_per_shard or _ITEMS_PER_SHARD[rules.kind]) if job.layout == "webdataset" else None
    return ResolvedModel(name, checkpoint, family, settings, contract, encoding, per_shard)


def make_validator(job: Job, models: Mapping[str, ResolvedModel]) -> RowValidator:
    """What turns the manifest's rows into items of these models."""
    return RowValidator({name: model.contract for name, model in models.items()}, job.model_of_rows, job.seed)


def _place(checkpoint: str) -> str:
    """A local folder made absolute; a name that may be the Hub's left as it is."""
    return checkpoint if is_on_hub(checkpoint) else absolute(checkpoint)


def _settings(job: Job, name: str, config: ModelConfig, family: Family, on_gpu: bool) -> Settings:
    for argument, value in config.pipeline_arguments.items():
        expected = family.arguments.get(argument)
        if expected is None:
            near = difflib.get_close_matches(argument, family.arguments, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"this pipeline takes {', '.join(family.arguments)}"
            raise UserError(f"models.{name}.pipeline_arguments.{argument}: unknown key; {hint}")
        if value is not None and (not isinstance(value, expected) or isinstance(value, bool)):
            raise UserError(
                f"models.{name}.pipeline_arguments.{argument}: should be a {expected.__name__}, got {value!r}"
            )
    if config.offload != "none" and not on_gpu:
        raise UserError(f"models.{name}.offload: {config.offload!r} needs a GPU; leave it out on a CPU")
    dtype = config.dtype if isinstance(config.dtype, dict) else {"default": config.dtype}
    is_compiled = on_gpu if config.compile == "auto" else config.compile
    is_strict = job.reproducibility == "strict"
    return Settings(
        dtype=dtype,
        compile=is_compiled,
        reference_batch=(config.reference_batch or family.reference_batch[is_compiled]) if is_strict else None,
        scheduler=config.scheduler,
        pipeline_arguments=config.pipeline_arguments,
        offload=config.offload,
        vae_tiling=config.vae_tiling,
        speedups=_speedups(name, config, family, dtype, on_gpu),
    )


def _speedups(name: str, config: ModelConfig, family: Family, dtype: Mapping[str, str], on_gpu: bool) -> Speedups:
    asked = config.speedups.model_dump(exclude_none=True)
    for key in asked:
        if key not in family.speedups:
            known = f"it has {', '.join(family.speedups)}" if family.speedups else "it has none"
            raise UserError(f"models.{name}.speedups.{key}: this pipeline has no such speedup; {known}")
    if "quantization" in asked:
        where = f"models.{name}.speedups.quantization: float8 needs"
        if not on_gpu:
            raise UserError(f"{where} a GPU; leave it out on a CPU")
        if find_spec("torchao") is None:
            raise UserError(f"{where} torchao; install it with: pip install 'rendermill[float8]'")
        default = dtype.get("default", "float32")
        if {dtype.get(component, default) for component in ("transformer", "transformer_2")} != {"bfloat16"}:
            raise UserError(f"{where} `dtype: bfloat16`")
    return Speedups(**asked)


def _media_format(name: str, config: ModelConfig, rules: Rules) -> str:
    formats = _FORMATS[rules.kind]
    media_format = config.format or formats[0]
    if media_format not in formats:
        raise UserError(
            f"models.{name}.format: this model draws {rules.kind}s, so {' or '.join(formats)}, not {media_format}"
        )
    if config.quality is not None and media_format not in _QUALITY:
        raise UserError(f"models.{name}.quality: {media_format} has none; remove it")
    lowest, highest = _QUALITY.get(media_format, (0, 0))
    if config.quality is not None and not lowest <= config.quality <= highest:
        raise UserError(
            f"models.{name}.quality: {config.quality} is outside {lowest} … {highest}, the range of {media_format}"
        )
    return media_format


def _defaults(name: str, config: ModelConfig, family: Family, rules: EncodableRules) -> dict[str, Any]:
    defaults: dict[str, Any] = dict(family.defaults) | config.defaults.model_dump(exclude_none=True)
    judged = ("width", "height", "num_frames", "fps", "num_inference_steps", "negative_prompt", "guidance_scale_2")
    shape: dict[str, Any] = {key: defaults.get(key) for key in judged}
    problem = rules.problem(**shape)
    if problem:
        raise UserError(f"models.{name}.defaults.{problem}")
    return defaults
