"""Every item exactly once, whatever dies: `python -m benchmarks.chaos --store local` or `--store s3`.

Runs one job undisturbed, then the same job again and again, each time into a new output, and kills what takes part in
it with SIGKILL, at moments that a seed decides. A job whose driver died is submitted again, until it is done; then its
output is compared with the undisturbed one. Ends when every kind of kill has struck often enough, or the time is up.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import psutil

from benchmarks.chaos.compare import Damage, compare
from benchmarks.chaos.job import MAX_SECONDS, NUM_STEPS, Job
from benchmarks.chaos.readers import Reads, reading
from benchmarks.chaos.s3_server import s3_bucket
from benchmarks.chaos.strikes import ENDS_THE_DRIVER, ROLL_UP, Strikes
from benchmarks.chaos.takeovers import LEASE_SCALE, Takeovers
from benchmarks.local_cluster import ray_head
from tests.support.forked_workers import forked_workers


class Chaos:
    """Rounds of one job, each into an output of its own.

    Args:
        outputs: URL or path that the outputs lie under.
    """

    def __init__(self, job: Job, outputs: str, strikes: Strikes, takeovers: Takeovers) -> None:
        self._job, self._outputs, self._strikes, self._takeovers = job, outputs, strikes, takeovers
        self.reads = Reads()
        self.kills: Counter[str] = Counter()
        self.damage = Damage()
        self.num_rounds = self.num_items_rendered_again = 0
        started = time.monotonic()
        self._undisturbed = job.run(f"{outputs}/undisturbed")
        print(f"undisturbed: {time.monotonic() - started:.0f} s", flush=True)

    def run_round(self, generator: random.Random, num_missing: Counter[str]) -> None:
        """Run the job once to its end, with strikes of kinds that are missing, while somebody reads its output."""
        output = f"{self._outputs}/{self.num_rounds}"
        num_rendered_before = len(self._job.rendered())
        kind = generator.choices(list(num_missing), list(num_missing.values()))[0]
        with reading(output, self.reads, random.Random(self.num_rounds)):
            if kind in self._takeovers.kinds:
                if self._takeovers.take_over(kind, output):
                    self._count(kind, num_missing)
            else:
                self._run_to_its_end(output, generator, num_missing)
        rendered = self._job.rendered()[num_rendered_before:]
        self.num_items_rendered_again += len(rendered) - len(set(rendered))
        found = compare(self._undisturbed, output)
        self.damage += found
        self.num_rounds += 1
        print(f"round {self.num_rounds}: {len(rendered)} renders, {found}, {self.reads}", flush=True)
        if found == Damage() and "://" not in output:
            shutil.rmtree(output)

    def _run_to_its_end(self, output: str, generator: random.Random, num_missing: Counter[str]) -> None:
        status = -1
        while status != 0:
            with self._job.submitted(output) as driver:
                while (missing := self._missing_strikes(num_missing)) and driver.poll() is None:
                    kind = generator.choices(list(missing), list(missing.values()))[0]
                    if self._strikes.strike(kind, psutil.Process(driver.pid)):
                        self._count(kind, num_missing)
                        if kind in ENDS_THE_DRIVER:
                            driver.wait(MAX_SECONDS)
                status = driver.wait(MAX_SECONDS)

    def _missing_strikes(self, num_missing: Counter[str]) -> dict[str, int]:
        return {kind: count for kind, count in num_missing.items() if count and kind in self._strikes.kinds}

    def _count(self, kind: str, num_missing: Counter[str]) -> None:
        self.kills[kind] += 1
        num_missing[kind] -= 1
        print(f"  {kind}", flush=True)

    def report(self, seconds: float) -> str:
        """Describe the strikes so far and the damage that was found."""
        num_items = self.num_rounds * len(self._undisturbed)
        kills = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kills.items()))
        return "\n".join(
            [
                f"{self.num_rounds} rounds of {len(self._undisturbed)} items, {self._job.num_submissions} submissions, "
                f"{seconds / 60:.0f} minutes",
                f"{self.kills.total()} kills in mid-work: {kills}",
                f"lost {self.damage.lost}, duplicated {self.damage.duplicated}, differing {self.damage.differing}, "
                f"broken {self.damage.broken}, left over {self.damage.left_over}",
                f"read while it ran: {self.reads.num_reads} times, {self.reads.num_media} media; items doubled "
                f"{self.reads.num_doubled}, media missing or damaged {self.reads.num_broken}",
                f"rendered again: {self.num_items_rendered_again} items, "
                f"{self.num_items_rendered_again / max(1, num_items):.1%} of "
                f"all, {self.num_items_rendered_again / max(1, self.kills.total()):.1f} a kill",
            ]
        )


def main() -> int:
    """Run until every kind of kill has struck often enough."""
    parser = argparse.ArgumentParser(description="Kills what takes part in a job, and compares its output.")
    parser.add_argument("--store", choices=["local", "s3"], default="local")
    parser.add_argument("--layout", choices=["files", "webdataset"], default="files")
    parser.add_argument("--num-kills", type=int, default=20, help="of each kind")
    parser.add_argument(
        "--num-roll-up-kills", type=int, default=5, help="of the driver while it rolls up, beside those"
    )
    parser.add_argument("--kinds", nargs="*", help="of kills; default: all")
    parser.add_argument("--num-items", type=int, default=300)
    parser.add_argument("--num-steps", type=int, default=NUM_STEPS, help="of denoising; more make it last longer")
    parser.add_argument("--num-actors", type=int, default=2)
    parser.add_argument("--max-minutes", type=float, default=90, help="begin no round after that")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    generator = random.Random(given.seed)
    started = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        (folder / "notes").mkdir()
        os.environ |= {"CHAOS_NOTES": str(folder / "notes"), "CHAOS_LEASE_SCALE": str(LEASE_SCALE)}
        outputs = str(folder / "outputs")
        if given.store == "s3":
            outputs = stack.enter_context(s3_bucket(folder / "s3", "chaos"))
        workers = stack.enter_context(forked_workers())
        cluster = stack.enter_context(ray_head(num_cpus=0, python=workers.python))
        workers.wait()
        job = Job(folder, cluster, given.num_items, given.num_actors, given.layout, given.num_steps)
        strikes = Strikes(cluster, job, folder / "notes", given.store == "s3", generator, workers, stack)
        takeovers = Takeovers(job, folder / "notes", given.store == "s3", generator)
        kinds = given.kinds or (*strikes.kinds, *takeovers.kinds)
        num_missing = Counter(dict.fromkeys(kinds, given.num_kills))
        if ROLL_UP in kinds:
            num_missing[ROLL_UP] = given.num_roll_up_kills
        chaos = Chaos(job, outputs, strikes, takeovers)
        while num_missing.total() and time.monotonic() - started < 60 * given.max_minutes:
            chaos.run_round(generator, num_missing)
        print(chaos.report(time.monotonic() - started))
    is_sound = chaos.damage == Damage() and not (chaos.reads.num_doubled or chaos.reads.num_broken)
    return int(not is_sound)


if __name__ == "__main__":
    sys.exit(main())
