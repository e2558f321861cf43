"""Prepare a job: open its folders, connect to the cluster, and resolve its models, the same for every command."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rendermill.actors.checkpoints.files import CACHE
from rendermill.jobs.cluster.capacity import Cluster, check_resources, check_selectors, gpus_per_actor, max_actors
from rendermill.jobs.cluster.connection import check_disks, connected
from rendermill.jobs.config.job import Job, ModelConfig
from rendermill.jobs.planning.loadable import check_loadable
from rendermill.jobs.planning.models import ResolvedModel, make_validator, resolve_model
from rendermill.manifests.errors import UserError
from rendermill.manifests.reader.manifest import Manifest, open_manifest
from rendermill.manifests.rows import RowValidator
from rendermill.manifests.storage.errors import as_user_errors
from rendermill.manifests.storage.folder import Folder
from rendermill.manifests.storage.urls import absolute, check_can_be_output, is_local


@dataclass(frozen=True)
class PreparedModel:
    """A model of a job on a cluster.

    Attributes:
        config: The model's section of the job file.
        resolved: The same with its checkpoint and every default filled in.
        num_gpus: The GPUs of each actor; may be a fraction, and is 0 on CPUs.
        max_actors: The largest number of actors that the pool and the cluster allow.
        num_items_per_chunk: The largest number of requests that an actor is handed at once.
    """

    config: ModelConfig
    resolved: ResolvedModel
    num_gpus: float
    max_actors: int
    num_items_per_chunk: int

    @property
    def device(self) -> str:
        """The kind of device that its actors render on: `GPU` or `CPU`."""
        return "GPU" if self.num_gpus else "CPU"


@dataclass(frozen=True)
class OpenedJob:
    """A job whose folders can be read.

    Attributes:
        output: The folder that the job writes.
        profiles: The folder of tuning profiles.
    """

    job: Job
    output: Folder
    manifest: Manifest
    profiles: Folder


@dataclass(frozen=True)
class PreparedJob(OpenedJob):
    """A job that can begin on a cluster.

    Attributes:
        cluster: The cluster that this process is connected to.
        models: The job's models, by name.
        validator: Turns rows of the manifest into items of these models.
    """

    cluster: Cluster
    models: Mapping[str, PreparedModel]
    validator: RowValidator

    def check_resources(self, models: Collection[str]) -> None:
        """Check that the smallest pools of some models can all run at once.

        Raises:
            UserError: They cannot.
        """
        check_resources(self.job, self.cluster, models)


def open_job(job: Job) -> OpenedJob:
    """Open a job's folders; finds what can be found before Ray starts.

    Raises:
        UserError: One of them cannot be read, or is not what it should be.
    """
    check_can_be_output(job.output)
    patience_seconds = job.storage_patience.total_seconds()
    return OpenedJob(
        job=job,
        output=Folder(absolute(job.output), patience_seconds),
        manifest=open_manifest(absolute(job.manifest), patience_seconds, job.columns),
        profiles=open_profiles(job),
    )


@contextmanager
def prepared(opened: OpenedJob) -> Iterator[PreparedJob]:
    """Connect to the cluster for as long as the context lasts, and resolve the job's models.

    Raises:
        UserError: The cluster cannot hold the pool of the job's only model, or does not see its files; a checkpoint
            cannot be loaded; or as in `resolve_model`.
    """
    job = opened.job
    with connected() as cluster:
        check_disks(job, cluster)
        check_selectors(job)
        if len(job.models) == 1:  # of several models, the manifest decides which have to fit
            check_resources(job, cluster, job.models)
        models = {name: prepare_model(job, name, cluster) for name in job.models}
        resolved = {name: model.resolved for name, model in models.items()}
        check_loadable(
            {name: model.checkpoint for name, model in resolved.items()},
            {name: model.settings.scheduler for name, model in resolved.items()},
        )
        contracts = [model.contract for model in resolved.values()]
        manifest = opened.manifest.with_own(
            {name for contract in contracts for name in contract.further_columns},
            {name for contract in contracts for name in contract.inputs},
        )
        check_columns(job, manifest, resolved)
        yield PreparedJob(
            job,
            opened.output,
            manifest,
            opened.profiles,
            cluster=cluster,
            models=models,
            validator=make_validator(job, resolved),
        )


def check_columns(job: Job, manifest: Manifest, models: Mapping[str, ResolvedModel]) -> None:
    """Raise a `UserError` if a column is named like an argument that a pipeline takes and a table cannot give."""
    kept = {column for column, name in job.columns.items() if name is None}
    for column in manifest.extra.names:
        for name, model in models.items():
            if column in model.refused and column not in kept:
                raise UserError(
                    f"column {column}: no argument of {name} ({model.checkpoint.pipeline_class}), as "
                    f"{model.refused[column]}; to have it in the records only, write `columns: {{{column}: null}}`",
                    ("manifest",),
                )


def prepare_model(job: Job, name: str, cluster: Cluster) -> PreparedModel:
    """Resolve one model of a job for a cluster.

    Raises:
        UserError: It is not known whether its actors have GPUs, or as in `resolve_model`.
    """
    config = job.models[name]
    num_gpus = gpus_per_actor(job, name, cluster)
    resolved = resolve_model(job, name, on_gpu=num_gpus > 0)
    return PreparedModel(
        config=config,
        resolved=resolved,
        num_gpus=num_gpus,
        max_actors=max_actors(config.pool, num_gpus, cluster),
        num_items_per_chunk=resolved.family.num_items_per_chunk,
    )


def open_profiles(job: Job) -> Folder:
    """Return the folder of a job's tuning profiles.

    Raises:
        UserError: It cannot be read, or is a file.
    """
    profiles = Folder(absolute(job.profile) if job.profile else str(CACHE / "profiles"))
    if is_local(profiles.url):
        nearest = next(place for place in (Path(profiles.url), *Path(profiles.url).parents) if place.exists())
        if not nearest.is_dir():
            raise UserError(f"{nearest} is a file; give a folder", ("profile",), profiles.url)
    with as_user_errors("cannot be read", ("profile",), profiles.url):
        profiles.names("")
    return profiles
