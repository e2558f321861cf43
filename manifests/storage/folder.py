"""A folder on a local disk or behind any fsspec URL, so that no other module needs to know which."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import IO, Any, NamedTuple, TypeVar, cast

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from rendermill.manifests.errors import UserError
from rendermill.manifests.storage.local_disk import LocalDisk
from rendermill.manifests.storage.object_store import ObjectStore
from rendermill.manifests.storage.parquet import read_parquet
from rendermill.manifests.storage.retries import with_retries
from rendermill.manifests.storage.urls import open_filesystem

_Result = TypeVar("_Result")
TEMPORARY = "_tmp"
"""The folder of files that are being written to a local disk: the one place where a crash can leave a partial file."""


def is_inside(name: str) -> bool:
    """Whether a name relative to a folder stays in that folder."""
    return not name.startswith("/") and "\0" not in name and ".." not in name.split("/")


class Entry(NamedTuple):
    """A file in a listing.

    Attributes:
        modified_at: Seconds since 1970 by the store's clock; None if the store does not tell.
        stamp: A text that changes with the content: the ETag on S3, empty elsewhere.
    """

    modified_at: float | None
    stamp: str


@dataclass(frozen=True)
class Folder:
    """A folder of files, each of which is written as a whole or not at all.

    Every method takes names relative to the folder, and raises a `UserError` for a name that leaves it.

    Args:
        url: An fsspec URL, or a path on the local disk.
        patience_seconds: How long calls are repeated while the store fails with transient errors.
    """

    url: str
    patience_seconds: float = 0.0

    @cached_property
    def _opened(self) -> tuple[fsspec.AbstractFileSystem, str]:
        filesystem, root = open_filesystem(self.url)
        return filesystem, root.rstrip("/")

    @property
    def _backend(self) -> LocalDisk | ObjectStore:
        filesystem, root = self._opened
        if isinstance(filesystem, LocalFileSystem):
            return LocalDisk(root, f"{root}/{self._temporary_folder}", self._before_effect)
        return ObjectStore(filesystem, self._before_effect)

    def __getstate__(self) -> dict[str, Any]:
        # an open file system cannot be pickled
        return {"url": self.url, "patience_seconds": self.patience_seconds}

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a disk of this machine, or one that is mounted here."""
        return isinstance(self._opened[0], LocalFileSystem)

    @property
    def is_s3(self) -> bool:
        """Whether the folder is behind S3's protocol, which has conditional writes."""
        backend = self._backend
        return isinstance(backend, ObjectStore) and backend.is_s3

    @property
    def _temporary_folder(self) -> str:
        return TEMPORARY

    def _before_effect(self) -> None:
        """Check, at every try of a write and just before it becomes visible, that it may be made."""

    def path(self, name: str) -> str:
        """Return the full path of a file in this folder, as its file system spells it.

        Raises:
            UserError: The name leaves the folder.
        """
        if not is_inside(name):
            raise UserError(f"{self.url}: the name {name!r} leaves this folder, so nothing is read or written there")
        return f"{self._opened[1]}/{name}"

    def with_retries(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Call a function that reads or writes, and repeat the call after transient errors."""
        return with_retries(self.patience_seconds)(function, *arguments)

    def write(self, name: str, data: bytes) -> None:
        """Store a file, or replace one, so that no reader ever sees a part of it."""
        self.with_retries(self._write, name, data)

    def _write(self, name: str, data: bytes) -> None:
        self._backend.write(self.path(name), data)

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Store files that no record names yet; they would survive a power cut once this has returned.

        Faster than `write` for each file: a local disk is waited for once, and other stores take several files at a
        time. A crash may leave a part of a new file on a local disk; storing that file again replaces it.
        """
        self.with_retries(self._write_all, files)

    def _write_all(self, files: Mapping[str, bytes]) -> None:
        self._backend.write_all({self.path(name): data for name, data in files.items()})

    def create(self, name: str, data: bytes) -> bool:
        """Store a file that must not exist yet; of several who try at once, one succeeds.

        Returns:
            Whether the file has this content now; False if it exists with another.
        """
        return self.with_retries(self._create, name, data)

    def _create(self, name: str, data: bytes) -> bool:
        try:
            self._backend.create(self.path(name), data)
        except OSError:
            # stores name this refusal in different ways; and a first try whose answer was lost is a success
            found = self._read(name)
            if found is None:
                raise
            return found == data
        return True

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None if there is no such file."""
        return self.with_retries(self._read, name)

    def _read(self, name: str) -> bytes | None:
        try:
            return cast(bytes, self._opened[0].cat_file(self.path(name)))
        except FileNotFoundError:
            return None

    def read_table(self, name: str, columns: list[str] | None = None, encoded: Sequence[str] = ()) -> pa.Table:
        """Read a Parquet file, as `parquet.read_parquet` does.

        Raises:
            FileNotFoundError: There is no such file.
        """

        def read() -> pa.Table:
            with self._opened[0].open(self.path(name), "rb") as file:
                return read_parquet(file, columns, encoded)

        return self.with_retries(read)

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for reading.

        Raises:
            FileNotFoundError: There is no such file.
        """
        with self.with_retries(self._opened[0].open, self.path(name), "rb") as file:
            yield file

    def stream(self, name: str, num_bytes: int) -> Iterator[bytes]:
        """Yield a file's content in parts of at most this number of bytes.

        Raises:
            FileNotFoundError: There is no such file.
        """
        with self.opened(name) as file:
            while part := file.read(num_bytes):
                yield part

    def delete(self, names: Iterable[str]) -> None:
        """Remove files; files that do not exist are skipped."""
        for name in names:
            self.with_retries(self._delete, name)

    def _delete(self, name: str) -> None:
        self._backend.delete(self.path(name))

    def names(self, subfolder: str) -> list[str]:
        """List the files directly in a subfolder, as sorted names relative to this folder."""
        return sorted(self.entries(subfolder))

    def entries(self, subfolder: str) -> dict[str, Entry]:
        """List the files directly in a subfolder, by name relative to this folder."""
        return self.with_retries(self._entries, subfolder)

    def _entries(self, subfolder: str) -> dict[str, Entry]:
        try:
            found = self._opened[0].ls(self.path(subfolder), detail=True, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        files = {os.path.basename(info["name"]): _entry(info) for info in found if info["type"] == "file"}
        return {f"{subfolder}/{name}".lstrip("/"): entry for name, entry in files.items() if name}

    def all_names(self, subfolder: str) -> list[str]:
        """List the files at any depth below a subfolder, as names relative to this folder, in no order."""
        return list(self.with_retries(self._find, subfolder))

    def all_sizes(self, subfolder: str) -> dict[str, int]:
        """Return the sizes in bytes of the files at any depth below a subfolder, by name relative to this folder."""
        return {name: info["size"] for name, info in self.with_retries(self._find, subfolder).items()}

    def _find(self, subfolder: str) -> dict[str, dict[str, Any]]:
        filesystem, root = self._opened
        found = filesystem.find(self.path(subfolder), detail=True)
        return {path[len(root) + 1 :]: info for path, info in found.items()}

    def seconds_since_modified(self, name: str) -> float | None:
        """Return the time since a file was written, by the store's own clock; None if the store cannot tell."""
        try:
            return self._backend.seconds_since_modified(self.path(name))
        except (OSError, KeyError, ValueError):
            return None


def _entry(info: Mapping[str, Any]) -> Entry:
    """Return what a file system's description of a file says, which each spells in its own way."""
    found = next((info[name] for name in ("LastModified", "mtime", "last_modified", "updated") if info.get(name)), None)
    modified_at = found.timestamp() if isinstance(found, datetime) else found
    stamp = str(info.get("ETag", "")).strip('"')
    return Entry(modified_at if isinstance(modified_at, float) else None, stamp)
