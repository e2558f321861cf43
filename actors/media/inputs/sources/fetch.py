"""Reads the files of inputs from wherever they are, with limits, and with patience if a store fails."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from fsspec.asyn import AsyncFileSystem, sync

from rendermill.actors.checkpoints.files import CACHE
from rendermill.actors.media.inputs.options import BadInput, InputOptions
from rendermill.actors.media.inputs.sources.allowed import Allowed, Source
from rendermill.actors.media.inputs.sources.cache import InputCache
from rendermill.actors.media.inputs.sources.http import HttpClient, too_large
from rendermill.manifests.errors import UserError, one_line
from rendermill.manifests.storage.retries import is_transient, with_retries
from rendermill.manifests.storage.urls import open_filesystem

_NUM_TIMEOUTS_OF_PATIENCE = 4
"""The patience with other people's servers, as a multiple of the timeout: manifests of the web have many dead ones."""


class Wanted(NamedTuple):
    """A file that an input is read from.

    Attributes:
        url: as the manifest has it.
        sha256: of the content that the manifest asks for, in hex; None: any.
    """

    url: str
    sha256: str | None = None


class Fetcher:
    """Reads the files of inputs.

    Args:
        run_id: of the run, in which a URL is taken to have one content.
        cache: of this node; None: none.
    """

    def __init__(self, options: InputOptions, run_id: str, cache: InputCache | None = None) -> None:
        self._options, self._run_id, self._cache = options, run_id, cache
        self._allowed = Allowed.by_environment(options)
        self._http = HttpClient(self._allowed)
        self._failing: set[str] = set()

    def fetch(self, wanted: Wanted) -> bytes:
        """Return the content of a file.

        Raises:
            BadInput: the manifest may not name it, it cannot be read, or it has another content than is asked for.
        """
        source = self._allowed.source(wanted.url)
        if self._cache is None or source.kind == "local":
            return self._checked(source, wanted)
        key = wanted.sha256.lower() if wanted.sha256 else f"{self._run_id} {source.url}"
        return self._cache.get(key, lambda: self._checked(source, wanted))

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _checked(self, source: Source, wanted: Wanted) -> bytes:
        data = self._patiently(source)
        if wanted.sha256:
            found = hashlib.sha256(data).hexdigest()
            if found != wanted.sha256.lower():
                raise BadInput(f"{wanted.url} has the sha256 {found}, and the row asks for {wanted.sha256}")
        return data

    def _patiently(self, source: Source) -> bytes:
        """Read a file; after a server failed for as long as the patience lasts, it has one try for each file."""
        read: Callable[[Source], bytes] = {"local": self._local, "http": self._http.fetch, "store": self._store}[
            source.kind
        ]
        server = urlsplit(source.url).netloc
        try:
            data = with_retries(0 if server in self._failing else self._patience_seconds(source))(read, source)
        except BadInput:
            raise
        except Exception as error:
            if is_transient(error):
                self._failing.add(server)
            raise BadInput(f"{source.url} cannot be read: {one_line(error)}") from error
        self._failing.discard(server)
        return data

    def _patience_seconds(self, source: Source) -> float:
        patience = self._options.patience_seconds
        if source.kind == "http" and not source.is_own:
            return min(patience, _NUM_TIMEOUTS_OF_PATIENCE * self._options.timeout_seconds)
        return patience

    def _local(self, source: Source) -> bytes:
        limit, path = self._options.max_bytes, source.url
        try:
            # not to wait for the other end of a pipe, and not to follow a link that was made after the check
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE):
                raise
            raise BadInput(f"{path}: {error.strerror}") from error
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadInput(f"{path} is not a file")
            if status.st_size > limit:
                raise too_large(path, limit, status.st_size)
            return file.read(limit + 1)

    def _arguments(self, source: Source) -> dict[str, str]:
        """Return the arguments of the file system that reads an input."""
        if source.is_own or not source.url.lower().startswith(("s3://", "s3a://")):
            return {}
        given = {"endpoint_url": self._options.s3_endpoint, "profile": self._options.s3_profile}
        return {name: value for name, value in given.items() if value is not None}

    def _store(self, source: Source) -> bytes:
        limit = self._options.max_bytes
        try:
            filesystem, path = open_filesystem(source.url, **self._arguments(source))
            if isinstance(filesystem, AsyncFileSystem):
                read, seconds = filesystem._cat_file, self._options.timeout_seconds
                data = sync(filesystem.loop, read, path, start=0, end=limit + 1, timeout=seconds)
            else:
                data = filesystem.cat_file(path, start=0, end=limit + 1)
        except FileNotFoundError as error:
            raise BadInput(f"{source.url}: there is no such file") from error
        except TimeoutError as error:
            raise TimeoutError(f"it was not read within {self._options.timeout_seconds:g} s") from error
        except UserError as error:
            raise BadInput(str(error)) from error
        if len(data) > limit:
            raise too_large(source.url, limit)
        return bytes(data)


@lru_cache(maxsize=4)
def fetcher_of_this_process(options: InputOptions, run_id: str) -> Fetcher:
    """Return the fetcher that all tasks in this process share, with its connections and the cache of the node."""
    seconds = options.timeout_seconds + options.patience_seconds
    cache = InputCache(CACHE / "inputs", options.num_cache_bytes, seconds) if options.num_cache_bytes else None
    return Fetcher(options, run_id, cache)
