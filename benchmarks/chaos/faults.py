"""An addon for mitmproxy that makes a store fail, before or after it did what it was asked.

    mitmdump --mode reverse:http://127.0.0.1:7480 --listen-port 7481 --set keep_host_header=true -s faults.py

FAULTS_SHARE of the requests fail, each in one of five ways; one of them keeps silent for FAULTS_SECONDS_OF_SILENCE.
FAULTS_COUNTS names the file that counts them.
"""

import asyncio
import json
import os
import random
from collections import Counter
from pathlib import Path

from mitmproxy import http

_SHARE_OF_A_SLOW_ANSWER = 1 / 6
"""Of the time of silence: the client still waits."""
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_WAYS = ("throttled", "reset before", "reset after", "no answer", "slow answer")


class Faults:
    """Decides for every request whether and how it fails."""

    def __init__(self) -> None:
        self._generator = random.Random(0)
        self._share = float(os.environ["FAULTS_SHARE"])
        self._seconds_of_silence = float(os.environ["FAULTS_SECONDS_OF_SILENCE"])
        self._counts: Counter[str] = Counter()
        self._ways: dict[str, str] = {}

    async def request(self, flow: http.HTTPFlow) -> None:
        """Called before the store sees the request."""
        way = self._generator.choice(_WAYS) if self._generator.random() < self._share else "none"
        self._counts[way] += 1
        Path(os.environ["FAULTS_COUNTS"]).write_text(json.dumps(self._counts))
        if way == "throttled":
            flow.response = http.Response.make(503, _SLOW_DOWN, {"Content-Type": "application/xml"})
        elif way == "reset before":
            flow.kill()
        else:
            self._ways[flow.id] = way

    async def response(self, flow: http.HTTPFlow) -> None:
        """Called with the store's answer, before the client sees it."""
        way = self._ways.pop(flow.id, "none")
        if way == "reset after":
            flow.kill()
        elif way == "no answer":
            await asyncio.sleep(self._seconds_of_silence)
            flow.kill()
        elif way == "slow answer":
            await asyncio.sleep(self._seconds_of_silence * _SHARE_OF_A_SLOW_ANSWER)


addons = [Faults()]
