"""Fencing: a write of a run that has lost its lease changes nothing, however late it arrives.

Every try of a write asks first whether the lease is still this run's. A write that passes this check, and then takes
effect after another run has taken over, is stopped in another way:

- On a disk a file is written in a temporary folder of the lease's own, and then renamed. A follower removes that folder
  before it reads anything. A later rename finds nothing to rename, and a later attempt to make the folder again is
  followed by a check, which fails.
- On S3 a new file is created under the condition that there is none, and an old one is replaced under the condition
  that it is still the one that this run knows. A follower of a run that did not end in an orderly way rewrites every
  part and takes the next part's number (`PartFiles.fence`), so both conditions fail.
- Behind other URLs there is only the check: a write that the network delivers later than that is not stopped.
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
_MAX_BYTES_PER_REQUEST = 2**31
"""S3's clients send larger files in several requests, for which there are no conditions."""


class HeldLease(Protocol):
    """The part of a `manifests.output.lease.Lease` that fencing needs."""

    number: int
    must_fence_parts: bool

    @property
    def settled(self) -> int:
        """The number of the newest settled lease."""

    def check(self) -> None:
        """Raise `LeaseLost` if another run holds the lease."""

    def settle(self, number: int) -> None:
        """Declare leases up to this number settled."""


@dataclass(frozen=True)
class FencedFolder(Folder):
    """A folder in which every try of a write fails once another run has the lease.

    All methods that write raise `LeaseLost` then.
    """

    lease: HeldLease = field(kw_only=True)

    @classmethod
    def of(cls, folder: Folder, lease: HeldLease) -> "FencedFolder":
        """Return the same folder under a lease that was acquired."""
        return cls(folder.url, folder.patience_seconds, lease=lease)

    @cached_property
    def has_conditions(self) -> bool:
        """Whether a file can be replaced under the condition that it is still the one that this run knows."""
        return self.is_s3 and self.with_retries(self._honours_conditions)

    def _honours_conditions(self) -> bool:
        """Try to replace a file that does not exist, which the store must refuse."""
        name = f"{TEMPORARY}/condition"
        try:
            self._opened[0].pipe_file(self.path(name), b"", IfMatch="0" * 32)
        except OSError as error:
            if _s3_code(error) in ("NotImplemented", "InvalidArgument"):
                return False
            if not _is_failed_condition(error):
                raise
            return True
        self._opened[0].rm_file(self.path(name))
        return False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a plain folder, because a task holds no lease."""
        return Folder, (self.url, self.patience_seconds)

    def fence_disk(self) -> None:
        """Remove the temporary folders of earlier leases from a disk; does nothing on other stores.

        From then on no file that an earlier holder has written, but not yet renamed, can get its name.
        """
        if not self.is_local:
            return
        folder = self.path(TEMPORARY)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(folder):
                if not name.isdigit() or int(name) < self.lease.number:
                    self.with_retries(_remove, f"{folder}/{name}")

    def remove_temporary_folder(self) -> None:
        """Remove this lease's folder of temporary files from a disk; a later write makes it again."""
        if self.is_local:
            with contextlib.suppress(OSError):
                os.rmdir(self.path(self._temporary_folder))

    def add(self, name: str, data: bytes) -> str | None:
        """Store a file that must not exist yet; return its stamp, or None if there is one with other content."""
        return self._stamp(name) if self.create(name, data) else None

    def replace(self, name: str, data: bytes, stamp: str) -> str:
        """Replace the file that has this stamp (`storage.folder.Entry`), and return the new one's.

        Raises:
            LeaseLost: The file has another stamp by now.
        """
        return self.with_retries(self._replace, name, data, stamp)

    def _replace(self, name: str, data: bytes, stamp: str) -> str:
        if not self.has_conditions:
            self._write(name, data)
            return ""
        self._before_effect()
        try:
            answer = self._opened[0].pipe_file(self.path(name), data, chunksize=_MAX_BYTES_PER_REQUEST, IfMatch=stamp)
        except OSError as error:
            if not _is_failed_condition(error):
                raise
            if self._read(name) != data:  # equal: an earlier try whose answer was lost
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
        """Remove files, several at a time; files that do not exist are skipped."""
        with ThreadPoolExecutor(_NUM_IO_THREADS) as threads:
            list(threads.map(lambda name: self.with_retries(self._delete, name), names))

    def _delete(self, name: str) -> None:
        """Remove a file: on a disk by renaming it into the lease's temporary folder first, so that fencing stops it."""
        if not self.is_local:
            super()._delete(name)
            return
        path, folder = self.path(name), self.path(self._temporary_folder)
        if self._leads_outside(name) or not os.path.lexists(path):
            return
        os.makedirs(folder, exist_ok=True)
        self._before_effect()
        removed = f"{folder}/{uuid.uuid4().hex}"
        try:
            os.rename(path, removed)  # fails once a follower has removed the temporary folder
        except FileNotFoundError as error:
            if os.path.lexists(path):
                raise self._explained(error) from error
            return
        os.remove(removed)

    def _leads_outside(self, name: str) -> bool:
        """Whether a symbolic link within a top-level folder of the output leads out of that folder, on a disk."""
        top = os.path.realpath(self.path(name.partition("/")[0]))
        return os.path.commonpath([top, os.path.realpath(os.path.dirname(self.path(name)))]) != top

    def _write(self, name: str, data: bytes) -> None:
        try:
            super()._write(name, data)
        except FileNotFoundError as error:
            raise self._explained(error) from error

    def _create(self, name: str, data: bytes) -> bool:
        try:
            return super()._create(name, data)
        except FileNotFoundError as error:
            raise self._explained(error) from error

    def _explained(self, error: FileNotFoundError) -> OSError:
        """Return the error to raise if the lease's temporary folder is gone, which is transient.

        Raises:
            LeaseLost: A follower removed the folder.
        """
        if self.is_local:
            self.lease.check()
            return OSError(errno.ESTALE, "the folder of temporary files was removed", error.filename)
        return error

    @property
    def _temporary_folder(self) -> str:
        return f"{TEMPORARY}/{self.lease.number}"

    def _before_effect(self) -> None:
        self.lease.check()


def _is_failed_condition(error: BaseException) -> bool:
    """Whether a store refused a write because its condition did not hold."""
    return isinstance(error, FileExistsError) or _s3_code(error) in ("PreconditionFailed", "NoSuchKey", "412")


def _s3_code(error: BaseException) -> str:
    """Return S3's code of an error."""
    return str(getattr(error.__cause__, "response", {}).get("Error", {}).get("Code"))


def _remove(path: str) -> None:
    """Remove a file, or a folder of temporary files to which its process may still add some."""
    with contextlib.suppress(FileNotFoundError):
        if not os.path.isdir(path) or os.path.islink(path):
            os.remove(path)
            return
        for _ in range(_NUM_TRIES):
            shutil.rmtree(path, ignore_errors=True)
            if not os.path.exists(path):
                return
        shutil.rmtree(path)
