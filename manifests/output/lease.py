"""One run per output: which run may write there, and what becomes of the right when its holder dies.

The holder is the run that made the file in `lease/` with the highest number. A run that wants to follow creates the
next number, which only one can, on a disk as on S3; the highest number is never removed, so that no number comes twice.
The holder rewrites its file every few seconds. A follower on another machine watches for that with its own clock alone.
"""

import contextlib
import json
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from rendermill.manifests.errors import LeaseLost, UserError
from rendermill.manifests.output import layout
from rendermill.manifests.storage.errors import as_user_errors
from rendermill.manifests.storage.folder import Folder

SECONDS_BETWEEN_HEARTBEATS = 15.0
_HEARTBEATS_OF_SILENCE = 3
"""A holder on another machine from which nothing was heard for so many counts as dead."""
_LOOKS_PER_HEARTBEAT = 5


@dataclass(frozen=True)
class Holder:
    """The content of a lease file.

    Attributes:
        machine: the machine and process namespace in which the process id counts.
        process_started_at: seconds since 1970, as ids are used again.
        process_start_ticks: the same since the machine's start, which no change of its clock moves; 0: not known.
        since: ISO 8601, UTC.
        num_beats: heartbeats so far.
        settled: receipts still pending under leases up to this number are late, and count for nothing.
        is_released: the run is over.
    """

    run_id: str
    host: str
    machine: str
    process_id: int
    process_started_at: float
    since: str
    process_start_ticks: int = 0
    num_beats: int = 0
    settled: int = 0
    is_released: bool = False

    def as_json(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self), indent=2).encode()

    @property
    def is_on_this_machine(self) -> bool:
        """Whether its process would be seen from here."""
        return self.machine == _machine()

    @property
    def has_process(self) -> bool:
        """Whether its process runs, on this machine."""
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(self.process_id)
            if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return False
            if self.process_start_ticks:
                return self.process_start_ticks == _start_ticks(self.process_id)
            return abs(process.create_time() - self.process_started_at) < 1.0
        return False


_UNREADABLE = Holder("unknown", "an unknown host", "", 0, 0.0, "an unknown time")
"""Stands for a lease file that says nothing sensible; its holder counts as dead if the file does not change."""


def read_holder(folder: Folder) -> Holder | None:
    """The run that writes to an output, or did last; None if none ever did."""
    number = newest_number(folder)
    return None if number is None else _read(folder, number)


def settled(folder: Folder) -> int:
    """The number of the lease up to which pending receipts are late, for readers of an output."""
    holder = read_holder(folder)
    return 0 if holder is None else holder.settled


def seconds_of_silence(folder: Folder) -> float | None:
    """The time since the newest holder's last heartbeat, by the store's clock; None if that cannot be told."""
    number = newest_number(folder)
    return None if number is None else folder.seconds_since_modified(layout.lease(number))


def looks_alive(holder: Holder, silence: float | None) -> bool:
    """Whether a run goes on, as far as one look can tell: enough to show, not to take over."""
    if holder.is_released:
        return False
    if holder.is_on_this_machine:
        return holder.has_process
    return silence is None or silence < _HEARTBEATS_OF_SILENCE * SECONDS_BETWEEN_HEARTBEATS


