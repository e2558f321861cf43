"""The ledger's promise under any interleaving of receipts, flushes, roll-ups, crashes and errors of the disk."""

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rendermill.manifests.output import layout
from rendermill.manifests.output.fence import FencedFolder
from rendermill.manifests.output.ledger.ledger import Ledger
from rendermill.manifests.output.ledger.stale_shards import ShardCleanup
from rendermill.manifests.output.shards import keep_members, pack, unpack
from rendermill.manifests.storage.folder import Folder
from tests.support.outputs import EXTRA, IN_MEMORY, receipt, receipts, stored_rows, under_lease


class Crash(BaseException):
    """The process died, or an operation failed: the test decides whether the process continues."""


@dataclass(frozen=True)
class FailingFolder(FencedFolder):
    """A folder in which one operation fails, before or after its effect.

    Attributes:
        faults: The number of operations until the one that fails, and whether it takes effect; empty if none fails.
    """

    faults: list[tuple[int, bool]] = field(default_factory=list)

    @classmethod
    def over(cls, folder: Path, run_id: str, fault: tuple[int, bool] | None = None) -> "FailingFolder":
        lease = under_lease(Folder(str(folder)), run_id).lease
        return cls(str(folder), lease=lease, faults=[] if fault is None else [fault])

    def with_retries(self, function: Callable[..., Any], *arguments: Any) -> Any:
        countdown, has_effect = self.faults.pop() if self.faults else (-1, False)
        if countdown > 0:
            self.faults.append((countdown - 1, has_effect))
        if countdown == 0 and not has_effect:
            raise Crash
        result = super().with_retries(function, *arguments)
        if countdown == 0:
            raise Crash
        return result


def open_over(folder: FailingFolder, media_layout: layout.Layout = "files") -> Ledger:
    return Ledger(folder, EXTRA, media_layout, deletion_delay_seconds=0.0)


ITEMS = st.sampled_from("abcdef")
RECEIPTS = st.lists(st.tuples(ITEMS, st.sampled_from([20, 30]), st.booleans()), max_size=6)
STEPS = st.lists(st.one_of(RECEIPTS, st.sampled_from(["flush", "roll up", "tidy"])), min_size=1, max_size=8)
FAULTS = st.one_of(st.none(), st.tuples(st.integers(0, 40), st.booleans()))
RUNS = st.lists(st.tuples(STEPS, FAULTS, st.booleans()), min_size=1, max_size=5)


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return stored_rows(part.read_bytes() for part in folder.glob("*.parquet"))


def records(folder: Path) -> dict[str, int]:
    rows = rows_in(folder / "metadata")
    assert len({row["id"] for row in rows}) == len(rows), "an item twice"
    for row in rows:
        assert (folder / row["path"]).exists(), "a record without its media"
    return {row["id"]: row["num_inference_steps"] for row in rows}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rendermill.manifests.output.ledger.parts._NUM_ROWS_PER_PART", 3)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RUNS)
def test_no_crash_or_error_loses_or_doubles_what_was_flushed(runs: list) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as name:
        folder = Path(name)
        flushed: dict[str, int] = {}
        ever_added: set[str] = set()
        open_over(FailingFolder.over(folder, "first"))
        for number, (steps, fault, goes_on) in enumerate(runs):
            added: dict[str, int] = {}
            try:
                failing = FailingFolder.over(folder, f"run{number}", fault)
                ledger = open_over(failing)
                for step in steps:
                    if isinstance(step, list):
                        rows = [receipt(item, steps, "ValueError" if fails else None) for item, steps, fails in step]
                        for row in rows:
                            if row["path"]:
                                (folder / row["path"]).parent.mkdir(exist_ok=True)
                                (folder / row["path"]).touch()
                        if rows:
                            ledger.add(receipts(*rows))
                        added |= last_outcomes(step)
                        ever_added |= set(added)
                    else:
                        try:
                            do(ledger, step)
                        except Crash:
                            if not goes_on:
                                raise
                            do(ledger, step)
                        flushed |= added
                    records(folder)
            except Crash:
                pass
            assert set(records(folder)) <= ever_added
        do(open_over(FailingFolder.over(folder, "last")), "tidy")
        assert set(flushed) <= set(records(folder))
        failed = {row["request_hash"] for row in rows_in(folder / "failures")}
        finished = {row["request_hash"] for row in rows_in(folder / "metadata")}
        assert not failed & finished
        assert Folder(name).names(layout.PENDING) == []


def do(ledger: Ledger, step: str) -> None:
    if step == "flush":
        ledger.flush()
        return
    ledger.roll_up()
    if step == "tidy":
        ledger.remove_stale_media()


