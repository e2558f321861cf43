"""What the formats of media hold: colours and frame rates of videos, and rows that ask for more than a format can."""

import io
import itertools
import resource
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from rendermill.actors.media.encoders import decode, encode
from rendermill.actors.media.encoding import Encoding
from tests.support.commands import Rendermill

_COLOURS = np.array(list(itertools.product((0, 64, 128, 255), repeat=3)), np.uint8)


def patches() -> np.ndarray:
    """A video of plain patches, one a colour: (3, 16, 16 * colours, 3)."""
    return np.broadcast_to(np.repeat(_COLOURS, 16, axis=0), (3, 16, 16 * len(_COLOURS), 3)).copy()


def as_bt709(rgb: np.ndarray) -> np.ndarray:
    """Y, Cb and Cr in limited range of (colours, 3) uint8, by the recommendation's own formulas."""
    red, green, blue = rgb.T / 255
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return np.stack([16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748], 1)


def test_a_videos_colours_are_those_that_it_says() -> None:
    data = encode(patches(), Encoding("mp4", 1), 16.0)
    with av.open(io.BytesIO(data)) as container:
        codec = container.streams.video[0].codec_context
        said = codec.colorspace, codec.color_range, codec.color_primaries, codec.color_trc
        planes = next(container.decode(video=0)).to_ndarray()
    assert said == (Colorspace.ITU709, ColorRange.MPEG, ColorPrimaries.BT709, ColorTrc.BT709)
    assert b"colr" in data, "players that read the file alone find it there, too"
    width = patches().shape[2]
    luma, chroma = planes[:16], planes[16:].reshape(2, 8, width // 2)
    stored = np.stack([luma[8, 8::16], chroma[0, 4, 4::8], chroma[1, 4, 4::8]], 1)
    assert np.abs(stored - as_bt709(_COLOURS)).max() <= 1
    assert np.abs(decode(data, "mp4")[1, 8, 8::16].astype(int) - _COLOURS).max() <= 2


@pytest.mark.parametrize("quality", [1, 18, 51])
def test_every_quality_of_a_video_has_the_profile_that_players_read(quality: int) -> None:
    with av.open(io.BytesIO(encode(patches(), Encoding("mp4", quality), 16.0))) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.profile, codec.pix_fmt) == ("High", "yuv420p")


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (16.0, Fraction(16)),
        (12.5, Fraction(25, 2)),
        (23.976, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (23.98, Fraction(2398, 100)),
        (1.9985, Fraction(3997, 2000)),
        (1 / 3, Fraction(1, 3)),
        (0.001, Fraction(1, 1000)),
        (0.0015, Fraction(3, 2000)),
        (999.9, Fraction(9999, 10)),
    ],
)
def test_a_frame_rate_is_the_one_that_was_asked_for(fps: float, rate: Fraction) -> None:
    with av.open(io.BytesIO(encode(patches()[:, :, :16], Encoding("mp4"), fps))) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == rate
        assert stream.time_base is not None
        times = [frame.pts * stream.time_base for frame in container.decode(stream) if frame.pts is not None]
    assert times == [number / rate for number in range(3)]


def test_encoding_a_video_writes_no_file() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        data = encode(patches(), Encoding("mp4"), 16.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert data.index(b"moov") < data.index(b"mdat"), "not faststart"


def test_rows_that_a_format_cannot_hold_are_rejected_before_anything_is_drawn(rendermill: Rendermill) -> None:
    rendermill.model("jpeg", "sana-shapes", format="jpeg")
    rendermill.model("webp", "sana-shapes", format="webp")
    rendermill.model("wan", "wan-shapes", defaults={"fps": 16.0})
    reasons = {
        ("jpeg", "width", 65536): "width: 65536 is over 65500, the most that jpeg holds; png has no such limit",
        ("webp", "height", 16384): "height: 16384 is over 16383, the most that webp holds",
        ("wan", "width", 16400): "width: 16400 is over 16384, the most that mp4 holds",
        ("wan", "fps", 0.0004): "fps: 0.0004 is below 0.001, the least that mp4 holds",
        ("wan", "fps", 0.0): "fps: 0.0 is outside 0 … 1000",
    }
    rows = [{"prompt": "a cat", "model": model, column: value} for model, column, value in reasons]
    both = {
        (16384, 16384, 16.0): "width, height: 16384 x 16384 is over the 35,651,584 pixels that a frame of an mp4",
        (4096, 4096, 1000.0): "fps: 1000.0 is over 255, the most that mp4 (H.264) holds at 4096 x 4096",
    }
    rows += [
        {"prompt": "a cat", "model": "wan", "width": width, "height": height, "fps": fps} for width, height, fps in both
    ]
    rendermill.manifest(rows)
    finished = rendermill.generate()
    assert finished.status == 3, finished
    assert "to render: nothing; 7 rejected" in finished.out
    told = sorted(row["reason"] for row in rendermill.table("rejected"))
    for reason, expected in zip(told, sorted([*reasons.values(), *both.values()]), strict=True):
        assert reason.startswith(expected)


def test_odd_sizes_are_not_for_videos() -> None:
    assert str(Encoding("mp4").problem(33, 32, 16.0)) == "width: 33 is odd, and mp4 holds even sizes; 34 would be"
    assert Encoding("mp4").problem(8192, 4320, 16.0) is None
    assert Encoding("jpeg").problem(65500, 65500, None) is None
