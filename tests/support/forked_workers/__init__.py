"""Ray workers that are forked from one process with their imports.

A Ray worker that renders imports torch and diffusers, which takes eight seconds of CPU, and a run of the command
line starts several. Here Ray starts `start_worker.py` in place of Python, which asks `server.py` for a fork of a
process that has imported them. Whatever the server refuses is started by Python itself.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.local_cluster import Cluster, end_process_tree, ray_head

FOLDER = Path(__file__).parent


@dataclass
class ForkedWorkers:
    """Workers of one node.

    Attributes:
        python: the program that the node has to start in place of Python.
    """

    python: Path
    server: subprocess.Popen[Any]

    def wait(self) -> None:
        """Wait until the server has imported everything."""
        while not self.python.with_name("socket").exists():
            assert self.server.poll() is None, self.python.with_name("log").read_text()
            time.sleep(0.05)


@contextlib.contextmanager
def forked_workers() -> Iterator[ForkedWorkers]:
    """Run a server that forks the workers of one node."""
    with tempfile.TemporaryDirectory(prefix="rm-") as folder, Path(folder, "log").open("w") as log:
        python = Path(folder, "python")
        python.write_text(f"#!{sys.executable} -ISE\n{(FOLDER / 'start_worker.py').read_text()}")
        python.chmod(0o755)
        command = [sys.executable, "-m", f"{__name__}.server", Path(folder, "socket")]
        server = subprocess.Popen(command, cwd=FOLDER.parents[2], stdout=log, stderr=log)
        try:
            yield ForkedWorkers(python, server)
        finally:
            end_process_tree(server)


@contextlib.contextmanager
def forking_cluster(**environment: str) -> Iterator[Cluster]:
    """Run a Ray cluster of one node whose workers are forked.

    Args:
        environment: Variables that the node and its workers have besides those of this process.
    """
    patched = mock.patch.dict(os.environ, environment)
    with patched, forked_workers() as workers, ray_head(python=workers.python) as head:
        workers.wait()
        yield head
