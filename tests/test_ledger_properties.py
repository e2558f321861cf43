"""The ledger's promise under any interleaving of receipts, flushes, roll-ups and crashes between steps on the disk."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_ledger import EXTRA, receipt, receipts

from manifests import layout
from manifests.ledger import Ledger
from manifests.shards import keep_members, pack, unpack
from manifests.storage import Folder


class Crash(BaseException):
    """The process is gone."""


@dataclass(frozen=True)
class CrashingFolder(Folder):
    """A folder whose owner dies when the countdown, which counts writes and deletions, reaches zero."""

    countdown: list[int] = field(default_factory=list)

    def _write(self, name: str, data: bytes) -> None:
        self._count()
        super()._write(name, data)

    def _delete(self, name: str) -> None:
        self._count()
        super()._delete(name)

    def _count(self) -> None:
        if self.countdown:
            self.countdown[0] -= 1
            if self.countdown[0] < 0:
                raise Crash


ITEMS = st.sampled_from("abcdef")
RECEIPTS = st.lists(st.tuples(ITEMS, st.sampled_from([20, 30]), st.booleans()), max_size=6)
STEPS = st.lists(st.one_of(RECEIPTS, st.sampled_from(["flush", "roll up", "end"])), min_size=1, max_size=8)
RUNS = st.lists(st.tuples(STEPS, st.one_of(st.none(), st.integers(0, 12))), min_size=1, max_size=5)


def records(folder: Path) -> dict[str, int]:
    rows = pq.read_table(folder / "metadata").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows), "an item twice"
    for row in rows:
        assert (folder / row["path"]).exists(), "a record without its media"
    return {row["id"]: row["num_inference_steps"] for row in rows}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manifests.ledger._NUM_ROWS_PER_PART", 3)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RUNS)
def test_no_crash_loses_or_doubles_what_was_flushed(runs: list) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flushed: dict[str, int] = {}
        ever_added: set[str] = set()
        Ledger(Folder(name), "first", EXTRA)
        for number, (steps, countdown) in enumerate(runs):
            added: dict[str, int] = {}
            try:
                crashing = CrashingFolder(name, countdown=[] if countdown is None else [countdown])
                ledger = Ledger(crashing, f"run{number}", EXTRA)
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
                        ledger.flush() if step == "flush" else ledger.roll_up()
                        flushed |= added
                    records(folder)
            except Crash:
                pass
            assert set(records(folder)) <= ever_added
        Ledger(Folder(name), "last", EXTRA)
        assert set(flushed) <= set(records(folder))
        failed = pq.read_table(folder / "failures")["request_hash"].to_pylist()
        finished = pq.read_table(folder / "metadata")["request_hash"].to_pylist()
        assert not set(failed) & set(finished)
        assert Folder(name).names(layout.PENDING) == []


def last_outcomes(step: list) -> dict[str, int]:
    """Items whose last outcome in one hand-over is a record."""
    return {item: steps for item, steps, fails in step if not fails}


@pytest.mark.parametrize("countdown", range(8))
def test_a_crash_leaves_no_replaced_media(tmp_path: Path, countdown: int) -> None:
    def draw(ledger: Ledger, steps: int) -> None:
        for item in "abcde":
            (tmp_path / "media").mkdir(exist_ok=True)
            (tmp_path / f"media/{item}.{steps}.png").touch()
        ledger.add(receipts(*(receipt(item, steps) for item in "abcde")))
        ledger.flush()

    first = Ledger(Folder(str(tmp_path)), "first", EXTRA)
    draw(first, 20)
    first.roll_up()
    second = CrashingFolder(str(tmp_path))
    ledger = Ledger(second, "second", EXTRA)
    draw(ledger, 30)
    second.countdown.append(countdown)
    with pytest.raises(Crash):
        ledger.roll_up()
    Ledger(Folder(str(tmp_path)), "third", EXTRA)
    assert records(tmp_path) == dict.fromkeys("abcde", 30)
    assert {path.name for path in (tmp_path / "media").iterdir()} == {f"{item}.30.png" for item in "abcde"}


SHARDS = st.tuples(st.lists(ITEMS, min_size=1, max_size=4, unique=True), st.booleans())
SHARD_STEPS = st.lists(st.one_of(SHARDS, st.sampled_from(["flush", "roll up"])), min_size=1, max_size=8)
SHARD_RUNS = st.lists(
    st.tuples(st.sampled_from([20, 30]), SHARD_STEPS, st.one_of(st.none(), st.integers(0, 16))), min_size=1, max_size=5
)


class ShardRun:
    """A run of items with so many steps, whose shards may come in any grouping, and whose receipts may be lost."""

    def __init__(self, folder: Folder, run_id: str, num_steps: int) -> None:
        self._folder, self._run_id, self._num_steps = folder, run_id, num_steps
        self.ledger = Ledger(folder, run_id, EXTRA, "webdataset")
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
                self.ledger.doubt(receipts(*rows))
            if new:
                self.ledger.add(receipts(*new))

    def tidy(self) -> None:
        stale = self.ledger.stale_shards()
        self._folder.delete(stale.nameless)
        for shard, members in stale.doubtful.items():
            keep_members(self._folder, shard, members)
        self.ledger.forget_stale_media()


def members(folder: Path) -> list[tuple[str, str]]:
    found = []
    for path in folder.rglob("*.tar"):
        with path.open("rb") as file:
            found += [(str(path.relative_to(folder)), name) for name, _ in unpack(file)]
    return sorted(found)


def recorded_members(folder: Path) -> list[tuple[str, str]]:
    rows = pq.read_table(folder / "metadata").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows), "an item twice"
    return sorted((row["path"], row["member"]) for row in rows)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SHARD_RUNS)
def test_shards_hold_what_records_name_and_no_more_after_any_crash(runs: list) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Ledger(Folder(name), "first", EXTRA, "webdataset")
        for number, (num_steps, steps, countdown) in enumerate(runs):
            try:
                crashing = CrashingFolder(name, countdown=[] if countdown is None else [countdown])
                run = ShardRun(crashing, f"run{number}", num_steps)
                for step in steps:
                    if isinstance(step, tuple):
                        run.store(*step)
                    else:
                        run.ledger.flush() if step == "flush" else run.ledger.roll_up()
                    assert set(recorded_members(folder)) <= set(members(folder)), "a record without its media"
                run.ledger.roll_up()
                run.tidy()
                assert members(folder) == recorded_members(folder)
            except Crash:
                assert set(recorded_members(folder)) <= set(members(folder)), "a record without its media"
        ShardRun(Folder(name), "last", 20)
        assert members(folder) == recorded_members(folder)
        assert Folder(name).names(layout.PENDING) == []
