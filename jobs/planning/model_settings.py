"""The settings of a job's model, checked against its checkpoint."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rendermill.actors.checkpoints.checkpoint import Checkpoint
from rendermill.jobs.config.job import DEFAULT_DTYPE, Job, ModelConfig
from rendermill.manifests.errors import UserError
from rendermill.models.capabilities import Family
from rendermill.models.inspection.scheduler_arguments import problem_of_value, scheduler_arguments
from rendermill.models.quantization.schemes import SCHEMES
from rendermill.models.settings import Settings, Speedups


def check_scheduler(name: str, config: ModelConfig, checkpoint: Checkpoint) -> None:
    """Check the scheduler's settings against the arguments of its class.

    Raises:
        UserError: The scheduler has no such argument, or it takes other values.
    """
    if not config.scheduler:
        return
    entry = checkpoint.configs["model_index"].get("scheduler")
    known = scheduler_arguments(entry[1]) if isinstance(entry, list) else {}
    if known is None:
        return  # `jobs.planning.loadable` tells that there is no such class
    for key, value in config.scheduler.items():
        if key not in known:
            raise UserError(f"unknown key; {hint(key, known)}", ("models", name, "scheduler", key))
        problem = problem_of_value(key, known[key], value)
        if problem:
            raise UserError(f"{problem}, got {value!r}", ("models", name, "scheduler", key))


def hint(key: str, known: Collection[str]) -> str:
    """Describe which of the known keys an unknown one may stand for."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known) or 'none'}"


def _check_arguments(name: str, config: ModelConfig, known: Mapping[str, Any]) -> None:
    for argument, value in config.pipeline_arguments.items():
        keys = ("models", name, "pipeline_arguments", argument)
        if not known:
            raise UserError("this model takes arguments as columns and `defaults`; write it there", keys)
        if argument not in known:
            raise UserError(f"unknown key; {hint(argument, known)}", keys)
        try:
            TypeAdapter(known[argument]).validate_python(value, strict=True)
        except ValidationError as error:
            problem = error.errors()[0]["msg"].removeprefix("Input ")
            raise UserError(f"{problem}, got {value!r}", keys) from error


def _dtype(name: str, config: ModelConfig, checkpoint: Checkpoint) -> Mapping[str, str]:
    """Return the dtype of each component that the job file names, and `default` for the others."""
    if isinstance(config.dtype, str):
        return {"default": config.dtype}
    known = ["default", *checkpoint.components]
    for component in config.dtype:
        if component not in known:
            raise UserError(f"unknown key; {hint(component, known)}", ("models", name, "dtype", component))
    return {"default": DEFAULT_DTYPE} | config.dtype


def settings_of(
    job: Job, name: str, config: ModelConfig, checkpoint: Checkpoint, family: Family, on_gpu: bool
) -> Settings:
    """Return the settings with which a model is loaded, with every default filled in.

    Raises:
        UserError: One of them does not suit the model.
    """
    _check_arguments(name, config, family.all_arguments(checkpoint.configs))
    if config.offload != "none" and not on_gpu:
        raise UserError(f"{config.offload!r} needs a GPU; leave it out on a CPU", ("models", name, "offload"))
    dtype = _dtype(name, config, checkpoint)
    _check_speedups(name, config.speedups, family, dtype, on_gpu)
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
        speedups=config.speedups,
        variant=config.variant,
    )


def _check_speedups(name: str, speedups: Speedups, family: Family, dtype: Mapping[str, str], on_gpu: bool) -> None:
    for key in speedups.model_dump(exclude_none=True):
        if key not in family.speedups:
            known = f"it has {', '.join(family.speedups)}" if family.speedups else "it has none"
            raise UserError(f"this pipeline has no such speedup; {known}", ("models", name, "speedups", key))
    if speedups.quantization is not None:
        default = dtype.get("default", "float32")
        dtypes = {dtype.get(component, default) for component in ("transformer", "transformer_2")}
        problem = SCHEMES[speedups.quantization].problem(speedups.quantization, on_gpu, dtypes)
        if problem:
            raise UserError(problem, ("models", name, "speedups", "quantization"))
