"""The Ray cluster of a job: connect to it, and check that its nodes see the files that the job names."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.data import DataContext

from rendermill.jobs.cluster.capacity import Cluster, this_cluster
from rendermill.jobs.config.job import Job
from rendermill.jobs.console.signals import ignore_signals, interrupt_at_once
from rendermill.manifests.errors import Keys, UserError, one_line
from rendermill.manifests.storage.urls import is_local


@contextmanager
def connected() -> Iterator[Cluster]:
    """Make this process part of a cluster for as long as the context lasts.

    It is the cluster of `RAY_ADDRESS`, or one that was started on this machine, or a new one. A process that is
    connected already, such as a notebook that called `ray.init()`, stays connected.
    """
    is_own = not ray.is_initialized()
    try:
        if is_own:
            _connect()
        with DataContext.current(_data_context()):
            yield this_cluster()
    finally:
        if is_own:
            ignore_signals()
            ray.shutdown()


def _connect() -> None:
    try:
        ray.init(log_to_driver=False, logging_config=_logging_config(), runtime_env=_runtime_env())
    except ConnectionError as error:
        raise UserError(
            f"{one_line(error)}; is it running, and RAY_ADDRESS right? A cluster with a token also needs "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here"
        ) from error
    interrupt_at_once()  # after Ray, which sets a handler of its own


def _data_context() -> DataContext:
    """Return the settings of Ray Data for Datasets of rendermill; those of the caller stay as they are."""
    data = DataContext.get_current().copy()
    data.enable_progress_bars = False
    data.print_on_execution_start = False
    data.raise_original_map_exception = True
    data.target_max_block_size = 2**25  # small items are stored by the thousand, a large one when its batch is done
    # Ray adds actors if the existing ones have all the chunks that they may have, and more wait.
    data.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    return data


def is_submitted_job() -> bool:
    """Return whether this process was started by `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _runtime_env() -> dict[str, object]:
    """Return the environment in which workers import the same code as the driver.

    Ray takes the driver's working folder itself; PYTHONPATH has to be given. Without a PYTHONPATH workers need no
    environment of their own, and then Ray has processes ready. Submitted jobs have a working_dir already.
    """
    if is_submitted_job() or "PYTHONPATH" not in os.environ:
        return {}
    return {"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}}


def _logging_config() -> ray.LoggingConfig:
    """Return a format with the fields that loggers give (run, model, item, attempt); JSON if Ray's variable says so."""
    encoding = os.environ.get("RAY_LOGGING_CONFIG_ENCODING", "TEXT")
    return ray.LoggingConfig(encoding=encoding, log_level="WARNING")


def check_disks(job: Job, cluster: Cluster) -> None:
    """Raise a `UserError` for local paths that other nodes, or readers after the job, could not see."""
    if is_submitted_job() and is_local(job.output) and not os.path.isabs(job.output):
        raise UserError(
            f"{job.output} is relative to a submitted job's own folder, which Ray deletes; "
            "give an absolute path or a URL",
            ("output",),
        )
    if (len(cluster.nodes) == 1 and not cluster.may_grow) or job.shared_disk:
        return
    num_nodes = "gets new nodes" if len(cluster.nodes) == 1 else f"has {len(cluster.nodes)} nodes"
    places: dict[Keys, str] = {("manifest",): job.manifest, ("output",): job.output}
    places |= {("models", name, "checkpoint"): model.checkpoint for name, model in job.models.items()}
    for keys, place in places.items():
        is_packed = is_submitted_job() and not os.path.isabs(place)  # every node has the submitted folder
        if "://" not in place and is_local(place) and not is_packed and (keys == ("output",) or os.path.exists(place)):
            raise UserError(
                f"{place} is on a local disk, and the cluster {num_nodes}; "
                "give a URL such as s3://…, or set shared_disk: true if every node sees it",
                keys,
            )
