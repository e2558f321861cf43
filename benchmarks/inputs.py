"""The cost of an image column on S3: `python -m benchmarks.inputs`, on a real S3 server of this machine.

Renders with the family `blank`, with a column that names small files, each by several rows, and without it; media go to
the same server. Prints a table, and counts the server's GETs. One file in a thousand is no picture.
"""

import argparse
import glob
import io
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import s3fs
import yaml
from PIL import Image

from benchmarks.chaos.s3_server import s3_bucket
from benchmarks.local_cluster import ray_head
from benchmarks.million_rows import measure, write_job

_HEAD = "| | rows/s | seconds | CPU, µs a row | driver, MiB | largest worker, MiB | GETs | records | failures |"
_SIZE = 64
_NUM_FILES_PER_BAD_ONE = 1000


def write_files(bucket: str, num_files: int) -> None:
    """Store pictures of one colour each, and one file in a thousand that is none."""
    store = s3fs.S3FileSystem()

    def write(number: int) -> None:
        sink = io.BytesIO()
        colour = np.array([number >> 16 & 255, number >> 8 & 255, number & 255], np.uint8)
        Image.fromarray(np.broadcast_to(colour, (_SIZE, _SIZE, 3)).copy()).save(sink, "PNG")
        is_bad = number % _NUM_FILES_PER_BAD_ONE == 0
        store.pipe_file(f"{bucket}/images/{number}.png", b"<html>" if is_bad else sink.getvalue())

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(write, range(num_files)))


def num_gets(folder: Path) -> int:
    """Return how many GETs the server's gateway has answered."""
    (socket,) = glob.glob(f"{folder}/s3/*/run/client.*.asok")
    dump = subprocess.run(["ceph", "--admin-daemon", socket, "perf", "dump"], capture_output=True, check=True)
    counts = json.loads(dump.stdout)
    return sum(part.get("get", 0) for name, part in counts.items() if name == "rgw")


def main() -> None:
    """Print a line a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-rows", type=int, default=50_000)
    parser.add_argument("--num-files", type=int, default=10_000)
    parser.add_argument("--num-cpus", type=int, default=os.cpu_count(), help="that Ray is told of")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inputs-")))
        bucket = stack.enter_context(s3_bucket(folder / "s3", "inputs"))
        write_files(bucket, given.num_files)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        cluster = stack.enter_context(ray_head(given.num_cpus))
        environment = cluster.environment | {"RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
        print(_HEAD + "\n|" + "---|" * _HEAD.count(" |"))
        numbers = np.random.default_rng(0).permutation(np.arange(given.num_rows) % given.num_files)
        table = pa.table({"id": [f"item-{n:08d}" for n in range(given.num_rows)], "prompt": ["p"] * given.num_rows})
        for name in ("without inputs", "with inputs"):
            if name == "with inputs":
                table = table.append_column("image", pa.array([f"{bucket}/images/{number}.png" for number in numbers]))
            pq.write_table(table, folder / "rows.parquet", row_group_size=10_000)
            output = f"{bucket}/{name.replace(' ', '-')}"
            path = write_job(folder, folder / "rows.parquet", output)
            path.write_text(path.read_text() + yaml.safe_dump({"inputs": {"allow": [f"{bucket}/images/"]}}))
            before = num_gets(folder)
            command = [sys.executable, "-m", "rendermill", "generate", str(path)]
            cost = measure(command, environment, output, good=(0, 3))
            gets = num_gets(folder) - before
            rows = {kind: _num_rows(output, kind) for kind in ("metadata", "failures")}
            print(
                f"| {name} | {given.num_rows / cost.seconds:.0f} | {cost.seconds:.1f} | "
                f"{cost.cpu_seconds / given.num_rows * 1e6:.0f} | {cost.driver_mebibytes:.0f} | "
                f"{cost.worker_mebibytes:.0f} | {gets} | {rows['metadata']} | {rows['failures']} |",
                flush=True,
            )


def _num_rows(output: str, kind: str) -> int:
    store = s3fs.S3FileSystem()
    files = [name for name in store.find(f"{output}/{kind}") if name.endswith(".parquet")]
    return sum(pq.read_metadata(store.open(name)).num_rows for name in files)


if __name__ == "__main__":
    main()
