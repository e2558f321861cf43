"""The capacity of a cluster: which nodes a pool may use, how many actors they can hold, and whether a job fits."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import ray

from rendermill.jobs.config.job import Job, Pool
from rendermill.manifests.errors import UserError, one_line

TASK_NUM_CPUS = 0.25
"""The CPUs of a task that reads or stores: little enough that tasks run beside actors on a small machine."""

_NODE_GROUP_LABEL = "ray.io/node-group"
"""A label of nodes that Ray's cluster launcher or KubeRay started, to which an autoscaler may add others."""


@dataclass(frozen=True)
class Node:
    """A live node, with its total resources, such as CPU and GPU."""

    resources: Mapping[str, float]
    labels: Mapping[str, str]

    def matches(self, label_selector: Mapping[str, str]) -> bool:
        """Return whether Ray would place an actor with this selector on the node."""
        return all(_matches(self.labels.get(key), wanted) for key, wanted in label_selector.items())


@dataclass(frozen=True)
class Cluster:
    """The live nodes, and whether more may come later, with any resources and labels."""

    nodes: Sequence[Node]
    may_grow: bool

    @property
    def resources(self) -> dict[str, float]:
        """The total number of CPUs and GPUs that there can be; infinite if more nodes may come."""
        return {
            name: math.inf if self.may_grow else sum(node.resources.get(name, 0) for node in self.nodes)
            for name in ("CPU", "GPU")
        }

    def nodes_of(self, pool: Pool) -> list[Node]:
        """Return the nodes that a pool's actors may be placed on."""
        return [node for node in self.nodes if node.matches(pool.label_selector)]


def this_cluster() -> Cluster:
    """Return the cluster that this process is connected to."""
    nodes = [Node(node["Resources"], node["Labels"]) for node in ray.nodes() if node["Alive"]]
    return Cluster(nodes, any(_NODE_GROUP_LABEL in node.labels for node in nodes))


def _matches(value: str | None, wanted: str) -> bool:
    """Return whether a label's value matches Ray's `value`, `!value`, `in(a,b)` or `!in(a,b)`."""
    listed = wanted.removeprefix("!").removeprefix("in(").removesuffix(")")
    return (value in [name.strip() for name in listed.split(",")]) != wanted.startswith("!")


def gpus_per_actor(job: Job, name: str, cluster: Cluster) -> float:
    """Return a pool's `num_gpus`; if the job file does not set it, 1 if the pool's nodes have GPUs, else 0.

    Raises:
        UserError: It is not set, and it is not known whether nodes with GPUs will come.
    """
    pool = job.models[name].pool
    if pool.num_gpus is not None:
        return pool.num_gpus
    if any(node.resources.get("GPU") for node in cluster.nodes_of(pool)):
        return 1
    if cluster.may_grow:
        raise UserError(
            "missing, and needed on a cluster that grows and has no node with a GPU "
            "for this pool yet; write 1, or 0 to render on CPUs",
            ("models", name, "pool", "num_gpus"),
        )
    return 0


def max_tasks(cluster: Cluster) -> int | None:
    """Return how many tasks should encode and store at once: one per CPU, which it keeps busy; None if nodes may come.

    Each further task would cost a process, which takes a second to start, and make nothing faster.
    """
    return None if cluster.may_grow else max(1, int(cluster.resources["CPU"]))


def max_actors(pool: Pool, num_gpus: float, cluster: Cluster) -> int:
    """Return how many of a pool's actors the cluster can hold if nothing else runs on it.

    Args:
        num_gpus: The GPUs of each actor.
    """
    needs = [(name, need) for name, need in (("GPU", num_gpus), ("CPU", pool.num_cpus)) if need]
    if cluster.may_grow or not needs:
        return pool.max_actors
    room = sum(min(int(node.resources.get(name, 0) / need) for name, need in needs) for node in cluster.nodes_of(pool))
    return max(1, min(pool.max_actors, room))


def check_selectors(job: Job) -> None:
    """Raise a `UserError` where Ray does not take a pool's label selector."""
    for name, model in job.models.items():
        try:
            ray.remote(label_selector=model.pool.label_selector)(_nothing)
        except ValueError as error:
            raise UserError(one_line(error), ("models", name, "pool", "label_selector")) from error


def check_resources(job: Job, cluster: Cluster, names: Collection[str]) -> None:
    """Raise a `UserError` where the pools' smallest sizes could never all run at once.

    Args:
        names: The models that have something to render; others start no actors.
    """
    if cluster.may_grow:
        return
    job = job.model_copy(update={"models": {name: model for name, model in job.models.items() if name in names}})
    for name, model in job.models.items():
        if not cluster.nodes_of(model.pool):
            raise UserError(_no_such_node(model.pool, cluster), ("models", name, "pool", "label_selector"))
    for resource in ("GPU", "CPU"):
        for name in job.models:
            _check_sum(job, name, resource, cluster)
    needed = sum(model.pool.min_actors * model.pool.num_cpus for model in job.models.values())
    available = cluster.resources["CPU"]
    if needed + TASK_NUM_CPUS > available:
        raise UserError(
            f"the pools' actors take {needed:g} of the cluster's {available:g} CPUs, and reading and "
            f"storing need {TASK_NUM_CPUS:g}; lower a pool's num_cpus",
            ("models",),
        )


def _check_sum(job: Job, name: str, resource: str, cluster: Cluster) -> None:
    """Raise a `UserError` if a pool and those before it with the same selector need more than their nodes have."""
    pool = job.models[name].pool
    needed = 0.0
    for other, model in job.models.items():
        if model.pool.label_selector == pool.label_selector:
            per_actor = gpus_per_actor(job, other, cluster) if resource == "GPU" else model.pool.num_cpus
            needed += model.pool.min_actors * per_actor
        if other == name:
            break
    available = sum(node.resources.get(resource, 0) for node in cluster.nodes_of(pool))
    if needed > available:
        where = "the nodes with its labels have" if pool.label_selector else "the cluster has"
        raise UserError(
            f"min_actors {pool.min_actors} × num_{resource.lower()}s {per_actor:g} brings the job "
            f"to {needed:g} {resource}s, and {where} {available:g}; lower one of the two",
            ("models", name, "pool"),
        )


def _no_such_node(pool: Pool, cluster: Cluster) -> str:
    wanted = ", ".join(f"{key}: {value}" for key, value in pool.label_selector.items())
    there = sorted(
        {str(node.labels[key]) for node in cluster.nodes for key in pool.label_selector if key in node.labels}
    )
    return f"no node matches {wanted}; " + (
        f"there are nodes with {', '.join(there)}" if there else "give nodes labels with ray start --labels"
    )


def _nothing() -> None:
    """A function for Ray to check a selector with."""
