"""The lease of an output: at most one run may write there, and another one follows if its holder dies.

The holder is the run that made the file in `lease/` with the highest number. A run that wants to follow creates the
next number, which only one can, on a disk as on S3. The file with the highest number is never removed, so no number is
used twice. The holder rewrites its file every few seconds. A follower on another machine measures with its own clock
alone whether that file changes, so clocks need not agree.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from rendermill.manifests.errors import LeaseLost, UserError
from rendermill.manifests.output import layout
from rendermill.manifests.output.holder import (
    HEARTBEATS_OF_SILENCE,
    SECONDS_BETWEEN_HEARTBEATS,
    Holder,
    lease_numbers,
    new_holder,
    newest_number,
    read_lease,
)
from rendermill.manifests.storage.errors import as_user_errors
from rendermill.manifests.storage.folder import Folder

_READS_PER_HEARTBEAT = 5


class Lease:
    """The right to write to an output, from `acquire` to `release`.

    Args:
        folder: The output.
        run_id: The submission that asks.
        seconds_between_heartbeats: The interval at which the holder shows that it is alive.
        say: Takes a line for the user if `acquire` has to wait.

    Attributes:
        number: The number of the lease, once it is acquired.
        must_fence_parts: Whether an earlier holder did not end in an orderly way, so its last writes may still arrive.
    """

    def __init__(
        self,
        folder: Folder,
        run_id: str,
        seconds_between_heartbeats: float = SECONDS_BETWEEN_HEARTBEATS,
        say: Callable[[str], object] = str,
    ) -> None:
        self._say = say
        self._folder = folder
        self._without_retries = Folder(folder.url)  # a heartbeat that fails is followed by another
        self._seconds_between_heartbeats = seconds_between_heartbeats
        self._held = new_holder(run_id)
        self._is_over = threading.Event()
        self._writing = threading.Lock()
        self.number = 0
        self.must_fence_parts = False

    @property
    def settled(self) -> int:
        """The number of the newest settled lease, see `Holder`."""
        return self._held.settled

    def acquire(self) -> None:
        """Take the lease, and keep it alive in a thread until it is released or lost.

        Raises:
            UserError: Another run holds it (the message says which one, where and since when), or the output cannot be
                written.
        """
        with as_user_errors("cannot be written", ("output",), self._folder.url):
            while not self.take(self._number_of_a_dead_holder()):
                pass  # another run was faster; it may hold the lease now, or have ended already
        threading.Thread(target=self._keep_alive, name="lease", daemon=True).start()

    def _number_of_a_dead_holder(self) -> int | None:
        """Return the number of the newest lease, whose holder is dead; None if there was none.

        Raises:
            UserError: The holder is alive.
        """
        number = newest_number(self._without_retries)
        if number is not None and self._is_alive(number):
            holder = read_lease(self._without_retries, number)
            raise UserError(self._refusal(holder), ("output",), self._folder.url)
        return number

    def take(self, after: int | None) -> bool:
        """Create the lease that follows another one, whatever its holder does.

        Args:
            after: The number of the lease before; None if there was none.

        Returns:
            False if another run was faster.
        """
        before = None if after is None else read_lease(self._without_retries, after)
        number = (after or 0) + 1
        self._held = replace(self._held, settled=before.settled if before else 0)
        # Only one run can create this file. From here on, every write of the runs before fails at its check.
        created = self._without_retries.create(layout.lease(number), self._held.as_json())
        # A run that stalled before this line may create a number that was used and removed: it is not the highest.
        if not created or newest_number(self._without_retries) != number:
            if created:
                self._without_retries.delete([layout.lease(number)])
            return False
        self.number = number
        self.must_fence_parts = before is not None and not (before.is_released and before.settled >= number - 2)
        # A crash before or amid this leaves older files, which count for nothing beside the highest number.
        older = [layout.lease(other) for other in lease_numbers(self._without_retries) if other < number]
        self._without_retries.delete(older)
        return True

    def __enter__(self) -> "Lease":
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def check(self) -> None:
        """Ask the store whether this run still holds the lease. To be called at every try of a write.

        Raises:
            LeaseLost: Another run took over, or this one released the lease.
        """
        if not self._is_over.is_set() and newest_number(self._without_retries) != self.number:
            self._is_over.set()
        self.confirm()

    def confirm(self) -> None:
        """Check that no heartbeat has found the lease lost, without asking the store.

        Raises:
            LeaseLost: Another run took over, or this one released the lease.
        """
        if self._is_over.is_set():
            raise LeaseLost(f"another run took over output {self._folder.url}, as this one had been silent")

    def settle(self, number: int) -> None:
        """Declare leases up to this number settled (`Holder.settled`): all their receipts that count are in parts.

        An earlier holder's receipts that arrive from now on are ignored; their items are not finished, so this run
        renders them. Without this, such a receipt would be counted once it is too late to be rolled up.

        Raises:
            LeaseLost: Another run took over.
        """
        with self._writing:
            self._held = replace(self._held, settled=number)
        if number < self.number:  # a run's own lease is settled by the file that `release` writes
            self._folder.with_retries(self._beat)
            self.confirm()

    def release(self) -> None:
        """Let the next run in at once.

        If the store fails, the next run waits until this process has ended, or has been silent for long enough.
        """
        with self._writing, contextlib.suppress(Exception):
            if not self._is_over.is_set():
                self._is_over.set()
                self._held = replace(self._held, is_released=True)
                self._without_retries.write(layout.lease(self.number), self._held.as_json())

    def _keep_alive(self) -> None:
        while not self._is_over.wait(self._seconds_between_heartbeats):
            # any error of the store's client is ignored, because `check` asks again before anything is written
            with contextlib.suppress(Exception):
                self._beat()

    def _beat(self) -> None:
        """Rewrite the lease file, unless another run took over.

        A rewrite that comes late, after another run took over, changes a file that is not the newest any more.
        """
        with self._writing:
            if self._is_over.is_set():
                return
            if newest_number(self._without_retries) != self.number:
                self._is_over.set()
                return
            self._held = replace(self._held, num_beats=self._held.num_beats + 1)
            self._without_retries.write(layout.lease(self.number), self._held.as_json())

    @property
    def _max_silence(self) -> float:
        """The seconds without a heartbeat after which a holder on another machine counts as dead."""
        return HEARTBEATS_OF_SILENCE * self._seconds_between_heartbeats

    def _is_alive(self, number: int) -> bool:
        """Whether the holder of a lease is alive: on another machine, by watching its file for a while."""
        holder = read_lease(self._without_retries, number)
        if holder.is_released:
            return False
        if holder.is_on_this_machine:
            return holder.has_process
        self._say(
            f"output {self._folder.url}: run {holder.run_id} on {holder.host} did not end its lease; "
            f"looking for up to {self._max_silence:.0f} s whether it goes on"
        )
        return self._has_heartbeat(number)

    def _has_heartbeat(self, number: int) -> bool:
        """Watch a lease file for as long as its holder may be silent; return whether it changed, or a newer came."""
        first = self._without_retries.read(layout.lease(number))
        seconds = self._seconds_between_heartbeats / _READS_PER_HEARTBEAT
        end = time.monotonic() + self._max_silence
        while time.monotonic() < end:
            time.sleep(seconds)
            if newest_number(self._without_retries) != number:
                return self._is_alive(newest_number(self._without_retries) or number)
            if self._without_retries.read(layout.lease(number)) != first:
                return not read_lease(self._without_retries, number).is_released
        return False

    def _refusal(self, holder: Holder) -> str:
        return (
            f"run {holder.run_id} writes there since {holder.since}, on {holder.host}, "
            f"process {holder.process_id}; wait for it or stop it. "
            f"If it dies, another run can follow after {self._max_silence:.0f} s of silence"
        )
