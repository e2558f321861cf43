"""One folder, on a local disk or behind any fsspec URL, so that no other module knows which."""

import contextlib
import ctypes
import errno
import os
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import IO, Any, BinaryIO, NamedTuple, TypeVar, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from rendermill.manifests.errors import LeaseLost, UserError, one_line, traceback_of
from rendermill.manifests.secrets import MASK, secrets_in
from rendermill.manifests.storage.retries import is_passing, patience

_Result = TypeVar("_Result")
_IN_ONE_PROCESS = {"memory", "data"}
_READ_ONLY = {"http", "https", "zip", "tar", "libarchive", "github", "gist", "git", "reference", "jlab", "jupyter"}
_LIBC = ctypes.CDLL(None, use_errno=True)
TEMPORARY = "_tmp"
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
    except Exception as error:  # each file system has errors of its own, as that of HDFS without Java
        if is_passing(error):
            raise
        is_plain = isinstance(error, ValueError | ImportError | OSError)
        raise UserError(f"{url}: {'' if is_plain else 'cannot be opened: '}{one_line(error)}") from error
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
    except (UserError, LeaseLost):
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
    chain, _, last = url.rpartition("::")
    if chain and last:
        return f"{chain}::{absolute(last)}"
    return os.path.abspath(open_filesystem(url)[1]) if is_local(url) else url.rstrip("/")


def check_can_be_output(url: str) -> None:
    """Raise a `UserError` for a store that files cannot be written to, or are lost in with the process."""
    instead = "give a folder on a disk that every node sees, or an object store such as s3://bucket/folder"
    if "::" in url:
        raise UserError(f"output: {url} is one store within another, which cannot be written safely; {instead}")
    protocols = {url.partition("://")[0]} if "://" in url else set()
    if protocols & _IN_ONE_PROCESS:
        raise UserError(f"output: {url} lives in the memory of one process, and is lost with it; {instead}")
    if protocols & _READ_ONLY:
        raise UserError(f"output: {url} can only be read; {instead}")


def is_inside(name: str) -> bool:
    """Whether a name relative to a folder stays in it."""
    return not name.startswith("/") and "\0" not in name and ".." not in name.split("/")


