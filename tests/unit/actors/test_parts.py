"""The pure parts: media encoding, manifest rows, what belongs to a checkpoint."""

import io
import json
import shutil
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image

from rendermill.actors.checkpoints import checkpoint as checkpoint_store
from rendermill.actors.media.encoders import decode, encode
from rendermill.actors.media.encoding import FORMATS, Encoding, Format, formats_of
from rendermill.actors.media.provenance import DIGITAL_SOURCE_TYPE
from rendermill.manifests.errors import RowProblem
from rendermill.manifests.rows import RowValidator
from rendermill.manifests.schema import ModelContract
from rendermill.models.capabilities import Capabilities
from rendermill.models.registry import FAMILIES


@pytest.mark.parametrize(("media_format", "tolerance"), [("png", 0), ("webp", 12), ("jpeg", 12)])
def test_images_round_trip(media_format: str, tolerance: int) -> None:
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    frames = np.broadcast_to(ramp[None, None, :, None], (1, 32, 64, 3)).copy()
    image = Image.open(io.BytesIO(encode(frames, Encoding(media_format))))
    assert image.format == media_format.upper()
    assert np.abs(np.asarray(image).astype(int) - frames[0]).max() <= tolerance
    if media_format != "png":
        assert len(encode(frames, Encoding(media_format, 20))) < len(encode(frames, Encoding(media_format, 95)))


def test_an_image_format_is_a_line_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "avif", Format("image", "avif", quality_range=(1, 100), default_quality=90))
    frames = np.full((1, 32, 64, 3), 100, np.uint8)
    data = encode(frames, Encoding("avif", has_provenance=True), record=RECORD)
    assert Image.open(io.BytesIO(data)).format == "AVIF"
    assert b"DPMSolverMultistepScheduler" in data
    assert np.abs(decode(data, "avif").astype(int) - frames).max() <= 2
    assert formats_of("image") == ("png", "webp", "jpeg", "avif")


def test_videos_keep_frames_rate_and_are_the_same_every_time() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (9, 32, 48, 3), np.uint8)
    data = encode(frames, Encoding("mp4"), 29.97)
    assert data == encode(frames, Encoding("mp4"), 29.97)
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (48, 32, Fraction(30000, 1001))
        assert len(list(container.decode(stream))) == 9
    assert len(encode(frames, Encoding("mp4", 40), 29.97)) < len(data)


RECORD = {
    "id": "a",
    "sample_index": 0,
    "model": "sana",
    "checkpoint": "owner/sana",
    "revision": None,
    "prompt": 'a "cat" & <dog> \x07 夜',
    "negative_prompt": None,
    "seed": 2**63 - 1,
    "num_inference_steps": 20,
    "guidance_scale": 4.5,
    "guidance_scale_2": None,
    "arguments": None,
    "inputs": None,
    "scheduler": "DPMSolverMultistepScheduler",
    "request_hash": "00" * 16,
}


@pytest.mark.parametrize("media_format", ["png", "webp", "jpeg"])
def test_an_image_says_how_it_was_made_and_has_the_same_pixels(media_format: str) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (1, 32, 64, 3), np.uint8)
    data = encode(frames, Encoding(media_format, has_provenance=True), record=RECORD)
    plain = encode(frames, Encoding(media_format), record=RECORD)
    np.testing.assert_array_equal(decode(data, media_format), decode(plain, media_format))
    assert not Image.open(io.BytesIO(plain)).info.get("xmp")
    packet = ElementTree.fromstring(Image.open(io.BytesIO(data)).info["xmp"])
    said = {element.tag.rpartition("}")[2]: element.text for element in packet.iter()}
    assert said["DigitalSourceType"] == DIGITAL_SOURCE_TYPE
    assert said["AISystemUsed"] == "owner/sana"
    assert said["AIPromptInformation"] == 'a "cat" & <dog> \ufffd 夜'
    assert json.loads(said["li"])["seed"] == 2**63 - 1
    long = encode(frames, Encoding(media_format, has_provenance=True), record=RECORD | {"prompt": "x" * 70_000})
    assert b"DPMSolverMultistepScheduler" in long, "a prompt that is too long costs nothing but itself"


def test_a_video_says_how_it_was_made() -> None:
    frames = np.zeros((5, 32, 48, 3), np.uint8)
    with av.open(io.BytesIO(encode(frames, Encoding("mp4", has_provenance=True), 16.0, RECORD))) as container:
        said = json.loads(container.metadata["comment"])
    assert (said["prompt"], said["digital_source_type"]) == (RECORD["prompt"], DIGITAL_SOURCE_TYPE)
    assert "negative_prompt" not in said


def validator() -> RowValidator:
    defaults = FAMILIES["SanaPipeline"].defaults
    return RowValidator(
        {"sana": ModelContract(defaults, Capabilities("image", size_multiple=32).problem, "00")}, "sana", 7
    )


def test_rows_as_pandas_writes_them() -> None:
    item = validator().item({"prompt": "a cat", "id": 12, "seed": 5.0, "width": 512.0, "guidance_scale": 3})
    fields = item.settled.fields
    assert (item.id, item.samples[0].seed, fields["width"], fields["guidance_scale"]) == ("12", 5, 512, 3.0)
    with pytest.raises(RowProblem, match="too large to be exact"):
        validator().item({"prompt": "a cat", "seed": 2.0**60})


def test_an_id_is_given_by_content_and_changes_with_it() -> None:
    first = validator().item({"prompt": "a cat", "width": 512, "tag": "x"})
    same = validator().item({"tag": "x", "prompt": "a cat", "width": 512.0, "seed": None})
    other = validator().item({"prompt": "a cat", "width": 512, "tag": "y"})
    assert first == same
    assert first.id != other.id


def test_a_checkpoints_identity_is_its_weights_and_configs(checkpoints: Path, tmp_path: Path) -> None:
    copy = tmp_path / "sana"
    shutil.copytree(checkpoints / "sana-shapes", copy)
    (copy / "README.md").write_text("a model card")
    original = checkpoint_store.describe(str(checkpoints / "sana-shapes"), None)
    assert checkpoint_store.describe(str(copy), None).identity == original.identity
    assert checkpoint_store.describe(f"file://{copy}", None).identity == original.identity
    config = copy / "scheduler/scheduler_config.json"
    config.write_text(config.read_text().replace('"flow_shift": 3.0', '"flow_shift": 5.0'))
    assert checkpoint_store.describe(str(copy), None).identity != original.identity