def last_outcomes(step: list) -> dict[str, int]:
    """Return the items that have a record among these outcomes, with the steps of their last one."""
    return {item: steps for item, steps, fails in step if not fails}


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("countdown", range(0, 21, 2))
def test_a_crash_or_error_leaves_no_replaced_media(tmp_path: Path, countdown: int, goes_on: bool) -> None:
    def render(ledger: Ledger, steps: int) -> None:
        for item in "abcde":
            (tmp_path / "media").mkdir(exist_ok=True)
            (tmp_path / f"media/{item}.{steps}.png").touch()
        ledger.add(receipts(*(receipt(item, steps) for item in "abcde")))
        ledger.flush()

    first = open_over(FailingFolder.over(tmp_path, "first"))
    render(first, 20)
    first.roll_up()
    second = FailingFolder.over(tmp_path, "second")
    ledger = open_over(second)
    render(ledger, 30)
    second.faults.append((countdown // 2, countdown % 2 == 1))
    with pytest.raises(Crash):
        do(ledger, "tidy")
    if not goes_on:
        ledger = open_over(FailingFolder.over(tmp_path, "third"))
    do(ledger, "tidy")
    assert records(tmp_path) == dict.fromkeys("abcde", 30)
    assert {path.name for path in (tmp_path / "media").iterdir()} == {f"{item}.30.png" for item in "abcde"}


@pytest.mark.parametrize("has_effect", [False, True])
def test_a_roll_up_that_is_tried_again_after_an_error_doubles_nothing(tmp_path: Path, has_effect: bool) -> None:
    for number in range(12):
        folder = tmp_path / str(number)
        failing = FailingFolder.over(folder, "run")
        ledger = open_over(failing)
        (folder / "media").mkdir()
        for item in "abcde":
            (folder / f"media/{item}.20.png").touch()
        ledger.add(receipts(*(receipt(item) for item in "abcde")))
        failing.faults.append((number, has_effect))
        with contextlib.suppress(Crash):
            ledger.roll_up()
        failing.faults.clear()
        ledger.roll_up()
        assert records(folder) == dict.fromkeys("abcde", 20)


SHARDS = st.tuples(st.lists(ITEMS, min_size=1, max_size=4, unique=True), st.booleans())
SHARD_STEPS = st.lists(st.one_of(SHARDS, st.sampled_from(["flush", "roll up"])), min_size=1, max_size=8)
SHARD_RUNS = st.lists(st.tuples(st.sampled_from([20, 30]), SHARD_STEPS, FAULTS), min_size=1, max_size=5)


class ShardRun:
    """A run that stores its items in shards of any grouping, and whose receipts may be lost."""

    def __init__(self, folder: FailingFolder, run_id: str, num_steps: int) -> None:
        self._folder, self._run_id, self._num_steps = folder, run_id, num_steps
        self.ledger = open_over(folder, "webdataset")
        self.tidy()
        self._taken = {hashed.as_py().hex() for hashed in self.ledger.finished()}

    def store(self, items: list[str], is_delivered: bool) -> None:
        rows = [receipt(item, self._num_steps) for item in items]
        shard = layout.shard("sana", self._run_id, "-".join(sorted(items)))
        for row in rows:
            row |= {"path": shard, "member": f"{row['id']}-{self._num_steps}.png"}
        Folder(self._folder.url).write(shard, pack({row["member"]: row["id"].encode() for row in rows}))
        new = [row for row in rows if row["request_hash"] not in self._taken]
        if is_delivered:
            self._taken |= {row["request_hash"] for row in new}
            if len(new) < len(rows):
                self.ledger.note_duplicates(receipts(*rows))
            if new:
                self.ledger.add(receipts(*new))

    def tidy(self) -> None:
        cleanup = ShardCleanup(self.ledger)
        stale = cleanup.find()
        self._folder.delete(stale.nameless)
        kept = {shard: keep_members(self._folder, shard, members) for shard, members in stale.doubtful.items()}
        cleanup.rename({shard: new.name for shard, new in kept.items() if new.name != shard})
        cleanup.forget(stale, but=())


def members(folder: Path) -> list[tuple[str, str]]:
    found = []
    for path in folder.rglob("*.tar"):
        with path.open("rb") as file:
            found += [(str(path.relative_to(folder)), name) for name, _ in unpack(file)]
    return sorted(found)


def recorded_members(folder: Path) -> list[tuple[str, str]]:
    rows = rows_in(folder / "metadata")
    assert len({row["id"] for row in rows}) == len(rows), "an item twice"
    return sorted((row["path"], row["member"]) for row in rows)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SHARD_RUNS)
def test_shards_hold_what_records_name_and_no_more_after_any_crash(runs: list) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as name:
        folder = Path(name)
        open_over(FailingFolder.over(folder, "first"), "webdataset")
        for number, (num_steps, steps, fault) in enumerate(runs):
            try:
                run = ShardRun(FailingFolder.over(folder, f"run{number}", fault), f"run{number}", num_steps)
                for step in steps:
                    if isinstance(step, tuple):
                        run.store(*step)
                    else:
                        run.ledger.flush() if step == "flush" else run.ledger.roll_up()
                    assert set(recorded_members(folder)) <= set(members(folder)), "a record without its media"
                run.ledger.roll_up()
                run.tidy()
                run.tidy()  # removes what the first one wrote anew under another name
                assert members(folder) == recorded_members(folder)
            except Crash:
                assert set(recorded_members(folder)) <= set(members(folder)), "a record without its media"
        ShardRun(FailingFolder.over(folder, "last"), "last", 20).tidy()
        assert members(folder) == recorded_members(folder)
        assert Folder(name).names(layout.PENDING) == []
