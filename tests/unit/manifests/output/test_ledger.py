"""The ledger on a local disk: what is committed is there once, whatever was interrupted."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rendermill.manifests.errors import UserError
from rendermill.manifests.identity import blake2b_128
from rendermill.manifests.output import layout
from rendermill.manifests.output.ledger.keyed_rows import item_keys
from rendermill.manifests.output.ledger.ledger import Ledger
from rendermill.manifests.output.rejected import RejectedRows
from rendermill.manifests.schema import REJECTED_COLUMNS, arrow_schema
from rendermill.manifests.storage.folder import Folder
from rendermill.manifests.storage.urls import check_can_be_output
from tests.support.outputs import EXTRA, receipt, receipts, under_lease

OUTSIDE = ["../victim.png", layout.FORMAT_FILE]
"""Paths that are not those of media."""


def open_ledger(folder: Path, run_id: str = "run", deletion_delay_seconds: float = 0.0) -> Ledger:
    fenced = under_lease(Folder(str(folder)), run_id)
    return Ledger(fenced, EXTRA, deletion_delay_seconds=deletion_delay_seconds)


def ids(folder: Path, name: str = "metadata") -> list[str]:
    return sorted(pq.read_table(folder / name)["id"].to_pylist())


def test_a_new_output_can_be_read_at_once(tmp_path: Path) -> None:
    open_ledger(tmp_path)
    assert ids(tmp_path) == ids(tmp_path, "failures") == []


def test_receipts_become_records_once(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.add(receipts(receipt("a"), receipt("b")))
    ledger.add(receipts(receipt("b"), receipt("c"), receipt("c")))
    ledger.flush()
    assert ids(tmp_path) == [], "pending receipts are no records yet"
    ledger.roll_up()
    assert ids(tmp_path) == ["a", "b", "c"]
    assert Folder(str(tmp_path)).names(layout.PENDING) == []


def test_records_fill_up_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rendermill.manifests.output.ledger.parts._NUM_ROWS_PER_PART", 4)
    for run in range(10):
        ledger = open_ledger(tmp_path, f"run{run}")
        ledger.add(receipts(*(receipt(f"{run}-{index}") for index in range(3))))
        ledger.roll_up()
    parts = Folder(str(tmp_path)).names(layout.METADATA)
    assert [pq.read_metadata(tmp_path / part).num_rows for part in parts] == [4] * 7 + [2]
    assert len(set(ids(tmp_path))) == 30


def test_a_run_that_died_before_rolling_up_loses_nothing_it_flushed(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, "died")
    ledger.add(receipts(receipt("a"), receipt("bad", error_type="ValueError")))
    ledger.flush()
    assert sorted(open_ledger(tmp_path, "next").finished().to_pylist()) == [blake2b_128(["a", 0, 20])]
    assert (ids(tmp_path), ids(tmp_path, "failures")) == (["a"], ["bad"])


def test_a_run_that_died_between_part_and_deletion_doubles_nothing(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, "died")
    ledger.add(receipts(receipt("a"), receipt("bad", error_type="ValueError")))
    ledger.flush()
    (pending,) = Folder(str(tmp_path)).names(layout.PENDING)
    content = (tmp_path / pending).read_bytes()
    ledger.roll_up()
    (tmp_path / pending).write_bytes(content)
    open_ledger(tmp_path, "next")
    assert (ids(tmp_path), ids(tmp_path, "failures")) == (["a"], ["bad"])
    assert Folder(str(tmp_path)).names(layout.PENDING) == []


def test_what_an_earlier_version_left_below_the_records_is_recovered(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, "died")
    ledger.add(receipts(receipt("a")))
    ledger.flush()
    (pending,) = Folder(str(tmp_path)).names(layout.PENDING)
    assert not pending.startswith("metadata/"), "polars, DuckDB and datasets read all files below the records"
    former = tmp_path / layout.FORMER_PENDING / "20261101T000000-abcdef-00000.parquet"
    former.parent.mkdir()
    (tmp_path / pending).rename(former)
    open_ledger(tmp_path, "next")
    assert ids(tmp_path) == ["a"]
    assert not former.exists()


def test_dropped_records_are_gone_and_their_items_can_come_again(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.add(receipts(*(receipt(item) for item in "abc")))
    assert ledger.drop(item_keys(receipts(receipt("b"), receipt("unknown")))) == 1
    assert ids(tmp_path) == ["a", "c"]
    ledger.add(receipts(receipt("b")))
    ledger.roll_up()
    assert ids(tmp_path) == ["a", "b", "c"]


def test_a_changed_item_takes_its_old_records_place(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, "one")
    ledger.add(receipts(receipt("a"), receipt("b")))
    ledger.roll_up()
    for name in ("a", "b"):
        (tmp_path / "media").mkdir(exist_ok=True)
        (tmp_path / f"media/{name}.20.png").write_bytes(b"")
    files = Folder(str(tmp_path)).names(layout.METADATA)
    ledger = open_ledger(tmp_path, "two")
    ledger.add(receipts(receipt("a", steps=30), receipt("c")))
    ledger.roll_up()
    ledger.remove_stale_media()
    assert ids(tmp_path) == ["a", "b", "c"]
    steps = {row["id"]: row["num_inference_steps"] for row in pq.read_table(tmp_path / "metadata").to_pylist()}
    assert steps == {"a": 30, "b": 20, "c": 20}
    assert files == Folder(str(tmp_path)).names(layout.METADATA)
    assert [path.name for path in (tmp_path / "media").iterdir()] == ["b.20.png"]


def test_a_failure_gives_way_to_a_record_but_not_a_record_to_a_failure(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, "one")
    ledger.add(receipts(receipt("a"), receipt("b", error_type="ValueError")))
    ledger.roll_up()
    ledger = open_ledger(tmp_path, "two")
    ledger.add(receipts(receipt("b"), receipt("a", steps=30, error_type="ValueError")))
    ledger.roll_up()
    assert (ids(tmp_path), ids(tmp_path, "failures")) == (["a", "b"], ["a"])


def test_samples_of_one_item_are_items_of_their_own(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.add(receipts(*(receipt("a", sample_index=index) for index in range(3))))
    ledger.roll_up()
    assert ids(tmp_path) == ["a", "a", "a"]


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    open_ledger(tmp_path)
    stored = tmp_path / layout.FORMAT_FILE
    stored.write_text(stored.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(UserError, match="upgrade rendermill"):
        open_ledger(tmp_path)


def test_a_write_that_breaks_off_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rendermill.manifests.storage.local_disk.os.fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        Folder(str(tmp_path)).write("metadata/part-x.parquet", b"data")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def rejected_rows(*reasons: str) -> pa.Table:
    schema = arrow_schema(REJECTED_COLUMNS)
    return pa.Table.from_pylist([{"file": "f", "row_number": 0, "reason": reason} for reason in reasons], schema)


def test_rejected_rows_are_the_newest_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rendermill.manifests.output.rejected._NUM_ROWS_PER_PART", 2)
    for run_id, given in (("one", ["a", "b", "c"]), ("two", ["d", "e"]), ("three", [])):
        rejected = RejectedRows(Folder(str(tmp_path)), run_id)
        for reason in given:
            rejected.add(rejected_rows(reason))
            rejected.add(rejected_rows())
        rejected.finish()
        assert rejected.num_rows == len(given)
        assert pq.read_table(tmp_path / "rejected")["reason"].to_pylist() == given


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("memory://renders", "lives in the memory of one process"),
        ("https://host/renders", "can only be read"),
        ("zip://renders::file:///tmp/none.zip", "one store within another"),
        ("simplecache::s3://bucket/renders", "one store within another"),
    ],
)
def test_a_store_that_keeps_nothing_is_no_output(url: str, why: str) -> None:
    with pytest.raises(UserError, match=f"{why}.*; give a folder on a disk that every node sees, or an object store"):
        check_can_be_output(url)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "media/../../x", "a\0b", ".."])
def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    folder = Folder(str(tmp_path / "out"))
    for use in (folder.read, lambda name: folder.write(name, b""), lambda name: folder.delete([name]), folder.names):
        with pytest.raises(UserError, match="leaves this folder"):
            use(name)


def test_what_a_record_or_a_note_names_outside_the_output_is_left(tmp_path: Path) -> None:
    output, victims = tmp_path / "out", [tmp_path / "victim.png", tmp_path / "out" / layout.FORMAT_FILE]
    victims[0].touch()
    ledger = open_ledger(output)
    ledger.add(receipts(*(receipt(item) | {"path": path} for item, path in zip("ab", OUTSIDE, strict=True))))
    ledger.roll_up()
    (output / layout.PENDING).mkdir(exist_ok=True)
    for number, content in enumerate((json.dumps(OUTSIDE), "[" * 100_000)):
        (output / layout.PENDING / f"000001-0000{number}.stale.json").write_text(content)
    later = open_ledger(output, "later")
    later.add(receipts(receipt("a", steps=30), receipt("b", steps=30)))
    later.roll_up()
    later.remove_stale_media()
    assert all(victim.exists() for victim in victims)
    told = [problem for problem in later.problems if "which is no media file of this output: left as it is" in problem]
    assert len(told) == 4
    assert "_pending/000001-00001.stale.json is damaged and is removed" in "\n".join(later.problems)
    assert Folder(str(output)).names(layout.PENDING) == []


@pytest.mark.parametrize(
    ("name", "way_out"),
    [("metadata/part-000000.parquet", "move it away"), ("_pending/000001-00009.parquet", "delete it")],
)
def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path, name: str, way_out: str) -> None:
    open_ledger(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"not a table")
    with pytest.raises(UserError, match=f"{name} cannot be read .*{way_out}"):
        open_ledger(tmp_path, "next")


def test_media_that_gave_way_stay_for_a_while(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    for steps in (20, 30):
        (tmp_path / f"media/a.{steps}.png").touch()
        ledger = open_ledger(tmp_path, f"run{steps}", deletion_delay_seconds=900.0)
        ledger.add(receipts(receipt("a", steps)))
        ledger.roll_up()
        ledger.remove_stale_media()
    assert (tmp_path / "media/a.20.png").exists(), "a reader may have listed the records before"
    (note,) = Folder(str(tmp_path)).names(layout.PENDING)
    os.utime(tmp_path / note, (0, 0))
    later = open_ledger(tmp_path, "later", deletion_delay_seconds=900.0)
    later.remove_stale_media()
    assert [path.name for path in (tmp_path / "media").iterdir()] == ["a.30.png"]
    assert Folder(str(tmp_path)).names(layout.PENDING) == []
