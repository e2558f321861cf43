"""An addon for mitmproxy that cuts a client off from its store, and lets what it wanted to change arrive much later.

While the file that HOLD_WHILE names is there, reads fail. Changes, by the mode in that file's neighbour `hold-mode`:
`refused`: fail, too; `late`: fail, and reach the store when `release` is there; `unanswered`: reach it, without answer.
"""

import asyncio
import os
import urllib.request
from pathlib import Path

from mitmproxy import http

_SECONDS_BETWEEN_LOOKS = 0.1
_OF_THE_CONNECTION = {"content-length", "transfer-encoding", "expect", "connection"}
"""Headers that are made anew for the request that is sent late."""


class Holding:
    """Decides for every request whether the store gets it."""

    def __init__(self) -> None:
        self._cut = Path(os.environ["HOLD_WHILE"])
        self._late: list[asyncio.Task[None]] = []

    async def request(self, flow: http.HTTPFlow) -> None:
        """Called before the store sees the request."""
        if not self._cut.exists():
            return
        is_change = flow.request.method in ("PUT", "POST", "DELETE")
        mode = self._cut.with_name("hold-mode").read_text()
        if is_change and mode == "unanswered":
            return
        if is_change and mode == "late":
            self._late.append(asyncio.create_task(self._send_late(flow.request.copy())))
        flow.kill()

    async def response(self, flow: http.HTTPFlow) -> None:
        """Called with the store's answer, before the client sees it."""
        if self._cut.exists():
            flow.kill()

    async def _send_late(self, request: http.Request) -> None:
        released = self._cut.with_name("release")
        while not released.exists():
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OF_THE_CONNECTION}
        sent = urllib.request.Request(request.url, request.raw_content, headers, method=request.method)
        try:
            answer: object = await asyncio.to_thread(lambda: urllib.request.urlopen(sent).status)
        except OSError as error:  # `HTTPError` is one, too
            answer = error
        with self._cut.with_name("arrived-late").open("a") as file:
            file.write(f"{request.method} {request.path} {answer}\n")


addons = [Holding()]
