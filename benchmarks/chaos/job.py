"""The job that is disturbed: some hundred small images by Sana, rendered by a few actors."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.chaos.compare import records
from benchmarks.local_cluster import Cluster
from rendermill.manifests.output.layout import Layout

_ROOT = Path(__file__).parents[2]
_NUM_ITEMS_PER_SHARD = 16
NUM_STEPS = 12
"""Of denoising: more of them make the job last longer."""
_AUDITED_SHARE = 0.05
MAX_SECONDS = 900
"""A submission that takes longer hangs."""
DEADLINE_SECONDS = 20.0
"""Of an item."""


class Job:
    """A manifest and a job file, to be submitted to one output after the other.

    Args:
        folder: for the job's files, and for the notes of its processes (`notes/sitecustomize.py`), in `notes/`.
        cluster: was started with CHAOS_NOTES in its environment.
    """

    def __init__(
        self,
        folder: Path,
        cluster: Cluster,
        num_items: int,
        num_actors: int,
        media_layout: Layout = "files",
        num_steps: int = NUM_STEPS,
    ) -> None:
        self._folder, self._cluster, self._num_actors, self._num_steps = folder, cluster, num_actors, num_steps
        self._layout = media_layout
        self.num_items = num_items
        self.num_submissions = 0
        ids = [str(index) for index in range(num_items)]
        pq.write_table(
            pa.table({"id": ids, "prompt": [f"prompt {index}" for index in ids]}), folder / "prompts.parquet"
        )

    def rendered(self) -> list[str]:
        """Request hashes of all that was rendered so far, those rendered again once more."""
        file = self._folder / "notes" / "rendered"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def log(self) -> Path:
        """The output of all drivers."""
        return self._folder / "driver.log"

    @contextmanager
    def submitted(
        self, output: str, machine: str | None = None, variables: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """The driver, which is killed if it has not ended when the block does.

        Args:
            machine: the host name that it sees; None: this machine's.
            variables: of its environment alone.
        """
        self.num_submissions += 1
        path = self._folder / "job.yaml"
        path.write_text(yaml.safe_dump(self._content(output)))
        environment = self._cluster.environment | {
            "PYTHONPATH": str(Path(__file__).with_name("notes")),
            "CHAOS_DRIVER": output.partition("://")[2] or output,
            **(variables or {}),
        }
        command = [sys.executable, "-m", "rendermill", "generate", str(path)]
        if machine is not None:  # `exec`, so that signals reach the driver itself
            command = ["unshare", "--uts", "sh", "-c", f'hostname {machine} && exec "$@"', "sh", *command]
        with self.log.open("ab") as log:
            driver = subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=log, stderr=log)
            try:
                yield driver
            finally:
                driver.kill()
                driver.wait()

    def run(self, output: str) -> list[dict[str, Any]]:
        """Run the job to its end and return its records."""
        with self.submitted(output) as driver:
            if driver.wait(MAX_SECONDS) != 0:
                raise SystemExit(self.log.read_text())
        return records(output)

    def _content(self, output: str) -> dict[str, Any]:
        return {
            "seed": 7,
            "audit": _AUDITED_SHARE,
            "manifest": str(self._folder / "prompts.parquet"),
            "output": output,
            "layout": self._layout,
            "shared_disk": True,
            "models": {
                "sana": {
                    "checkpoint": str(_ROOT / "checkpoints" / "sana-shapes"),
                    "num_items_per_shard": _NUM_ITEMS_PER_SHARD if self._layout == "webdataset" else None,
                    "dtype": "float32",
                    "deadline": DEADLINE_SECONDS,
                    "defaults": {"width": 64, "height": 64, "num_inference_steps": self._num_steps},
                    "pool": {
                        "min_actors": self._num_actors,
                        "max_actors": self._num_actors,
                        "num_cpus": 0.5,
                        "num_gpus": 0,
                    },
                }
            },
        }
