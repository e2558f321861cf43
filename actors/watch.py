"""Watches over the batches that a process draws: notes them in the journal, and ends the process past a deadline."""

import faulthandler
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from threading import RLock, Timer
from typing import Any

import ray
import torch

from manifests.errors import one_line

_SECONDS_FOR_LAST_WORDS = 2.0


@dataclass(frozen=True, eq=False)
class Watched:
    """Items that are being drawn together, or whose prompts are being encoded.

    Attributes:
        attempt: a name that no other has.
        deadline_seconds: for all of them, from when the device is theirs.
    """

    attempt: str
    deadline_seconds: float


class Watch:
    """What is on its way through the device, in order: while one batch is computed, the next may be launched.

    A deadline counts from the end of whatever came before. It is kept even where Python does not get a turn.

    Args:
        journal: the actor `actors.journal.Journal`.
    """

    def __init__(self, journal: Any) -> None:
        self._journal = journal
        self._lock = RLock()
        self._on_their_way: list[Watched] = []
        self._last_words: Timer | None = None
        self._seconds_at_work = 0.0
        self._at_work_since = 0.0

    def begin(self, items: Sequence[str], deadline_seconds: float) -> Watched:
        """These items are about to be drawn."""
        watched = Watched(uuid.uuid4().hex, deadline_seconds)
        ray.get(self._journal.began.remote(watched.attempt, items))
        with self._lock:
            self._on_their_way.append(watched)
            if len(self._on_their_way) == 1:
                self._at_work_since = time.perf_counter()
                self._set_alarm(watched)
        return watched

    def end(self, watched: Watched, error: Exception | None = None) -> None:
        """The items are drawn, or failed; does not return if the device answers nothing but errors since then."""
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

    @property
    def seconds_at_work(self) -> float:
        """That something was on its way, so far."""
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


def _is_device_lost() -> bool:
    """Whether the GPU answers nothing but errors, as after an illegal access: only a new process gets it back."""
    if not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
