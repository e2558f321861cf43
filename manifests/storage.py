"""One folder, on a local disk or behind any fsspec URL, so that no other module knows which."""

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from manifests.errors import UserError, one_line


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system behind a URL or local path, and the path within it.

    Raises:
        UserError: the URL's scheme is unknown, or needs a package that is not installed.
    """
    try:
        return cast(tuple[fsspec.AbstractFileSystem, str], fsspec.core.url_to_fs(url, use_listings_cache=False))
    except (ValueError, ImportError) as error:
        raise UserError(f"{url}: {one_line(error)}") from error


@contextmanager
def first_contact(failing: str) -> Iterator[None]:
    """Turn whatever a store raises at first contact into a `UserError`: each store's client has errors of its own.

    Args:
        failing: what the error's line begins with.
    """
    try:
        yield
    except Exception as error:
        raise UserError(f"{failing}: {one_line(error)}") from error


def is_local(url: str) -> bool:
    """Whether a URL or path lies on this machine's own file system."""
    return isinstance(open_filesystem(url)[0], LocalFileSystem)


def absolute(url: str) -> str:
    """The URL as it is; a local path made absolute, because workers may run in another folder."""
    return os.path.abspath(open_filesystem(url)[1]) if is_local(url) else url.rstrip("/")


@dataclass(frozen=True)
class Folder:
    """A folder that holds whole files: each is written at once or not at all.

    Args:
        url: an fsspec URL, or a path on the local disk.
    """

    url: str

    @cached_property
    def _opened(self) -> tuple[fsspec.AbstractFileSystem, str]:
        filesystem, root = open_filesystem(self.url)
        return filesystem, root.rstrip("/")

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}  # a file system does not travel between processes

    def path(self, name: str) -> str:
        """The full path of a file in this folder, as its file system spells it."""
        return f"{self._opened[1]}/{name}"

    def write(self, name: str, data: bytes) -> None:
        """Store a file so that no reader ever meets a part of it.

        On a local disk through a temporary file, fsync and rename; elsewhere by one PUT.
        """
        filesystem, path = self._opened[0], self.path(name)
        if not isinstance(filesystem, LocalFileSystem):
            filesystem.pipe_file(path, data)
            return
        folder = os.path.dirname(path)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f"_{uuid.uuid4().hex}.tmp")  # readers of Parquet folders skip a leading "_"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.remove(temporary)
            raise

    def read(self, name: str) -> bytes | None:
        """A file's content, or None where there is no such file."""
        try:
            return cast(bytes, self._opened[0].cat_file(self.path(name)))
        except FileNotFoundError:
            return None

    def open(self, name: str) -> BinaryIO:
        """A file, open for reading."""
        return cast(BinaryIO, self._opened[0].open(self.path(name), "rb"))

    def names(self, subfolder: str) -> list[str]:
        """The files directly in a subfolder, as sorted names relative to this folder."""
        filesystem, _ = self._opened
        try:
            entries = filesystem.ls(self.path(subfolder), detail=True, refresh=True)
        except FileNotFoundError:
            return []
        files = (os.path.basename(entry["name"]) for entry in entries if entry["type"] == "file")
        return sorted(f"{subfolder}/{name}" for name in files if name)

    def delete(self, names: Iterable[str]) -> None:
        """Remove files; one that is gone already is no error."""
        filesystem, _ = self._opened
        for name in names:
            try:
                filesystem.rm_file(self.path(name))
            except FileNotFoundError:
                continue


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the content of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return cast(bytes, sink.getvalue().to_pybytes())
