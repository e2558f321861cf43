"""Records which items each worker process has in hand, so that its death names the items that may have caused it.

Also detects a process that no longer shows signs of life, and ends it from outside.
"""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ray.exceptions import GetTimeoutError, RayError

from rendermill.actors.services.deaths import WorkerProcess, cause_of_death, end_process

MAX_DEATHS_ALONE = 3
"""The number of deaths of processes that had only this item in hand, after which it is at fault. Fewer may be chance:
processes are killed for other reasons, too."""

_SECONDS_OF_GRACE = 5.0
"""The time after the allowed silence: a process that is able to ends itself first, with a better message."""
_SECONDS_BETWEEN_CHECKS = 1.0
_SECONDS_FOR_A_CAUSE = 60.0

Cause = tuple[str, str]
"""The type of the error that a death is recorded as, and its message."""


@dataclass(frozen=True)
class Suspicion:
    """The evidence against an item.

    Attributes:
        num_deaths: the number of processes that died with it in hand, alone or with others.
        num_deaths_alone: the number of these processes that had nothing else in hand.
        cause: of the last death; None while the item may be tried again.
    """

    num_deaths: int
    num_deaths_alone: int
    cause: Cause | None

    @property
    def is_at_fault(self) -> bool:
        """Whether the item must not be tried again."""
        return self.num_deaths_alone >= MAX_DEATHS_ALONE


@dataclass
class _Attempt:
    process: WorkerProcess
    items: frozenset[str]
    reported: Cause | None = None


@dataclass
class _Signs:
    """The time of a process's last sign of life, by this machine's clock, and how long it may be silent."""

    heard_at: float
    max_seconds_of_silence: float


class CrashJournal:
    """A small actor beside the driver, which outlives the worker processes.

    An item's name consists of stage and request hash, because an item may be suspected in one stage only. If this actor
    dies, it starts again without memory, and living processes report themselves again.
    """

    def __init__(self) -> None:
        self._attempts: dict[str, _Attempt] = {}
        self._signs: dict[WorkerProcess, _Signs] = {}
        self._num_deaths: Counter[str] = Counter()
        self._num_deaths_alone: Counter[str] = Counter()
        self._cause: dict[str, Future[Cause]] = {}
        self._deaths: Counter[str] = Counter()
        self._is_stopping = False
        self._lock = threading.Lock()
        self._finding = ThreadPoolExecutor(max_workers=4, thread_name_prefix="causes")
        threading.Thread(target=self._end_silent_processes, name="silent processes", daemon=True).start()

    def open_chunk(self, items: Sequence[str]) -> dict[str, Suspicion] | None:
        """Record that a renderer takes a chunk, perhaps one over which another renderer died.

        Returns:
            The suspicions, as from `suspicions`; None if no more chunks are to be rendered.
        """
        suspicions = self.suspicions(items)
        return None if self._is_stopping else suspicions

    def suspicions(self, items: Sequence[str]) -> dict[str, Suspicion]:
        """Return the suspicions against those of the items that processes had in hand when they died.

        The calling process takes the items in hand, so attempts of other processes at them count as deaths.
        """
        with self._lock:
            for name, attempt in list(self._attempts.items()):
                if not attempt.items.isdisjoint(items):
                    del self._attempts[name]
                    self._count_death(attempt)
        return {item: self._suspicion(item) for item in items if item in self._cause}

    def began(self, process: WorkerProcess, attempt: str, items: Sequence[str]) -> None:
        """Record that a process takes items in hand together. The attempt is a unique name."""
        with self._lock:
            self._attempts[attempt] = _Attempt(process, frozenset(items))

    def ended(self, attempt: str) -> None:
        """Forget an attempt whose items are done, or failed without harm to the process."""
        with self._lock:
            self._attempts.pop(attempt, None)

    def dying(self, attempt: str, error_type: str, error: str) -> None:
        """Record why a process has to end."""
        with self._lock:
            if attempt in self._attempts:
                self._attempts[attempt].reported = error_type, error

    def alive(self, process: WorkerProcess, max_seconds_of_silence: float) -> None:
        """Record a sign of life. Processes call this every few seconds."""
        with self._lock:
            self._signs[process] = _Signs(time.monotonic(), max_seconds_of_silence)

    def stop(self) -> None:
        """Let no more chunks begin. Those in progress are finished."""
        self._is_stopping = True

    def deaths(self) -> dict[str, int]:
        """Return the number of processes that died with items in hand, by cause."""
        with self._lock:
            return dict(self._deaths)

    def process(self) -> WorkerProcess:
        """Return the process of this actor."""
        return WorkerProcess.this()

    def _suspicion(self, item: str) -> Suspicion:
        num_deaths, num_alone = self._num_deaths[item], self._num_deaths_alone[item]
        is_at_fault = num_alone >= MAX_DEATHS_ALONE
        return Suspicion(num_deaths, num_alone, self._cause[item].result(_SECONDS_FOR_A_CAUSE) if is_at_fault else None)

    def _count_death(self, attempt: _Attempt) -> None:
        cause = self._finding.submit(self._find_cause, attempt)
        for item in attempt.items:
            self._num_deaths[item] += 1
            self._num_deaths_alone[item] += len(attempt.items) == 1
            self._cause[item] = cause

    def _find_cause(self, attempt: _Attempt) -> Cause:
        cause = attempt.reported or cause_of_death(attempt.process)
        with self._lock:
            self._deaths[": ".join(cause)] += 1
        return cause

    def _end_silent_processes(self) -> None:
        while True:
            time.sleep(_SECONDS_BETWEEN_CHECKS)
            for process, signs in self._silent():
                error = f"the process did not answer for {signs.max_seconds_of_silence:.0f} s, its deadline"
                blamed = self._blame(process, ("DeadlinePassed", error))
                if not self._end(process, signs):
                    self._take_back(blamed)

    def _silent(self) -> list[tuple[WorkerProcess, _Signs]]:
        """Return the processes that were silent for too long, and forget them."""
        now = time.monotonic()
        with self._lock:
            silent = [
                (process, signs)
                for process, signs in self._signs.items()
                if now - signs.heard_at > signs.max_seconds_of_silence + _SECONDS_OF_GRACE
            ]
            for process, _ in silent:
                del self._signs[process]
        return silent

    def _end(self, process: WorkerProcess, signs: _Signs) -> bool:
        """Kill a process; return whether it existed. If that is unknown, assume so."""
        try:
            return end_process(process)
        except GetTimeoutError:
            self.alive(process, signs.max_seconds_of_silence)  # try again later
            return True
        except RayError:
            return False  # its node is gone

    def _blame(self, process: WorkerProcess, cause: Cause) -> list[_Attempt]:
        """Set the cause of those attempts of a process that have none, and return them."""
        with self._lock:
            own = [attempt for attempt in self._attempts.values() if attempt.process == process]
            blamed = [attempt for attempt in own if attempt.reported is None]
            for attempt in blamed:
                attempt.reported = cause
        return blamed

    def _take_back(self, blamed: Sequence[_Attempt]) -> None:
        with self._lock:
            for attempt in blamed:
                attempt.reported = None
