"""Fixtures that all tests share: the checkpoints, one Ray cluster, and a way to run the command line on it."""

import os
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import pytest
import torch

from benchmarks.local_cluster import Cluster, ray_head
from tests.support.commands import FORKS, PRELOADED, ROOT, Rendermill

torch.set_num_threads(1)  # two test processes with two threads each would wait for one another


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes minutes, so that no process is left with it when the other has nothing to do any more."""
    items.sort(key=lambda item: item.path.parent.name != "slow")


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    """The folder with sana-shapes, sana-sprint-shapes and wan-shapes."""
    return ROOT / "checkpoints"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One cluster for the whole session, and a server that forks commands for it."""
    with ray_head() as head:
        FORKS.set_forkserver_preload(PRELOADED)
        with mock.patch.dict(os.environ, head.environment):  # Ray looks at some of it when it is imported
            forkserver.ensure_running()
        yield head


@pytest.fixture
def rendermill(tmp_path: Path, checkpoints: Path, cluster: Cluster) -> Rendermill:
    return Rendermill(tmp_path, checkpoints, cluster.environment, cluster)
