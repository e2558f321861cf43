"""One run per output: who gets the lease, who is told to wait, and who loses it."""

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from manifests import layout
from manifests.errors import UserError
from manifests.lease import Holder, Lease, LeaseLost, _new_holder
from manifests.storage import Folder


def lease(folder: Path, run_id: str) -> Lease:
    return Lease(Folder(str(folder)), run_id, seconds_between_heartbeats=0.05)


def hold(folder: Path, **changes: object) -> Holder:
    """Put the lease into the hands of a holder of our making."""
    holder = replace(_new_holder("earlier"), **changes)
    Folder(str(folder)).write(layout.lease(7), holder.as_json())
    return holder


def test_a_second_run_is_told_who_holds_the_output(tmp_path: Path) -> None:
    refusal = pytest.raises(UserError, match=r"run first writes there since .* on .* process \d+")
    with lease(tmp_path, "first"), refusal:
        lease(tmp_path, "second").acquire()
    lease(tmp_path, "third").acquire()


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    hold(tmp_path, is_released=True)
    start, won = threading.Barrier(8), []

    def run(number: int) -> None:
        start.wait()
        try:
            lease(tmp_path, f"run{number}").acquire()
            won.append(number)
        except UserError:
            pass

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_dead_process_of_this_machine_holds_nothing(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    hold(tmp_path, process_id=ended.pid)
    lease(tmp_path, "next").acquire()
    assert Folder(str(tmp_path)).names(layout.LEASE) == [layout.lease(8)]


def test_another_machines_holder_is_believed_while_its_heart_beats(tmp_path: Path) -> None:
    hold(tmp_path, machine="other")
    with pytest.raises(UserError, match="run earlier writes there"):
        lease(tmp_path, "next").acquire()
    hold(tmp_path, machine="other", heartbeat_at=time.time() - 100)
    lease(tmp_path, "next").acquire()


def test_who_was_silent_for_too_long_may_write_no_more(tmp_path: Path) -> None:
    silent = lease(tmp_path, "silent")
    silent.acquire()
    silent.confirm()
    Folder(str(tmp_path)).create(layout.lease(2), _new_holder("follower").as_json())
    silent._confirmed_at = 0.0
    with pytest.raises(LeaseLost, match="another run took over"):
        silent.confirm()
    silent.release()
    assert b"follower" in (Folder(str(tmp_path)).read(layout.lease(2)) or b"")


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        lease(tmp_path / "out", "run").acquire()
