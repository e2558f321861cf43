"""What a pipeline returns beside the pixels that were asked for: the sound of a video, and other sizes."""

import hashlib
import io
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest

from rendermill.actors.engine.outcome import Outcome, failed
from rendermill.actors.media.encoders import decode, encode
from rendermill.actors.media.encoding import Encoding
from rendermill.actors.media.rendered_table import rendered_table
from rendermill.actors.media.sound import Sound, from_column
from rendermill.actors.media.store import store
from rendermill.actors.services.guard import Guard
from rendermill.jobs.verification.compare import RECORDED, compare
from rendermill.manifests.output.records import as_requested
from rendermill.manifests.schema import AUDIO, FRAMES, REQUEST_COLUMNS, arrow_schema, receipt_schema
from rendermill.manifests.storage.folder import Folder
from tests.support.requests import request_for

FRAMES_OF_CLIP = np.random.default_rng(0).integers(0, 255, (5, 32, 48, 3), np.uint8)
REQUEST = request_for("a bell", 1, id="bell", width=48, height=32, num_frames=5, fps=10.0, request_hash="00" * 16)
RECEIPTS = receipt_schema(pa.schema([]))
CONSTANTS = {"checkpoint": "c", "revision": None, "scheduler": "s", "run_id": "r", "device": "d", "environment": "{}"}


def tone(rate: int, num_channels: int, seconds: float = 0.5) -> np.ndarray:
    """A tone of 440 Hz, in every channel another loudness."""
    wave = np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
    return np.stack([wave * 0.8 / (1 + channel) for channel in range(num_channels)]).astype(np.float32)


def decoded_sound(data: bytes) -> Sound:
    with av.open(io.BytesIO(data)) as container:
        (stream,) = container.streams.audio
        parts = [frame.to_ndarray() for frame in container.decode(stream)]
        assert stream.codec_context.name == "aac"
        return Sound(np.concatenate(parts, axis=1), stream.rate)


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize(("rate", "stored_rate"), [(24_000, 24_000), (44_100, 44_100), (16_001, 48_000)])
def test_a_video_sounds_as_it_was_rendered(num_channels: int, rate: int, stored_rate: int) -> None:
    sound = Sound(tone(rate, num_channels), rate)
    data = encode(FRAMES_OF_CLIP, Encoding("mp4"), 10.0, audio=sound)
    stored = decoded_sound(data)
    assert (len(stored.samples), stored.rate) == (num_channels, stored_rate)
    expected = tone(stored_rate, num_channels)
    middle = slice(stored_rate // 10, 4 * stored_rate // 10)
    spectrum = np.abs(np.fft.rfft(stored.samples[:, middle]))
    frequencies = np.fft.rfftfreq(stored.samples[:, middle].shape[1], 1 / stored_rate)
    assert np.abs(frequencies[spectrum.argmax(axis=1)] - 440).max() < 5
    loudness = np.sqrt((stored.samples[:, middle] ** 2).mean(axis=1) / (expected[:, middle] ** 2).mean(axis=1))
    assert np.abs(loudness - 1).max() < 0.05
    assert abs(stored.samples.shape[1] / stored_rate - 0.5) < 0.1
    assert decode(data, "mp4").shape == FRAMES_OF_CLIP.shape
    again = decoded_sound(encode(FRAMES_OF_CLIP, Encoding("mp4"), 10.0, audio=sound))
    np.testing.assert_array_equal(again.samples, stored.samples)


def outcome(**changes: Any) -> Outcome:
    return Outcome(REQUEST, 1, datetime.now(UTC), 1.0, 1, **{"frames": FRAMES_OF_CLIP, **changes})


def rendered(*outcomes: Outcome) -> pa.Table:
    rows = pa.Table.from_pylist([asdict(outcome.request) for outcome in outcomes], arrow_schema(REQUEST_COLUMNS))
    return rendered_table(rows, outcomes, CONSTANTS)


def receipts_of(folder: Path, *outcomes: Outcome, media_format: str = "mp4") -> list[dict[str, Any]]:
    guard = Guard(None, "encoded")
    table = store(rendered(*outcomes), Folder(str(folder)), Encoding(media_format), RECEIPTS, guard, guard)
    return table.to_pylist()


def test_a_record_has_the_hash_of_the_sound_and_the_sizes_of_the_frames(tmp_path: Path) -> None:
    samples = tone(24_000, 2)
    larger = replace(REQUEST, id="larger", width=60, height=40, num_frames=7)
    bell, other, broken, silent = receipts_of(
        tmp_path,
        outcome(audio=samples, audio_rate=24_000),
        replace(outcome(), request=larger),
        failed(larger, "ValueError", "no", 1),
        outcome(audio=tone(24_000, 3), audio_rate=24_000),
    )
    assert bell["audio_sha256"] == hashlib.sha256(samples.tobytes()).hexdigest()
    assert bell["pixel_sha256"] == hashlib.sha256(FRAMES_OF_CLIP.tobytes()).hexdigest()
    assert bell["requested_sizes"] is None
    assert decoded_sound((tmp_path / bell["path"]).read_bytes()).rate == 24_000
    assert [other[name] for name in ("width", "height", "num_frames", "audio_sha256")] == [48, 32, 5, None]
    assert json.loads(other["requested_sizes"]) == {"width": 60, "height": 40, "num_frames": 7}
    assert decode((tmp_path / other["path"]).read_bytes(), "mp4").shape == (5, 32, 48, 3)
    asked = as_requested(other)
    assert {name: asked[name] for name in asdict(larger)} == asdict(larger), "it can be asked for again"
    assert (broken["error_type"], broken["width"], broken["requested_sizes"]) == ("ValueError", 60, None)
    assert silent["error"] == "the sound has 3 channels; mp4 files are written with 1 or 2"


def test_another_sound_is_found_when_an_item_is_rendered_again(tmp_path: Path) -> None:
    (record,) = receipts_of(tmp_path, outcome(audio=tone(24_000, 1), audio_rate=24_000))
    verdicts = []
    for samples in (tone(24_000, 1), tone(24_000, 1) * 0.5, None):
        table = rendered(outcome(audio=samples, audio_rate=24_000))
        row = table.drop_columns([FRAMES, AUDIO]).to_pylist()[0]
        row |= {f"recorded_{name}": record[name] for name in RECORDED}
        found = compare(row, table[FRAMES][0], from_column(table[AUDIO][0]), Folder(str(tmp_path)))
        verdicts.append((found.verdict, found.is_different))
    other = ("with another sound, in the same environment", True)
    assert verdicts == [("with the same pixels", False), other, other]
