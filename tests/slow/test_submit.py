"""Jobs submitted to a cluster of several nodes, as the README does it: followed, stopped, submitted again, finished."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.local_cluster import Cluster, ray_head, ray_node
from tests.support.commands import ROOT, Rendermill, sabotaged_by

NUM_IMAGES, NUM_VIDEOS = 4, 2
FOREIGN = "raise ImportError('a package of the user, which rendermill should not import')\n"


@pytest.fixture(scope="module")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head, and a node for each model by its label, with a token that Ray generated."""
    home = str(tmp_path_factory.mktemp("home"))
    generated = subprocess.run(
        [Path(sys.executable).with_name("ray"), "get-auth-token", "--generate"],
        env=os.environ | {"HOME": home, "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        check=True,
    )
    with ExitStack() as stack:
        head = stack.enter_context(ray_head(num_cpus=1, token=generated.stdout.strip(), has_dashboard=True))
        for group in ("images", "videos"):
            labels = f"--labels=rendermill.io/group={group}"
            node = ray_node(f"--address={head.address}", "--num-cpus=1", labels, environment=head.environment)
            stack.enter_context(node)
        yield head


@pytest.fixture
def my_jobs(tmp_path: Path) -> Path:
    """A user's folder, with packages named like rendermill's own folders."""
    folder = tmp_path / "my-jobs"
    for name in ("jobs", "actors", "models", "manifests"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(FOREIGN)
    return folder


def readme_line(beginning: str) -> list[str]:
    """The arguments of the README's only line that begins so."""
    (line,) = re.findall(rf"^    ({re.escape(beginning)}.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    return shlex.split(line, comments=True)


def run(cwd: Path, environment: Mapping[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def test_local_disks_on_several_nodes_are_a_mistake_unless_shared(
    tmp_path: Path, checkpoints: Path, three_nodes: Cluster
) -> None:
    rendermill = Rendermill(tmp_path, checkpoints, three_nodes.environment)
    rendermill.model("sana", "sana-shapes", pool={"label_selector": {"rendermill.io/group": "in(images,other)"}})
    rendermill.manifest([{"prompt": ""}])
    finished = rendermill.generate()
    assert finished.status == 2, finished
    assert "manifest: " in finished.error
    assert "is on a local disk, and the cluster has 3 nodes" in finished.error
    manifest = f"manifest=file://{tmp_path}/prompts.parquet"
    assert "the cluster has 3 nodes" in rendermill.generate(manifest).error
    assert rendermill.generate("shared_disk=true").status == 3, "one rejected row, nothing to render"


def test_an_output_within_the_submitted_folder_is_a_mistake(
    tmp_path: Path, checkpoints: Path, my_jobs: Path, three_nodes: Cluster
) -> None:
    rendermill = Rendermill(tmp_path, checkpoints, three_nodes.environment)
    rendermill.model("sana", "sana-shapes")
    rendermill.manifest([{"prompt": "a cat"}])
    rendermill.write_job(output="out/lost").rename(my_jobs / "nightly.yaml")
    environment = three_nodes.environment | {"RAY_API_SERVER_ADDRESS": three_nodes.dashboard}
    finished = run(tmp_path, environment, *readme_line("ray job submit --working-dir"))
    assert finished.returncode != 0
    assert "exit code 2" in finished.stdout + finished.stderr
    mistake = re.search(
        r"nightly\.yaml:\d+: output: out/lost is relative to a submitted job's own folder", finished.stdout
    )
    assert mistake, finished.stdout


def test_the_lines_of_the_readme(tmp_path: Path, checkpoints: Path, my_jobs: Path, three_nodes: Cluster) -> None:
    environment = three_nodes.environment | {"RAY_API_SERVER_ADDRESS": three_nodes.dashboard}

    def ray(*command: str) -> subprocess.CompletedProcess[str]:
        return run(tmp_path, environment, *command)

    rendermill = Rendermill(tmp_path, checkpoints, environment)
    for model, group, num_cpus in (("sana", "images", 0.2), ("wan", "videos", 0.3)):
        pool = {"num_cpus": num_cpus, "label_selector": {"rendermill.io/group": group}}
        rendermill.model(model, f"{model}-shapes", batch=1, pool=pool)
    rows = [{"prompt": f"prompt {index}", "model": "sana"} for index in range(NUM_IMAGES)]
    rows += [{"prompt": f"prompt {index}", "model": "wan"} for index in range(NUM_VIDEOS)]
    rows[NUM_IMAGES - 1]["prompt"] = "an image that hangs in rendering"
    rendermill.manifest(rows)
    rendermill.write_job(shared_disk=True).rename(my_jobs / "nightly.yaml")
    poisoned = f"--runtime-env-json={json.dumps({'env_vars': sabotaged_by('poison')})}"

    command = readme_line("ray job submit --no-wait")
    submitted = ray(*command[:3], poisoned, *command[3:])
    assert submitted.returncode == 0, submitted
    with subprocess.Popen(
        readme_line("ray job logs"), cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as log:
        assert log.stdout is not None
        assert any(f"wan {NUM_VIDEOS}/{NUM_VIDEOS}" in line for line in log.stdout)
        stopped = ray(*readme_line("ray job stop"))
        assert stopped.returncode == 0, stopped
        rest = log.stdout.read()
    assert "interrupted; the same command goes on from here" in rest
    assert "Job 'nightly' was stopped" in rest
    num_committed = len(rendermill.table("metadata"))
    assert NUM_VIDEOS <= num_committed < NUM_IMAGES + NUM_VIDEOS
    assert f"{num_committed} items finished, 0 failed, 0 rejected" in rest

    finished = ray(*readme_line("ray job submit --working-dir"))
    assert finished.returncode == 0, finished
    assert f"; {num_committed} finished before" in finished.stdout
    assert f"{NUM_IMAGES + NUM_VIDEOS} items finished, 0 failed, 0 rejected" in finished.stdout
    assert len(rendermill.table("metadata")) == NUM_IMAGES + NUM_VIDEOS

    nodes = json.loads(ray("ray", "list", "nodes", "--detail", "--format=json").stdout)
    actors = json.loads(ray("ray", "list", "actors", "--detail", "--format=json").stdout)
    groups = {node["node_id"]: node["labels"].get("rendermill.io/group") for node in nodes}
    renderers = [actor for actor in actors if "_Renderer" in actor["class_name"]]
    placed = [(actor["required_resources"]["CPU"], groups[actor["node_id"]]) for actor in renderers]
    assert set(placed) == {(0.2, "images"), (0.3, "videos")}
