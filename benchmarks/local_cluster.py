"""Ray clusters on this machine, started as users start one, for tests and benchmarks."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_SECONDS_BETWEEN_LOOKS = 0.1


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def end_process_tree(process: subprocess.Popen[Any]) -> None:
    """Kill a process of ours and all that it started: Ray's own way of stopping takes half a minute."""
    if process.poll() is not None:
        return
    started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(started)
    process.wait()


@dataclass
class Cluster:
    """A Ray head that was started as users start one.

    Attributes:
        dashboard: the URL of Ray's dashboard, where jobs are submitted.
        metrics: the URL that Prometheus scrapes.
        logs: the folder of Ray's logs.
    """

    address: str
    dashboard: str
    metrics: str
    logs: Path
    environment: dict[str, str]


_WITH_ANOTHER_PYTHON = "import sys; from ray.scripts.scripts import main; sys.executable = sys.argv.pop(1); main()"


@contextlib.contextmanager
def ray_node(
    *arguments: str, environment: Mapping[str, str], python: Path | None = None
) -> Iterator[subprocess.Popen[Any]]:
    """Run a Ray node, `ray start --block`, until the block ends.

    Args:
        python: the program that Ray starts its processes with; None: the Python of its environment.
    """
    ray = ["ray"] if python is None else [sys.executable, "-c", _WITH_ANOTHER_PYTHON, str(python)]
    # Ray's sockets lie in its temporary folder, and their paths must be short. In a folder that nodes share, each
    # unpacks a submitted job over that of the others.
    folder = Path(tempfile.mkdtemp(prefix="rm-"))
    with (folder / "node.log").open("w") as log:
        # by default every node's agent listens on one and the same port
        own = (f"--temp-dir={folder}", f"--dashboard-agent-listen-port={free_port()}")
        node = subprocess.Popen(
            [*ray, "start", "--block", *own, *arguments],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
        )
        try:
            while "Ray runtime started" not in (folder / "node.log").read_text():
                assert node.poll() is None, (folder / "node.log").read_text()
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            yield node
        finally:
            end_process_tree(node)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def ray_head(
    num_cpus: int = 4, token: str | None = None, has_dashboard: bool = False, python: Path | None = None
) -> Iterator[Cluster]:
    """Run a Ray cluster of one node.

    Args:
        token: None for a new one.
        has_dashboard: whether its dashboard runs, which jobs are submitted to.
        python: as that of `ray_node`.
    """
    port, dashboard_port, metrics_port = free_port(), free_port(), free_port()
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token or secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    ports = (f"--port={port}", f"--dashboard-port={dashboard_port}", f"--metrics-export-port={metrics_port}")
    options = (f"--num-cpus={num_cpus}", f"--include-dashboard={str(has_dashboard).lower()}")
    with ray_node("--head", *options, *ports, environment=environment, python=python) as head:
        address = f"127.0.0.1:{port}"
        yield Cluster(
            address,
            f"http://127.0.0.1:{dashboard_port}",
            f"http://127.0.0.1:{metrics_port}/metrics",
            Path(psutil.Process(head.pid).cwd()) / "session_latest" / "logs",  # it runs in Ray's temporary folder
            environment | {"RAY_ADDRESS": address},
        )
