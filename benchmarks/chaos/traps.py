"""Traps for a driver: it springs them itself at one of its changes to the output, so that a strike cannot miss."""

import contextlib
import json
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

_SECONDS_BETWEEN_LOOKS = 0.05


@dataclass(frozen=True)
class Trap:
    """A plan for `notes/sitecustomize.py`: what to do to a driver, and when.

    Attributes:
        action: the signal that it gets, or "cut": it is cut off from the store.
        in_roll_up: whether only changes within roll-ups count.
        num_changes_before: of those that count.
        is_before: whether it springs before the change rather than after it.
    """

    action: signal.Signals | str
    in_roll_up: bool
    num_changes_before: int
    is_before: bool

    @classmethod
    def at_random(
        cls, action: signal.Signals | str, in_roll_up: bool, max_changes: int, generator: random.Random
    ) -> "Trap":
        """Any of the first changes."""
        return cls(action, in_roll_up, generator.randrange(max_changes), generator.random() < 0.5)


@contextlib.contextmanager
def trap_set(notes: Path, trap: Trap) -> Iterator[None]:
    """Within, the next driver that makes its change springs the trap."""
    for name in ("sprung", "sprung.new", "cut"):
        (notes / name).unlink(missing_ok=True)
    (notes / "trap.new").write_text(json.dumps(asdict(trap)))
    (notes / "trap.new").rename(notes / "trap.json")
    try:
        yield
    finally:
        (notes / "trap.json").unlink(missing_ok=True)


def sprung(notes: Path, driver: psutil.Process) -> str | None:
    """Wait until the trap is sprung, and return the change at which that was; None: the driver ended before."""
    while True:
        is_over = not driver.is_running() or driver.status() == psutil.STATUS_ZOMBIE
        if (notes / "sprung").exists():
            return (notes / "sprung").read_text()
        if is_over:
            return None
        time.sleep(_SECONDS_BETWEEN_LOOKS)
