"""`rendermill verify` and `audit`, on an output whose noise was made to depend on the batch, and on changed inputs."""

import hashlib
import io
import json

import pyarrow as pa
from PIL import Image

from tests.support.commands import Rendermill, sabotaged_by


def test_pixels_that_depend_on_the_batch_and_files_that_are_damaged_are_found(rendermill: Rendermill) -> None:
    rendermill.model("sana", "sana-shapes", batch=2, reference_batch=2)
    rendermill.manifest([{"id": str(index), "prompt": f"prompt {index}"} for index in range(8)])
    job = rendermill.write_job(audit="100 %", profile="/proc/nowhere")
    audited = rendermill.run("generate", job, **sabotaged_by("broken_noise"))
    assert audited.status == 3, audited
    assert "audit: 8 of 8 chosen items were rendered twice, 8 came out different" in audited.out
    assert "profile /proc/nowhere: cannot be written, so later runs learn anew: " in audited.out
    (run_file,) = (rendermill.output / "runs").glob("*.json")
    found = json.loads(run_file.read_text())["found"]["audit"]["different"][0]
    assert (found["first"]["batch_size"], found["second"]["batch_size"]) == (2, 1)

    sound = rendermill.run("verify", rendermill.output)
    assert sound.status == 0, sound
    assert "files: 8 of 8 are as recorded" in sound.out

    rendered_again = rendermill.run("verify", rendermill.output, "--sample", "3", "--model", "sana")
    assert rendered_again.status == 3, rendered_again
    assert "rendered again: 3 with other pixels, in the same environment" in rendered_again.out
    assert "PSNR" in rendered_again.out

    missing, damaged = sorted(rendermill.output.glob("media/**/*.png"))[:2]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    missing.rename(missing.with_name("no record names this.png"))
    broken = rendermill.run("verify", rendermill.output, "--json")
    assert broken.status == 3, broken
    report = json.loads(broken.out)
    assert [report[kind]["num"] for kind in ("missing", "damaged", "without_record", "unreadable")] == [1, 1, 1, 0]
    assert report["without_record"]["examples"][0].endswith("no record names this.png")

    left = rendermill.run("generate", job)
    assert "to render: nothing; 8 finished before" in left.out
    assert (
        "1 records have lost their media, and 0 have files of another size; to render these items again: " in left.out
    )
    repaired = rendermill.run("verify", job, "--repair", "--json")
    report = json.loads(repaired.out)
    assert report["repaired"] == {"num_dropped": 2, "num_noted": 0, "num_left": 1}
    assert repaired.status == 3, "a file that somebody else put there is left"
    missing.with_name("no record names this.png").unlink()
    assert len(rendermill.table("metadata")) == 6
    planned = json.loads(rendermill.run("plan", job, "--json").out)
    assert [(shape["num_to_do"], shape["num_finished"]) for shape in planned["shapes"]] == [(2, 6)]
    for run in (rendermill.output / "runs").glob("*.json"):
        run.write_text("{}")
    repaired_run = rendermill.run("verify", rendermill.output, "--sample", "1")
    assert repaired_run.status == 0, repaired_run
    assert "files: 6 of 6 are as recorded" in repaired_run.out
    assert "rendered again: 1 not tried: their job, checkpoint or settings are gone" in repaired_run.out


def test_what_is_no_output_or_has_no_such_model_is_said_in_a_line(rendermill: Rendermill) -> None:
    finished = rendermill.run("verify", rendermill.folder)
    assert (finished.status, len(finished.error.splitlines())) == (2, 1)
    assert "so it is no output of rendermill" in finished.error


def _png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (level, 100, 50)).save(file, "PNG")
    return file.getvalue()


def _manifest(first: bytes) -> pa.Table:
    """A manifest with images in the struct of Hugging Face's `datasets`."""
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    photos = [{"bytes": first, "path": "first.png"}, {"bytes": None, "path": "pictures/second.png"}, None]
    return pa.table(
        {
            "id": ["bytes", "path", "none"],
            "prompt": ["a cat"] * 3,
            "photo": pa.array(photos, struct),
            "image_sha256": [None, _sha256(20), None],
        }
    )


def _sha256(level: int) -> str:
    return hashlib.sha256(_png(level)).hexdigest()


def test_inputs_that_changed_since_are_told(rendermill: Rendermill) -> None:
    folder = rendermill.folder
    (folder / "blank").mkdir()
    (folder / "blank" / "model_index.json").write_text(json.dumps({"_class_name": "BlankPipeline"}))
    rendermill.model("blank", str(folder / "blank"), defaults={"width": 16, "height": 16, "num_inference_steps": 1})
    (folder / "pictures").mkdir()
    (folder / "pictures" / "second.png").write_bytes(_png(20))
    rendermill.manifest(_manifest(_png(10)))
    job = rendermill.write_job(columns={"photo": "image"})
    planned = json.loads(rendermill.run("plan", job, "--json").out)
    assert planned["inputs"] == {"num": 2, "num_distinct": 2, "num_inline_bytes": len(_png(10))}
    finished = rendermill.run("generate", job)
    assert finished.status == 0, finished
    records = {record["id"]: record for record in rendermill.table("metadata")}
    assert not {"photo", "image", "image_sha256"} & records["bytes"].keys(), "records do not carry inputs"
    read = {name: json.loads(record["inputs"] or "null") for name, record in records.items()}
    second = {"url": "pictures/second.png", "sha256": _sha256(20), "sha256_is_given": True}
    size = {"width": 16, "height": 16}
    assert read == {
        "bytes": {"image": {"sha256": _sha256(10)} | size},
        "path": {"image": second | size},
        "none": None,
    }

    sound = rendermill.run("verify", rendermill.output, "--inputs", "--sample", "3")
    assert sound.status == 0, sound
    assert "inputs: 1 of 1 are as they were" in sound.out
    assert "rendered again: 2 with the same pixels" in sound.out
    assert "rendered again: 1 not tried: the manifest itself held their images" in sound.out
    (folder / "pictures" / "second.png").write_bytes(_png(30))
    changed = rendermill.run("verify", rendermill.output, "--inputs")
    assert changed.status == 3, changed
    assert "inputs that have changed: 1\n  path (sample 0): image pictures/second.png has the sha256 " in changed.out

    rendermill.manifest(_manifest(_png(40)))
    again = json.loads(rendermill.run("plan", job, "--json").out)
    assert sum(shape["num_changed"] for shape in again["shapes"]) == 1, "bytes count by content, and a path by its text"
