"""Who can be struck, and the moments at which a strike hits work in progress."""

import contextlib
import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil

from benchmarks.chaos.job import Job
from benchmarks.chaos.s3_server import kill_gateway, restart_gateway
from benchmarks.chaos.traps import Trap, sprung, trap_set
from benchmarks.local_cluster import Cluster, ray_node
from tests.support.forked_workers import ForkedWorkers

ROLL_UP = "driver while it rolls up"
SIGNALS_IN_ROLL_UP = {
    f"{number.name} to the driver while it rolls up": number for number in (signal.SIGTERM, signal.SIGINT)
}
ENDS_THE_DRIVER = {"driver", ROLL_UP, *SIGNALS_IN_ROLL_UP}
POISONED = "item that kills what encodes it"
_MAX_CHANGES_IN_ROLL_UP = 2
_NUM_DEATHS_BY_POISON = 2
_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_BETWEEN_LOOKS_IN_ROLL_UP = 0.005
"""A roll-up takes some ten milliseconds."""
_MAX_ITEMS_BETWEEN_STRIKES = 25
_NUM_STRIKES_IN_A_SMALL_JOB = 6


class Strikes:
    """The processes that render for a job, and how to kill them.

    Args:
        notes: the folder that `notes/sitecustomize.py` writes to.
        has_gateway: whether the output is on the S3 server of `s3_server`.
        workers: fork the workers of the nodes.
        nodes: closes the worker nodes that this starts.
    """

    def __init__(
        self,
        cluster: Cluster,
        job: Job,
        notes: Path,
        has_gateway: bool,
        generator: random.Random,
        workers: ForkedWorkers,
        nodes: ExitStack,
    ) -> None:
        self._cluster, self._job, self._notes, self._workers = cluster, job, notes, workers
        self._generator, self._nodes = generator, nodes
        self._start_node()
        self._by_kind: dict[str, Callable[[psutil.Process], bool]] = {
            "renderer": lambda driver: self._kill_worker("_Renderer", driver),
            "uploader": lambda driver: self._kill_worker("_store", driver),
            "driver": self._kill,
            ROLL_UP: self._kill_in_roll_up,
            "raylet": self._kill_raylet,
            "renderer stopped": lambda driver: self._stop_worker("_Renderer", driver),
            POISONED: self._poison,
            "journal": lambda driver: self._kill_beside("CrashJournal", driver),
            "findings": lambda driver: self._kill_beside("Findings", driver),
        }
        for kind, number in SIGNALS_IN_ROLL_UP.items():
            self._by_kind[kind] = partial(self._signal_in_roll_up, number)
        if has_gateway:
            self._by_kind["gateway"] = self._kill_gateway

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of strikes that are possible here."""
        return tuple(self._by_kind)

    def strike(self, kind: str, driver: psutil.Process) -> bool:
        """Wait for the right moment of this submission and kill; returns whether it struck work in progress."""
        if kind not in (ROLL_UP, *SIGNALS_IN_ROLL_UP):
            most = min(_MAX_ITEMS_BETWEEN_STRIKES, max(1, self._job.num_items // _NUM_STRIKES_IN_A_SMALL_JOB))
            num_rendered = len(self._job.rendered()) + self._generator.randint(1, most)
            if not _wait_for(lambda: len(self._job.rendered()) >= num_rendered, driver):
                return False
        return self._by_kind[kind](driver)

    def _start_node(self) -> None:
        arguments = (f"--address={self._cluster.address}", "--num-cpus=4")
        node = ray_node(*arguments, environment=self._cluster.environment, python=self._workers.python)
        self._node = psutil.Process(self._nodes.enter_context(node).pid)

    def _kill_worker(self, title: str, driver: psutil.Process) -> bool:
        found: list[psutil.Process] = []
        if not _wait_for(lambda: bool(found.extend(self._processes(title)) or found), driver):
            return False
        return self._kill(self._generator.choice(found))

    def _kill(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            return True
        return False

    def _kill_in_roll_up(self, driver: psutil.Process) -> bool:
        mark = self._notes / "rolling-up"
        mark.unlink(missing_ok=True)  # a driver that died in a roll-up left it
        if not _wait_for(mark.exists, driver, _SECONDS_BETWEEN_LOOKS_IN_ROLL_UP):
            return False
        seconds = [float(line) for line in (self._notes / "roll-up-seconds").read_text().split()]
        time.sleep(self._generator.uniform(0, max(seconds[:1])))
        self._kill(driver)
        return mark.exists()

    def _signal_in_roll_up(self, number: signal.Signals, driver: psutil.Process) -> bool:
        trap = Trap.at_random(number, True, _MAX_CHANGES_IN_ROLL_UP, self._generator)
        with trap_set(self._notes, trap):
            where = sprung(self._notes, driver)
        if where is not None:
            print(f"    {number.name} at {where}", flush=True)
        return where is not None

    def _stop_worker(self, title: str, driver: psutil.Process) -> bool:
        """Stop a process for ever; it was struck if somebody ended it, as nothing else lets the job go on."""
        stopped: list[psutil.Process] = []
        if not _wait_for(lambda: bool(stopped.extend(self._processes(title)) or stopped), driver):
            return False
        process = self._generator.choice(stopped)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
            return _wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, driver)
        return False

    def _kill_beside(self, title: str, driver: psutil.Process) -> bool:
        """Kill an actor beside the driver, which is on the driver's node."""
        found: list[psutil.Process] = []
        if not _wait_for(lambda: bool(found.extend(self._processes_of_this_run(f"ray::{title}")) or found), driver):
            return False
        return self._kill(found[0])

    def _poison(self, driver: psutil.Process) -> bool:
        """Let one item kill the process that encodes it, and the one after it."""
        poison = self._notes / "poison.json"
        poison.write_text(json.dumps({"item": None, "num_deaths": _NUM_DEATHS_BY_POISON}))
        _wait_for(lambda: not json.loads(poison.read_text())["num_deaths"], driver)
        num_left = json.loads(poison.read_text())["num_deaths"]
        poison.unlink()
        return num_left == 0

    def _kill_raylet(self, driver: psutil.Process) -> bool:  # noqa: ARG002
        (raylet,) = self._processes("raylet/raylet")
        was_killed = self._kill(raylet)
        self._start_node()
        return was_killed

    def _kill_gateway(self, driver: psutil.Process) -> bool:  # noqa: ARG002
        kill_gateway()
        time.sleep(self._generator.uniform(0, 5))
        restart_gateway()
        return True

    def _processes(self, title: str) -> Iterator[psutil.Process]:
        """Yield the processes of the current worker node. Workers of an earlier one run in another folder."""
        folder = Path(self._node.cwd())
        forked = psutil.Process(self._workers.server.pid).children(recursive=True)
        for process in self._node.children(recursive=True) + forked:
            with contextlib.suppress(psutil.NoSuchProcess):
                if title in " ".join(process.cmdline()[:1]) and Path(process.cwd()).is_relative_to(folder):
                    yield process

    def _processes_of_this_run(self, title: str) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                is_named = " ".join(process.cmdline()[:1]).startswith(title)
                if is_named and process.environ().get("CHAOS_NOTES") == str(self._notes):
                    yield process


def _wait_for(
    condition: Callable[[], bool], driver: psutil.Process, seconds_between_looks: float = _SECONDS_BETWEEN_LOOKS
) -> bool:
    """Whether it came true while the driver ran."""
    while driver.is_running() and driver.status() != psutil.STATUS_ZOMBIE:
        if condition():
            return True
        time.sleep(seconds_between_looks)
    return False
