"""Files on a local or mounted disk, each of which appears whole, and stays after a power cut."""

import contextlib
import ctypes
import errno
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class LocalDisk:
    """A folder of a disk.

    Args:
        root: The folder's path.
        temporary_folder: The path of the folder, on the same disk, in which files are written before they are renamed.
        before_effect: Called at every try of a write, just before it becomes visible; an error stops the write.
    """

    root: str
    temporary_folder: str
    before_effect: Callable[[], None]

    def write(self, path: str, data: bytes) -> None:
        """Store a file, or replace one: a temporary file, fsync, and a rename, which is atomic."""
        with self._temporary(data) as temporary:
            self.before_effect()
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.replace(temporary, path)
            _sync_folder(os.path.dirname(path))

    def create(self, path: str, data: bytes) -> None:
        """Store a file that must not exist yet, by a hard link, which fails if there is one.

        Raises:
            FileExistsError: There is one.
        """
        with self._temporary(data) as temporary:
            self.before_effect()
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.link(temporary, path)
            _sync_folder(os.path.dirname(path))

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Store files that no record names yet, by path, and wait for the disk once at the end."""
        for path, data in files.items():
            try:
                with self._explained_errors(), _open_new(path) as file:
                    file.write(data)
            except FileExistsError:  # a record may name it already: readers must find it whole at any moment
                with self._temporary(data, is_synced=False) as temporary:
                    os.replace(temporary, path)
        _sync_disk(self.root)

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)

    def seconds_since_modified(self, path: str) -> float:
        """Return the age of a file by the disk's own clock, which may be another machine's."""
        return max(0.0, self._now() - os.stat(path).st_mtime)

    def _now(self) -> float:
        """Return the time by the disk's clock; this machine's time if nothing can be written there."""
        try:
            with self._temporary(b"", is_synced=False) as temporary:
                return os.stat(temporary).st_mtime
        except OSError:
            return time.time()

    @contextmanager
    def _temporary(self, data: bytes, is_synced: bool = True) -> Iterator[str]:
        """Write a temporary file, remove it at the end if it is still there, and yield its path.

        Args:
            is_synced: Whether to wait until the content would survive a power cut.
        """
        path = f"{self.temporary_folder}/{uuid.uuid4().hex}"
        try:
            with self._explained_errors():
                os.makedirs(self.temporary_folder, exist_ok=True)
                with open(path, "wb") as file:
                    file.write(data)
                    if is_synced:
                        file.flush()
                        os.fsync(file.fileno())
                yield path
        finally:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.remove(path)

    @contextmanager
    def _explained_errors(self) -> Iterator[None]:
        """Replace "No space left on device" if the disk has bytes left but no inodes."""
        try:
            yield
        except OSError as error:
            if error.errno != errno.ENOSPC or not _lacks_inodes_only(self.root):
                raise
            message = "No inodes are left on the disk, though bytes are: it holds too many files"
            raise OSError(errno.ENOSPC, message, self.root) from error


def _lacks_inodes_only(folder: str) -> bool:
    """Whether a folder's disk has room for bytes but not for another file."""
    while folder and not os.path.exists(folder):
        folder = os.path.dirname(folder)
    disk = os.statvfs(folder or "/")
    return disk.f_files > 0 and disk.f_favail == 0 and disk.f_bavail > 0


def _open_new(path: str) -> BinaryIO:
    """Open a file that must not exist yet for writing, and make its folder if necessary."""
    try:
        return open(path, "xb")
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "xb")


def _sync_folder(folder: str) -> None:
    """Wait until the names in a folder would survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_disk(folder: str) -> None:
    """Wait until everything written to a folder's disk would survive a power cut."""
    if sys.platform != "linux":
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if _LIBC.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)
    finally:
        os.close(descriptor)
