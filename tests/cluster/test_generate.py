"""The main job through the command line, on a real Ray cluster with real (small) checkpoints."""

import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.local_cluster import Cluster
from rendermill.manifests.schema import RECORD_COLUMNS, arrow_schema
from shapes.scenes import held_out_scenes, random_clip, random_picture
from shapes.scorer import compare
from tests.support.commands import ROOT, Finished, Rendermill

ROWS: list[dict[str, Any]] = [
    {"prompt": "a cat", "id": "cat", "model": "sana", "category": "animals"},
    {"prompt": "a dog", "id": "../dog/ü", "model": "sana", "seed": 5, "num_samples": 3, "width": 32},
    {"prompt": "a dog", "model": "sana", "negative_prompt": "blurry", "guidance_scale": 7.5, "score": 0.5},
    {"prompt": "a dog", "model": "sana", "negative_prompt": "blurry", "guidance_scale": 7.5, "score": 0.5},
    {"prompt": "a bird", "model": "sprint", "num_inference_steps": 1},
    {
        "prompt": f"a fish{' and a ship' * 300}",
        "id": "fish",
        "model": "wan",
        "fps": 23.976,
        "num_frames": 9,
        "guidance_scale_2": 2.0,
    },
    {"prompt": "夜の街 \x1b[31m", "model": "wan"},
]


@pytest.fixture(scope="module")
def first_run(
    tmp_path_factory: pytest.TempPathFactory, checkpoints: Path, cluster: Cluster
) -> Iterator[tuple[Rendermill, Finished]]:
    """One job over three models, run once; tests that only look share it."""
    rendermill = Rendermill(tmp_path_factory.mktemp("first"), checkpoints, cluster.environment, cluster)
    rendermill.model("sana", "sana-shapes")
    rendermill.model("sprint", "sana-sprint-shapes", format="webp")
    rendermill.model("wan", "wan-shapes")
    # no row names it, so it matters to nobody that the cluster could never hold it
    rendermill.model("idle", "wan-shapes", pool={"min_actors": 99, "max_actors": 99, "num_cpus": 1})
    rendermill.manifest(ROWS)
    yield rendermill, rendermill.generate()


def test_every_item_has_a_record_and_a_file(first_run: tuple[Rendermill, Finished]) -> None:
    rendermill, finished = first_run
    assert finished.status == 0, finished
    assert finished.error == ""
    assert "8 items finished, 0 failed, 0 rejected" in finished.out
    table = pq.read_table(rendermill.output / "metadata")
    extra = pa.schema([("category", pa.string()), ("score", pa.float64())])
    assert table.schema.equals(arrow_schema(RECORD_COLUMNS, extra))
    records = table.to_pylist()
    assert len({(record["id"], record["sample_index"]) for record in records}) == len(records) == 8
    media = {str(path.relative_to(rendermill.output)) for path in (rendermill.output / "media").rglob("*.*")}
    assert media == {record["path"] for record in records}
    for record in records:
        data = (rendermill.output / record["path"]).read_bytes()
        assert len(data) == record["bytes"]
        assert hashlib.sha256(data).hexdigest() == record["sha256"]
        assert b"digitalsourcetype/trainedAlgorithmicMedia" in data
        assert record["run_id"] == json.loads(next((rendermill.output / "runs").iterdir()).read_text())["run_id"]
        assert json.loads(record["environment"])["torch"]


def test_records_say_what_was_asked(first_run: tuple[Rendermill, Finished]) -> None:
    rendermill, _ = first_run
    records = {(record["id"], record["sample_index"]): record for record in rendermill.table("metadata")}
    assert records["cat", 0]["category"] == "animals"
    assert (records["cat", 0]["width"], records["cat", 0]["height"], records["cat", 0]["num_frames"]) == (64, 32, 1)
    dogs = [records["../dog/ü", index] for index in range(3)]
    assert [dog["seed"] for dog in dogs] == [5, 6, 7]
    assert len({dog["pixel_sha256"] for dog in dogs}) == 3
    assert dogs[0]["path"].startswith("media/sana/")
    assert "/..%2Fdog%2F%C3%BC-0." in dogs[0]["path"]
    (scored,) = (record for record in records.values() if record["score"] == 0.5)
    assert (scored["negative_prompt"], scored["guidance_scale"]) == ("blurry", 7.5)
    fish = records["fish", 0]
    assert (fish["scheduler"], fish["guidance_scale_2"]) == ("UniPCMultistepScheduler", 2.0)
    assert {item for item, record in records.items() if record["num_tokens_cut"] != 0} == {("fish", 0)}