class Entry(NamedTuple):
    """A file as a listing shows it.

    Attributes:
        modified_at: seconds since 1970 by the store's clock; None if the store does not tell.
        stamp: changes with the content, as the store tells it: S3's ETag; empty elsewhere.
    """

    modified_at: float | None
    stamp: str


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
        """The full path of a file in this folder, as its file system spells it.

        Raises:
            UserError: the name leaves the folder.
        """
        if not is_inside(name):
            raise UserError(f"{self.url}: the name {name!r} leaves this folder, so nothing is read or written there")
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
        if not self.is_local:
            self._before_effect()
            filesystem.pipe_file(path, data)
            return
        with self._temporary(data) as temporary:
            self._before_effect()
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
                with _full_disk_explained(root), _open_new(self.path(name)) as file:
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
                    self._before_effect()
                    _in_its_folder(path, os.link, temporary)
            else:
                self._before_effect()
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
        """A Parquet file, or those of some columns that it has, dictionary-encoded if asked for."""

        def read() -> pa.Table:
            with (
                self._opened[0].open(self.path(name), "rb") as file,
                pq.ParquetFile(file, read_dictionary=list(encoded)) as parquet,
            ):
                there = parquet.schema_arrow.names
                return parquet.read(None if columns is None else [column for column in columns if column in there])

        return self.patiently(read)

    def names(self, subfolder: str) -> list[str]:
        """The files directly in a subfolder, as sorted names relative to this folder."""
        return self.patiently(self._names, subfolder)

    def _names(self, subfolder: str) -> list[str]:
        return sorted(self._entries(subfolder))

    def entries(self, subfolder: str) -> dict[str, Entry]:
        """The files directly in a subfolder, by name relative to this folder."""
        return self.patiently(self._entries, subfolder)

    def _entries(self, subfolder: str) -> dict[str, Entry]:
        try:
            found = self._opened[0].ls(self.path(subfolder), detail=True, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        files = {os.path.basename(info["name"]): _entry(info) for info in found if info["type"] == "file"}
        return {f"{subfolder}/{name}".lstrip("/"): entry for name, entry in files.items() if name}

    def seconds_since_modified(self, name: str) -> float | None:
        """How long ago a file was written, by the store's own clock; None if that cannot be told."""
        filesystem, path = self._opened[0], self.path(name)
        try:
            if self.is_local:
                return max(0.0, self._now() - os.stat(path).st_mtime)
            if not self.is_s3:
                return None
            bucket, key, _ = filesystem.split_path(path)
            answer = filesystem.call_s3("head_object", Bucket=bucket, Key=key)
            now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
            return max(0.0, (now - answer["LastModified"]).total_seconds())
        except (OSError, KeyError, ValueError):
            return None

    def _now(self) -> float:
        """The time by the clock of a local or network disk; this machine's time where nothing can be written there."""
        try:
            with self._temporary(b"", is_synced=False) as temporary:
                return os.stat(temporary).st_mtime
        except OSError:
            return time.time()

    @property
    def is_local(self) -> bool:
        """Whether it is on a disk of this machine, or one that is mounted here."""
        return isinstance(self._opened[0], LocalFileSystem)

    @property
    def is_s3(self) -> bool:
        """Whether it is behind S3's protocol, which has conditional writes."""
        return "s3" in self._opened[0].protocol

    def _before_effect(self) -> None:
        """Called at every try of a write, just before it becomes visible; what it raises stops the write."""

    def all_names(self, subfolder: str) -> list[str]:
        """The files in a subfolder and all below it, as names relative to this folder, in no order."""

        def find() -> list[str]:
            filesystem, root = self._opened
            return [path[len(root) + 1 :] for path in filesystem.find(self.path(subfolder))]

        return self.patiently(find)

    def all_sizes(self, subfolder: str) -> dict[str, int]:
        """The sizes in bytes of the files in a subfolder and all below it, by name relative to this folder."""

        def find() -> dict[str, int]:
            filesystem, root = self._opened
            found = filesystem.find(self.path(subfolder), detail=True)
            return {path[len(root) + 1 :]: info["size"] for path, info in found.items()}

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

    @property
    def _temporary_folder(self) -> str:
        return TEMPORARY

    @contextmanager
    def _temporary(self, data: bytes, is_synced: bool = True) -> Iterator[str]:
        """A file with this content, on the disk for sure if asked for; removed at the end if still there."""
        temporary = self.path(f"{self._temporary_folder}/{uuid.uuid4().hex}")
        try:
            with _full_disk_explained(self._opened[1]):
                os.makedirs(os.path.dirname(temporary), exist_ok=True)
                with open(temporary, "wb") as file:
                    file.write(data)
                    if is_synced:
                        file.flush()
                        os.fsync(file.fileno())
                yield temporary
        finally:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.remove(temporary)


def _entry(info: Mapping[str, Any]) -> Entry:
    told = next((info[name] for name in ("LastModified", "mtime", "last_modified", "updated") if info.get(name)), None)
    modified_at = told.timestamp() if isinstance(told, datetime) else told
    stamp = str(info.get("ETag", "")).strip('"')
    return Entry(modified_at if isinstance(modified_at, float) else None, stamp)


@contextmanager
def _full_disk_explained(root: str) -> Iterator[None]:
    """Within, a disk that has bytes but no inodes left is not called full."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC or not _has_bytes_alone(root):
            raise
        told = "No inodes are left on the disk, though bytes are: it holds too many files"
        raise OSError(errno.ENOSPC, told, root) from error


def _has_bytes_alone(root: str) -> bool:
    """Whether the disk of a folder has room for bytes, but for no new file."""
    while root and not os.path.exists(root):
        root = os.path.dirname(root)
    disk = os.statvfs(root or "/")
    return disk.f_files > 0 and disk.f_favail == 0 and disk.f_bavail > 0


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