class Lease:
    """The right to write to an output, from `acquire` to `release`.

    Args:
        folder: the output.
        run_id: of the submission that asks.
        seconds_between_heartbeats: how often the holder shows that it lives.
        say: takes a line for the user if this has to wait.

    Attributes:
        number: of the lease, once it is acquired.
        must_seal: an earlier holder did not end well, so its last writes may still arrive.
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
        self._impatient = Folder(folder.url)  # a heartbeat that fails is followed by another
        self._seconds_between_heartbeats = seconds_between_heartbeats
        self._held = _new_holder(run_id)
        self._is_over = threading.Event()
        self._writing = threading.Lock()
        self.number = 0
        self.must_seal = False

    @property
    def settled(self) -> int:
        """Receipts still pending under leases up to this number are late."""
        return self._held.settled

    def acquire(self) -> None:
        """Take the lease and keep it alive in a thread.

        Where the last holder was another machine's, this waits until it is heard of, or was silent for 45 seconds.

        Raises:
            UserError: another run holds it (the message says which, where, since when), or it cannot be written.
        """
        with as_user_errors(f"output {self._folder.url}: cannot be written"):
            holder = self._try()
        if holder:
            raise UserError(self._refusal(holder))
        threading.Thread(target=self._keep_alive, name="lease", daemon=True).start()

    def _try(self) -> Holder | None:
        """Take the lease; returns the holder if there is another one."""
        while True:
            newest = newest_number(self._impatient)
            if newest is not None and self._is_alive(newest):
                return _read(self._impatient, newest)
            if self.take(newest):
                return None

    def take(self, after: int | None) -> bool:
        """Create the lease that follows another's, whose holder is dead.

        Args:
            after: the number of that lease; None if there was none.

        Returns:
            False if another run was faster.
        """
        before = None if after is None else _read(self._impatient, after)
        number = (after or 0) + 1
        self._held = replace(self._held, settled=before.settled if before else 0)
        created = self._impatient.create(layout.lease(number), self._held.as_json())
        if not created or newest_number(self._impatient) != number:  # a number that comes late is below the highest
            if created:
                self._impatient.delete([layout.lease(number)])
            return False
        self.number = number
        self.must_seal = before is not None and not (before.is_released and before.settled >= number - 2)
        self._impatient.delete([layout.lease(older) for older in _numbers(self._impatient) if older < number])
        return True

    def __enter__(self) -> "Lease":
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def check(self) -> None:
        """Ask the store whether the lease is still this run's: to be done at every try of a write.

        Raises:
            LeaseLost: another run took over, or this one released it.
        """
        if not self._is_over.is_set() and newest_number(self._impatient) != self.number:
            self._is_over.set()
        self.confirm()

    def confirm(self) -> None:
        """Make sure that no heartbeat found the lease lost; quick.

        Raises:
            LeaseLost: another run took over, or this one released it.
        """
        if self._is_over.is_set():
            raise LeaseLost(f"another run took over output {self._folder.url}, as this one had been silent")

    def settle(self, number: int) -> None:
        """Declare pending receipts of leases up to this number late: all that count are in parts."""
        with self._writing:
            self._held = replace(self._held, settled=number)
        if number < self.number:  # its own are settled when it is released
            self._folder.with_retries(self._beat)
            self.confirm()

    def release(self) -> None:
        """Let the next run in at once. Where the store is gone, it waits until this process is, or has been silent."""
        with self._writing, contextlib.suppress(Exception):
            if not self._is_over.is_set():
                self._is_over.set()
                self._held = replace(self._held, is_released=True)
                self._impatient.write(layout.lease(self.number), self._held.as_json())

    def _keep_alive(self) -> None:
        while not self._is_over.wait(self._seconds_between_heartbeats):
            # whatever the store's client raises: `check` asks again before anything is written
            with contextlib.suppress(Exception):
                self._beat()

    def _beat(self) -> None:
        with self._writing:
            if self._is_over.is_set():
                return
            if newest_number(self._impatient) != self.number:
                self._is_over.set()
                return
            self._held = replace(self._held, num_beats=self._held.num_beats + 1)
            self._impatient.write(layout.lease(self.number), self._held.as_json())

    def _is_alive(self, number: int) -> bool:
        holder = _read(self._impatient, number)
        if holder.is_released:
            return False
        if holder.is_on_this_machine:
            return holder.has_process
        silence = _HEARTBEATS_OF_SILENCE * self._seconds_between_heartbeats
        self._say(
            f"output {self._folder.url}: run {holder.run_id} on {holder.host} did not end its lease; "
            f"looking for up to {silence:.0f} s whether it goes on"
        )
        return self._is_heard_of(number)

    def _is_heard_of(self, number: int) -> bool:
        """Watch a holder for as long as it may be silent; returns whether its file changed, or another's came."""
        first = self._impatient.read(layout.lease(number))
        seconds = self._seconds_between_heartbeats / _LOOKS_PER_HEARTBEAT
        end = time.monotonic() + _HEARTBEATS_OF_SILENCE * self._seconds_between_heartbeats
        while time.monotonic() < end:
            time.sleep(seconds)
            if newest_number(self._impatient) != number:
                return self._is_alive(newest_number(self._impatient) or number)
            if self._impatient.read(layout.lease(number)) != first:
                return not _read(self._impatient, number).is_released
        return False

    def _refusal(self, holder: Holder) -> str:
        silence = _HEARTBEATS_OF_SILENCE * self._seconds_between_heartbeats
        return (
            f"output {self._folder.url}: run {holder.run_id} writes there since {holder.since}, on {holder.host}, "
            f"process {holder.process_id}; wait for it or stop it. "
            f"If it dies, another run can follow after {silence:.0f} s of silence"
        )


def _new_holder(run_id: str) -> Holder:
    return Holder(
        run_id=run_id,
        host=platform.node(),
        machine=_machine(),
        process_id=os.getpid(),
        process_started_at=psutil.Process().create_time(),
        process_start_ticks=_start_ticks(os.getpid()),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _machine() -> str:
    """Tells apart machines and, on Linux, their boots and process namespaces such as containers'."""
    known = [platform.node()]
    with contextlib.suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        known.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(known)


def _start_ticks(process_id: int) -> int:
    """When a process of this machine began, in clock ticks since the machine did; 0 where that cannot be told."""
    try:
        return int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _numbers(folder: Folder) -> list[int]:
    """The numbers of all leases, ascending; files with other names are nobody's lease."""
    found = (re.fullmatch(r"(\d{6,})\.json", name.rpartition("/")[2]) for name in folder.names(layout.LEASE))
    return sorted(int(match[1]) for match in found if match)


def newest_number(folder: Folder) -> int | None:
    """The number of an output's newest lease; None if there was none yet."""
    return max(_numbers(folder), default=None)


def _read(folder: Folder, number: int) -> Holder:
    """The holder that a lease file names; a stand-in if it is damaged, or was removed as another run took over."""
    try:
        content = json.loads(folder.read(layout.lease(number)) or b"")
        return Holder(**_known(content))
    except (ValueError, TypeError, RecursionError):
        return _UNREADABLE


def _known(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that this version knows, each of the type that it has here."""
    known = {field.name: content[field.name] for field in fields(Holder) if field.name in content}
    for name, value in known.items():
        wanted = type(getattr(_UNREADABLE, name))
        if not isinstance(value, wanted) and not (wanted is float and isinstance(value, int)):
            raise TypeError(name)
    return known
