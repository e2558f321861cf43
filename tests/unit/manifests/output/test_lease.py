"""One run per output: who gets the lease, who is told to wait, and who loses it."""

import itertools
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rendermill.manifests.errors import LeaseLost, UserError
from rendermill.manifests.output import layout
from rendermill.manifests.output.holder import Holder, new_holder
from rendermill.manifests.output.lease import Lease
from rendermill.manifests.storage.folder import Folder


def lease(folder: Path, run_id: str) -> Lease:
    return Lease(Folder(str(folder)), run_id, seconds_between_heartbeats=0.05)


def hold(folder: Path, **changes: object) -> Holder:
    """Store a lease with a holder that the test makes up."""
    holder = replace(new_holder("earlier"), **changes)
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
    is_over = threading.Event()

    def beat() -> None:
        for number in itertools.count():
            if is_over.wait(0.01):
                return
            hold(tmp_path, machine="other", num_beats=number)

    hold(tmp_path, machine="other")
    beating = threading.Thread(target=beat)
    beating.start()
    said: list[str] = []
    with pytest.raises(UserError, match="run earlier writes there"):
        Lease(Folder(str(tmp_path)), "next", 0.5, said.append).acquire()
    is_over.set()
    beating.join()
    assert "did not end its lease; looking for up to 2 s whether it goes on" in said[0]
    lease(tmp_path, "next").acquire()


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_no_clock_keeps_a_dead_machine_alive_or_ends_a_live_one(tmp_path: Path, seconds: int) -> None:
    """The times in a holder's file, and of that file, do not matter: what counts is whether the file changes."""
    hold(tmp_path, machine="other", since=datetime.fromtimestamp(time.time() + seconds, UTC).isoformat())
    os.utime(tmp_path / layout.lease(7), (time.time() + seconds,) * 2)
    lease(tmp_path, "next").acquire()


def test_a_number_that_comes_late_is_no_lease(tmp_path: Path) -> None:
    hold(tmp_path, is_released=True)
    slow = Lease(Folder(str(tmp_path)), "slow")
    for run_id in ("quick", "quicker"):
        with lease(tmp_path, run_id):
            pass
    assert not slow.take(7), "it saw 7 as the newest; meanwhile 8 and 9 came and went"
    assert Folder(str(tmp_path)).names(layout.LEASE) == [layout.lease(9)]


def test_a_run_follows_another_one_that_was_faster_and_has_ended(tmp_path: Path) -> None:
    hold(tmp_path, machine="other")

    def overtake(_: str) -> None:
        follower = replace(new_holder("follower"), is_released=True)
        Folder(str(tmp_path)).create(layout.lease(8), follower.as_json())

    slow = Lease(Folder(str(tmp_path)), "slow", 0.05, overtake)
    slow.acquire()
    assert slow.number == 9


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"run_id": 3}', b"[" * 100_000, bytes(range(256))])
def test_a_damaged_lease_or_a_stray_file_holds_nothing_for_ever(tmp_path: Path, content: bytes) -> None:
    folder = Folder(str(tmp_path))
    for name in ("lease/000003.json", "lease/notes.txt", "lease/000009.json.bak"):
        folder.write(name, content)
    next_run = lease(tmp_path, "next")
    next_run.acquire()
    assert (next_run.number, next_run.must_fence_parts) == (4, True)


def test_who_was_silent_for_too_long_may_write_no_more(tmp_path: Path) -> None:
    silent = lease(tmp_path, "silent")
    silent.acquire()
    silent.check()
    Folder(str(tmp_path)).create(layout.lease(2), new_holder("follower").as_json())
    with pytest.raises(LeaseLost, match="another run took over"):
        silent.check()
    silent.release()
    assert b"follower" in (Folder(str(tmp_path)).read(layout.lease(2)) or b"")


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        lease(tmp_path / "out", "run").acquire()
