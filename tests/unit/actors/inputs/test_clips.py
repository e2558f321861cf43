"""Videos of every kind, and those that are none."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from rendermill.actors.media.inputs.options import BadInput
from rendermill.actors.media.inputs.videos import decode_clip
from rendermill.actors.media.video import decode_mp4, encode_mp4

_LEVELS = [20 * number for number in range(12)]


def _clip(times=None, fps=16, size=(48, 32), **stream_options):
    """A video whose frame k has the grey level 20 k, with a timestamp of times[k] ms, if they are given."""
    if times is None and not stream_options:
        width, height = size
        return encode_mp4(np.stack([np.full((height, width, 3), level, np.uint8) for level in _LEVELS]), fps, 5, None)
    sink = io.BytesIO()
    with av.open(sink, "w", format=stream_options.pop("container", "matroska")) as container:
        stream = container.add_stream(stream_options.pop("codec", "libx264"), rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = stream_options.pop("pix_fmt", "yuv420p")
        stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in stream_options.items():
            setattr(stream.codec_context, name, value)
        for number, level in enumerate(_LEVELS):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = (times or [62 * k for k in range(12)])[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return sink.getvalue()


def _levels(clip):
    return [round(float(frame.mean()) / 20) for frame in clip.frames]


def _unchanged(image):
    return image


def test_the_same_frames_as_were_encoded():
    data = _clip()
    clip = decode_clip(data, 12, 16.0, _unchanged)
    assert np.array_equal(clip.frames, decode_mp4(data))
    assert (clip.fps, clip.size) == (16.0, (48, 32))


@pytest.mark.parametrize(
    ("num_frames", "fps", "expected"),
    [
        (5, 16.0, [0, 1, 2, 3, 4]),
        (6, 8.0, [0, 2, 4, 6, 8, 10]),
        (5, 32.0, [0, 0, 1, 1, 2]),
        (5, None, [0, 1, 2, 3, 4]),
    ],
)
def test_frames_nearest_in_time(num_frames, fps, expected):
    assert _levels(decode_clip(_clip(), num_frames, fps, _unchanged)) == expected


def test_variable_frame_rate():
    """A second at 10 frames per second and a pause, after which the timestamps begin anywhere."""
    times = [5000 + time for time in (0, 100, 200, 300, 900, 1000, 1040, 1080, 1120, 1160, 1200, 1240)]
    assert _levels(decode_clip(_clip(times), 13, 10.0, _unchanged)) == [0, 1, 2, 3, 3, 3, 3, 4, 4, 4, 5, 7, 10]


def test_timestamps_rounded_to_milliseconds():
    times = [round(number * 1000 / 30) for number in range(12)]
    assert _levels(decode_clip(_clip(times, fps=30), 12, 30.0, _unchanged)) == list(range(12))


@pytest.mark.parametrize(("container", "codec"), [("matroska", "ffv1"), ("avi", "mpeg4"), ("mpegts", "libx264")])
def test_other_containers_and_codecs(container, codec):
    data = _clip(container=container, codec=codec, fps=25)
    assert _levels(decode_clip(data, 4, None, _unchanged)) == [0, 1, 2, 3]


def test_rotation():
    """The matrix in the header says that the frames are to be turned clockwise by a quarter, as phones write it."""
    frames = np.zeros((2, 32, 48, 3), np.uint8)
    frames[:, :, :24] = 200  # the left half is bright, which the turn moves to the top
    data = bytearray(encode_mp4(frames, 16, 5, None))
    start = data.index(b"tkhd") + 44
    one = (1 << 16).to_bytes(4, "big")
    minus_one, zero = (-(1 << 16)).to_bytes(4, "big", signed=True), bytes(4)
    data[start : start + 36] = b"".join(
        [zero, one, zero, minus_one, zero, zero, zero, zero, (1 << 30).to_bytes(4, "big")]
    )
    clip = decode_clip(bytes(data), 2, 16.0, _unchanged)
    assert clip.frames.shape == (2, 48, 32, 3)
    assert clip.frames[0, :20].mean() > 150 > 50 > clip.frames[0, -20:].mean()


def test_masks_are_grey():
    clip = decode_clip(_clip(), 3, 16.0, lambda image: image.convert("L"))
    assert clip.frames.shape == (3, 32, 48)


def test_full_range():
    data = _clip(codec="mjpeg", pix_fmt="yuvj420p", color_range=2)
    assert _levels(decode_clip(data, 12, None, _unchanged)) == list(range(12))


def test_names_of_other_files_are_not_followed(tmp_path):
    (tmp_path / "secret.mp4").write_bytes(_clip())
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{tmp_path}/secret.mp4\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{tmp_path}/secret.mp4'\n",
    ):
        with pytest.raises(BadInput, match="cannot be decoded"):
            decode_clip(text.encode(), 2, 16.0, _unchanged)


def test_formats_that_are_not_listed_are_refused():
    """Some of FFmpeg's formats let a file name others; a picture alone shows that only listed ones are taken."""
    sink = io.BytesIO()
    Image.new("RGB", (48, 32)).save(sink, "PNG")
    with pytest.raises(BadInput, match="cannot be decoded"):
        decode_clip(sink.getvalue(), 1, None, _unchanged)


def _sound():
    sink = io.BytesIO()
    with av.open(sink, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    return sink.getvalue()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: b"", "empty"),
        (lambda: b"<html>log in", "an HTML page"),
        (lambda: _clip()[:600], "cut off"),
        (_sound, "no video"),
        (lambda: _clip(color_trc=16), "high dynamic range"),
        (lambda: _clip(fps=5), "4 frames|it has 39 frames|the request needs"),
    ],
)
def test_what_is_no_video(make, words):
    with pytest.raises(BadInput, match=words):
        decode_clip(make(), 81, 16.0, _unchanged)


def test_bombs(monkeypatch):
    module = "rendermill.actors.media.inputs.videos"
    monkeypatch.setattr(f"{module}.MAX_PIXELS_OF_FRAME", 48 * 32 - 1)
    with pytest.raises(BadInput, match="its frames have 48 x 32 pixels"):
        decode_clip(_clip(), 2, 16.0, _unchanged)
    monkeypatch.undo()
    monkeypatch.setattr(f"{module}.MAX_PIXELS_OF_VIDEO", 48 * 32 * 12 - 1)
    with pytest.raises(BadInput, match="12 frames have more than"):
        decode_clip(_clip(), 12, 16.0, _unchanged)
    monkeypatch.setattr(f"{module}._MAX_FRAMES_PER_FRAME", 2)
    with pytest.raises(BadInput, match="more than 2 times"):
        decode_clip(_clip(fps=1000), 2, 1.0, _unchanged)
