"""A store that fails: `python -m benchmarks.faulty_store`.

Runs one job undisturbed on a local disk; then on a real S3 server through a proxy that makes a share of its requests
fail, throttled, reset, never answered or answered late, and the server is away for a while. Compares their outputs.
"""

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.chaos.compare import Damage, compare
from benchmarks.chaos.job import MAX_SECONDS, Job
from benchmarks.chaos.s3_server import faulty_proxy, kill_gateway, restart_gateway, s3_bucket
from benchmarks.local_cluster import ray_head
from tests.support.forked_workers import forked_workers


def main() -> int:
    """Run the job twice."""
    parser = argparse.ArgumentParser(description="Runs a job on a store that fails, and compares its output.")
    parser.add_argument("--share", type=float, default=0.1, help="of requests that fail")
    parser.add_argument("--outage-seconds", type=float, default=120.0)
    parser.add_argument("--client-timeout-seconds", type=float, default=15.0, help="s3fs's own is 15")
    parser.add_argument("--num-items", type=int, default=300)
    parser.add_argument("--num-actors", type=int, default=2)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        (folder / "notes").mkdir()
        os.environ["CHAOS_NOTES"] = str(folder / "notes")
        bucket = stack.enter_context(s3_bucket(folder / "s3", "chaos"))
        counts = stack.enter_context(faulty_proxy(folder, given.share, given.client_timeout_seconds))
        workers = stack.enter_context(forked_workers())
        cluster = stack.enter_context(ray_head(num_cpus=4, python=workers.python))
        workers.wait()
        job = Job(folder, cluster, given.num_items, given.num_actors)

        started = time.monotonic()
        undisturbed = job.run(str(folder / "undisturbed"))
        print(f"undisturbed, local disk: {time.monotonic() - started:.0f} s", flush=True)

        started, num_rendered = time.monotonic(), len(job.rendered())
        with job.submitted(f"{bucket}/faults") as driver:
            while len(job.rendered()) < num_rendered + given.num_items // 4:
                time.sleep(0.1)
            kill_gateway()
            time.sleep(given.outage_seconds)
            restart_gateway()
            status = driver.wait(MAX_SECONDS)
        seconds, damage = time.monotonic() - started, compare(undisturbed, f"{bucket}/faults")
        print(
            f"{given.share:.0%} faults, and away for {given.outage_seconds:.0f} s: {seconds:.0f} s, {status=}, {damage}"
        )
        print(f"requests: {counts.read_text()}")
    return int(status != 0 or damage != Damage())


if __name__ == "__main__":
    sys.exit(main())
