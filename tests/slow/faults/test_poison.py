"""Items that end, stop or hang their process in any stage: they become failures, and every other item is rendered."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from benchmarks.local_cluster import Cluster, ray_head, ray_node
from tests.support.commands import ROOT, Rendermill, sabotaged_by

POISON = {
    "raises in rendering": ("ValueError", "poison"),
    "interrupts rendering": ("KeyboardInterrupt", "KeyboardInterrupt"),
    "is unspeakable in rendering": ("Unspeakable", "its message cannot be read"),
    "hangs in rendering": ("DeadlinePassed", "3 times while it rendered this item alone: not done after 4 s"),
    "interrupts encoding": ("KeyboardInterrupt", "KeyboardInterrupt"),
    "is unspeakable in encoding": ("Unspeakable", "its message cannot be read"),
    "stops in encoding": (
        "DeadlinePassed",
        "3 times while it encoded this item alone: the process did not answer for 4 s",
    ),
    "segfaults in encoding": ("WorkerDied", "3 times while it encoded this item alone: signal SIGSEGV"),
    "exits in storing": ("WorkerDied", "3 times while it stored this item alone: it ended without a message"),
    "is killed in storing": ("WorkerDied", "3 times while it stored this item alone: it ended without a message"),
}
"""What an item does, and its failure: type, and part of the message."""


def test_poison_costs_the_poisonous_items_alone(rendermill: Rendermill) -> None:
    rendermill.model("sana", "sana-shapes", deadline=4.0, batch=2, reference_batch=1)
    sound = [{"id": f"sound-{index}", "prompt": f"prompt {index}"} for index in range(len(POISON))]
    poisonous = [{"id": way.replace(" ", "-"), "prompt": f"an item that {way}"} for way in POISON]
    rendermill.manifest([row for pair in zip(sound, poisonous, strict=True) for row in pair])
    finished = rendermill.run("generate", rendermill.write_job(), **sabotaged_by("poison"))
    assert finished.status == 3, finished
    assert "10 items finished, 10 failed, 0 rejected" in finished.out
    (num_deaths,) = re.findall(r"  processes that died at work, (\d+): WorkerDied: signal SIGSEGV\n", finished.out)
    assert 3 <= int(num_deaths) <= 4, "alone three times, and before that with its neighbour"
    assert {row["id"] for row in rendermill.table("metadata")} == {row["id"] for row in sound}
    failures = {row["prompt"].removeprefix("an item that "): row for row in rendermill.table("failures")}
    assert {way: row["error_type"] for way, row in failures.items()} == {way: kind for way, (kind, _) in POISON.items()}
    for way, (_, words) in POISON.items():
        assert words in failures[way]["error"], failures[way]

    assert rendermill.run("retry", rendermill.output).status == 0, "without the poison they can be rendered"
    assert len(rendermill.table("metadata")) == 20
    assert rendermill.table("failures") == []


SAY_WHY_A_PROCESS_DIED = """
import pickle, sys, time
from pathlib import Path
import ray
from rendermill.actors.services.deaths import WorkerProcess, cause_of_death

file = Path(sys.argv[1])

@ray.remote(num_cpus=0, resources={"short of memory": 1}, max_retries=0)
def wait():
    file.write_bytes(pickle.dumps(WorkerProcess.this()))
    time.sleep(3600)

def tell():
    print("cause:", *cause_of_death(victim), sep="\\n", flush=True)

ray.init(log_to_driver=False, configure_logging=False)
while not file.exists():  # it may die at once
    try:
        ray.get(wait.remote())
    except ray.exceptions.OutOfMemoryError:
        pass
victim = pickle.loads(file.read_bytes())
tell()
sys.stdin.readline()
while any(node["Alive"] and node["NodeID"] == victim.node_id for node in ray.nodes()):
    time.sleep(0.1)
tell()
"""


@pytest.fixture
def observed() -> Iterator[Cluster]:
    """A cluster of its own: Ray's dashboard is what knows of deaths."""
    with ray_head(has_dashboard=True) as head:
        yield head


def test_the_cause_of_a_death_is_told_where_ray_knows_it(tmp_path: Path, observed: Cluster) -> None:
    little = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "500"}
    resources = ("--num-cpus=0", '--resources={"short of memory": 1}')
    node = ray_node(f"--address={observed.address}", *resources, environment=observed.environment | little)
    with node as started:
        told = subprocess.Popen(
            [sys.executable, "-c", SAY_WHY_A_PROCESS_DIED, tmp_path / "victims"],
            cwd=ROOT,
            env=observed.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert told.stdin is not None
        assert told.stdout is not None
        assert cause_in(told.stdout) == (
            "OutOfMemoryError",
            "Ray's memory monitor ended it, as the memory of its node ran out",
        )
        (daemon,) = [process for process in psutil.Process(started.pid).children() if process.name() == "raylet"]
        daemon.terminate()
        print(file=told.stdin, flush=True)
        assert cause_in(told.stdout) == ("WorkerDied", "its node died")
        assert told.wait(60) == 0


def cause_in(lines: IO[str]) -> tuple[str, str]:
    """The next cause, between what Ray prints."""
    while (line := lines.readline()) != "cause:\n":
        assert line, "it ended without a word"
    return lines.readline().rstrip(), lines.readline().rstrip()
