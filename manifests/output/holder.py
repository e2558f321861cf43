"""The holder of an output's lease: the content of a lease file, and whether its process is alive.

Lease files are named by number in `lease/`; the one with the highest number counts.
"""

import contextlib
import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from rendermill.manifests.output import layout
from rendermill.manifests.storage.folder import Folder

SECONDS_BETWEEN_HEARTBEATS = 15.0
HEARTBEATS_OF_SILENCE = 3
"""The number of missed heartbeats after which a holder on another machine counts as dead."""


@dataclass(frozen=True)
class Holder:
    """The content of a lease file.

    Attributes:
        run_id: The submission.
        host: The machine's name, for messages.
        machine: The machine and process namespace in which the process id is valid.
        process_id: The driver's process.
        process_started_at: Seconds since 1970; tells apart processes that got the same id one after the other.
        since: The time at which the run asked for the lease, ISO 8601, UTC.
        process_start_ticks: The process's start in clock ticks since the machine's, which does not change with the
            machine's clock; 0 if it is not known.
        num_beats: The number of heartbeats so far.
        settled: The number of the newest settled lease. A lease is settled once every receipt that counts of those
            written under it is in a part; pending files of this lease and older ones are ignored from then on.
        is_released: Whether the run is over.
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
        """Return the content of the lease file."""
        return json.dumps(asdict(self), indent=2).encode()

    @property
    def is_on_this_machine(self) -> bool:
        """Whether the process would be visible from here."""
        return self.machine == _machine()

    @property
    def has_process(self) -> bool:
        """Whether the process runs. Only meaningful on the same machine."""
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(self.process_id)
            if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return False
            if self.process_start_ticks:
                return self.process_start_ticks == _start_ticks(self.process_id)
            return abs(process.create_time() - self.process_started_at) < 1.0
        return False


_UNREADABLE = Holder("unknown", "an unknown host", "", 0, 0.0, "an unknown time")
"""Stands for the holder of a damaged lease file, which counts as dead if the file does not change."""


def new_holder(run_id: str) -> Holder:
    """Return this process as a holder."""
    return Holder(
        run_id=run_id,
        host=platform.node(),
        machine=_machine(),
        process_id=os.getpid(),
        process_started_at=psutil.Process().create_time(),
        process_start_ticks=_start_ticks(os.getpid()),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def lease_numbers(folder: Folder) -> list[int]:
    """Return the numbers of all leases of an output, ascending; files with other names are ignored."""
    found = (re.fullmatch(r"(\d{6,})\.json", name.rpartition("/")[2]) for name in folder.names(layout.LEASE))
    return sorted(int(match[1]) for match in found if match)


def newest_number(folder: Folder) -> int | None:
    """Return the number of an output's newest lease; None if there was no lease yet."""
    return max(lease_numbers(folder), default=None)


def read_lease(folder: Folder, number: int) -> Holder:
    """Read a lease file; a damaged one, or one that was removed as another run took over, gives a stand-in."""
    try:
        content = json.loads(folder.read(layout.lease(number)) or b"")
        return Holder(**_known_fields(content))
    except (ValueError, TypeError, RecursionError):
        return _UNREADABLE


def read_holder(folder: Folder) -> Holder | None:
    """Return the run that writes to an output, or was the last to do so; None if there was no run yet."""
    number = newest_number(folder)
    return None if number is None else read_lease(folder, number)


def settled(folder: Folder) -> int:
    """Return the number of an output's newest settled lease (`Holder.settled`), for readers; 0 if there is none."""
    holder = read_holder(folder)
    return 0 if holder is None else holder.settled


def seconds_of_silence(folder: Folder) -> float | None:
    """Return the time since the newest holder's last heartbeat by the store's clock; None if it cannot tell."""
    number = newest_number(folder)
    return None if number is None else folder.seconds_since_modified(layout.lease(number))


def looks_alive(holder: Holder, silence: float | None) -> bool:
    """Whether a run seems to be alive, judged once: good enough for display, not for taking over its lease.

    Args:
        silence: The result of `seconds_of_silence`.
    """
    if holder.is_released:
        return False
    if holder.is_on_this_machine:
        return holder.has_process
    return silence is None or silence < HEARTBEATS_OF_SILENCE * SECONDS_BETWEEN_HEARTBEATS


def _machine() -> str:
    """Return a text that tells apart machines and, on Linux, boots and process namespaces such as containers'."""
    known = [platform.node()]
    with contextlib.suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        known.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(known)


def _start_ticks(process_id: int) -> int:
    """Return the start of a process of this machine in clock ticks since the machine's; 0 if it is not known."""
    try:
        return int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _known_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that this version knows; a newer version may have written others.

    Raises:
        TypeError: One of them has another type than here.
    """
    known = {field.name: content[field.name] for field in fields(Holder) if field.name in content}
    for name, value in known.items():
        wanted = type(getattr(_UNREADABLE, name))
        if not isinstance(value, wanted) and not (wanted is float and isinstance(value, int)):
            raise TypeError(name)
    return known
