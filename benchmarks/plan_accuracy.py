"""The accuracy of the forecasts of `rendermill plan`: `python -m benchmarks.plan_accuracy`.

One job of images and clips leaves a profile. Two others, of other mixes, are planned with it and then rendered; their
rendering time, as their run files say it, is set against the plan's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.local_cluster import Cluster, ray_head

_ROOT = Path(__file__).parents[1]
_POOL = {"min_actors": 1, "max_actors": 1, "num_cpus": 0.5, "num_gpus": 0}
_MODELS = {
    "sana": {
        "checkpoint": str(_ROOT / "checkpoints" / "sana-shapes"),
        "defaults": {"width": 128, "height": 128, "num_inference_steps": 12},
        "pool": _POOL,
    },
    "wan": {
        "checkpoint": str(_ROOT / "checkpoints" / "wan-shapes"),
        "defaults": {"width": 64, "height": 64, "num_frames": 17, "num_inference_steps": 20},
        "pool": _POOL,
    },
}
_LARGE, _SMALL = {"model": "sana"}, {"model": "sana", "width": 64, "height": 64}
_CLIP = {"model": "wan"}
_MIXES = {
    "learned from": [(_LARGE, 60), (_SMALL, 60), (_CLIP, 30)],
    "mostly large images": [(_LARGE, 240), (_SMALL, 40), (_CLIP, 20)],
    "mostly clips": [(_LARGE, 30), (_SMALL, 200), (_CLIP, 120)],
}


@dataclass
class Office:
    """Plans and renders in a folder, on a cluster."""

    folder: Path
    cluster: Cluster

    def run(self, command: str, name: str, *arguments: str) -> str:
        """Run a command on a mix's job; returns what it printed."""
        job = {
            "manifest": str(self.folder / f"{name}.parquet"),
            "output": str(self.folder / name),
            "profile": str(self.folder / "profile"),
            "models": _MODELS,
        }
        (self.folder / "job.yaml").write_text(yaml.safe_dump(job))
        line = [sys.executable, "-m", "rendermill", command, str(self.folder / "job.yaml"), *arguments]
        finished = subprocess.run(line, cwd=_ROOT, env=self.cluster.environment, check=True, stdout=subprocess.PIPE)
        return finished.stdout.decode()


def write_manifest(path: Path, mix: list[tuple[dict[str, Any], int]], scale: float) -> None:
    """Write a manifest with the given number of rows of each kind."""
    rows = [
        {"prompt": f"prompt {number}"} | kind for kind, num_rows in mix for number in range(round(num_rows * scale))
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)


def main() -> None:
    """Print a line a mix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="times as many rows")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ray_head() as cluster:
        office = Office(Path(name), cluster)
        for mix, rows in _MIXES.items():
            write_manifest(office.folder / f"{mix}.parquet", rows, given.scale)
            planned = json.loads(office.run("plan", mix, "--json"))["seconds"]
            office.run("generate", mix)
            (run_file,) = (office.folder / mix / "runs").glob("*.json")
            seconds = json.loads(run_file.read_text())["seconds"]
            judged = "not known" if planned is None else f"{planned:.1f} s, {planned / seconds - 1:+.1%}"
            print(f"{mix}: planned {judged}; rendered in {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
