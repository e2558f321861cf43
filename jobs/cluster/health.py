"""Notice that the Ray cluster does not answer any more, before Ray ends this process without a message."""

import os
import socket
import time

import ray

from rendermill.manifests.errors import one_line

_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_TO_CONNECT = 5.0
_SECONDS_UNTIL_RAY_ENDS = 60.0
"""The time after which Ray ends processes without a head; RAY_gcs_rpc_server_reconnect_timeout_s changes it."""
_SHARE_OF_TIME_TO_WAIT = 0.6
"""The rest of the time is for committing what has arrived."""


class ClusterLost(Exception):
    """The cluster's head, or this machine's part of Ray, is gone; the message says which."""


class ClusterHealth:
    """Whether the head, and Ray's daemon on this machine, accept connections."""

    def __init__(self) -> None:
        context = ray.get_runtime_context()
        (here,) = [node for node in ray.nodes() if node["NodeID"] == context.get_node_id()]
        self._addresses = {
            "the head of the Ray cluster": context.gcs_address,
            "the Ray daemon of this machine": f"{here['NodeManagerAddress']}:{here['NodeManagerPort']}",
        }
        patience = float(os.environ.get("RAY_gcs_rpc_server_reconnect_timeout_s", _SECONDS_UNTIL_RAY_ENDS))  # noqa: SIM112
        self._max_seconds_of_silence = patience * _SHARE_OF_TIME_TO_WAIT
        self._last_look = self._last_answer = time.monotonic()

    def check(self) -> None:
        """Check every few seconds; call this often.

        Raises:
            ClusterLost: there was no answer for most of the time after which Ray gives up.
        """
        now = time.monotonic()
        if now - self._last_look < _SECONDS_BETWEEN_LOOKS:
            return
        problems = self.problems()
        self._last_look = time.monotonic()
        if not problems:
            self._last_answer = self._last_look
        elif self._last_look - self._last_answer > self._max_seconds_of_silence:
            seconds = self._last_look - self._last_answer
            raise ClusterLost(f"no answer for {seconds:.0f} s from {' and from '.join(problems)}")

    def problems(self) -> list[str]:
        """Return who does not answer at the moment, and why."""
        found = {who: _problem(address) for who, address in self._addresses.items()}
        return [f"{who} ({problem})" for who, problem in found.items() if problem is not None]


def _problem(address: str) -> str | None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_CONNECT).close()
    except OSError as error:
        return f"{address}: {one_line(error)}"
    return None
