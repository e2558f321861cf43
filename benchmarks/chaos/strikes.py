"""Who can be struck, and the moments at which a strike hits work in progress."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil

from benchmarks.chaos.job import Job
from benchmarks.chaos.s3_server import kill_gateway, restart_gateway
from benchmarks.local_cluster import Cluster, ray_node

ROLL_UP = "driver while it rolls up"
_SECONDS_BETWEEN_LOOKS = 0.005
_MAX_ITEMS_BETWEEN_STRIKES = 25


class Strikes:
    """The processes that draw for a job, and how to kill them.

    Args:
        notes: the folder that `notes/sitecustomize.py` writes to.
        has_gateway: whether the output is on the S3 server of `s3_server`.
        nodes: closes the worker nodes that this starts.
    """

    def __init__(
        self,
        cluster: Cluster,
        job: Job,
        notes: Path,
        has_gateway: bool,
        generator: random.Random,
        nodes: ExitStack,
    ) -> None:
        self._cluster, self._job, self._notes = cluster, job, notes
        self._generator, self._nodes = generator, nodes
        self._start_node()
        self._by_kind: dict[str, Callable[[psutil.Process], bool]] = {
            "renderer": lambda driver: self._kill_worker("_Renderer", driver),
            "uploader": lambda driver: self._kill_worker("_store", driver),
            "driver": self._kill,
            ROLL_UP: self._kill_in_roll_up,
            "raylet": self._kill_raylet,
        }
        if has_gateway:
            self._by_kind["gateway"] = self._kill_gateway

    @property
    def kinds(self) -> tuple[str, ...]:
        """What can be struck here."""
        return tuple(self._by_kind)

    def strike(self, kind: str, driver: psutil.Process) -> bool:
        """Wait for the right moment of this submission and kill; returns whether it struck work in progress."""
        if kind != ROLL_UP:
            num_drawn = len(self._job.drawn()) + self._generator.randint(1, _MAX_ITEMS_BETWEEN_STRIKES)
            if not _wait_for(lambda: len(self._job.drawn()) >= num_drawn, driver):
                return False
        return self._by_kind[kind](driver)

    def _start_node(self) -> None:
        arguments = (f"--address={self._cluster.address}", "--num-cpus=4")
        self._node = self._nodes.enter_context(ray_node(*arguments, environment=self._cluster.environment))

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
        if not _wait_for(mark.exists, driver):
            return False
        seconds = [float(line) for line in (self._notes / "roll-up-seconds").read_text().split()]
        time.sleep(self._generator.uniform(0, max(seconds[:1])))
        self._kill(driver)
        return mark.exists()

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
        for process in psutil.Process(self._node.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if title in " ".join(process.cmdline()[:1]):
                    yield process


def _wait_for(condition: Callable[[], bool], driver: psutil.Process) -> bool:
    """Whether it came true while the driver ran."""
    while driver.is_running() and driver.status() != psutil.STATUS_ZOMBIE:
        if condition():
            return True
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return False
