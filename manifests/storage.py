"""One folder, on a local disk or behind any fsspec URL, so that no other module knows which."""

import ctypes
import os
import sys
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, BinaryIO, TypeVar, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from manifests.errors import UserError, one_line, traceback_of
from manifests.secrets import MASK, secrets_in

_Result = TypeVar("_Result")
_CLIENT_LIBRARIES = {"botocore", "aiohttp", "gcsfs", "google", "azure"}
_MAX_SECONDS_BETWEEN_TRIES = 20.0
_LIBC = ctypes.CDLL(None, use_errno=True)
_TEMPORARY = "_tmp"
"""Folder of files that are being written to a local disk: one place to look for what a crash left."""
_SECRETS_BELONG = "give it where the store's client looks, such as AWS_SECRET_ACCESS_KEY"


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system behind a URL or local path, and the path within it.

    Raises:
        UserError: the URL's scheme is unknown, or needs a package that is not installed; it has a secret that its store
            does not take from there, or that was left out.
    """
    try:
        filesystem, path = cast(
            tuple[fsspec.AbstractFileSystem, str], fsspec.core.url_to_fs(url, use_listings_cache=False)
        )
    except (ValueError, ImportError) as error:
        raise UserError(f"{url}: {one_line(error)}") from error
    if MASK in secrets_in(url):
        raise UserError(f"{url}: {MASK} stands for a secret, which the file of a run leaves out; {_SECRETS_BELONG}")
    if "://" in url and "http" not in filesystem.protocol and secrets_in(f"://{path}"):
        raise UserError(f"{url}: this store takes no secret from a URL; {_SECRETS_BELONG}")
    return filesystem, path


@contextmanager
def first_contact(failing: str) -> Iterator[None]:
    """Turn whatever a store raises at first contact into a `UserError`: each store's client has errors of its own.

    Args:
        failing: what the error's line begins with.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{failing}: {one_line(error)}") from error


@contextmanager
def masked_errors() -> Iterator[None]:
    """Within, no error has a secret of a URL in it: for tasks, as Ray logs what they raise in places of its own."""
    try:
        yield
    except Exception as error:
        if traceback_of(error) == "".join(traceback.format_exception(error)):
            raise
        told = f"{type(error).__name__}: {one_line(error)}"
        raise (ConnectionError(told) if is_passing(error) else OSError(told)) from None


def is_local(url: str) -> bool:
    """Whether a URL or path lies on this machine's own file system."""
    return isinstance(open_filesystem(url)[0], LocalFileSystem)


def absolute(url: str) -> str:
    """The URL as it is; a local path made absolute, because workers may run in another folder."""
    return os.path.abspath(open_filesystem(url)[1]) if is_local(url) else url.rstrip("/")


def is_passing(error: BaseException) -> bool:
    """Whether an error of a store may be gone at another try: no connection, throttling, a full disk.

    What is refused or not there stays so.
    """
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError):
        # refusals have classes of their own, and what Arrow cannot read has no number
        return type(error) is OSError and error.errno is not None
    return any(base.__module__.partition(".")[0] in _CLIENT_LIBRARIES for base in type(error).__mro__)


def patience(seconds: float) -> Retrying:
    """Calls a function again, ever more seldom, while it fails in a way that may pass."""
    return Retrying(
        retry=retry_if_exception(is_passing),
        wait=wait_random_exponential(max=_MAX_SECONDS_BETWEEN_TRIES),
        stop=stop_after_delay(seconds),
        reraise=True,
    )


