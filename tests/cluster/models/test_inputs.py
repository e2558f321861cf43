"""Images as inputs, on their way from the manifest to the model and the record; bad ones cost their rows."""

import hashlib
import io
import json

import numpy as np
import pyarrow as pa
from PIL import Image

from tests.support.commands import Rendermill


def _picture(level: int, size: int = 8) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (size, size), (level, 100, 50)).save(sink, "PNG")
    return sink.getvalue()


def test_images_reach_the_model_and_bad_ones_cost_their_rows(rendermill: Rendermill) -> None:
    folder = rendermill.folder
    (folder / "blank").mkdir()
    (folder / "blank" / "model_index.json").write_text(json.dumps({"_class_name": "BlankPipeline"}))
    (folder / "pictures").mkdir()
    for level in (10, 20):
        (folder / "pictures" / f"{level}.png").write_bytes(_picture(level))
    (folder / "pictures" / "login.png").write_bytes(b"<!doctype html>")
    (folder / "pictures" / "large.png").write_bytes(_picture(30, 64))
    secret = folder.parent / "secret.png"
    secret.write_bytes(_picture(40))
    named = {
        "first": {"path": "pictures/10.png"},
        "again": {"path": "pictures/10.png"},
        "absolute": {"path": str(folder / "pictures" / "20.png")},
        "inline": {"bytes": _picture(50), "path": "50.png"},
        "none": None,
        "login": {"path": "pictures/login.png"},
        "large": {"path": "pictures/large.png"},
        "missing": {"path": "pictures/missing.png"},
        "outside": {"path": "../secret.png"},
        "metadata": {"path": "https://169.254.169.254/latest/meta-data"},
    }
    images = pa.array(named.values(), pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    rendermill.manifest(pa.table({"id": [*named], "prompt": ["a square"] * len(named), "image": images}))
    rendermill.model("blank", str(folder / "blank"), defaults={"width": 8, "height": 8, "num_inference_steps": 1})
    finished = rendermill.generate(max_failure_rate="100 %")
    assert "5 items finished, 5 failed, 0 rejected" in finished.out, finished
    records = {row["id"]: row for row in rendermill.table("metadata")}
    pixels = {name: np.asarray(Image.open(rendermill.output / row["path"]))[0, 0, 0] for name, row in records.items()}
    expected = {"first": 10, "again": 10, "absolute": 20, "inline": 50}
    assert {name: pixels[name] for name in expected} == expected
    sha256 = hashlib.sha256(_picture(10)).hexdigest()
    assert (
        json.loads(records["first"]["inputs"])["image"].items() >= {"sha256": sha256, "width": 8, "height": 8}.items()
    )
    assert records["none"]["inputs"] is None
    errors = {row["id"]: row["error"] for row in rendermill.table("failures")}
    assert "an HTML page" in errors["login"]
    assert "it has 64 x 64 pixels, and the request 8 x 8" in errors["large"]
    assert "No such file" in errors["missing"]
    assert "outside the places of inputs" in errors["outside"]
    assert "the address 169.254.169.254, which is not public" in errors["metadata"]
    cropped = rendermill.generate("inputs.fit=crop", max_failure_rate="100 %")
    assert "6 items finished, 4 failed" in cropped.out, cropped
