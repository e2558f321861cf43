"""What a run does from time to time while receipts arrive: checks of health, flushes, roll-ups, reports, its end."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from rendermill.jobs.cluster.actor_health import ActorHealth
from rendermill.jobs.cluster.health import ClusterHealth
from rendermill.jobs.running.services import Services
from rendermill.manifests.output.lease import Lease
from rendermill.manifests.output.ledger.ledger import Ledger

_SECONDS_BETWEEN_FLUSHES = 5.0
_SECONDS_BETWEEN_REPORTS = 10.0
_SECONDS_BETWEEN_ROLL_UPS = 300.0
_NUM_RECEIPTS_BEFORE_ROLL_UP = 20_000


class Clock:
    """Tells when some seconds have passed since it was made or reset last."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.reset()

    @property
    def is_due(self) -> bool:
        """Whether the time has passed."""
        return time.monotonic() - self._last > self._seconds

    def reset(self) -> None:
        """Begin anew."""
        self._last = time.monotonic()


class Clocks:
    """Does what is due.

    Args:
        stop_after: The time after which no more chunks begin; None: never.
        collect: Collects what renderers found out.
        report: Writes the run's file.

    Attributes:
        is_stopping: Whether `stop_after` has passed.
    """

    def __init__(
        self,
        ledger: Ledger,
        lease: Lease,
        services: Services,
        stop_after: timedelta | None,
        collect: Callable[[], None],
        report: Callable[[], None],
    ) -> None:
        self._ledger, self._lease, self._services = ledger, lease, services
        self._collect, self._report = collect, report
        self._checks: Sequence[Callable[[], None]] = [
            health.check for health in (ClusterHealth(), ActorHealth(services.journal), ActorHealth(services.findings))
        ]
        self._flush, self._roll_up = Clock(_SECONDS_BETWEEN_FLUSHES), Clock(_SECONDS_BETWEEN_ROLL_UPS)
        self._reporting = Clock(_SECONDS_BETWEEN_REPORTS)
        self._end = Clock(stop_after.total_seconds()) if stop_after else None
        self.is_stopping = False

    def check(self) -> None:
        """Do what is due; call this about once a second.

        Raises:
            ClusterLost: Ray does not answer any more.
            LeaseLost: Another run holds the output now.
        """
        for check in self._checks:
            check()
        if self._roll_up.is_due or self._ledger.num_pending > _NUM_RECEIPTS_BEFORE_ROLL_UP:
            self._ledger.roll_up()
            self._collect()
            self._roll_up.reset()
            self._flush.reset()
        if self._flush.is_due:
            # A write checks the lease itself. This check is for a run that has nothing to write at the moment.
            self._lease.confirm()
            self._ledger.flush()
            self._flush.reset()
        if self._reporting.is_due:
            self._report()
            self._reporting.reset()
        if self._end and self._end.is_due:
            self.is_stopping = True
            self._services.journal.stop.remote()  # at each check, as the journal forgets it if its process dies
