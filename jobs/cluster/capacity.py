"""What the nodes of a cluster can hold: which of them a pool may use, how many actors, whether a job fits at all."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import ray

from rendermill.jobs.config.job import Job, Pool
from rendermill.manifests.errors import UserError, one_line

TASK_NUM_CPUS = 0.25
"""CPUs that a reading or storing task takes, so that they run beside actors on a small machine."""

_NODE_GROUP_LABEL = "ray.io/node-group"
"""Nodes have it that Ray's cluster launcher or KubeRay started, and to which an autoscaler may add others."""


@dataclass(frozen=True)
class Node:
    """A node that is alive, with the resources that it has in all, such as CPU and GPU."""

    resources: Mapping[str, float]
    labels: Mapping[str, str]

    def matches(self, label_selector: Mapping[str, str]) -> bool:
        """Whether Ray would place an actor with this selector here."""
        return all(_matches(self.labels.get(key), wanted) for key, wanted in label_selector.items())


@dataclass(frozen=True)
class Cluster:
    """The nodes that are alive, and whether there may be more of them later, with any resources and labels."""

    nodes: Sequence[Node]
    may_grow: bool

    @property
    def resources(self) -> dict[str, float]:
        """The CPUs and GPUs that there can be in all; no end of them where nodes may come."""
        return {
            name: math.inf if self.may_grow else sum(node.resources.get(name, 0) for node in self.nodes)
            for name in ("CPU", "GPU")
        }

    def nodes_of(self, pool: Pool) -> list[Node]:
        """The nodes that a pool's actors may be on."""
        return [node for node in self.nodes if node.matches(pool.label_selector)]


def this_cluster() -> Cluster:
    """The cluster that this process is connected to."""
    nodes = [Node(node["Resources"], node["Labels"]) for node in ray.nodes() if node["Alive"]]
    return Cluster(nodes, any(_NODE_GROUP_LABEL in node.labels for node in nodes))


def _matches(value: str | None, wanted: str) -> bool:
    """Ray's `value`, `!value`, `in(a,b)` and `!in(a,b)`."""
    listed = wanted.removeprefix("!").removeprefix("in(").removesuffix(")")
    return (value in [name.strip() for name in listed.split(",")]) != wanted.startswith("!")


def gpus_per_actor(job: Job, name: str, cluster: Cluster) -> float:
    """A pool's `num_gpus`; where the job file leaves it open, one GPU if the pool's nodes have any.

    Raises:
        UserError: it is open, and nodes with GPUs may come or not.
    """
    pool = job.models[name].pool
    if pool.num_gpus is not None:
        return pool.num_gpus
    if any(node.resources.get("GPU") for node in cluster.nodes_of(pool)):
        return 1
    if cluster.may_grow:
        raise UserError(
            "missing, and needed on a cluster that grows and has no node with a GPU "
            "for this pool yet; write 1, or 0 to draw on CPUs",
            ("models", name, "pool", "num_gpus"),
        )
    return 0


def max_tasks(cluster: Cluster) -> int | None:
    """How many tasks should encode and store at once: one a CPU, as each keeps one busy; None where nodes may come.

    Every one beyond costs a process, which takes a second to start, and makes nothing quicker.
    """
    return None if cluster.may_grow else max(1, int(cluster.resources["CPU"]))


def max_actors(pool: Pool, num_gpus: float, cluster: Cluster) -> int:
    """How many of a pool's actors the cluster could hold, if they had it for themselves.

    Args:
        num_gpus: per actor.
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
        names: of the models that have something to draw; others start no actors.
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
    """Raise where a pool, and those before it with the same selector, take more than their nodes have together."""
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
    """What Ray is asked to check a selector for."""