@dataclass(frozen=True)
class Folder:
    """A folder that holds whole files: each is written at once or not at all.

    Args:
        url: an fsspec URL, or a path on the local disk.
        patience_seconds: how long to try again, ever more seldom, while the store fails in a way that may pass.
    """

    url: str
    patience_seconds: float = 0.0

    @cached_property
    def _opened(self) -> tuple[fsspec.AbstractFileSystem, str]:
        filesystem, root = open_filesystem(self.url)
        return filesystem, root.rstrip("/")

    def __getstate__(self) -> dict[str, Any]:
        # a file system does not travel between processes
        return {"url": self.url, "patience_seconds": self.patience_seconds}

    def path(self, name: str) -> str:
        """The full path of a file in this folder, as its file system spells it."""
        return f"{self._opened[1]}/{name}"

    def patiently(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Call a function that reads or writes; again while it fails in a way that may pass, and patience lasts."""
        return patience(self.patience_seconds)(function, *arguments)

    def write(self, name: str, data: bytes) -> None:
        """Store a file so that no reader ever meets a part of it.

        On a local disk through a temporary file, fsync and rename; elsewhere by one PUT.
        """
        self.patiently(self._write, name, data)

    def _write(self, name: str, data: bytes) -> None:
        filesystem, path = self._opened[0], self.path(name)
        if not isinstance(filesystem, LocalFileSystem):
            filesystem.pipe_file(path, data)
            return
        with self._temporary(data) as temporary:
            _in_its_folder(path, os.replace, temporary)

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Store files that nothing names yet: all are there, and safe from a power cut, once this has returned.

        Quicker than `write` for each: a local disk is waited for once, and a crash may leave a part of a new file,
        which gives way when that file is stored again; other stores take several at a time.
        """
        self.patiently(self._write_all, files)

    def _write_all(self, files: Mapping[str, bytes]) -> None:
        filesystem, root = self._opened
        if not isinstance(filesystem, LocalFileSystem):
            filesystem.pipe({self.path(name): data for name, data in files.items()})
            return
        for name, data in files.items():
            try:
                with _open_new(self.path(name)) as file:
                    file.write(data)
            except FileExistsError:  # perhaps a record names it already: readers have to find it whole
                with self._temporary(data, is_synced=False) as temporary:
                    os.replace(temporary, self.path(name))
        _sync_disk(root)

    def create(self, name: str, data: bytes) -> bool:
        """Store a file that must not exist yet; of several who try at once, one succeeds.

        On a local disk by a hard link, elsewhere by a conditional PUT.

        Returns:
            False where the file exists.
        """
        return self.patiently(self._create, name, data)

    def _create(self, name: str, data: bytes) -> bool:
        filesystem, path = self._opened[0], self.path(name)
        try:
            if isinstance(filesystem, LocalFileSystem):
                with self._temporary(data) as temporary:
                    _in_its_folder(path, os.link, temporary)
            else:
                filesystem.pipe_file(path, data, mode="create")
        except OSError:
            # stores name this refusal in different ways; and a first try whose answer was lost is a success
            found = self._read(name)
            if found is None:
                raise
            return found == data
        return True

    def read(self, name: str) -> bytes | None:
        """A file's content, or None where there is no such file."""
        return self.patiently(self._read, name)

    def _read(self, name: str) -> bytes | None:
        try:
            return cast(bytes, self._opened[0].cat_file(self.path(name)))
        except FileNotFoundError:
            return None

    def read_table(self, name: str, columns: list[str] | None = None, encoded: Sequence[str] = ()) -> pa.Table:
        """A Parquet file, or some of its columns, those that repeat themselves dictionary-encoded if asked for."""

        def read() -> pa.Table:
            with self._opened[0].open(self.path(name), "rb") as file:
                return pq.read_table(file, columns=columns, read_dictionary=encoded)

        return self.patiently(read)

    def names(self, subfolder: str) -> list[str]:
        """The files directly in a subfolder, as sorted names relative to this folder."""
        return self.patiently(self._names, subfolder)

    def _names(self, subfolder: str) -> list[str]:
        filesystem, _ = self._opened
        try:
            entries = filesystem.ls(self.path(subfolder), detail=True, refresh=True)
        except FileNotFoundError:
            return []
        files = (os.path.basename(entry["name"]) for entry in entries if entry["type"] == "file")
        return sorted(f"{subfolder}/{name}" for name in files if name)

    def all_names(self, subfolder: str) -> list[str]:
        """The files in a subfolder and all below it, as names relative to this folder, in no order."""

        def find() -> list[str]:
            filesystem, root = self._opened
            return [path[len(root) + 1 :] for path in filesystem.find(self.path(subfolder))]

        return self.patiently(find)

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """A file, to be read from its beginning on.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with self.patiently(self._opened[0].open, self.path(name), "rb") as file:
            yield file

    def stream(self, name: str, num_bytes: int) -> Iterator[bytes]:
        """A file's content in parts of at most so many bytes.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with self.opened(name) as file:
            while part := file.read(num_bytes):
                yield part

    def delete(self, names: Iterable[str]) -> None:
        """Remove files; one that is gone already is no error."""
        for name in names:
            self.patiently(self._delete, name)

    def _delete(self, name: str) -> None:
        try:
            self._opened[0].rm_file(self.path(name))
        except FileNotFoundError:
            return

    def remove_leftovers(self) -> None:
        """Remove what processes that were killed while they wrote left on a local disk."""
        if isinstance(self._opened[0], LocalFileSystem):
            self.delete(self.names(_TEMPORARY))

    @contextmanager
    def _temporary(self, data: bytes, is_synced: bool = True) -> Iterator[str]:
        """A file with this content, on the disk for sure if asked for; removed at the end if still there."""
        temporary = self.path(f"{_TEMPORARY}/{uuid.uuid4().hex}")
        os.makedirs(os.path.dirname(temporary), exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                if is_synced:
                    file.flush()
                    os.fsync(file.fileno())
            yield temporary
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)


def _open_new(path: str) -> BinaryIO:
    """Open a file that must not exist yet, for writing; its folder is made if need be."""
    try:
        return open(path, "xb")
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "xb")


def _in_its_folder(path: str, place: Callable[[str, str], None], temporary: str) -> None:
    """Give a temporary file its name, so that a power cut does not take it away again."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    place(temporary, path)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_disk(folder: str) -> None:
    """Wait until all that was written to a folder's disk is safe there."""
    if sys.platform != "linux":
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if _LIBC.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)
    finally:
        os.close(descriptor)


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the content of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return cast(bytes, sink.getvalue().to_pybytes())
