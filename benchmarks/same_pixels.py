"""Same item, same pixels, on this machine: `python -m benchmarks.same_pixels`.

Renders one manifest with every checkpoint of the repository, in bfloat16 and in float32, in batches of several sizes,
by one actor and by two, in another order, in parts, and a part of it alone; counts the items whose `pixel_sha256` is
not that of the first run. A last run in `fast` mode shows that batches do differ where nothing is done about it.

`--write FILE` keeps the first run's pixels; `--compare FILE` compares them with those of another version of rendermill,
which is meaningful on the same kind of machine and with the same versions of the libraries only.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from benchmarks.local_cluster import Cluster, ray_head

_ROOT = Path(__file__).parents[1]
_CHECKPOINTS = {
    "sana-shapes": {"width": 64, "height": 32, "num_inference_steps": 4},
    "sana-sprint-shapes": {"width": 64, "height": 32},
    "wan-shapes": {"width": 64, "height": 32, "num_frames": 5, "num_inference_steps": 4},
}
_DTYPES = ("bfloat16", "float32")


@dataclass
class Studio:
    """Runs jobs of all models in a folder."""

    folder: Path
    cluster: Cluster

    def render(
        self,
        name: str,
        rows: list[dict[str, Any]],
        batch: int | str = "auto",
        num_actors: int = 1,
        reproducibility: str = "strict",
    ) -> dict[str, str]:
        """Render rows into the output of this name; returns the pixel hashes of all that is there, by id."""
        pq.write_table(pa.Table.from_pylist(rows), self.folder / f"{name}.parquet")
        pool = {"min_actors": num_actors, "max_actors": num_actors, "num_cpus": 0.1, "num_gpus": 0}
        job = {
            "manifest": str(self.folder / f"{name}.parquet"),
            "output": str(self.folder / name),
            "profile": str(self.folder / f"{name}-profile"),
            "reproducibility": reproducibility,
            "models": {
                f"{checkpoint}-{dtype}": {
                    "checkpoint": str(_ROOT / "checkpoints" / checkpoint),
                    "dtype": dtype,
                    "defaults": defaults,
                    "batch": batch,
                    "pool": pool,
                }
                for checkpoint, defaults in _CHECKPOINTS.items()
                for dtype in _DTYPES
            },
        }
        (self.folder / "job.yaml").write_text(yaml.safe_dump(job))
        command = [sys.executable, "-m", "rendermill", "generate", str(self.folder / "job.yaml")]
        subprocess.run(command, cwd=_ROOT, env=self.cluster.environment, check=True, stdout=subprocess.DEVNULL)
        records = pq.read_table(self.folder / name / "metadata", columns=["id", "pixel_sha256"]).to_pylist()
        return {record["id"]: record["pixel_sha256"] for record in records}


def _prompt(index: int) -> str:
    """A short prompt, or for every other item a long one."""
    scene = f"a red circle number {index} on a blue square"
    return ", above ".join([scene] * (8 if index % 2 else 1))


def _made_on() -> dict[str, Any]:
    """The CPU and the versions of the libraries, on which pixels depend."""
    versions = {name: metadata.version(name) for name in ("torch", "diffusers", "transformers")}
    return versions | {"cpu": torch.backends.cpu.get_cpu_capability()}


def main() -> int:
    """Print a line a run; the exit status says whether all strict runs gave the same pixels."""
    parser = argparse.ArgumentParser(description="Renders the same items in many ways and compares their pixels.")
    parser.add_argument("--num-items", type=int, default=19, help="of each model")
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep the first run's pixels in this JSON file")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="compare them with the pixels of this JSON file")
    given = parser.parse_args()
    rows = [
        {"id": f"{checkpoint}-{dtype} {index}", "model": f"{checkpoint}-{dtype}", "prompt": _prompt(index)}
        for checkpoint in _CHECKPOINTS
        for dtype in _DTYPES
        for index in range(given.num_items)
    ]
    num_different = 0
    with tempfile.TemporaryDirectory() as name, ray_head() as cluster:
        studio = Studio(Path(name), cluster)
        expected = studio.render("first", rows, batch=1)
        print(f"batch 1, 1 actor: {len(expected)} items", flush=True)
        if given.write:
            kept = {"made_on": _made_on(), "pixels": expected}
            given.write.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
        if given.compare:
            kept = json.loads(given.compare.read_text())
            num_same = sum(expected.get(item) == pixels for item, pixels in kept["pixels"].items())
            print(f"{given.compare}: {num_same} of {len(kept['pixels'])} items with the same pixels", flush=True)
            if kept["made_on"] != _made_on():
                print(f"that file was made on {kept['made_on']}, and this is {_made_on()}", flush=True)
            num_different += len(kept["pixels"]) - num_same

        def compare(what: str, pixels: dict[str, str], num_items: int) -> int:
            num_same = sum(expected[item] == found for item, found in pixels.items())
            print(f"{what}: {len(pixels)} of {num_items} items, {num_same} with the same pixels", flush=True)
            return num_items - num_same

        for num_actors in (1, 2):
            for batch in (1, 2, 3, 4, 5, 8, "auto"):
                if (batch, num_actors) != (1, 1):
                    pixels = studio.render(f"{batch}-{num_actors}", rows, batch, num_actors)
                    num_different += compare(f"batch {batch}, {num_actors} actors", pixels, len(rows))
        shuffled = random.Random(0).sample(rows, len(rows))
        num_different += compare("shuffled", studio.render("shuffled", shuffled), len(rows))
        num_different += compare("every third row", studio.render("subset", rows[::3]), len(rows[::3]))
        studio.render("resumed", rows[::2])
        num_different += compare("resumed after half of them", studio.render("resumed", rows), len(rows))
        compare("fast, batch 8", studio.render("fast", rows, batch=8, reproducibility="fast"), len(rows))
    return int(num_different > 0)


if __name__ == "__main__":
    sys.exit(main())
