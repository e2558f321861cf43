"""What all tests share: fixtures, a marker for each folder, and the reasons for which a test may be skipped."""

import os
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import pytest

from benchmarks.local_cluster import Cluster
from tests.support import allowed_skips, chaos_seed
from tests.support.commands import FORKS, PRELOADED, ROOT, Rendermill
from tests.support.forked_workers import forking_cluster


def pytest_configure(config: pytest.Config) -> None:
    for plugin in (allowed_skips, chaos_seed):
        config.pluginmanager.register(plugin)


def pytest_collection(session: pytest.Session) -> None:
    """Let torch compute with one thread: two test processes with two threads each would wait for one another.

    A process that distributes tests to others collects none, and starts sooner without torch.
    """
    if not session.config.pluginmanager.has_plugin("dsession"):
        import torch

        torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder, and begin with the slow ones, so that no process is left with one at the end."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        item.add_marker(folder)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    """The folder with sana-shapes, sana-sprint-shapes and wan-shapes."""
    return ROOT / "checkpoints"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One cluster for the whole session, and a server that forks commands for it."""
    with forking_cluster() as head:
        FORKS.set_forkserver_preload(PRELOADED)
        with mock.patch.dict(os.environ, head.environment):  # Ray looks at some of it when it is imported
            forkserver.ensure_running()
        yield head


@pytest.fixture
def rendermill(tmp_path: Path, checkpoints: Path, cluster: Cluster) -> Rendermill:
    return Rendermill(tmp_path, checkpoints, cluster.environment, cluster)
