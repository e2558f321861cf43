"""Tables of requests, whose inputs are read ahead of the actors."""

import hashlib
import io
import json
import os

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from rendermill.actors.media.inputs.options import BadInput, InputOptions
from rendermill.actors.media.inputs.packing import packed, unpacked
from rendermill.actors.media.inputs.sources.cache import InputCache
from rendermill.actors.media.inputs.sources.fetch import Fetcher, Wanted
from rendermill.actors.media.inputs.step import InputStep
from rendermill.actors.services.guard import Guard
from rendermill.manifests.schema import DECODED_PREFIX, INPUT_ERROR, INPUT_PREFIX
from rendermill.models.inputs import InputSpec, Media


def _png(colour, size=(8, 4)):
    sink = io.BytesIO()
    Image.new("RGB", size, colour).save(sink, "PNG")
    return sink.getvalue()


def _read(folder, specs, inputs, contents=None, **options):
    """Read the inputs of requests for 8 x 4 pixels; return a dictionary for each row."""
    table = {
        "request_hash": [str(number) for number in range(len(inputs))],
        "width": [8] * len(inputs),
        "height": [4] * len(inputs),
        "num_frames": [1] * len(inputs),
        "fps": pa.array([None] * len(inputs), pa.float64()),
        "inputs": pa.array([json.dumps(given) if given else None for given in inputs], pa.string()),
        "own": list(range(len(inputs))),
    }
    for name, column in (contents or {}).items():
        table[INPUT_PREFIX + name] = column
    rules = InputOptions(str(folder), **options)
    step = InputStep(specs, rules, Fetcher(rules, "run"), Guard(None, "read the inputs of"))
    return [row for part in step.read(pa.table(table)) for row in part.to_pylist()]


def _pixels(row, name):
    return np.asarray(unpacked(memoryview(row[DECODED_PREFIX + name])).frames)


def test_files_beside_the_manifest_and_in_it(tmp_path):
    red, blue = _png("red"), _png("blue")
    (tmp_path / "red.png").write_bytes(red)
    digest = hashlib.sha256(blue).hexdigest()
    given = [{"image": {"url": "red.png"}}, {"image": {"sha256": digest, "path": "b.png"}}, None]
    contents = {"image": pa.array([None, blue, None], pa.large_binary())}
    rows = _read(tmp_path, {"image": InputSpec("image")}, given, contents)
    assert [row[INPUT_ERROR] for row in rows] == [None] * 3
    assert [_pixels(row, "image")[0, 0].tolist() for row in rows[:2]] == [[255, 0, 0], [0, 0, 255]]
    assert [json.loads(row["inputs"]) for row in rows[:2]] == [
        {"image": {"url": "red.png", "sha256": hashlib.sha256(red).hexdigest(), "width": 8, "height": 4}},
        {"image": {"sha256": digest, "path": "b.png", "width": 8, "height": 4}},
    ]
    assert (rows[2]["inputs"], rows[2][DECODED_PREFIX + "image"]) == (None, None)
    assert not any(name.startswith(INPUT_PREFIX) for name in rows[0])


def test_a_bad_input_costs_its_row(tmp_path):
    (tmp_path / "good.png").write_bytes(_png("red"))
    (tmp_path / "bad.png").write_bytes(b"<html>")
    (tmp_path / "large.png").write_bytes(_png("red", (16, 16)))
    names = ["good.png", "bad.png", "missing.png", "large.png", "/etc/passwd"] * 40  # more than are taken together
    rows = _read(tmp_path, {"image": InputSpec("image")}, [{"image": {"url": name}} for name in names])
    assert [row["own"] for row in rows] == list(range(200))
    errors = [json.loads(row[INPUT_ERROR]) if row[INPUT_ERROR] else None for row in rows[-5:]]
    assert errors[0] is None
    assert {kind for kind, _ in errors[1:]} == {"BadInput"}
    words = ("image: bad.png: it is an HTML page", "No such file", "large.png: it has 16 x 16", "outside the places")
    assert all(some in text for some, (_, text) in zip(words, errors[1:], strict=True))
    assert json.loads(rows[1]["inputs"]) == {"image": {"url": "bad.png"}}


