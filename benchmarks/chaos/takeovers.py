"""A driver that is silent for longer than its lease lasts, while another one takes over; then it comes back."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from benchmarks.chaos.job import MAX_SECONDS, Job
from benchmarks.chaos.s3_server import holding_proxy
from benchmarks.chaos.traps import Trap, sprung, trap_set

STOPPED = "driver stopped past its lease"
STOPPED_IN_ROLL_UP = "driver stopped past its lease while it rolls up"
CUT_OFF = {
    f"driver cut off from the store, its changes {how}": mode
    for how, mode in {"fail": "refused", "arrive late": "late", "unanswered": "unanswered"}.items()
}
LEASE_SCALE = 0.15
"""Of the times of leases: a heartbeat every 2 s, silent for 7 s."""
_MAX_CHANGES = 14
_MAX_CHANGES_IN_ROLL_UP = 2
_CLOCK_OFFSETS = (-3600, -45, 0, 45, 3600)
_SECONDS_BETWEEN_TRIES = 1.0
_SECONDS_TO_COME_BACK = 30.0
_SECONDS_FOR_LATE_ARRIVALS = 3.0
_HELD, _LOST = 2, 1


class Takeovers:
    """Rounds of two drivers on two machines, whose clocks differ.

    Args:
        notes: the folder that `notes/sitecustomize.py` writes to.
        has_gateway: whether the output is on the S3 server of `s3_server`.
    """

    def __init__(self, job: Job, notes: Path, has_gateway: bool, generator: random.Random) -> None:
        self._job, self._notes, self._generator = job, notes, generator
        self._by_kind: dict[str, Callable[[str], bool]] = {
            STOPPED: lambda output: self._stop(output, in_roll_up=False),
            STOPPED_IN_ROLL_UP: lambda output: self._stop(output, in_roll_up=True),
        }
        if has_gateway:
            for kind, mode in CUT_OFF.items():
                self._by_kind[kind] = lambda output, mode=mode: self._cut_off(output, mode)  # type: ignore[misc]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of strikes that are possible here."""
        return tuple(self._by_kind)

    def take_over(self, kind: str, output: str) -> bool:
        """Run the job with two drivers to its end; returns whether the first one was struck in mid-work."""
        return self._by_kind[kind](output)

    def _stop(self, output: str, in_roll_up: bool) -> bool:
        max_changes = _MAX_CHANGES_IN_ROLL_UP if in_roll_up else _MAX_CHANGES
        trap = Trap.at_random(signal.SIGSTOP, in_roll_up, max_changes, self._generator)
        with trap_set(self._notes, trap), self._first(output, {}) as driver:
            where = sprung(self._notes, psutil.Process(driver.pid))
            if where is None:
                driver.wait(MAX_SECONDS)
                self._follow(output)
                return False
            print(f"    stopped at {where}", flush=True)
            self._follow(output)
            _continue(driver)
            self._check_last(driver)
            return True

    def _cut_off(self, output: str, mode: str) -> bool:
        """Cut the first driver off in one of the ways of `holding.py`."""
        (self._notes / "release").unlink(missing_ok=True)
        (self._notes / "hold-mode").write_text(mode)
        trap = Trap.at_random("cut", self._generator.random() < 0.5, _MAX_CHANGES_IN_ROLL_UP, self._generator)
        with (
            holding_proxy(self._notes) as endpoint,
            trap_set(self._notes, trap),
            self._first(output, {"AWS_ENDPOINT_URL": endpoint}) as driver,
        ):
            where = sprung(self._notes, psutil.Process(driver.pid))
            if where is not None:
                print(f"    cut off at {where}", flush=True)
            self._follow(output)
            (self._notes / "release").touch()
            time.sleep(_SECONDS_FOR_LATE_ARRIVALS)
            (self._notes / "cut").unlink(missing_ok=True)
            self._check_last(driver)
        late = self._notes / "arrived-late"
        if late.exists():
            print(f"    arrived late: {'; '.join(late.read_text().splitlines())[:500]}", flush=True)
            late.unlink()
        return where is not None

    @contextlib.contextmanager
    def _first(self, output: str, environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
        with self._job.submitted(output, "chaos-1", self._clock() | environment) as driver:
            try:
                yield driver
            finally:
                _continue(driver)

    def _follow(self, output: str) -> None:
        """Submit on another machine until the job is done."""
        environment, ends = self._clock(), time.monotonic() + MAX_SECONDS
        while time.monotonic() < ends:
            with self._job.submitted(output, "chaos-2", environment) as follower:
                if follower.wait(MAX_SECONDS) == 0:
                    return
            time.sleep(_SECONDS_BETWEEN_TRIES)
        raise SystemExit(f"no run could follow: {self._job.log}")

    def _check_last(self, driver: "subprocess.Popen[bytes]") -> None:
        """Let the first driver end by itself, as far as it does."""
        try:
            status = driver.wait(_SECONDS_TO_COME_BACK)
        except subprocess.TimeoutExpired:
            print("    the first driver still tries; killed", flush=True)
            return
        if status not in (0, _LOST, _HELD):
            print(f"    the first driver ended with status {status}", flush=True)

    def _clock(self) -> dict[str, str]:
        offset = self._generator.choice(_CLOCK_OFFSETS)
        return {"CHAOS_CLOCK_OFFSET": str(offset)}


def _continue(driver: "subprocess.Popen[bytes]") -> None:
    """Let a stopped driver, which is the child of its machine's first process, go on."""
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        os.kill(driver.pid, signal.SIGCONT)
