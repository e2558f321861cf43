"""`layout: webdataset`: what the webdataset library reads from an output is what its records say, each sample once."""

import hashlib
import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import webdataset

from rendermill.actors.media.encoding import Encoding
from rendermill.actors.media.sound import as_column
from rendermill.actors.media.store import encode_all, store_shard
from rendermill.actors.services.guard import Guard
from rendermill.jobs.verification.compare import RECORDED, compare
from rendermill.manifests.errors import UserError
from rendermill.manifests.output.layout import key_in_shard
from rendermill.manifests.output.ledger.ledger import Ledger
from rendermill.manifests.output.shards import keep_members, pack, read_member, unpack
from rendermill.manifests.schema import AUDIO, FRAMES, receipt_schema
from rendermill.manifests.storage.folder import Folder
from tests.support.commands import ROOT, Rendermill
from tests.support.outputs import under_lease

UNGUARDED = Guard(None, "stored")
EXTRA = pa.schema(
    [
        ("score", pa.float64()),
        ("scores", pa.list_(pa.float64())),
        ("tags", pa.list_(pa.string())),
        ("raw", pa.binary()),
    ]
)


def read_shards(output: Path) -> list[dict[str, Any]]:
    """All samples, as the webdataset library groups the files of an output's shards."""
    shards = sorted(str(path) for path in (output / "media").rglob("*.tar"))
    return list(webdataset.WebDataset(shards, shardshuffle=False)) if shards else []


def check(rendermill: Rendermill) -> Counter[str]:
    """Hold shards to records; returns the number of samples by shard."""
    found = {(sample["__url__"], sample["__key__"]): sample for sample in read_shards(rendermill.output)}
    records = rendermill.table("metadata")
    assert len(records) == len(found) == len({key for _, key in found}), "each sample once, and nothing else"
    for record in records:
        key, _, extension = record["member"].partition(".")
        sample = found[str(rendermill.output / record["path"]), key]
        assert sample.keys() == {"__key__", "__url__", "__local_path__", extension, "json"}
        assert hashlib.sha256(sample[extension]).hexdigest() == record["sha256"]
        said = json.loads(sample["json"])
        assert said == {name: record[name] for name in said}
        assert {"id", "prompt", "seed", "width", "category"} <= said.keys()
    return Counter(record["path"] for record in records)


