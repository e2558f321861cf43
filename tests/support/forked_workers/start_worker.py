"""What Ray runs in place of Python: ask the server for a fork, or become Python.

Only plain workers are forked. One that has a `runtime_env` is started by another script, which Python runs.
"""

import array
import json
import os
import socket
import sys

SOCKET = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "socket")


def is_forked(arguments: list[str]) -> bool:
    """Ask the server for a worker; return whether it started one."""
    request = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(SOCKET)
        except OSError:
            return False
        connection.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
        connection.sendall(json.dumps(request).encode())
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(1) == b"y"


if __name__ == "__main__":
    given = sys.argv[1:]
    if os.path.basename(given[0]) != "default_worker.py" or not is_forked(given):
        os.execv(sys.executable, [sys.executable, *given])
