"""Knows what every worker process is doing, so that its death names the items that may have caused it.

Also notices a process that does not answer any more, and ends it from outside.
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
"""An item that was alone in a process's hands so often when it died is at fault. Once or twice may be chance: processes
are killed for other reasons too."""

_SECONDS_OF_GRACE = 5.0
"""The time beyond the silence that is allowed: a process that can ends itself, with a better message."""
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_FOR_A_CAUSE = 60.0

Cause = tuple[str, str]
"""The type of error that a death counts as, and a message."""


@dataclass(frozen=True)
class Suspicion:
    """What speaks against an item.

    Attributes:
        num_deaths: of processes that had it in hand, alone or with others.
        num_deaths_alone: of these, those that had nothing else in hand.
        cause: of the last of them; None while the item may be tried again.
    """

    num_deaths: int
    num_deaths_alone: int
    cause: Cause | None

    @property
    def is_at_fault(self) -> bool:
        """Whether the item may not be tried again."""
        return self.num_deaths_alone >= MAX_DEATHS_ALONE


@dataclass
class _Attempt:
    process: WorkerProcess
    items: frozenset[str]
    last_words: Cause | None = None


@dataclass
class _Signs:
    """When a process was last heard of, by this machine's clock, and how long it may be silent."""

    heard_at: float
    max_seconds_of_silence: float


class Journal:
    """A small actor beside the driver, which outlives the worker processes.

    An item goes by a name that stage and request hash make, as an item may be suspected in one stage alone. Should this
    actor die, it starts again without memory: processes that live make themselves known again.
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
        self._asking = ThreadPoolExecutor(max_workers=4, thread_name_prefix="causes")
        threading.Thread(target=self._keep_watch, name="watch", daemon=True).start()

    def open_chunk(self, items: Sequence[str]) -> dict[str, Suspicion] | None:
        """A renderer takes a chunk, perhaps one over which another renderer died.

        Returns:
            As `suspicions`; None if no more chunks are to be drawn.
        """
        suspicions = self.suspicions(items)
        return None if self._is_stopping else suspicions

    def suspicions(self, items: Sequence[str]) -> dict[str, Suspicion]:
        """Return the suspicions against items that a process had in hand when it died.

        The process that asks takes them in hand now.
        """
        with self._lock:
            for name, attempt in list(self._attempts.items()):
                if not attempt.items.isdisjoint(items):
                    del self._attempts[name]
                    self._count_death(attempt)
        return {item: self._suspicion(item) for item in items if item in self._cause}

    def began(self, process: WorkerProcess, attempt: str, items: Sequence[str]) -> None:
        """A process takes these items in hand together; the attempt is a name of its own."""
        with self._lock:
            self._attempts[attempt] = _Attempt(process, frozenset(items))

    def ended(self, attempt: str) -> None:
        """Forget an attempt whose items are done, or failed without harm to the process."""
        with self._lock:
            self._attempts.pop(attempt, None)

    def dying(self, attempt: str, error_type: str, error: str) -> None:
        """The process has to go for an error with its items."""
        with self._lock:
            if attempt in self._attempts:
                self._attempts[attempt].last_words = error_type, error

    def alive(self, process: WorkerProcess, max_seconds_of_silence: float) -> None:
        """A process shows that it lives; to be called every few seconds."""
        with self._lock:
            self._signs[process] = _Signs(time.monotonic(), max_seconds_of_silence)

    def stop(self) -> None:
        """Let the chunks that are being drawn end, and no other begin."""
        self._is_stopping = True

    def deaths(self) -> dict[str, int]:
        """How many processes died with items in hand, by cause."""
        with self._lock:
            return dict(self._deaths)

    def process(self) -> WorkerProcess:
        """The process of this actor."""
        return WorkerProcess.this()

    def _suspicion(self, item: str) -> Suspicion:
        num_deaths, num_alone = self._num_deaths[item], self._num_deaths_alone[item]
        is_at_fault = num_alone >= MAX_DEATHS_ALONE
        return Suspicion(num_deaths, num_alone, self._cause[item].result(_SECONDS_FOR_A_CAUSE) if is_at_fault else None)

    def _count_death(self, attempt: _Attempt) -> None:
        cause = self._asking.submit(self._find_cause, attempt)
        for item in attempt.items:
            self._num_deaths[item] += 1
            self._num_deaths_alone[item] += len(attempt.items) == 1
            self._cause[item] = cause

    def _find_cause(self, attempt: _Attempt) -> Cause:
        cause = attempt.last_words or cause_of_death(attempt.process)
        with self._lock:
            self._deaths[": ".join(cause)] += 1
        return cause

    def _keep_watch(self) -> None:
        while True:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            for process, signs in self._silent():
                words = f"the process did not answer for {signs.max_seconds_of_silence:.0f} s, its deadline"
                blamed = self._blame(process, ("DeadlinePassed", words))
                if not self._end(process, signs):
                    self._take_back(blamed)

    def _silent(self) -> list[tuple[WorkerProcess, _Signs]]:
        """The processes that were silent for too long, which are forgotten with this."""
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
        """Kill a process; returns whether it was still there, as far as is known."""
        try:
            return end_process(process)
        except GetTimeoutError:
            self.alive(process, signs.max_seconds_of_silence)  # to be ended later
            return True
        except RayError:
            return False  # its node is gone

    def _blame(self, process: WorkerProcess, words: Cause) -> list[_Attempt]:
        """Give a reason for the death of a process to those of its attempts that have none, and return them."""
        with self._lock:
            own = [attempt for attempt in self._attempts.values() if attempt.process == process]
            blamed = [attempt for attempt in own if attempt.last_words is None]
            for attempt in blamed:
                attempt.last_words = words
        return blamed

    def _take_back(self, blamed: Sequence[_Attempt]) -> None:
        with self._lock:
            for attempt in blamed:
                attempt.last_words = None
