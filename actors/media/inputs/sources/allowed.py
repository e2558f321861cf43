"""The files that a manifest may name as inputs. It may come from others, and must not make the cluster read secrets."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from urllib.parse import unquote, urlsplit

from rendermill.actors.media.inputs.options import BadInput, InputOptions

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*):(?=//)")
_NEVER_IN_URLS = re.compile(r"[\x00-\x20\x7f\\]")
_HOST = re.compile(r"[a-z0-9._\-]+|[0-9a-f:.]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SAME_SCHEMES = {"s3a": "s3", "gs": "gcs"}
_EVERY_HTTPS = "https://"


@dataclass(frozen=True)
class Source:
    """A file that may be read.

    Attributes:
        kind: `local`: a path; `http`: a URL of http or https; `store`: a URL for fsspec.
        url: absolute; a local path is the real one, without symbolic links.
        is_own: whether it lies on the server of one of the job's own stores, which may have a private address, or in
            the manifest's own folder of a store.
    """

    kind: Literal["local", "http", "store"]
    url: str
    is_own: bool = False


@dataclass(frozen=True)
class _Place:
    """A folder: the origin (scheme, host and port, or bucket), and the names on the way to it."""

    origin: str
    names: tuple[str, ...]

    def holds(self, other: "_Place") -> bool:
        return self.origin == other.origin and other.names[: len(self.names)] == self.names


@dataclass(frozen=True)
class Allowed:
    """The places that inputs may come from.

    Args:
        own_endpoints: URLs of servers that the job's own stores are configured with.
    """

    options: InputOptions
    own_endpoints: tuple[str, ...] = ()

    @classmethod
    def by_environment(cls, options: InputOptions) -> "Allowed":
        """Return the places for the stores that this process is configured with."""
        names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "FSSPEC_S3_ENDPOINT_URL")
        return cls(options, tuple(os.environ[name] for name in names if os.environ.get(name)))

    def source(self, url: str) -> Source:
        """Return where an input is read.

        Args:
            url: as the manifest has it: a URL, or a path that is absolute or begins at the manifest's folder.

        Raises:
            BadInput: the manifest may not name it; the message says why.
        """
        if not url or "\0" in url:
            raise BadInput(f"{url!r} is no URL or path")
        if not _SCHEME.match(url):
            url = self._absolute(url)
        scheme = _scheme_of(url)
        if scheme is None:
            return self._local(url)
        if scheme in ("file", "local"):
            raise BadInput(f"{url}: write local files as paths, without {scheme}://")
        place = _place_of(url)
        if scheme in _DEFAULT_PORTS:
            return self._http(url, scheme, place)
        if "::" in url:
            raise BadInput(f"{url} is one store within another, which is not taken")
        if not any(folder.holds(place) for folder in self._places):
            raise self._refusal(url)
        return Source("store", url, is_own=_scheme_of(self.options.place) is not None and self._places[0].holds(place))

    def _absolute(self, path: str) -> str:
        if path.startswith("/"):
            return path
        if "::" in path or ".." in path.split("/"):
            raise BadInput(f"{path} leaves the manifest's folder")
        return f"{self.options.place.rstrip('/')}/{path}"

    def _local(self, path: str) -> Source:
        real = os.path.realpath(path)
        for folder in self._local_folders:
            if os.path.commonpath([folder, real]) == folder:
                return Source("local", real)
        raise self._refusal(path if real == os.path.abspath(path) else f"{path}, which leads to {real},")

    def _http(self, url: str, scheme: str, place: _Place) -> Source:
        is_listed = any(folder.holds(place) for folder in self._places)
        if not is_listed and not (scheme == "https" and self._takes_every_https):
            if scheme == "http" and self._takes_every_https:
                raise BadInput(f"{url}: plain http is not taken unless `inputs.allow` lists it; use https")
            raise self._refusal(url)
        return Source("http", url, is_own=place.origin in self._own_origins)

    @cached_property
    def _takes_every_https(self) -> bool:
        return self.options.allow is None or _EVERY_HTTPS in self.options.allow

    @cached_property
    def _folders(self) -> Sequence[str]:
        listed = [folder for folder in self.options.allow or () if folder != _EVERY_HTTPS]
        return [self.options.place, *listed]

    @cached_property
    def _places(self) -> Sequence[_Place]:
        return [_place_of(folder) for folder in self._folders if _scheme_of(folder) is not None]

    @cached_property
    def _local_folders(self) -> Sequence[str]:
        return [os.path.realpath(folder) for folder in self._folders if _scheme_of(folder) is None]

    @cached_property
    def _own_origins(self) -> frozenset[str]:
        own = (self.options.place, *self.own_endpoints)
        return frozenset(_place_of(url).origin for url in own if _scheme_of(url) in _DEFAULT_PORTS)

    def _refusal(self, url: str) -> BadInput:
        https = [_EVERY_HTTPS] if self._takes_every_https else []
        places = ", ".join([*self._folders, *https])
        return BadInput(f"{url} is outside the places of inputs ({places}); list its folder in `inputs.allow`")


def _scheme_of(url: str) -> str | None:
    """Return the scheme of a URL in lower case; None for a path."""
    match = _SCHEME.match(url)
    return match["scheme"].lower() if match else None


def _place_of(url: str) -> _Place:
    """Return the parts of a URL, by which places are compared.

    Raises:
        BadInput: the URL can be read in two ways, so that a comparison would not mean what it seems to.
    """
    scheme = _scheme_of(url) or ""
    if scheme in _DEFAULT_PORTS:
        return _http_place(url, scheme)
    names = url.partition("://")[2].rstrip("/").split("/")
    if any(name in (".", "..") for name in names) or _NEVER_IN_URLS.search(names[0]):
        raise BadInput(f"{url} has names such as `..`, which inputs may not have")
    return _Place(f"{_SAME_SCHEMES.get(scheme, scheme)}://{names[0]}", tuple(names[1:]))


def _http_place(url: str, scheme: str) -> _Place:
    if _NEVER_IN_URLS.search(url):
        raise BadInput(f"{url!r} has characters that URLs cannot have; write them as %XX")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port or _DEFAULT_PORTS[scheme]
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError as error:
        raise BadInput(f"{url} is not a URL: {error}") from error
    if "@" in parts.netloc:
        raise BadInput(f"{url} has a user name or password, which URLs of inputs may not have")
    if not _HOST.fullmatch(host):
        raise BadInput(f"{url} has no host name that can be understood")
    names = _decoded(parts.path).rstrip("/").split("/")
    if ".." in names or "." in names:
        raise BadInput(f"{url} has names such as `..`, which inputs may not have")
    return _Place(f"{scheme}://{host}:{port}", tuple(names))


def _decoded(path: str) -> str:
    """Return a path without percent-encoding, even if that was applied repeatedly."""
    while (decoded := unquote(path)) != path:
        path = decoded
    return path
