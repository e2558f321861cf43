"""Reports to the actors beside the driver: the crash journal, the findings, and Ray's metrics."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import ray

from rendermill.actors.engine.watchdog import Watchdog
from rendermill.actors.services import metrics
from rendermill.actors.services.deaths import WorkerProcess
from rendermill.manifests.request import Request

_logger = logging.getLogger(__name__)


class JournalReporter:
    """Tells the crash journal what this process has in hand. See `actors.engine.reporter.CrashReporter`.

    Only what has to be known before the process may die is waited for.

    Args:
        journal: handle of the actor `actors.services.crash_journal.CrashJournal`.
    """

    def __init__(self, journal: Any) -> None:
        self._journal, self._process = journal, WorkerProcess.this()

    def items_begun(self, attempt: str, items: Sequence[str]) -> None:
        """Tell the journal, and wait for its answer."""
        ray.get(self._journal.began.remote(self._process, attempt, items))

    def items_ended(self, attempt: str) -> None:
        """Tell the journal."""
        self._journal.ended.remote(attempt)

    def process_dying(self, attempt: str, error_type: str, error: str) -> None:
        """Tell the journal, and wait for its answer."""
        ray.get(self._journal.dying.remote(attempt, error_type, error))

    def process_alive(self, max_seconds_of_silence: float) -> None:
        """Tell the journal."""
        self._journal.alive.remote(self._process, max_seconds_of_silence)


class RayReporter(JournalReporter):
    """Reports what an engine does in an actor of a job. See `actors.engine.reporter.Reporter`.

    Args:
        journal: handle of the actor `actors.services.crash_journal.CrashJournal`.
        findings: handle of the actor `actors.services.findings.Findings`.
        model: the model's name in the job file.
        run_id: of the submission.
    """

    def __init__(self, journal: Any, findings: Any, model: str, run_id: str) -> None:
        super().__init__(journal)
        self._findings, self._model, self._run_id = findings, model, run_id

    def batch_started(self, num_slots: int, num_padding: int) -> None:
        """Tell the findings."""
        self._findings.batch_started.remote(self._model, num_slots, num_padding)

    def batch_rendered(self, num_items: int) -> None:
        """Set the metric of the batch size."""
        metrics.BATCH_SIZE.set(num_items, {"model": self._model})

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Add to the metric of the stages' seconds."""
        metrics.STAGE_SECONDS.inc(seconds, {"model": self._model, "stage": stage})

    def item_failed(self, request: Request, attempt: int, error: BaseException | None) -> None:
        """Log the failure with its traceback. Ray keeps an actor's log."""
        fields = {"run": self._run_id, "model": self._model, "item": request.id, "attempt": attempt}
        _logger.warning("item %r failed; why is in failures/", request.id, exc_info=error, extra=fields)

    def note(self, text: str) -> None:
        """Tell the findings."""
        self._findings.note.remote(self._model, text)


@lru_cache(maxsize=1)
def watchdog_of_this_process(journal: Any) -> Watchdog:
    """Return the watchdog of this process, which Ray may use for one task after another.

    Args:
        journal: handle of the actor `actors.services.crash_journal.CrashJournal`.
    """
    return Watchdog(JournalReporter(journal))