def test_prompts_that_were_cut_are_told(first_run: tuple[Rendermill, Finished]) -> None:
    rendermill, finished = first_run
    (fish,) = (record for record in rendermill.table("metadata") if record["id"] == "fish")
    assert fish["num_tokens_cut"] > 100
    assert f"  1 prompt of wan was cut to 512 tokens, by {fish['num_tokens_cut']}\n" in finished.out
    assert "prompt of sana" not in finished.out
    (run,) = (rendermill.output / "runs").iterdir()
    assert json.loads(run.read_text())["num_prompts_cut"] == {"wan": 1}


def test_images_hold_the_pixels_of_their_record(first_run: tuple[Rendermill, Finished]) -> None:
    rendermill, _ = first_run
    for record in rendermill.table("metadata"):
        if record["format"] == "mp4":
            continue
        pixels = np.asarray(Image.open(rendermill.output / record["path"]))
        assert pixels.shape == (record["height"], record["width"], 3)
        if record["format"] == "png":
            assert hashlib.sha256(pixels.tobytes()).hexdigest() == record["pixel_sha256"]


def test_videos_play(first_run: tuple[Rendermill, Finished]) -> None:
    rendermill, _ = first_run
    videos = [record for record in rendermill.table("metadata") if record["format"] == "mp4"]
    assert len(videos) == 2
    for record in videos:
        path = rendermill.output / record["path"]
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert float(stream.average_rate) == pytest.approx(record["fps"], abs=1e-3)
            assert sum(1 for _ in container.decode(stream)) == record["num_frames"]
        data = path.read_bytes()
        assert data.index(b"moov") < data.index(b"mdat"), "not faststart"


def test_the_same_command_again_draws_nothing_and_a_changed_row_alone(
    first_run: tuple[Rendermill, Finished],
) -> None:
    rendermill, _ = first_run
    before = {(record["id"], record["sample_index"]): record for record in rendermill.table("metadata")}
    again = rendermill.generate()
    assert again.status == 0
    assert "to render: nothing; 8 finished before" in again.out
    changed = [dict(row, num_inference_steps=3) if row.get("id") == "cat" else row for row in ROWS]
    rendermill.manifest([row for row in changed if row["prompt"] != "a bird"])
    finished = rendermill.generate(deletion_delay="0.001s")
    assert "to render: sana 1; 6 finished before; 1 duplicate; 1 finished but no longer in the manifest" in finished.out
    after = {(record["id"], record["sample_index"]): record for record in rendermill.table("metadata")}
    assert {key for key in before if before[key] != after[key]} == {("cat", 0)}
    assert after.keys() == before.keys()
    assert after["cat", 0]["num_inference_steps"] == 3
    media = {str(path.relative_to(rendermill.output)) for path in (rendermill.output / "media").rglob("*.*")}
    assert media == {record["path"] for record in after.values()}, "the old picture should be gone"


def test_records_of_another_environment_are_kept_or_drawn_anew_or_stop_the_run(rendermill: Rendermill) -> None:
    rendermill.model("sana", "sana-shapes")
    rows = [{"id": str(index), "prompt": f"prompt {index}"} for index in range(3)]
    rendermill.manifest(rows[:2])
    assert rendermill.generate().status == 0
    for part in (rendermill.output / "metadata").glob("part-*"):
        made = pq.read_table(part).to_pylist()
        older = [row | {"environment": json.dumps(json.loads(row["environment"]) | {"torch": "1.0"})} for row in made]
        schema = pq.read_schema(part)
        schema = schema.remove(schema.get_field_index("num_tokens_cut"))  # as before there was this column
        pq.write_table(pa.Table.from_pylist(older, schema), part)
    rendermill.manifest(rows)

    def versions() -> list[str]:
        records = sorted(rendermill.table("metadata"), key=lambda record: record["id"])
        return [json.loads(record["environment"])["torch"] for record in records]

    installed = importlib.metadata.version("torch")
    stopped = rendermill.generate(on_environment_change="stop")
    assert (stopped.status, stopped.error.count("\n")) == (2, 1), stopped
    assert f"the environment changed since its records were made (sana: torch 1.0 → {installed})" in stopped.error
    kept = rendermill.generate()
    assert f"the environment changed since earlier records were made: sana: torch 1.0 → {installed}" in kept.out
    assert versions() == ["1.0", "1.0", installed]
    again = rendermill.generate(on_environment_change="rerender")
    assert "to render: sana 2; 1 finished before" in again.out
    assert versions() == [installed] * 3


