"""Runs of rendermill in these checks, and what they gave."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]


@dataclass
class RunResult:
    """The records of a run.

    Attributes:
        pixels: The hash of the pixels of each item, by id.
        rate: The items a second in the second half of the run, after compiling, warming up and finding a size.
        seconds_to_first: The seconds from the command's start to the end of its first batch.
    """

    status: int
    pixels: dict[str, str]
    rate: float
    seconds_to_first: float


def run(
    name: str,
    checkpoint: Path,
    rows: list[dict[str, Any]],
    environment: Mapping[str, str] | None = None,
    models: Sequence[str] = ("model",),
    **settings: Any,
) -> RunResult:
    """Render rows with rendermill, into an output of its own; each model takes its share of the GPU."""
    folder, pool = checkpoint.parent, {"max_actors": 1, "num_gpus": 1 / len(models)}
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    job = {
        "manifest": str(folder / f"{name}.parquet"),
        "output": str(folder / name),
        "profile": str(folder / "profile"),
        "reproducibility": settings.pop("reproducibility", "strict"),
        "default_model": models[0],
        "models": {model: {"checkpoint": str(checkpoint), "pool": pool, **settings} for model in models},
    }
    (folder / f"{name}.yaml").write_text(json.dumps(job))
    command = [sys.executable, "-m", "rendermill", "generate", str(folder / f"{name}.yaml")]
    started = datetime.now(UTC)
    status = subprocess.run(command, cwd=ROOT, env={**os.environ, **(environment or {})}).returncode
    records = sorted(pq.read_table(folder / name / "metadata").to_pylist(), key=lambda record: record["started_at"])
    rate = busy = seconds_to_first = 0.0
    if records:
        first = records[0]
        seconds_to_first = (first["started_at"] - started).total_seconds() + first["seconds"] * first["batch_size"]
        start = records[len(records) // 2]["started_at"]
        steady = [record for record in records if record["started_at"] >= start]
        last = steady[-1]
        span = (last["started_at"] - start).total_seconds() + last["seconds"] * last["batch_size"]
        rate, busy = len(steady) / span, sum(record["seconds"] for record in steady) / span
    sizes = " ".join(str(record["batch_size"]) for record in _first_of_batches(records))
    (run_file,) = (folder / name / "runs").glob("*.json")
    found = json.loads(run_file.read_text()).get("found", {}).get("models", {})
    print(
        f"  {name}: first batch after {seconds_to_first:.0f} s, {rate:.3f} items/s, {busy:.1%} of it in batches, "
        f"sizes {sizes}, exit status {status}, {json.dumps(found)}",
        flush=True,
    )
    return RunResult(status, {record["id"]: record["pixel_sha256"] for record in records}, rate, seconds_to_first)


def _first_of_batches(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({record["started_at"]: record for record in records}.values())


def same(one: RunResult, other: RunResult) -> str:
    """Describe how many of the second run's items have the first's pixels."""
    num_same = sum(one.pixels.get(item) == pixels for item, pixels in other.pixels.items())
    return f"{num_same} of {len(other.pixels)} the same pixels"
