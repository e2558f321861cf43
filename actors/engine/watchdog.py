"""Watches over the items that a process has in hand: reports them, and ends the process if a deadline passes."""

import faulthandler
import os
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock, Thread, Timer

from rendermill.actors.engine.reporter import CrashReporter
from rendermill.manifests.errors import one_line

_SECONDS_TO_REPORT = 2.0
"""The time between the report that a deadline passed and the end of the process."""
_SECONDS_BETWEEN_SIGNS_OF_LIFE = 2.0
_SECONDS_OF_SILENCE = 300.0
"""Allowed if the job file sets no deadline: no call into a library blocks all threads for that long."""


@dataclass(frozen=True, eq=False)
class Attempt:
    """Items that a process has in hand together.

    Attributes:
        name: a unique name.
        deadline_seconds: the time for all of them, from when the device is theirs.
    """

    name: str
    deadline_seconds: float


class Watchdog:
    """Keeps the deadlines of a process's attempts, which follow one another: one is computed while the next one waits.

    A deadline counts from the end of the attempt before. It is kept even if the interpreter is blocked
    (`faulthandler` needs none), and if the whole process is stopped, the reporter's other side ends it after it has
    seen no sign of life. A process has one watchdog, because `faulthandler` has one timer.

    Args:
        reporter: receives attempts and signs of life.
    """

    def __init__(self, reporter: CrashReporter) -> None:
        self._reporter = reporter
        self._lock = RLock()
        self._attempts: list[Attempt] = []
        self._alarm: Timer | None = None
        self._busy_seconds = 0.0
        self._busy_since = 0.0
        self._max_seconds_of_silence = _SECONDS_OF_SILENCE
        self._signs_of_life: Thread | None = None

    def show_life(self, max_seconds_of_silence: float | None) -> None:
        """Report signs of life from now on.

        Args:
            max_seconds_of_silence: the time without a sign after which the process counts as hung; None: five minutes.
        """
        self._max_seconds_of_silence = max_seconds_of_silence or _SECONDS_OF_SILENCE
        self._show_sign()  # at once, because the next step may stop the process
        if self._signs_of_life is None:
            self._signs_of_life = Thread(target=self._keep_showing_life, name="signs of life", daemon=True)
            self._signs_of_life.start()

    def begin(self, items: Sequence[str], deadline_seconds: float) -> Attempt:
        """Take items in hand; returns after this was reported."""
        attempt = Attempt(uuid.uuid4().hex, deadline_seconds)
        self._reporter.items_begun(attempt.name, items)
        with self._lock:
            self._attempts.append(attempt)
            if len(self._attempts) == 1:
                self._busy_since = time.perf_counter()
                self._set_alarm(attempt)
        return attempt

    def end(self, attempt: Attempt, error: BaseException | None = None) -> None:
        """Let go of items that are done or failed. Ends the process if the device answers only with errors by now."""
        if error is not None and _is_device_lost():
            self._reporter.process_dying(attempt.name, type(error).__name__, one_line(error, max_length=1000))
            os._exit(1)
        with self._lock:
            was_first = self._attempts[0] is attempt
            self._attempts.remove(attempt)
            if was_first:
                self._cancel_alarm()
                if self._attempts:
                    self._set_alarm(self._attempts[0])
            if not self._attempts:
                self._busy_seconds += time.perf_counter() - self._busy_since
        self._reporter.items_ended(attempt.name)

    @contextmanager
    def watching(self, items: Sequence[str], deadline_seconds: float) -> Iterator[None]:
        """Have items in hand within this context."""
        attempt = self.begin(items, deadline_seconds)
        try:
            yield
        except BaseException as error:
            self.end(attempt, error)
            raise
        self.end(attempt)

    @property
    def busy_seconds(self) -> float:
        """The time for which the process has had items in hand so far."""
        with self._lock:
            ongoing = time.perf_counter() - self._busy_since if self._attempts else 0.0
            return self._busy_seconds + ongoing

    def _set_alarm(self, attempt: Attempt) -> None:
        overdue = f"not done after {attempt.deadline_seconds:.0f} s, its deadline"
        arguments = (attempt.name, "DeadlinePassed", overdue)
        self._alarm = Timer(attempt.deadline_seconds, self._reporter.process_dying, args=arguments)
        self._alarm.start()
        faulthandler.dump_traceback_later(attempt.deadline_seconds + _SECONDS_TO_REPORT, exit=True)

    def _cancel_alarm(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._alarm is not None:
            self._alarm.cancel()

    def _show_sign(self) -> None:
        self._reporter.process_alive(self._max_seconds_of_silence)

    def _keep_showing_life(self) -> None:
        while True:
            time.sleep(_SECONDS_BETWEEN_SIGNS_OF_LIFE)
            self._show_sign()


def _is_device_lost() -> bool:
    """Return whether the GPU answers only with errors, as after an illegal access: only a new process can use it."""
    torch = sys.modules.get("torch")  # a task that encodes has not imported it, and has no device
    if torch is None or not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
