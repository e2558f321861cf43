"""A disk cache of inputs that all tasks of a node share, so that an input of many rows is fetched once."""

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_NUM_DIGEST_BYTES = 32
_SHARE_BETWEEN_EVICTIONS = 32
"""A process looks at the size of the cache whenever it has written this fraction (1 / N) of the limit."""
_SHARE_KEPT = 0.9
_SECONDS_OF_TEMPORARY_FILES = 3600.0


class InputCache:
    """A folder of files, each with the sha256 of its content in front, by which a damaged one is recognised.

    Files that were not used for longest are removed when the cache is full. A cache that cannot be written, for
    example because the disk is full, is as good as none.

    Args:
        folder: on a disk of this node; made if necessary.
        num_bytes: the size that it may have.
        lock_seconds: the time to wait for another process that is fetching the same input, before fetching it, too.
    """

    def __init__(self, folder: Path, num_bytes: int, lock_seconds: float) -> None:
        self._folder, self._num_bytes, self._lock_seconds = folder, num_bytes, lock_seconds
        self._num_bytes_written = 0

    def get(self, key: str, fetch: Callable[[], bytes]) -> bytes:
        """Return the content for a key, and fetch it if the cache does not have it."""
        name = hashlib.sha256(key.encode()).hexdigest()
        data = self._read(name)
        if data is not None:
            return data
        with self._locked(name):
            data = self._read(name)
            if data is None:
                data = fetch()
                self._write(name, data)
        return data

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the lock for a name. If that is not possible, go on without it: the input is fetched twice then."""
        lock = FileLock(self._folder / "locks" / name[:4], timeout=self._lock_seconds)
        with contextlib.ExitStack() as held:
            with contextlib.suppress(Timeout, OSError):
                Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(lock)
            yield

    def _read(self, name: str) -> bytes | None:
        path = self._path(name)
        try:
            stored = path.read_bytes()
            digest, data = stored[:_NUM_DIGEST_BYTES], stored[_NUM_DIGEST_BYTES:]
            if hashlib.sha256(data).digest() != digest:
                path.unlink(missing_ok=True)
                return None
            os.utime(path)  # it was used now
        except OSError:
            return None
        return data

    def _write(self, name: str, data: bytes) -> None:
        if len(data) > self._num_bytes * _SHARE_KEPT:
            return
        path, temporary = self._path(name), self._folder / "temporary" / uuid.uuid4().hex
        try:
            for folder in (path.parent, temporary.parent):
                folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as cleanup:
                cleanup.callback(temporary.unlink, missing_ok=True)
                temporary.write_bytes(hashlib.sha256(data).digest() + data)
                temporary.replace(path)
            self._num_bytes_written += len(data)
            if self._num_bytes_written * _SHARE_BETWEEN_EVICTIONS >= self._num_bytes:
                self._num_bytes_written = 0
                self._evict()
        except OSError:
            return

    def _evict(self) -> None:
        """Remove the files that were not used for longest, until the cache is small enough again."""
        try:
            with FileLock(self._folder / "eviction.lock", timeout=0):
                found = [(status.st_mtime, status.st_size, path) for path, status in self._files()]
                num_bytes = sum(size for _, size, _ in found)
                if num_bytes <= self._num_bytes:
                    return
                for _, size, path in sorted(found):
                    path.unlink(missing_ok=True)
                    num_bytes -= size
                    if num_bytes <= self._num_bytes * _SHARE_KEPT:
                        return
        except Timeout:  # another process is at it
            return

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield the files of the cache, and remove those that a process which died had begun to write."""
        for folder, _, names in os.walk(self._folder):
            for name in names if Path(folder).name != "locks" else ():
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    if Path(folder).name != "temporary":
                        yield path, status
                    elif time.time() - status.st_mtime > _SECONDS_OF_TEMPORARY_FILES:
                        path.unlink(missing_ok=True)
