"""The Ray cluster a job runs on: joins or starts it, and checks that a job can run there at all."""

import logging
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import ray

from jobs.config import Job, Pool
from manifests.errors import UserError, one_line
from manifests.storage import is_local

TASK_NUM_CPUS = 0.25
"""CPUs that a reading or storing task takes, so that they run beside actors on a small machine."""


@dataclass(frozen=True)
class Cluster:
    """What a job needs to know of its cluster.

    Attributes:
        num_nodes: nodes alive now.
        resources: the most that there can ever be of each resource, counting what an autoscaler may add.
    """

    num_nodes: int
    resources: Mapping[str, float]


@contextmanager
def connected() -> Iterator[Cluster]:
    """Within, this process is part of a cluster: of `RAY_ADDRESS`, or one started on this machine, or its own."""
    try:
        yield _connect()
    finally:
        ray.shutdown()


def _connect() -> Cluster:
    try:
        ray.init(log_to_driver=False, logging_level=logging.WARNING, runtime_env=_runtime_env())
    except ConnectionError as error:
        raise UserError(
            f"{one_line(error)}; is it running, and RAY_ADDRESS right? A cluster with a token also needs "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here"
        ) from error
    signal.signal(signal.SIGTERM, _interrupt)  # after Ray, which sets a handler of its own
    data = ray.data.DataContext.get_current()
    data.enable_progress_bars = False
    data.print_on_execution_start = False
    data.raise_original_map_exception = True
    data.target_max_block_size = 2**20  # a drawn item goes on to be stored as soon as its batch is done
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return Cluster(len(nodes), _attainable_resources())


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    """`ray job stop` and schedulers send SIGTERM; it ends a run as Ctrl-C does, with everything at hand committed."""
    raise KeyboardInterrupt


def is_submitted_job() -> bool:
    """Whether this process was started by `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _runtime_env() -> dict[str, object]:
    """Workers import the code that the driver runs; a submitted job's working_dir sees to that itself."""
    if is_submitted_job():
        return {}
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    inherited = os.environ.get("PYTHONPATH", "")
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, [root, inherited]))}}


def _attainable_resources() -> dict[str, float]:
    resources = dict(ray.cluster_resources())
    # Ray Data reads the autoscaler's limits here too; there is no public way
    for name, amount in (ray._private.state.state.get_max_resources_from_cluster_config() or {}).items():
        resources[name] = max(resources.get(name, 0), amount)
    return resources


def gpus_per_actor(pool: Pool, cluster: Cluster) -> float:
    """A pool's `num_gpus`; where the job file leaves it open, one GPU if the cluster can have any."""
    if pool.num_gpus is not None:
        return pool.num_gpus
    return 1 if cluster.resources.get("GPU", 0) else 0


def max_actors(pool: Pool, cluster: Cluster) -> int:
    """How many of a pool's actors the cluster could hold, if they had it for themselves."""
    needs = {"GPU": gpus_per_actor(pool, cluster), "CPU": pool.num_cpus}
    room = [int(cluster.resources.get(name, 0) / need) for name, need in needs.items() if need]
    return max(1, min(pool.max_actors, *room))


def check_resources(job: Job, cluster: Cluster) -> None:
    """Raise a `UserError` where the pools' smallest sizes could never all run at once."""
    for resource, per_actor in (("GPU", "num_gpus"), ("CPU", "num_cpus")):
        available = cluster.resources.get(resource, 0)
        needed = 0.0
        for name, model in job.models.items():
            per_one = gpus_per_actor(model.pool, cluster) if resource == "GPU" else model.pool.num_cpus
            needed += model.pool.min_actors * per_one
            if needed > available:
                raise UserError(
                    f"models.{name}.pool: min_actors {model.pool.min_actors} × {per_actor} {per_one:g} brings the job "
                    f"to {needed:g} {resource}s, and the cluster has {available:g}; lower one of the two"
                )
        if resource == "CPU" and needed + TASK_NUM_CPUS > available:
            raise UserError(
                f"models: the pools' actors take {needed:g} of the cluster's {available:g} CPUs, and reading and "
                f"storing need {TASK_NUM_CPUS:g}; lower a pool's num_cpus"
            )


def check_disks(job: Job, cluster: Cluster) -> None:
    """Raise a `UserError` for local paths that other nodes, or whoever comes after the job, could not see."""
    if is_submitted_job() and is_local(job.output) and not os.path.isabs(job.output):
        raise UserError(
            f"output: {job.output} is relative to a submitted job's own folder, which Ray deletes; "
            "give an absolute path or a URL"
        )
    if cluster.num_nodes == 1 or job.shared_disk:
        return
    places = {"manifest": job.manifest, "output": job.output}
    places |= {f"models.{name}.checkpoint": model.checkpoint for name, model in job.models.items()}
    for key, place in places.items():
        is_packed = is_submitted_job() and not os.path.isabs(place)  # every node has the submitted folder
        if "://" not in place and is_local(place) and not is_packed and (key == "output" or os.path.exists(place)):
            raise UserError(
                f"{key}: {place} is on a local disk, and the cluster has {cluster.num_nodes} nodes; "
                "give a URL such as s3://…, or set shared_disk: true if every node sees it"
            )
