"""An output as the holder of its lease writes it: no write of a run that was overtaken changes anything, however late.

On a disk a file is made in a folder of the lease's own and then renamed. A follower removes that folder before it reads
anything, so that a rename that comes later finds nothing to rename. On S3 a new file is created under the condition
that there is none, and an old one replaced under the condition that it is the one that this run knows; a follower that
rewrites what is there (`manifests.output.ledger.parts`) makes both fail. Behind other URLs writes are only checked
before they are made: those that the network delivers later than a follower begins are not stopped there.
"""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from rendermill.manifests.errors import LeaseLost
from rendermill.manifests.storage.folder import TEMPORARY, Folder

_NUM_IO_THREADS = 8
_NUM_TRIES = 100
_MAX_BYTES_AT_ONCE = 2**31
"""S3's clients send more than that in several requests, for which there are no conditions."""


class Held(Protocol):
    """The lease of a run, `manifests.output.lease.Lease`."""

    number: int
    must_seal: bool

    @property
    def settled(self) -> int:
        """Receipts still pending under leases up to this number are late."""

    def check(self) -> None:
        """Raise `LeaseLost` if another run has it."""

    def settle(self, number: int) -> None:
        """Declare pending receipts of leases up to this number late."""


@dataclass(frozen=True)
class FencedFolder(Folder):
    """A folder in which every try of a write fails once another run has the lease."""

    lease: Held = field(kw_only=True)

    @classmethod
    def of(cls, folder: Folder, lease: Held) -> "FencedFolder":
        """The same folder under a lease that was acquired."""
        return cls(folder.url, folder.patience_seconds, lease=lease)

    @cached_property
    def has_conditions(self) -> bool:
        """Whether a file can be replaced under the condition that it is still the one that this run knows."""
        return self.is_s3 and self.with_retries(self._keeps_conditions)

    def _keeps_conditions(self) -> bool:
        """Ask for a write that must be refused: there is no such file."""
        name = f"{TEMPORARY}/condition"
        try:
            self._opened[0].pipe_file(self.path(name), b"", IfMatch="0" * 32)
        except OSError as error:
            if _code(error) in ("NotImplemented", "InvalidArgument"):
                return False
            if not _is_condition(error):
                raise
            return True
        self._opened[0].rm_file(self.path(name))
        return False

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as a plain folder: a task holds no lease."""
        return Folder, (self.url, self.patience_seconds)

    def shut_out_others(self) -> None:
        """Make sure that nothing which earlier holders of the lease wrote to a disk gets its name from now on."""
        if not self.is_local:
            return
        place = self.path(TEMPORARY)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(place):
                if not name.isdigit() or int(name) < self.lease.number:
                    self.with_retries(_remove, f"{place}/{name}")

    def leave(self) -> None:
        """Remove this run's own folder of temporary files from a disk; a later write makes it again."""
        if self.is_local:
            with contextlib.suppress(OSError):
                os.rmdir(self.path(self._temporary_folder))

    def add(self, name: str, data: bytes) -> str | None:
        """Store a file that must not exist yet; returns its stamp, or None if there is one with other content."""
        return self._stamp(name) if self.create(name, data) else None

    def replace(self, name: str, data: bytes, stamp: str) -> str:
        """Store a file in the place of the one with this stamp (`storage.Entry`); returns the new one's.

        Raises:
            LeaseLost: the file is another by now.
        """
        return self.with_retries(self._replace, name, data, stamp)

    def _replace(self, name: str, data: bytes, stamp: str) -> str:
        if not self.has_conditions:
            self._write(name, data)
            return ""
        self._before_effect()
        try:
            answer = self._opened[0].pipe_file(self.path(name), data, chunksize=_MAX_BYTES_AT_ONCE, IfMatch=stamp)
        except OSError as error:
            if not _is_condition(error):
                raise
            if self._read(name) != data:  # else an earlier try whose answer was lost
                self.lease.check()
                raise LeaseLost(f"output {self.url}: {name} was changed by another run") from error
            return self._stamp(name)
        return str(answer["ETag"]).strip('"')

    def _stamp(self, name: str) -> str:
        if not self.has_conditions:
            return ""
        info = self.with_retries(lambda: self._opened[0].info(self.path(name), refresh=True))
        return str(info["ETag"]).strip('"')

    def delete(self, names: Iterable[str]) -> None:
        """Remove files, several at a time; one that is gone already is no error."""
        with ThreadPoolExecutor(_NUM_IO_THREADS) as threads:
            list(threads.map(lambda name: self.with_retries(self._delete, name), names))

    def _delete(self, name: str) -> None:
        if not self.is_local:
            super()._delete(name)
            return
        path, place = self.path(name), self.path(self._temporary_folder)
        if self._leads_away(name) or not os.path.lexists(path):
            return
        os.makedirs(place, exist_ok=True)
        self._before_effect()
        aside = f"{place}/{uuid.uuid4().hex}"
        try:
            os.rename(path, aside)  # fails once a follower has removed the folder that this goes to
        except FileNotFoundError as error:
            if os.path.lexists(path):
                raise self._lost(error) from error
            return
        os.remove(aside)

    def _leads_away(self, name: str) -> bool:
        """Whether a link below one of the output's own folders, on a disk, leads to another place."""
        top = os.path.realpath(self.path(name.partition("/")[0]))
        return os.path.commonpath([top, os.path.realpath(os.path.dirname(self.path(name)))]) != top

    def _write(self, name: str, data: bytes) -> None:
        try:
            super()._write(name, data)
        except FileNotFoundError as error:
            raise self._lost(error) from error

    def _create(self, name: str, data: bytes) -> bool:
        try:
            return super()._create(name, data)
        except FileNotFoundError as error:
            raise self._lost(error) from error

    def _lost(self, error: FileNotFoundError) -> OSError:
        """The error to raise if the folder of temporary files is gone; a follower removes it."""
        if self.is_local:
            self.lease.check()
            return OSError(errno.ESTALE, "the folder of temporary files was removed", error.filename)
        return error

    @property
    def _temporary_folder(self) -> str:
        return f"{TEMPORARY}/{self.lease.number}"

    def _before_effect(self) -> None:
        self.lease.check()


def _is_condition(error: BaseException) -> bool:
    """Whether a store refused a write because its condition did not hold."""
    return isinstance(error, FileExistsError) or _code(error) in ("PreconditionFailed", "NoSuchKey", "412")


def _code(error: BaseException) -> str:
    """S3's own word for an error."""
    return str(getattr(error.__cause__, "response", {}).get("Error", {}).get("Code"))


def _remove(path: str) -> None:
    """Remove a folder of temporary files, to which its process may still add, or a file."""
    with contextlib.suppress(FileNotFoundError):
        if not os.path.isdir(path) or os.path.islink(path):
            os.remove(path)
            return
        for _ in range(_NUM_TRIES):
            shutil.rmtree(path, ignore_errors=True)
            if not os.path.exists(path):
                return
        shutil.rmtree(path)
