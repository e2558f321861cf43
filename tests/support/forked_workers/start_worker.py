"""What Ray runs in place of Python: ask the server for a fork, or become Python.

Plain workers are forked, and those of a job whose `runtime_env` has variables and nothing else.
"""

import array
import json
import os
import socket
import sys

SOCKET = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "socket")
CONTEXT = "--serialized-runtime-env-context="


def is_forked(arguments: list[str], variables: dict[str, str]) -> bool:
    """Ask the server for a worker; return whether it started one."""
    environment = {**os.environ, **variables}
    request = {"arguments": arguments, "environment": environment, "folder": os.getcwd()}
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(SOCKET)
        except OSError:
            return False
        connection.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
        connection.sendall(json.dumps(request).encode())
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(1) == b"y"


def worker_in(arguments: list[str]) -> tuple[list[str], dict[str, str]] | None:
    """Return the arguments of the worker, and its variables; None if something else is to be started."""
    variables: dict[str, str] = {}
    if os.path.basename(arguments[0]) == "setup_worker.py":
        contexts = [json.loads(part[len(CONTEXT) :]) for part in arguments if part.startswith(CONTEXT)]
        context = contexts[0] if contexts else {}
        variables = context.pop("env_vars", {})
        if context.pop("py_executable", sys.executable) != sys.executable or any(context.values()):
            return None
        arguments = [part for part in arguments[1:] if not part.startswith((CONTEXT, "--language="))]
    return (arguments, variables) if os.path.basename(arguments[0]) == "default_worker.py" else None


if __name__ == "__main__":
    given = sys.argv[1:]
    worker = worker_in(given)
    if worker is None or not is_forked(*worker):
        os.execv(sys.executable, [sys.executable, *given])
