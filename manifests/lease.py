"""One run per output: whoever may write there, and what becomes of the right when its holder dies.

The holder is the file in `lease/` with the highest number. Whoever wants to follow creates the next number, which only
one can, on a disk as on S3. The holder writes the time into its file every few seconds, and looks if it was followed.
"""

import contextlib
import json
import os
import platform
import threading
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from manifests import layout
from manifests.errors import UserError
from manifests.storage import Folder, first_contact

SECONDS_BETWEEN_HEARTBEATS = 15.0
_MAX_SECONDS_OF_SILENCE = 45.0
"""After this a holder looks dead; it is watched for one more heartbeat, as clocks may differ."""


class LeaseLost(Exception):
    """Another run holds the output now; this one must not write there any more."""


@dataclass(frozen=True)
class Holder:
    """What a lease file says.

    Attributes:
        machine: which machine and process namespace the process id counts in.
        process_started_at: seconds since 1970, as ids are used again.
        since: ISO 8601, UTC.
        heartbeat_at: seconds since 1970, by the holder's clock.
        is_released: the run is over.
    """

    run_id: str
    host: str
    machine: str
    process_id: int
    process_started_at: float
    since: str
    heartbeat_at: float
    is_released: bool = False

    def as_json(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self), indent=2).encode()

    @property
    def is_on_this_machine(self) -> bool:
        """Whether its process would be seen from here."""
        return self.machine == _machine()

    @property
    def looks_alive(self) -> bool:
        """Whether the run goes on, as far as one look can tell."""
        if self.is_released:
            return False
        return self.has_process if self.is_on_this_machine else self.seconds_of_silence < _MAX_SECONDS_OF_SILENCE

    @property
    def seconds_of_silence(self) -> float:
        """Since the last heartbeat."""
        return max(0.0, time.time() - self.heartbeat_at)

    @property
    def has_process(self) -> bool:
        """Whether its process runs, on this machine."""
        try:
            return abs(psutil.Process(self.process_id).create_time() - self.process_started_at) < 1.0
        except psutil.NoSuchProcess:
            return False


def read_holder(folder: Folder) -> Holder | None:
    """Who writes to an output, or did last; None if nobody ever did."""
    names = folder.names(layout.LEASE)
    return _read(folder, names[-1]) if names else None


class Lease:
    """The right to write to an output, from `acquire` to `release`.

    Args:
        folder: the output.
        run_id: of the submission that asks.
        seconds_between_heartbeats: how often the holder shows that it lives.
    """

    def __init__(
        self, folder: Folder, run_id: str, seconds_between_heartbeats: float = SECONDS_BETWEEN_HEARTBEATS
    ) -> None:
        self._folder = folder
        self._impatient = Folder(folder.url)  # a heartbeat that fails is followed by another
        self._seconds_between_heartbeats = seconds_between_heartbeats
        self._number = 0
        self._held = _new_holder(run_id)
        self._confirmed_at = 0.0
        self._is_over = threading.Event()
        self._writing = threading.Lock()

    def acquire(self) -> None:
        """Take the lease and keep it alive in a thread.

        Raises:
            UserError: another run holds it (the message says who, where, since when), or the output cannot be written.
        """
        with first_contact(f"output {self._folder.url}: cannot be written"):
            holder = self._try()
        if holder:
            raise UserError(_held(self._folder, holder))
        self._confirmed_at = time.monotonic()
        threading.Thread(target=self._keep_alive, name="lease", daemon=True).start()

    def _try(self) -> Holder | None:
        """Create the next lease file; returns the holder if there is another one."""
        names = self._impatient.names(layout.LEASE)
        if names:
            self._number = _number(names[-1])
            holder = _read(self._impatient, names[-1])
            if self._is_alive(holder, names[-1]):
                return holder
        self._number += 1
        name = layout.lease(self._number)
        if not self._impatient.create(name, self._held.as_json()):
            return _read(self._impatient, name)
        self._impatient.delete(names)
        return None

    def __enter__(self) -> "Lease":
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def confirm(self) -> None:
        """Make sure before writing that the lease is still this run's.

        Raises:
            LeaseLost: this run was silent for so long that another one took over.
        """
        if time.monotonic() - self._confirmed_at > 2 * self._seconds_between_heartbeats:
            self._folder.patiently(self._beat)
        if self._is_over.is_set():
            raise LeaseLost(f"another run took over output {self._folder.url}, as this one had been silent")

    def release(self) -> None:
        """Let the next run in at once. Where the store is gone, it waits until this process is, or has been silent."""
        with self._writing, contextlib.suppress(Exception):
            if not self._is_over.is_set():
                self._is_over.set()
                self._held = replace(self._held, heartbeat_at=time.time(), is_released=True)
                self._impatient.write(layout.lease(self._number), self._held.as_json())

    def _keep_alive(self) -> None:
        while not self._is_over.wait(self._seconds_between_heartbeats):
            # whatever the store's client raises: `confirm` tries again before anything is written
            with contextlib.suppress(Exception):
                self._beat()

    def _beat(self) -> None:
        with self._writing:
            if self._is_over.is_set():
                return
            newest = self._impatient.names(layout.LEASE)[-1:]
            if newest != [layout.lease(self._number)]:
                self._is_over.set()
                return
            self._held = replace(self._held, heartbeat_at=time.time())
            self._impatient.write(layout.lease(self._number), self._held.as_json())
            self._confirmed_at = time.monotonic()

    def _is_alive(self, holder: Holder, name: str) -> bool:
        if holder.is_released or holder.is_on_this_machine or holder.looks_alive:
            return holder.looks_alive
        self._is_over.wait(1.5 * self._seconds_between_heartbeats)
        return _read(self._impatient, name) != holder


def _new_holder(run_id: str) -> Holder:
    return Holder(
        run_id=run_id,
        host=platform.node(),
        machine=_machine(),
        process_id=os.getpid(),
        process_started_at=psutil.Process().create_time(),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        heartbeat_at=time.time(),
    )


def _machine() -> str:
    """Tells apart machines and, on Linux, their boots and process namespaces such as containers'."""
    known = [platform.node()]
    with contextlib.suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        known.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(known)


def _read(folder: Folder, name: str) -> Holder:
    return Holder(**json.loads(folder.read(name) or b""))


def _number(name: str) -> int:
    return int(name.rpartition("/")[2].removesuffix(".json"))


def _held(folder: Folder, holder: Holder) -> str:
    return (
        f"output {folder.url}: run {holder.run_id} writes there since {holder.since}, on {holder.host}, process "
        f"{holder.process_id}, heard of {holder.seconds_of_silence:.0f} s ago; wait for it or stop it. "
        f"If it died, its lease ends {_MAX_SECONDS_OF_SILENCE:.0f} s after it was last heard of"
    )
