"""Watches over what a process has in hand: notes it in the journal, and ends the process past a deadline."""

import faulthandler
import os
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from threading import RLock, Thread, Timer
from typing import Any

import ray

from rendermill.actors.services.deaths import WorkerProcess
from rendermill.manifests.errors import one_line

_SECONDS_FOR_LAST_WORDS = 2.0
_SECONDS_BETWEEN_SIGNS_OF_LIFE = 2.0
_SECONDS_OF_SILENCE = 300.0
"""Allowed where the job file sets no deadline: no call into a library keeps all threads from running for so long."""


@dataclass(frozen=True, eq=False)
class Watched:
    """Items that a process has in hand together.

    Attributes:
        attempt: a name that no other has.
        deadline_seconds: for all of them, from when the device is theirs.
    """

    attempt: str
    deadline_seconds: float


class Watch:
    """The work on its way through a process, in order: while one batch is computed, the next may be launched.

    A deadline counts from the end of whatever came before. It is kept even where Python does not get a turn; and while
    the process shows no sign of life, as where it is stopped, the journal ends it from outside. There is one for each
    process, see `watch_of_this_process`.

    Args:
        journal: the actor `actors.services.crash_journal.Journal`.
        process: this one.
    """

    def __init__(self, journal: Any, process: WorkerProcess) -> None:
        self._journal, self._process = journal, process
        self._lock = RLock()
        self._on_their_way: list[Watched] = []
        self._last_words: Timer | None = None
        self._seconds_at_work = 0.0
        self._at_work_since = 0.0
        self._max_seconds_of_silence = _SECONDS_OF_SILENCE
        Thread(target=self._show_life, name="signs of life", daemon=True).start()

    def allow_silence(self, seconds: float | None) -> None:
        """Set for how long the process may show no sign of life; None: five minutes."""
        self._max_seconds_of_silence = seconds or _SECONDS_OF_SILENCE
        self._show_sign()  # at once, as what follows may stop the process

    def begin(self, items: Sequence[str], deadline_seconds: float) -> Watched:
        """Take these items in hand."""
        watched = Watched(uuid.uuid4().hex, deadline_seconds)
        ray.get(self._journal.began.remote(self._process, watched.attempt, items))
        with self._lock:
            self._on_their_way.append(watched)
            if len(self._on_their_way) == 1:
                self._at_work_since = time.perf_counter()
                self._set_alarm(watched)
        return watched

    def end(self, watched: Watched, error: BaseException | None = None) -> None:
        """The items are done, or failed; does not return if the device answers nothing but errors since then."""
        if error is not None and _is_device_lost():
            self._dying(watched, type(error).__name__, one_line(error, max_length=1000))
            os._exit(1)
        with self._lock:
            was_first = self._on_their_way[0] is watched
            self._on_their_way.remove(watched)
            if was_first:
                self._cancel_alarm()
                if self._on_their_way:
                    self._set_alarm(self._on_their_way[0])
            if not self._on_their_way:
                self._seconds_at_work += time.perf_counter() - self._at_work_since
        self._journal.ended.remote(watched.attempt)

    @contextmanager
    def watched(self, items: Sequence[str], deadline_seconds: float) -> Iterator[None]:
        """Within, these items are in hand."""
        watched = self.begin(items, deadline_seconds)
        try:
            yield
        except BaseException as error:
            self.end(watched, error)
            raise
        self.end(watched)

    @property
    def seconds_at_work(self) -> float:
        """The time that something was on its way, so far."""
        with self._lock:
            ongoing = time.perf_counter() - self._at_work_since if self._on_their_way else 0.0
            return self._seconds_at_work + ongoing

    def _set_alarm(self, watched: Watched) -> None:
        overdue = f"not done after {watched.deadline_seconds:.0f} s, its deadline"
        self._last_words = Timer(watched.deadline_seconds, self._dying, args=(watched, "DeadlinePassed", overdue))
        self._last_words.start()
        faulthandler.dump_traceback_later(watched.deadline_seconds + _SECONDS_FOR_LAST_WORDS, exit=True)

    def _cancel_alarm(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._last_words is not None:
            self._last_words.cancel()

    def _dying(self, watched: Watched, error_type: str, error: str) -> None:
        ray.get(self._journal.dying.remote(watched.attempt, error_type, error))

    def _show_sign(self) -> None:
        self._journal.alive.remote(self._process, self._max_seconds_of_silence)

    def _show_life(self) -> None:
        while True:
            self._show_sign()
            time.sleep(_SECONDS_BETWEEN_SIGNS_OF_LIFE)


@lru_cache(maxsize=1)
def watch_of_this_process(journal: Any) -> Watch:
    """The watch of this process, which Ray may use for task after task.

    Args:
        journal: the actor `actors.services.crash_journal.Journal`.
    """
    return Watch(journal, WorkerProcess.this())


def _is_device_lost() -> bool:
    """Whether the GPU answers nothing but errors, as after an illegal access: only a new process gets it back."""
    torch = sys.modules.get("torch")  # tasks that encode have none, and no device
    if torch is None or not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
