"""Shared by all tests: the tiny checkpoints, built once."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    """The folder with sana-tiny, sana-sprint-tiny and wan-tiny."""
    folder = ROOT / "checkpoints"
    subprocess.run([sys.executable, folder / "build_tiny.py", folder], check=True)
    return folder