def test_several_inputs_and_lists(tmp_path):
    specs = {
        "image": InputSpec("image"),
        "mask_image": InputSpec("mask"),
        "reference_images": InputSpec("images", is_required=False, has_size_of_output=False),
    }
    (tmp_path / "a.png").write_bytes(_png("red", (3, 5)))
    given = {
        "image": {"url": "a.png"},
        "mask_image": {"url": "a.png"},
        "reference_images": [{"url": "a.png"}, {"sha256": "", "path": None}],
    }
    contents = {"reference_images": pa.array([[None, _png("lime", (2, 2))]], pa.list_(pa.large_binary()))}
    (row,) = _read(tmp_path, specs, [given], contents, fit="stretch")
    assert [_pixels(row, name).shape for name in ("image", "mask_image")] == [(4, 8, 3), (4, 8)]
    media = unpacked(memoryview(row[DECODED_PREFIX + "reference_images"]))
    assert [picture.shape for picture in media.frames] == [(5, 3, 3), (2, 2, 3)]
    assert [entry["height"] for entry in json.loads(row["inputs"])["reference_images"]] == [5, 2]


@pytest.mark.parametrize(
    "media",
    [
        Media("video", np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3), 16.0, "ab"),
        Media("images", [np.ones((1, 2, 3), np.uint8), np.zeros((2, 1, 3), np.uint8)]),
    ],
)
def test_packed_media_are_the_same(media):
    again = unpacked(memoryview(packed(media)))
    assert (again.kind, again.fps, again.sha256) == (media.kind, media.fps, media.sha256)
    assert all(np.array_equal(one, other) for one, other in zip(again.frames, media.frames, strict=True))


def test_a_url_of_many_rows_is_fetched_once(tmp_path):
    store = fsspec.filesystem("memory")
    store.pipe_file("/inputs/a.png", _png("red"))
    rules = InputOptions(str(tmp_path), allow=("memory://inputs/",))
    fetcher = Fetcher(rules, "run", InputCache(tmp_path / "cache", 10**6, 30.0))
    first = fetcher.fetch(Wanted("memory://inputs/a.png"))
    store.pipe_file("/inputs/a.png", _png("blue"))
    assert fetcher.fetch(Wanted("memory://inputs/a.png")) == first  # within a run, a URL has one content
    later = Fetcher(rules, "next run", InputCache(tmp_path / "cache", 10**6, 30.0))
    assert later.fetch(Wanted("memory://inputs/a.png")) == _png("blue")


def test_the_url_to_read_never_stands_in_a_record(tmp_path):
    for name in ("good.png", "bad.png"):
        (tmp_path / name).write_bytes(_png("red") if name == "good.png" else b"")
    given = [{"image": {"url": "***", "place": name}} for name in ("good.png", "bad.png")]
    good, bad = _read(tmp_path, {"image": InputSpec("image")}, given)
    assert json.loads(good["inputs"])["image"].keys() == {"url", "sha256", "width", "height"}
    assert json.loads(bad["inputs"]) == {"image": {"url": "***"}}
    assert json.loads(bad[INPUT_ERROR])[1] == "image: ***: the file is empty"


def test_files_larger_than_allowed(tmp_path):
    (tmp_path / "large.bin").write_bytes(bytes(101))
    fsspec.filesystem("memory").pipe_file("/inputs/large.bin", bytes(101))
    fetcher = Fetcher(InputOptions(str(tmp_path), allow=("memory://inputs/",), max_bytes=100), "run")
    for url in ("large.bin", "memory://inputs/large.bin"):
        with pytest.raises(BadInput, match="than the 100 bytes"):
            fetcher.fetch(Wanted(url))


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    fetcher = Fetcher(InputOptions(str(tmp_path)), "run")
    for name in ("pipe.png", "."):
        with pytest.raises(BadInput, match=r"is not a file|Is a directory"):
            fetcher.fetch(Wanted(name))
