"""Shared by all tests: the checkpoints, one Ray cluster, and a way to run the command line."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from benchmarks.local_cluster import Cluster, ray_head

ROOT = Path(__file__).parents[1]
torch.set_num_threads(1)  # two test processes with two threads each would wait for one another
SLOWEST = ("test_chaos.py", "test_s3.py", "test_submit.py", "test_poison.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes minutes, so that no process is left with it when the other has nothing to do any more."""
    items.sort(key=lambda item: item.path.name not in SLOWEST)


def sabotaged_by(name: str) -> dict[str, str]:
    """The environment in which every Python of this checkout imports the `sitecustomize.py` of a folder of tests."""
    return {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / name), str(ROOT)])}


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    """The folder with sana-shapes, sana-sprint-shapes and wan-shapes."""
    return ROOT / "checkpoints"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One cluster for the whole session."""
    with ray_head() as head:
        yield head


@dataclass
class Finished:
    """What a run of the command line gave."""

    status: int
    out: str
    error: str


@dataclass
class Rendermill:
    """Runs the command line in a folder of its own."""

    folder: Path
    checkpoints: Path
    environment: Mapping[str, str]
    models: dict[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def manifest(self, rows: Sequence[Mapping[str, Any]] | pa.Table, name: str = "prompts.parquet") -> Path:
        """Write a manifest; `write_job` reads this one unless told otherwise."""
        if isinstance(rows, pa.Table):
            table = rows
        else:
            names = dict.fromkeys(key for row in rows for key in row)
            table = pa.table({key: [row.get(key) for row in rows] for key in names})
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, self.folder / name)
        return self.folder / name

    def model(self, name: str, checkpoint: str, **settings: Any) -> None:
        """Add a model with small defaults to the job."""
        defaults = {"width": 64, "height": 32, "num_inference_steps": 2} | settings.pop("defaults", {})
        if checkpoint == "wan-shapes":
            defaults.setdefault("num_frames", 5)
        self.models[name] = {
            "checkpoint": str(self.checkpoints / checkpoint),
            "dtype": "float32",
            "defaults": defaults,
            "pool": {"max_actors": 1, "num_cpus": 0.2, "num_gpus": 0} | settings.pop("pool", {}),
        } | settings

    def write_job(self, **keys: Any) -> Path:
        job = {
            "seed": 7,
            "manifest": str(self.folder / "prompts.parquet"),
            "output": str(self.output),
            "profile": str(self.folder / "profile"),  # what other tests learned would change batches
            "models": self.models,
        }
        path = self.folder / "job.yaml"
        path.write_text(yaml.safe_dump(job | keys))
        return path

    def run(self, *arguments: str | Path, cwd: Path = ROOT, **environment: str) -> Finished:
        finished = subprocess.run(
            [Path(sys.executable).with_name("rendermill"), *map(str, arguments)],
            cwd=cwd,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Finished(finished.returncode, finished.stdout, finished.stderr)

    def generate(self, *overrides: str, **keys: Any) -> Finished:
        return self.run("generate", self.write_job(**keys), *overrides)

    def table(self, name: str, output: Path | None = None) -> list[dict[str, Any]]:
        return pq.read_table((output or self.output) / name).to_pylist()


@pytest.fixture
def rendermill(tmp_path: Path, checkpoints: Path, cluster: Cluster) -> Rendermill:
    return Rendermill(tmp_path, checkpoints, cluster.environment)
