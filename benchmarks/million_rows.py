"""The cost of a row beside rendering: `python -m benchmarks.million_rows`, with `--store s3` on a real S3 server.

Renders small pictures of one colour with the family `blank`, and does the same in plain Ray Data
(benchmarks/plain_ray_data.py) on the same cluster, for ever more rows. Prints a table.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import fsspec
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.chaos.s3_server import s3_bucket
from benchmarks.driver_memory import peak_mebibytes
from benchmarks.local_cluster import ray_head

_HEAD = "| rows | | rows/s | start-up, s | after it, s | CPU, µs a row | driver, MiB | largest worker, MiB | objects |"
_ROOT = Path(__file__).parents[1]
_NUM_ROWS_IN_A_GROUP = 20_000
_SECONDS_BETWEEN_LOOKS = 0.5
_NUM_TRIAL_FILES = 1000
_SECONDS_PER_TRIAL_FILE = 1e-4
_SECONDS_BETWEEN_TRIALS = 20.0
_NUM_TRIALS = 20


@dataclass
class Cost:
    """The cost of one run.

    Attributes:
        start_up_seconds: until the first media.
        cpu_seconds: of the whole machine, and so also of whatever else it does.
        worker_mebibytes: the largest worker's.
    """

    seconds: float
    start_up_seconds: float
    cpu_seconds: float
    driver_mebibytes: float
    worker_mebibytes: float
    num_objects: int


def measure(command: list[str], environment: dict[str, str], output: str, good: Collection[int] = (0,)) -> Cost:
    """Run a driver to its end, and wait until the disk has what it wrote: a baseline leaves that to the kernel.

    Args:
        good: the exit statuses of a driver that did what it should.
    """
    os.sync()  # what came before
    filesystem, root = fsspec.core.url_to_fs(output, use_listings_cache=False)
    started, cpu_before, first, driver_peak, worker_peak = time.monotonic(), _cpu_seconds(), 0.0, 0.0, 0.0
    driver = subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=subprocess.DEVNULL)
    while driver.poll() is None:
        driver_peak = max(driver_peak, peak_mebibytes(driver))
        worker_peak = max(worker_peak, _largest_worker())
        if not first and filesystem.exists(f"{root}/media"):
            first = time.monotonic() - started
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if driver.returncode not in good:
        raise SystemExit(f"{command}: exit status {driver.returncode}")
    os.sync()
    seconds = time.monotonic() - started
    cpu_seconds = _cpu_seconds() - cpu_before
    return Cost(seconds, first, cpu_seconds, driver_peak, worker_peak, len(filesystem.find(root)))


def _cpu_seconds() -> float:
    times = psutil.cpu_times()
    return times.user + times.nice + times.system  # Ray is nice: its workers give way to others


def _largest_worker() -> float:
    sizes = [
        process.info["memory_info"].rss / 2**20
        for process in psutil.process_iter(["cmdline", "memory_info"])
        if process.info["cmdline"] and process.info["cmdline"][0].startswith("ray::")
    ]
    return max(sizes, default=0.0)


def wait_for_disk(folder: Path) -> None:
    """Wait until making files costs what it should.

    For six minutes after files were deleted ext4 walks past their inodes, one by one, for every new file.
    """
    for trial in range(_NUM_TRIALS):
        started = time.monotonic()
        for number in range(_NUM_TRIAL_FILES):
            (folder / f"trial-{trial}-{number}").touch()
        if time.monotonic() - started < _NUM_TRIAL_FILES * _SECONDS_PER_TRIAL_FILE:
            return
        time.sleep(_SECONDS_BETWEEN_TRIALS)


def write_manifest(path: Path, num_rows: int) -> None:
    """Write prompts with ids, in row groups."""
    numbers = range(num_rows)
    table = pa.table({"id": [f"item-{n:08d}" for n in numbers], "prompt": [f"prompt number {n}" for n in numbers]})
    pq.write_table(table, path, row_group_size=_NUM_ROWS_IN_A_GROUP)


def write_job(folder: Path, manifest: Path, output: str) -> Path:
    """Write a job of one actor of the family `blank`, batches of 1024."""
    (folder / "blank").mkdir(exist_ok=True)
    (folder / "blank" / "model_index.json").write_text(json.dumps({"_class_name": "BlankPipeline"}))
    pool = {"min_actors": 1, "max_actors": 1, "num_cpus": 0.5, "num_gpus": 0}
    job = {
        "manifest": str(manifest),
        "output": output,
        "profile": str(folder / "profile"),
        "models": {"blank": {"checkpoint": str(folder / "blank"), "dtype": "float32", "batch": 1024, "pool": pool}},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def main() -> None:
    """Print a line a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--store", choices=["local", "s3"], default="local")
    parser.add_argument("--num-cpus", type=int, default=os.cpu_count(), help="that Ray is told of")
    parser.add_argument("--only", choices=["rendermill", "plain Ray Data"])
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rows-")))
        outputs = str(folder / "outputs")
        if given.store == "s3":
            outputs = stack.enter_context(s3_bucket(folder / "s3", "rows"))
        cluster = stack.enter_context(ray_head(given.num_cpus))
        environment = cluster.environment | {"RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
        wait_for_disk(folder)
        print(_HEAD + "\n|" + "---|" * _HEAD.count(" |"))
        for num_rows in given.num_rows:
            manifest = folder / f"{num_rows}.parquet"
            write_manifest(manifest, num_rows)
            for name in ("plain Ray Data", "rendermill"):
                if given.only not in (None, name):
                    continue
                output = f"{outputs}/{num_rows}-{name.replace(' ', '-')}"
                job = write_job(folder, manifest, output)
                if name == "rendermill":
                    arguments = ["rendermill", "generate", str(job)]
                else:
                    arguments = ["benchmarks.plain_ray_data", str(manifest), str(folder / "blank"), output]
                cost = measure([sys.executable, "-m", *arguments], environment, output)
                seconds_after = cost.seconds - cost.start_up_seconds
                print(
                    f"| {num_rows} | {name} | {num_rows / cost.seconds:.0f} | {cost.start_up_seconds:.1f} | "
                    f"{seconds_after:.1f} | {cost.cpu_seconds / num_rows * 1e6:.0f} | "
                    f"{cost.driver_mebibytes:.0f} | {cost.worker_mebibytes:.0f} | {cost.num_objects} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
