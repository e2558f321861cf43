"""Fetches inputs over http and https with aiohttp, which asks this module before it connects to any address."""

import asyncio
import errno
import socket
from contextvars import ContextVar
from typing import Any

import aiohttp
from fsspec.asyn import get_loop, sync
from yarl import URL

from rendermill.actors.media.inputs.options import BadInput
from rendermill.actors.media.inputs.sources.addresses import is_public
from rendermill.actors.media.inputs.sources.allowed import Allowed, Source

_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Answers that may be others at the next try."""
_refused_addresses: ContextVar[list[str]] = ContextVar("refused_addresses")
"""The addresses that were refused during a fetch: aiohttp tries all addresses of a host, and joins their errors."""
_NUM_BYTES_READ_AT_ONCE = 64 * 2**10
_HEADERS = {"User-Agent": "rendermill", "Accept": "image/*, video/*, */*;q=0.5", "Accept-Encoding": "identity"}


class HttpClient:
    """Fetches files over http and https. Redirects are followed only to what the manifest may name itself.

    An address is checked when a connection to it is made, after its name was resolved, so that a name server cannot
    answer one thing to a check and another to the connection. Proxies are not used, because they resolve names
    themselves.
    """

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    def fetch(self, source: Source) -> bytes:
        """Return the content of a file.

        Raises:
            BadInput: it cannot be had, and another try would not help.
            TimeoutError: it took longer than the options allow.
            ConnectionError: the server fails, or cannot be reached.
        """
        data: bytes = sync(get_loop(), self._fetch_in_time, source)
        return data

    def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            sync(get_loop(), session.close)
        self._sessions.clear()

    async def _fetch_in_time(self, source: Source) -> bytes:
        seconds, refused = self._allowed.options.timeout_seconds, list[str]()
        _refused_addresses.set(refused)
        try:
            async with asyncio.timeout(seconds):
                return await self._follow(source)
        except TimeoutError:
            raise TimeoutError(f"{source.url} was not read within {seconds:g} s") from None
        except aiohttp.ClientConnectorDNSError as error:
            if error.os_error.errno == socket.EAI_NONAME:
                raise BadInput(f"{source.url}: there is no host of this name") from error
            raise ConnectionError(f"{source.url}: {error}") from error
        except (aiohttp.ClientSSLError, aiohttp.InvalidURL) as error:
            raise BadInput(f"{source.url}: {error}") from error
        except aiohttp.ClientError as error:
            if refused:
                words = "which is not public; `inputs.private_networks: true` would take it"
                raise BadInput(f"{source.url} leads to the address {refused[0]}, {words}") from None
            raise ConnectionError(f"{source.url}: {error or type(error).__name__}") from error

    async def _follow(self, source: Source) -> bytes:
        first = source.url
        for _ in range(_MAX_REDIRECTS + 1):
            found = await self._get(source, first)
            if isinstance(found, bytes):
                return found
            if source.url.lower().startswith("https:") and found.lower().startswith("http:"):
                raise BadInput(f"{first} redirects from https to plain http ({found}), which is not followed")
            source = self._allowed.source(found)
        raise BadInput(f"{first} redirects more than {_MAX_REDIRECTS} times")

    async def _get(self, source: Source, first: str) -> bytes | str:
        """Return the content of a file, or the URL that the server redirects to."""
        url = URL(source.url, encoded=source.url.isascii())  # signatures in URLs hold only as they are
        async with self._session(source).get(url, allow_redirects=False) as answer:
            if answer.status in _REDIRECTS and "Location" in answer.headers:
                return _redirected(url, answer.headers["Location"], first)
            words = f"{source.url} answers {answer.status} {answer.reason or ''}".rstrip()
            if answer.status in _PASSING:
                raise ConnectionError(words)
            if answer.status != 200:
                raise BadInput(words)
            return await self._content(answer)

    async def _content(self, answer: aiohttp.ClientResponse) -> bytes:
        limit = self._allowed.options.max_bytes
        if (answer.content_length or 0) > limit:
            raise too_large(str(answer.url), limit, answer.content_length)
        content = bytearray()
        async for part in answer.content.iter_chunked(_NUM_BYTES_READ_AT_ONCE):  # decompressed, part by part
            content += part
            if len(content) > limit:
                raise too_large(str(answer.url), limit)
        return bytes(content)

    def _session(self, source: Source) -> aiohttp.ClientSession:
        is_checked = not (self._allowed.options.private_networks or source.is_own)
        if is_checked not in self._sessions:
            factory: Any = _public_socket if is_checked else None
            connector = aiohttp.TCPConnector(limit_per_host=16, socket_factory=factory)
            jar = aiohttp.DummyCookieJar()
            self._sessions[is_checked] = aiohttp.ClientSession(connector=connector, headers=_HEADERS, cookie_jar=jar)
        return self._sessions[is_checked]


def too_large(url: str, limit: int, num_bytes: int | None = None) -> BadInput:
    """Return the error of a file with more bytes than the options allow."""
    size = "has more" if num_bytes is None else f"has {num_bytes} bytes, more"
    return BadInput(f"{url} {size} than the {limit} bytes that `inputs.max_bytes` allows")


def _redirected(url: URL, location: str, first: str) -> str:
    try:
        found = url.join(URL(location, encoded=location.isascii()))
    except ValueError as error:
        raise BadInput(f"{first} redirects to {location!r}, which is no URL") from error
    if found.scheme not in ("http", "https"):
        raise BadInput(f"{first} redirects to {found}, which is not followed: it is neither https nor http")
    return str(found)


def _public_socket(address: Any) -> socket.socket:
    """Return a socket for an address, given as `socket.getaddrinfo` does.

    Raises:
        PermissionError: the address is not public.
    """
    family, kind, protocol, _, place = address
    if not is_public(place[0]):
        _refused_addresses.get().append(place[0])
        raise PermissionError(errno.EACCES, "the address is not public")
    return socket.socket(family, kind, protocol)