def test_shards_hold_each_sample_once_also_when_a_run_is_terminated_and_rows_change(rendermill: Rendermill) -> None:
    defaults = {"num_inference_steps": 20, "width": 128, "height": 128}
    rendermill.model("sana", "sana-shapes", num_items_per_shard=4, defaults=defaults)
    rows = [{"id": f"v1.{index}/ü", "prompt": f"prompt {index}", "category": f"c{index}"} for index in range(14)]
    rendermill.manifest(rows)
    job = str(rendermill.write_job(layout="webdataset", deletion_delay="0.001s"))
    command = [sys.executable, "-m", "rendermill", "generate", job]
    process = subprocess.Popen(command, cwd=ROOT, env=rendermill.environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("sana "):
            break
    process.terminate()
    rest = process.communicate(timeout=60)[0]
    assert "interrupted; the same command goes on from here" in rest
    assert process.returncode == 1
    first = check(rendermill)
    assert set(first.values()) == {4}
    assert first.total() < 14
    stopped = rendermill.run("generate", job, "stop_after=1s")
    assert (stopped.status, "stopped after 1s, as stop_after says" in stopped.out) == (0, True), stopped
    assert check(rendermill) == first, "the actor had not even loaded"

    stray = rendermill.output / "media/sana/20200101T000000-000000-0123456789ab.tar"  # a process that died left it
    stray.write_bytes(b"")
    changed, *others = rendermill.table("metadata")
    others = [record["id"] for record in others if record["path"] == changed["path"]]
    rendermill.manifest([row | {"num_inference_steps": 2} if row["id"] == changed["id"] else row for row in rows])
    again = rendermill.run("generate", job)
    num_left = 14 - first.total() + 1
    assert f"to render: sana {num_left}; {first.total() - 1} finished before" in again.out
    assert again.status == 0, again
    assert (rendermill.output / changed["path"]).exists(), "whoever listed the records before finds its file"
    assert rendermill.run("generate", job).status == 0  # removes it, as there is no delay here
    second = check(rendermill)
    assert second.total() == 14
    (rewritten,) = {record["path"] for record in rendermill.table("metadata") if record["id"] in others}
    assert second[rewritten] == 3
    assert rewritten != changed["path"], "a shard that holds less than before has another name"
    assert not stray.exists()
    dataset = webdataset.WebDataset([str(rendermill.output / path) for path in second], shardshuffle=100)
    pictures = list(dataset.shuffle(1000).decode("pil").to_tuple("png", "json"))
    assert {picture.size for picture, said in pictures if said["category"]} == {(128, 128)}

    verified = rendermill.run("verify", rendermill.output)
    assert (verified.status, "files: 14 of 14 are as recorded" in verified.out) == (0, True), verified
    largest = max(second, key=second.__getitem__)
    shard = rendermill.output / largest
    files = dict(unpack(io.BytesIO(shard.read_bytes())))
    picture, other = [name for name in files if name.endswith(".png")][:2]
    files["unknown-0-0123456789ab.png"] = files[picture]
    files[picture] = b"\0" + files[picture][1:]
    del files[other.replace(".png", ".json")]
    broken = pack(files)[: len(files[picture])]
    shard.write_bytes(broken)
    victims = [rendermill.folder / "victim", rendermill.folder / "prompts.parquet"]
    victims[0].write_text("of somebody else")
    pending = rendermill.output / "_pending"
    note, strays = pending / "000001-99999.stale.json", [pending / "notes.txt", rendermill.output / "runs/z"]
    outside = ["../victim", str(victims[1]), "rendermill.json", "media/../../victim", 7, None]
    note.write_text(json.dumps([largest, *outside]))
    (pending / "000001-99998.stale.json").write_text("not JSON")
    for stray in strays:
        stray.write_text("by hand")
    left = rendermill.run("generate", job)
    assert (left.status, f"{largest} is damaged and stays as it is: " in left.out) == (0, True), left
    assert (shard.read_bytes(), note.exists()) == (broken, True)
    assert all(file.exists() for file in [*victims, *strays, rendermill.output / "rendermill.json"])
    assert left.out.count("which is no media file of this output: left as it is") == len(outside)
    assert "_pending/000001-99998.stale.json is damaged and is removed" in left.out
    shard.write_bytes(pack(files))
    damaged = rendermill.run("verify", rendermill.output, "--json")
    report = json.loads(damaged.out)
    assert damaged.status == 3
    assert [report[kind]["num"] for kind in ("missing", "damaged", "without_record")] == [0, 2, 1]
    assert report["without_record"]["examples"] == [f"{largest}/unknown-0-0123456789ab.png"]

    repaired = rendermill.run("verify", rendermill.output, "--repair")
    assert (repaired.status, "repaired: 2 records were dropped; " in repaired.out) == (0, True), repaired
    mended = rendermill.run("generate", job)
    assert (mended.status, "to render: sana 2; 12 finished before" in mended.out) == (0, True), mended
    verified = rendermill.run("verify", rendermill.output)
    assert (verified.status, "files: 14 of 14 are as recorded" in verified.out) == (0, True), verified


def test_of_a_shard_that_breaks_off_the_samples_before_are_kept(tmp_path: Path) -> None:
    folder, name = Folder(str(tmp_path)), "media/sana/20261126T000000-aaaaaa-0123456789ab.tar"
    files = {f"{key}.{kind}": key.encode() * 600 for key in "abc" for kind in ("json", "png")}
    folder.write(name, pack(files)[: 512 * 14])
    assert keep_members(folder, name, ["a.png", "b.png", "c.png"]).problem == "unexpected end of data"
    kept = keep_members(folder, name, ["a.png"])
    assert (kept.problem, kept.name != name) == (None, True)
    stored = dict(unpack(io.BytesIO((tmp_path / kept.name).read_bytes())))
    assert stored == {member: content for member, content in files.items() if member.startswith("a")}


def test_keys_have_no_dots_and_names_fit_a_plain_tar() -> None:
    ids = ["a", "v1.5/x.png", "..", "%2E", "ü" * 100, "." * 200, "%" * 99, "__a__"]
    files = {}
    for item in ids:
        key = key_in_shard(item, 9999, hashlib.sha256(item.encode()).hexdigest())
        files |= {f"{key}.webp": item.encode(), f"{key}.json": b"{}"}
    assert max(map(len, files)) <= 100
    assert len(files) == 2 * len(ids)
    backwards = dict(reversed(files.items()))
    assert pack(files) == pack(backwards)
    samples = list(
        webdataset.tariterators.group_by_keys(
            {"fname": name, "data": data, "__url__": ""} for name, data in unpack(io.BytesIO(pack(files)))
        )
    )
    assert sorted(sample["webp"] for sample in samples) == sorted(item.encode() for item in ids)


def rendered(*frames: np.ndarray | None) -> pa.Table:
    """Return the table of a renderer: pictures of 2 x 2 pixels, or None for a failure."""
    rows = [
        {
            "id": str(index),
            "sample_index": 0,
            "model": "sana",
            "prompt": "a cat",
            "width": 2,
            "height": 2,
            "num_frames": 1,
            "attempt": 1,
            "run_id": "run",
            "request_hash": f"{index:032x}",
            "error_type": "NonFinite" if pixels is None else None,
            "environment": "{}",
            "device": "cpu",
            "score": float("nan"),
            "scores": [0.5, float("-inf")],
            "tags": ["x", "y"],
            "raw": b"\xff",
        }
        for index, pixels in enumerate(frames)
    ]
    column = pa.array([None if pixels is None else pixels.tobytes() for pixels in frames], pa.large_binary())
    table = pa.Table.from_pylist(rows, receipt_schema(EXTRA)).append_column(FRAMES, column)
    return table.append_column(AUDIO, as_column([None] * len(frames)))


def test_what_cannot_be_drawn_or_encoded_is_left_out_and_what_comes_twice_is_stored_once(tmp_path: Path) -> None:
    sound, other, garbled = (np.full(shape, 7, np.uint8) for shape in ((2, 2, 3), (2, 2, 3), (1, 2, 3)))
    other += 1
    encoded = encode_all(rendered(sound, None, garbled, other), Encoding("png"), receipt_schema(EXTRA), UNGUARDED)
    again = encode_all(rendered(other), Encoding("png"), receipt_schema(EXTRA), UNGUARDED)
    stored = store_shard(pa.concat_tables([encoded, again]), Folder(str(tmp_path)), EXTRA, UNGUARDED).to_pylist()
    assert [row["error_type"] for row in stored] == [None, "NonFinite", "ValueError", None, None]
    assert [row["path"] is None for row in stored] == [False, True, True, False, False]
    (shard,) = {row["path"] for row in stored if row["path"]}
    first, last, twice = stored[0], stored[3], stored[4]
    assert first["member"] == twice["member"]
    files = dict(unpack(io.BytesIO((tmp_path / shard).read_bytes())))
    assert len(files) == 4
    for row in (first, last):
        assert hashlib.sha256(files[row["member"]]).hexdigest() == row["sha256"]
    assert first["sha256"] != twice["sha256"]
    said = json.loads(files[first["member"].replace(".png", ".json")])
    assert (said["id"], said["prompt"], said["tags"], said["raw"]) == ("0", "a cat", ["x", "y"], "ff")
    assert (said["score"], said["scores"]) == (None, [0.5, None]), "JSON has no NaN and no infinity"
    alone = store_shard(encoded.slice(1, 1), Folder(str(tmp_path / "alone")), EXTRA, UNGUARDED)
    assert alone["error_type"].to_pylist() == ["NonFinite"]
    assert not (tmp_path / "alone").exists(), "a shard of nothing"


def test_what_is_rendered_again_is_compared_with_the_shards_member(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    before = rendered(np.full((2, 2, 3), 7, np.uint8))
    encoded = encode_all(before, Encoding("png"), receipt_schema(EXTRA), UNGUARDED)
    (record,) = store_shard(encoded, folder, EXTRA, UNGUARDED).to_pylist()
    row = record | {f"recorded_{name}": record[name] for name in RECORDED}
    pixels = pa.scalar(np.full((2, 2, 3), 9, np.uint8).tobytes(), pa.large_binary())
    assert compare(row, before[FRAMES][0], None, folder).verdict == "with the same pixels"
    assert compare(row, pixels, None, folder).details == "PSNR 42.1 dB"
    assert compare(row | {"recorded_member": "gone.png"}, pixels, None, folder).details == "its file is gone"
    assert read_member(folder, "media/none.tar", "x") is None


def test_the_layout_of_an_output_stays_as_it_began(tmp_path: Path) -> None:
    Ledger(under_lease(Folder(str(tmp_path))), EXTRA)
    with pytest.raises(UserError, match=r"layout: webdataset, but output .* began with files; write `layout: files`"):
        Ledger(under_lease(Folder(str(tmp_path))), EXTRA, "webdataset")
