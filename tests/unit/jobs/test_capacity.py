"""What a cluster can hold: pools are judged by the nodes that their labels match, and not if nodes may still come."""

from collections.abc import Mapping
from typing import Any

import pytest

from rendermill.jobs.cluster.capacity import (
    Cluster,
    Node,
    check_resources,
    check_selectors,
    gpus_per_actor,
    max_actors,
    max_tasks,
)
from rendermill.jobs.config.job import Job
from rendermill.jobs.config.job_file import parse_job
from rendermill.manifests.errors import UserError

HEAD = Node({"CPU": 8}, {})
IMAGES = Node({"CPU": 16, "GPU": 1}, {"group": "images", "ray.io/accelerator-type": "L40S"})
VIDEOS = Node({"CPU": 16, "GPU": 1}, {"group": "videos", "ray.io/accelerator-type": "H100"})
FIXED = Cluster([HEAD, IMAGES, IMAGES, VIDEOS], may_grow=False)
GROWING = Cluster([HEAD], may_grow=True)


def job(**pools: Mapping[str, Any]) -> Job:
    models = {name: {"checkpoint": "somewhere", "pool": pool} for name, pool in pools.items()}
    return parse_job({"manifest": "m", "output": "o", "models": models}, "job.yaml")


@pytest.mark.parametrize(
    ("wanted", "num_nodes"),
    [("images", 2), ("!images", 2), ("in(images,videos)", 3), ("in(images, videos)", 3), ("!in(images,videos)", 1)],
)
def test_selectors_are_rays(wanted: str, num_nodes: int) -> None:
    assert len(FIXED.nodes_of(job(sana={"label_selector": {"group": wanted}}).models["sana"].pool)) == num_nodes


def test_a_pool_is_as_large_as_its_nodes() -> None:
    given = job(
        sana={"label_selector": {"group": "images"}},
        wan={"label_selector": {"group": "videos"}, "num_cpus": 4},
        blank={"num_gpus": 0, "num_cpus": 5},
        double={"num_gpus": 2},
    )
    num_gpus = {name: gpus_per_actor(given, name, FIXED) for name in given.models}
    assert num_gpus == {"sana": 1, "wan": 1, "blank": 0, "double": 2}
    sizes = {name: max_actors(model.pool, num_gpus[name], FIXED) for name, model in given.models.items()}
    assert sizes == {"sana": 2, "wan": 1, "blank": 8, "double": 1}


def test_a_task_a_cpu_encodes_and_stores() -> None:
    assert max_tasks(FIXED) == 56
    assert max_tasks(Cluster([Node({"CPU": 0.5}, {})], may_grow=False)) == 1
    assert max_tasks(GROWING) is None


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        (
            {"sana": {"label_selector": {"group": "audio"}}},
            "no node matches group: audio; there are nodes with images, v",
        ),
        ({"sana": {"label_selector": {"zone": "a"}}}, "no node matches zone: a; give nodes labels with ray start"),
        (
            {"sana": {"label_selector": {"group": "a b"}}},
            "models.sana.pool.label_selector: Invalid label selector value",
        ),
        (
            {"sana": {"label_selector": {"group": "videos"}, "min_actors": 2}},
            "2 GPUs, and the nodes with its labels have 1",
        ),
        (
            {name: {"label_selector": {"group": "videos"}} for name in ("wan", "wan2")},
            "models.wan2.pool: min_actors 1 × num_gpus 1 brings the job to 2 GPUs",
        ),
        ({"sana": {"num_gpus": 0, "num_cpus": 57}}, "57 CPUs, and the cluster has 56"),
        ({"sana": {"num_gpus": 0, "num_cpus": 56}}, "reading and storing need 0.25"),
    ],
)
def test_what_can_never_run_is_a_mistake(pools: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        given = job(**pools)
        check_selectors(given)
        check_resources(given, FIXED, given.models)
    assert message in str(error.value)


def test_models_without_anything_to_draw_need_no_room() -> None:
    given = job(**{name: {"label_selector": {"group": "videos"}} for name in ("wan", "wan2")}, idle={"num_cpus": 99})
    check_resources(given, FIXED, ["wan"])
    with pytest.raises(UserError, match=r"models\.wan2\.pool: min_actors"):
        check_resources(given, FIXED, ["wan", "wan2"])


def test_a_cluster_that_grows_may_hold_anything_but_says_nothing_of_gpus() -> None:
    given = job(wan={"label_selector": {"group": "videos"}, "num_gpus": 1, "max_actors": 20})
    check_resources(given, GROWING, given.models)
    assert max_actors(given.models["wan"].pool, 1, GROWING) == 20
    assert GROWING.resources["GPU"] > FIXED.resources["GPU"] == 3
    with pytest.raises(UserError, match=r"models\.wan\.pool\.num_gpus: missing, and needed on a cluster that grows"):
        gpus_per_actor(job(wan={}), "wan", GROWING)
    assert gpus_per_actor(job(wan={}), "wan", Cluster([HEAD, VIDEOS], may_grow=True)) == 1
