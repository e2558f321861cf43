"""Drivers of runs for tests; each can be stopped between the check of a write and its effect."""

from collections.abc import Callable

from rendermill.manifests.output.fence import FencedFolder
from rendermill.manifests.output.holder import newest_number
from rendermill.manifests.output.lease import Lease
from rendermill.manifests.output.ledger.ledger import Ledger
from rendermill.manifests.storage.folder import Folder
from tests.support.outputs import EXTRA


class StallingLease(Lease):
    """A lease whose process is stopped for a while after the N-th check."""

    def __init__(self, folder: Folder, run_id: str) -> None:
        super().__init__(folder, run_id)
        self.num_checks_to_go = 0
        self.meanwhile: Callable[[], None] | None = None

    def check(self) -> None:
        super().check()
        if self.meanwhile and self.num_checks_to_go <= 0:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        self.num_checks_to_go -= 1


class Driver:
    """A run, from its lease to its end."""

    def __init__(self, folder: Folder, number: int) -> None:
        self._folder = folder
        self.lease = StallingLease(folder, f"run{number}")
        self.added: dict[str, int] = {}
        self.flushed: dict[str, int] = {}
        self.items: set[str] = set()

    def begin(self) -> None:
        while not self.lease.take(newest_number(self._folder)):
            pass
        self.ledger = Ledger(FencedFolder.of(self._folder, self.lease), EXTRA, deletion_delay_seconds=1e6)

    @property
    def holds(self) -> bool:
        return newest_number(self._folder) == self.lease.number
