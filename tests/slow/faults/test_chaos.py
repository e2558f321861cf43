"""A short version of the chaos benchmarks: everything is killed once, and the output is as if nothing had happened.

When a kill strikes depends on a seed, which is another one each day; the head of pytest's output names it.
"""

import re
import shutil
import subprocess
import sys

import pytest

from tests.support.chaos_seed import CHAOS_SEED
from tests.support.commands import ROOT

COUNTS = (
    "--num-kills",
    "1",
    "--num-roll-up-kills",
    "1",
    "--num-items",
    "30",
    "--num-actors",
    "1",
    "--seed",
    CHAOS_SEED,
)
NO_DAMAGE = "lost 0, duplicated 0, differing 0, broken 0, left over 0"
NO_DOUBLES = "items doubled 0, media missing or damaged 0"


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)


def test_kills_leave_the_output_as_it_would_have_been() -> None:
    # with the node's raylet, everything dies that renders and stores
    kinds = ("driver", "driver while it rolls up", "findings", "raylet")
    finished = run("benchmarks.chaos", *COUNTS, "--kinds", *kinds)
    assert finished.returncode == 0, finished
    assert f"{len(kinds)} kills in mid-work: {', '.join(f'{kind} 1' for kind in kinds)}" in finished.stdout
    assert NO_DAMAGE in finished.stdout
    assert NO_DOUBLES in finished.stdout


@pytest.mark.nightly
def test_kills_of_every_kind_leave_the_output_as_it_would_have_been() -> None:
    finished = run("benchmarks.chaos", *COUNTS)
    assert finished.returncode == 0, finished
    (num_kills,) = re.findall(r"(\d+) kills in mid-work", finished.stdout)
    assert int(num_kills) >= 10
    assert NO_DAMAGE in finished.stdout
    assert NO_DOUBLES in finished.stdout


@pytest.mark.s3
def test_a_store_that_fails_changes_nothing() -> None:
    if shutil.which("mitmdump") is None:
        pytest.skip("needs mitmproxy, Debian's package")
    small = ("--outage-seconds", "3", "--client-timeout-seconds", "2", "--num-items", "6", "--num-actors", "1")
    finished = run("benchmarks.faulty_store", *small)
    assert finished.returncode == 0, finished
    assert "status=0, Damage(lost=0, duplicated=0, differing=0, broken=0, left_over=0)" in finished.stdout