def test_an_item_is_the_same_in_any_batch_pool_and_order_and_about_so_in_fast_mode(rendermill: Rendermill) -> None:
    rendermill.model("sana-bfloat16", "sana-shapes", dtype="bfloat16")
    rendermill.model("sana-float32", "sana-shapes", dtype="float32")
    rows = [
        {"id": f"{model}-{index}", "model": model, "prompt": f"prompt {index}", "guidance_scale": 3.0 + index}
        for model in rendermill.models
        for index in range(6)
    ]
    rendermill.manifest(rows)

    def pixels(name: str, batches: list[int | str], num_actors: int = 1, mode: str = "strict") -> dict[str, str]:
        for model, batch in zip(rendermill.models.values(), batches, strict=True):
            model["batch"] = batch
        first = next(iter(rendermill.models.values()))
        first["pool"] |= {"min_actors": num_actors, "max_actors": num_actors, "num_cpus": 0.2 / num_actors}
        finished = rendermill.generate(f"output={rendermill.folder / name}", f"reproducibility={mode}")
        assert finished.status == 0, finished
        records = rendermill.table("metadata", rendermill.folder / name)
        return {record["id"]: record["pixel_sha256"] for record in records}

    one_by_one = pixels("one", [1, 1])
    assert len(one_by_one) == len(set(one_by_one.values())) == len(rows)
    rendermill.manifest(rows[::-1])
    assert pixels("five", [5, "auto"], num_actors=2) == one_by_one

    del rendermill.models["sana-bfloat16"]
    rendermill.manifest([row for row in rows if row["model"] in rendermill.models])
    pixels("fast", [3], mode="fast")
    fast, strict = (
        {record["id"]: record for record in rendermill.table("metadata", rendermill.folder / name)}
        for name in ("fast", "one")
    )
    assert {record["batch_size"] for record in fast.values()} <= {1, 2, 3}
    for item, record in fast.items():
        ours = read_frames(rendermill.folder / "fast" / record["path"]).astype(int)
        theirs = read_frames(rendermill.folder / "one" / strict[item]["path"]).astype(int)
        assert np.abs(ours - theirs).max() <= 1, "another batch may round otherwise, from the same noise"


def test_the_demo(rendermill: Rendermill, tmp_path: Path) -> None:
    finished = rendermill.run_on_terminal("generate", "examples/demo.yaml", f"output={rendermill.output}")
    assert finished.status == 0, finished
    lines = [line for line in re.split(r"[\r\n]+", finished.out) if line.strip()]
    assert lines[0] == "to render: sana 64, wan 12"
    for model, num_items in (("sana", 64), ("wan", 12)):
        bars = [line for line in lines if line.startswith(model) and "━" in line]
        assert any(f"{num_items}/{num_items}" in bar for bar in bars)
    assert "76 items finished, 0 failed, 0 rejected" in lines
    assert {line.split()[0] for line in lines} <= {"to", "sana", "wan", "sana:", "wan:", "76", "output:"}
    records = {record["id"]: record for record in rendermill.table("metadata")}
    assert Counter(record["model"] for record in records.values()) == {"sana": 64, "wan": 12}
    frames = {item: read_frames(rendermill.output / record["path"]) for item, record in records.items()}
    assert {len(frames[item]) for item, record in records.items() if record["model"] == "wan"} == {17}

    for model, make, num_scenes, num_right in (("sana", random_picture, 32, 30), ("wan", random_clip, 6, 4)):
        scenes = held_out_scenes(make, num_scenes)
        verdicts = [compare(scene, frames[f"shapes-{model}-{index:02d}"]) for index, scene in enumerate(scenes)]
        assert sum(all(verdict.values()) for verdict in verdicts) >= num_right, verdicts

    picture = tmp_path / "demo.png"
    subprocess.run([sys.executable, "-m", "examples.make_picture", rendermill.output, picture], cwd=ROOT, check=True)
    Image.open(picture).load()


def read_frames(path: Path) -> np.ndarray:
    if path.suffix == ".png":
        return np.asarray(Image.open(path))[None]
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_pool_grows_while_chunks_wait(rendermill: Rendermill) -> None:
    defaults = {"num_inference_steps": 20, "width": 128, "height": 128}
    rendermill.model("sana", "sana-shapes", defaults=defaults, pool={"min_actors": 1, "max_actors": 2})
    rendermill.manifest([{"id": str(index), "prompt": f"prompt {index}"} for index in range(64)])
    finished = rendermill.generate()
    assert finished.status == 0, finished
    assert ", 2 actors at work " in finished.out
