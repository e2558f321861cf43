"""Copies of checkpoints that a test may change."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("rendermill.actors.checkpoints.files.CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def copy(tmp_path: Path, checkpoints: Path, cache: Path) -> Callable[[str], Path]:
    """Copies a checkpoint to where it may be changed; the folder's name is an odd one."""
    return lambda kind: shutil.copytree(checkpoints / f"{kind}-shapes", tmp_path / "a b" / "[é] #1%20?" / kind)


@pytest.fixture
def checkpoint(copy: Callable[[str], Path]) -> Path:
    return copy("sana")
