"""End an actor beside the driver that does not answer, so that Ray starts it again: renderers would wait for it."""

import contextlib
import time
from typing import Any

import ray
from ray.exceptions import RayError

from rendermill.actors.services.deaths import WorkerProcess, end_process

_SECONDS_BETWEEN_QUESTIONS = 10.0
_MAX_SECONDS_OF_SILENCE = 300.0


class ActorHealth:
    """Asks one actor every few seconds which process it is, and ends the process after minutes without an answer.

    Args:
        actor: handle of one with a method `process` (`actors.services.deaths.WorkerProcess.this`).
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._process: WorkerProcess | None = None
        self._asked_at = time.monotonic()
        self._answer = actor.process.remote()

    def check(self) -> None:
        """Look for an answer; call this often."""
        seconds = time.monotonic() - self._asked_at
        with contextlib.suppress(RayError):
            if ray.wait([self._answer], timeout=0)[0]:
                self._process = ray.get(self._answer)
            elif seconds > _MAX_SECONDS_OF_SILENCE and self._process is not None:
                end_process(self._process)
                self._process = None
            else:
                return
        if seconds > _SECONDS_BETWEEN_QUESTIONS:
            self._answer, self._asked_at = self._actor.process.remote(), time.monotonic()
