"""deploy/kuberay, as kubectl renders it: pods against the schemas of Kubernetes, clusters against Ray's autoscaler.

No package index has the schemas of KubeRay's own kinds, so nothing here checks the other keys of a RayJob.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from rendermill.jobs.config.job_file import read_job_file
from tests.support.autoscaling import launches
from tests.support.commands import ROOT

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl, which renders kustomizations")


@cache
def rendered(name: str) -> dict[str, Any]:
    """The objects of a kustomization, by kind."""
    command = ["kubectl", "kustomize", str(ROOT / "deploy" / "kuberay" / name)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def ray_job(name: str) -> dict[str, Any]:
    """The specification of the Ray job of a kustomization."""
    objects = rendered(name)
    return objects["RayCronJob"]["spec"]["jobTemplate"] if name == "nightly" else objects["RayJob"]["spec"]


def pod_templates(cluster: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]


@pytest.mark.parametrize("name", ["job", "nightly"])
def test_kubernetes_accepts_it(name: str) -> None:
    version = kubernetes_validate.latest_version()
    for kind in ("ServiceAccount", "ConfigMap"):
        kubernetes_validate.validate(rendered(name)[kind], version, strict=True)
    for template in pod_templates(ray_job(name)["rayClusterSpec"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **template}
        kubernetes_validate.validate(pod, version, strict=True)


def test_once_and_nightly_are_one_job() -> None:
    once, nightly = dict(ray_job("job")), dict(ray_job("nightly"))
    command = once.pop("entrypoint")
    assert nightly.pop("entrypoint").endswith(f"\n{command}\n")
    assert once == nightly
    assert "RayJob" not in rendered("nightly")


def test_each_pool_brings_nodes_of_its_group(tmp_path: Path) -> None:
    (tmp_path / "nightly.yaml").write_text(rendered("job")["ConfigMap"]["data"]["nightly.yaml"])
    job = read_job_file(str(tmp_path / "nightly.yaml"), date="2026-11-25").job
    assert job.output == "s3://bucket/renders/2026-11-25"
    cluster = ray_job("job")["rayClusterSpec"]
    config = _derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": "rendermill", "namespace": "default"}, "spec": cluster}
    )
    brought = {
        name: launches(
            config,
            {"CPU": model.pool.num_cpus, "GPU": model.pool.num_gpus or 0},
            model.pool.label_selector,
            model.pool.max_actors,
        )
        for name, model in job.models.items()
    }
    assert brought == {"sana": {"images": 8}, "wan": {"videos": 8}}


@pytest.mark.parametrize(("status", "is_success"), [(0, True), (1, False), (2, False), (3, True)])
def test_every_try_of_a_night_has_its_date(tmp_path: Path, status: int, is_success: bool) -> None:
    program = tmp_path / "rendermill"
    program.write_text(f"#!/bin/sh\necho $RENDERMILL_DATE $@\nexit {status}\n")
    program.chmod(0o755)
    finished = subprocess.run(
        ["/bin/sh", "-c", ray_job("nightly")["entrypoint"]],  # as Ray runs an entrypoint
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "RAY_CLUSTER_NAME": "nightly-29936160-x7k2p"},
        capture_output=True,
        text=True,
    )
    assert finished.stdout == "2026-12-02 generate /etc/rendermill/nightly.yaml\n"
    assert (finished.returncode == 0) == is_success


def test_a_head_that_goes_ends_its_driver_first(tmp_path: Path) -> None:
    """The hook finds a driver by its command line, and waits for it; it finds neither itself nor the job's shell."""
    program = tmp_path / "rendermill"
    program.write_text(
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(print('committed')))\n"
        "print('ready', flush=True)\nsignal.pause()\n"
    )
    hook = ray_job("job")["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["lifecycle"][
        "preStop"
    ]
    command = [
        word.replace("rendermill generate", f"rendermill generate {tmp_path}") for word in hook["exec"]["command"]
    ]
    job = f"python3 {program} generate {tmp_path} || test $? -eq 3"
    with subprocess.Popen(["/bin/sh", "-c", job], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "ready\n"
        subprocess.run(command, check=True, timeout=60)
        assert shell.stdout.read() == "committed\n"
        assert shell.wait() == 0
