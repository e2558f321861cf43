"""Import what Ray's workers import, except for Ray, and fork a worker for each request on a socket.

Ray reads a worker's own variables, such as that of its job, when it is imported.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

from tests.support.forked_workers.python_path import take_python_path

IMPORTED = (
    "diffusers.pipelines.sana.pipeline_sana_sprint",
    "diffusers.pipelines.wan.pipeline_wan",
    "transformers.models.gemma2.modeling_gemma2",
    "transformers.models.umt5.modeling_umt5",
    "aiohttp",
    "av",
    "fsspec.implementations.local",
    "google.protobuf.message",
    "grpc",
    "omegaconf",
    "pandas",
    "psutil",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "rendermill.manifests.schema",
    "rendermill.models.registry",
)
IGNORED = ("COLUMNS", "LD_PRELOAD", "LINES", "PATH", "PYTHONPATH", "SPT_NOENV")
"""Variables that nothing keeps that is imported here, beside Ray's own."""


def become_worker(request: dict, streams: list[int]) -> None:
    """Run the script of a worker as Python would."""
    os.setpgid(0, 0)  # when a worker has ended, Ray ends its process group
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    script = request["arguments"][0]
    sys.argv[:] = request["arguments"]
    sys.path[0] = str(Path(script).parent)
    take_python_path()
    exec(compile(Path(script).read_text(), script, "exec"), {"__name__": "__main__", "__file__": script})


def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    """Return the names of the variables that would make imports differ."""
    names = {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
    return {name for name in names if name not in IGNORED and not name.startswith("RAY_")}


def serve(path: Path, environment: dict[str, str]) -> None:
    """Fork a worker for each request. In the worker, return when it has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that no worker that ended stays a zombie
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen(64)
    os.rename(f"{path}.new", path)
    while True:
        connection, _ = listener.accept()
        with connection:
            _, streams, _, _ = socket.recv_fds(connection, 1, 3)
            with connection.makefile("rb") as sent:
                request = json.load(sent)
            if names := differing(environment, request["environment"]):
                sys.stderr.write(f"refused, as these differ: {', '.join(sorted(names))}\n")
                connection.sendall(b"n")
            elif os.fork() == 0:
                connection.close()
                listener.close()
                become_worker(request, streams)
                return
            else:
                connection.sendall(b"y")
            for stream in streams:
                os.close(stream)


def main() -> None:
    environment = dict(os.environ)
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # as for workers; threads do not survive a fork
    for module in IMPORTED:
        importlib.import_module(module)
    assert "ray" not in sys.modules
    serve(Path(sys.argv[1]), environment)


if __name__ == "__main__":
    main()
