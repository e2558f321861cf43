"""A model checker of lease and ledger: drivers take over from one another, stall, and write late.

Drivers are stopped between the check of a write and its effect while others take over and go on; on the store that
stands for S3, writes land late or lose their answers. Readers of the plain folder `metadata/` look at any moment.
The variable PROTOCOL_EXAMPLES sets the number of sequences of steps that are tried.
"""

import contextlib
import os
import tempfile
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from rendermill.manifests.errors import LeaseLost
from rendermill.manifests.output import layout
from rendermill.manifests.storage.folder import Folder
from tests.slow.properties.drivers import Driver
from tests.support import late_store
from tests.support.outputs import IN_MEMORY, receipt, receipts, stored_rows

NUM_EXAMPLES = int(os.environ.get("PROTOCOL_EXAMPLES", "12"))
ITEMS = st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True)
STEPS = st.sampled_from(["flush", "roll up"])
NUM_DRIVERS = 8
WHICH = st.integers(0, 3)
"""A driver, counted from the newest on."""
FAILS = (LeaseLost, TimeoutError)


class Protocol(RuleBasedStateMachine):
    """The steps that drivers, the network and readers may take."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.folder = Folder(self.url)
        self.drivers: list[Driver] = []
        self.num_ticks = 0
        self.made_by: dict[int, int] = {}  # the lease under which a tick was rendered
        self.dead_ticks: set[int] = set()  # rendered by runs that were overtaken before the result was in the output
        self.committed: dict[str, int] = {}
        self.visible: dict[str, int] = {}
        self.lists: list[tuple[list[str], dict[str, int]]] = []
        self.take_over()

    @precondition(lambda self: len(self.drivers) < NUM_DRIVERS)
    @rule()
    def take_over(self) -> None:
        driver = Driver(self.folder, len(self.drivers))
        with contextlib.suppress(*FAILS):
            driver.begin()
            self.drivers.append(driver)
            present = {row["num_inference_steps"] for row in self.rows()}
            lower = {tick for tick, number in self.made_by.items() if number < driver.lease.number}
            self.dead_ticks |= lower - present
            self.visible |= self.committed

    @precondition(lambda self: self.drivers)
    @rule(which=WHICH, items=ITEMS)
    def render(self, which: int, items: list[str]) -> None:
        driver, rows = self.driver(which), []
        for item in sorted(set(items) - driver.items):  # a run renders an item once
            self.num_ticks += 1
            row = receipt(item, self.num_ticks)
            self.store_media(row["path"])
            rows.append(row)
            driver.items.add(item)
            driver.added[item] = self.num_ticks
            self.made_by[self.num_ticks] = driver.lease.number
            if not driver.holds:
                self.dead_ticks.add(self.num_ticks)
        if rows:
            driver.ledger.add(receipts(*rows))

    @precondition(lambda self: self.drivers)
    @rule(which=WHICH, step=STEPS)
    def commit(self, which: int, step: str) -> None:
        driver, is_roll_up = self.driver(which), step == "roll up"
        try:
            driver.ledger.roll_up() if is_roll_up else driver.ledger.flush()
        except FAILS:
            return
        if driver.holds:
            self.commit_to(driver, is_roll_up)

    @precondition(lambda self: 0 < len(self.drivers) < NUM_DRIVERS)
    @rule(mine=ITEMS, step=STEPS, num_writes=st.integers(0, 5), theirs=ITEMS, then=STEPS)
    def commit_while_another_takes_over(
        self, mine: list[str], step: str, num_writes: int, theirs: list[str], then: str
    ) -> None:
        def meanwhile() -> None:
            self.take_over()
            self.render(0, theirs)
            self.commit(0, then)

        self.render(0, mine)
        lease = self.driver(0).lease
        lease.num_checks_to_go, lease.meanwhile = num_writes, meanwhile
        self.commit(0, step)
        lease.meanwhile = None

    @precondition(lambda self: self.drivers)
    @rule(which=WHICH)
    def end(self, which: int) -> None:
        driver = self.driver(which)
        with contextlib.suppress(*FAILS):
            driver.ledger.close()
            if driver.holds:
                self.commit_to(driver, is_roll_up=True)
        driver.lease.release()
        self.drivers.remove(driver)

    @rule()
    def list_parts(self) -> None:
        self.lists.append((self.parts(), dict(self.visible)))

    @precondition(lambda self: self.lists)
    @rule(which=st.integers(0, 9))
    def read_what_was_listed(self, which: int) -> None:
        names, visible = self.lists.pop(which % len(self.lists))
        self.check(self.read(names), visible)

    @invariant()
    def readers_see_each_item_once(self) -> None:
        self.check(self.rows(), self.visible)

    def teardown(self) -> None:
        late_store.NETWORK.fates.clear()
        for effect in late_store.NETWORK.late:
            with contextlib.suppress(OSError):
                effect()
        last = Driver(self.folder, 99)
        last.begin()
        self.check(self.rows(), self.committed)
        last.ledger.remove_stale_media()
        self.check(self.rows(), self.committed)
        receipts_left = [name for name in self.folder.names(layout.PENDING) if name.endswith(".parquet")]
        assert receipts_left == []

    def commit_to(self, driver: Driver, is_roll_up: bool) -> None:
        """Note the items that a driver has committed."""
        driver.flushed |= driver.added
        self.committed |= driver.added
        driver.added = {}
        if is_roll_up:
            self.visible |= driver.flushed

    def driver(self, which: int) -> Driver:
        return self.drivers[-1 - which % len(self.drivers)]

    def check(self, rows: list[dict[str, Any]], expected: dict[str, int]) -> None:
        found = {row["id"]: row["num_inference_steps"] for row in rows}
        assert len(found) == len(rows), "an item twice"
        for item, tick in expected.items():
            assert item in found, "a committed item is missing"
            assert found[item] >= tick, "an older record has taken a newer one's place"
        assert not self.dead_ticks & set(found.values()), "an overtaken run changed the output"
        for row in rows:
            assert self.has_media(row["path"]), "a record without its media"

    def rows(self) -> list[dict[str, Any]]:
        return self.read(self.parts())

    def parts(self) -> list[str]:
        return [name for name in self.folder.names(layout.METADATA) if name.endswith(".parquet")]

    def read(self, names: list[str]) -> list[dict[str, Any]]:
        contents = [self.folder.read(name) for name in names]
        assert None not in contents, "a part that was listed is gone"
        return stored_rows(contents)

    def store_media(self, path: str) -> None:
        Folder(self.url).write(path, b"")

    def has_media(self, path: str) -> bool:
        return self.folder.read(path) is not None


class OnDisk(Protocol):
    """The protocol on a local disk."""

    def __init__(self) -> None:
        self._place = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.url = self._place.name
        super().__init__()

    def teardown(self) -> None:
        super().teardown()
        self._place.cleanup()


class OnS3(Protocol):
    """The protocol on a store with conditional writes, behind a network that delays writes and loses answers."""

    url = "late://bucket/output"

    def __init__(self) -> None:
        late_store.NETWORK.__init__()
        super().__init__()

    @rule(fates=st.lists(st.sampled_from(["lands", "lands", "late", "lost"]), min_size=1, max_size=6))
    def disturb(self, fates: list[str]) -> None:
        late_store.NETWORK.fates[:] = fates

    @precondition(lambda _: late_store.NETWORK.late)
    @rule(which=st.integers(0, 9))
    def a_late_write_lands(self, which: int) -> None:
        late = late_store.NETWORK.late
        with contextlib.suppress(OSError):
            late.pop(which % len(late))()

    @precondition(lambda self: 0 < len(self.drivers) < NUM_DRIVERS)
    @rule(mine=ITEMS, step=STEPS, num_writes=st.integers(0, 3), theirs=ITEMS, then=STEPS, is_tried_again=st.booleans())
    def commit_late(
        self, mine: list[str], step: str, num_writes: int, theirs: list[str], then: str, is_tried_again: bool
    ) -> None:
        self.render(0, mine)
        late_store.NETWORK.fates[:] = ["lands"] * num_writes + ["late"]
        self.commit(0, step)
        late_store.NETWORK.fates.clear()
        if is_tried_again:
            self.commit(0, step)
        self.take_over()
        self.render(0, theirs)
        self.commit(0, then)
        for _ in list(late_store.NETWORK.late):
            self.a_late_write_lands(0)

    def store_media(self, path: str) -> None:
        late_store.NETWORK.objects[f"bucket/output/{path}"] = b""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rendermill.manifests.output.ledger.parts._NUM_ROWS_PER_PART", 3)
    for module in ("ledger.parts", "ledger.part_files", "fence"):  # the same steps have to come in the same order
        monkeypatch.setattr(f"rendermill.manifests.output.{module}._NUM_IO_THREADS", 1)


@pytest.mark.parametrize("machine", [OnDisk, OnS3])
def test_no_late_write_of_an_overtaken_run_changes_what_readers_see(machine: type[Protocol]) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=NUM_EXAMPLES, stateful_step_count=25, deadline=None, derandomize=True)
    )


@pytest.mark.parametrize("then", ["flush", "roll up"])
@pytest.mark.parametrize("step", ["flush", "roll up"])
@pytest.mark.parametrize("num_writes", range(3))
def test_a_write_that_is_overtaken_at_each_step(step: str, then: str, num_writes: int) -> None:
    """The shortest sequences, which chance may not find: without the seal, the check or the conditions some fail."""
    for machine, is_late in ((OnDisk, False), (OnS3, False), (OnS3, True)):
        protocol = machine()
        for mine in (["a"], ["b", "c", "d", "e"]):
            if is_late:
                protocol.commit_late(mine, step, num_writes, ["a"], then, is_tried_again=num_writes % 2 == 1)
            else:
                protocol.commit_while_another_takes_over(mine, step, num_writes, ["a"], then)
            protocol.readers_see_each_item_once()
        protocol.teardown()
