"""Running the command line in tests, in processes of its own that start quickly."""

import multiprocessing
import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.local_cluster import Cluster
from rendermill.jobs.cli import main
from tests.support.forked_workers.python_path import take_python_path

ROOT = Path(__file__).parents[2]
MAX_SECONDS = 300


PRELOADED = ["rendermill.jobs.cli", *(f"rendermill.jobs.commands.{name}" for name in ("generate", "plan", "verify"))]
FORKS = multiprocessing.get_context("forkserver")
"""Commands start in a hundredth of a second where Ray and the rest of their imports are there already."""


def _command(arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], out: Path, error: Path) -> None:
    """Run a command in a process of its own, as a shell would."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in ((1, out), (2, error)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    take_python_path()
    sys.exit(main(arguments))


def sabotaged_by(name: str) -> dict[str, str]:
    """The environment in which every Python of this checkout imports the `sitecustomize.py` of a folder of tests."""
    return {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "support" / "sabotage" / name), str(ROOT)])}


@dataclass
class Finished:
    """The result of a run of the command line."""

    status: int
    out: str
    error: str


@dataclass
class Rendermill:
    """Runs the command line in a folder of its own.

    Attributes:
        cluster: the session's, if commands run on it; None: on another one, or on a Ray that they start themselves.
    """

    folder: Path
    checkpoints: Path
    environment: Mapping[str, str]
    cluster: Cluster | None = None
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
        """Run a command to its end, in a fork where it runs on the session's cluster."""
        given = {**self.environment, **environment}
        if self.cluster is None:
            program = [Path(sys.executable).with_name("rendermill"), *map(str, arguments)]
            finished = subprocess.run(program, cwd=cwd, env=given, capture_output=True, text=True, timeout=MAX_SECONDS)
            return Finished(finished.returncode, finished.stdout, finished.stderr)
        with tempfile.TemporaryDirectory() as folder:
            out, error = Path(folder, "out"), Path(folder, "error")
            process = FORKS.Process(target=_command, args=([*map(str, arguments)], cwd, given, out, error))
            process.start()
            process.join(MAX_SECONDS)
            if process.exitcode is None:
                process.kill()
                raise TimeoutError(f"{arguments}: {out.read_text()}{error.read_text()}")
            return Finished(process.exitcode, out.read_text(), error.read_text())

    def run_on_terminal(self, *arguments: str | Path) -> Finished:
        """Run a command whose output is a terminal; its output without the codes that only a terminal understands."""
        terminal, inner = pty.openpty()
        command = [Path(sys.executable).with_name("rendermill"), *map(str, arguments)]
        process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=inner, stderr=inner)
        os.close(inner)
        shown = b""
        try:
            while chunk := os.read(terminal, 4096):
                shown += chunk
        except OSError:  # the terminal closes with its last writer
            pass
        os.close(terminal)
        return Finished(process.wait(60), re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()), "")

    def generate(self, *overrides: str, **keys: Any) -> Finished:
        return self.run("generate", self.write_job(**keys), *overrides)

    def table(self, name: str, output: Path | None = None) -> list[dict[str, Any]]:
        return pq.read_table((output or self.output) / name).to_pylist()
