"""Encodes uint8 frames as MP4 files with PyAV, and decodes them."""

import io
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter

from rendermill.actors.media import sound
from rendermill.actors.media.provenance import comment
from rendermill.actors.media.sound import Sound

_X264_THREADS = 4
"""Fixed, because x264's output depends on it."""

_MAX_DENOMINATOR = 10_000
"""The limit for a frame rate, or for a frame's duration in seconds if that is longer: timescales have 32 bits."""

_ROUNDING_OF_BROADCAST_RATES = 2e-6
"""The relative distance of 29.97 and 23.976 from the fractions that they stand for."""

_TO_YUV = Interpolation.BILINEAR | Interpolation.ACCURATE_RND
_TO_RGB = _TO_YUV | Interpolation.FULL_CHR_H_INT
"""Without these flags swscale's faster arithmetic is wrong by up to 4 levels."""


def encode_mp4(
    frames: np.ndarray,
    fps: float,
    constant_rate_factor: int,
    made: Mapping[str, Any] | None,
    audio: Sound | None = None,
) -> bytes:
    """Return an MP4 file: H.264, High profile, yuv420p, BT.709 in limited range, AAC, index in front (faststart).

    Args:
        frames: uint8, (frames, height, width, 3), RGB; height and width are even.
        fps: frames per second, 0.001 … 1000.
        constant_rate_factor: x264's, 1 … 51.
        made: the columns of the record for the file's comment; None: no comment.
        audio: the sound; None: the file has none.
    """
    sink = io.BytesIO()

    def written(*_: Any) -> io.BytesIO:
        """Open the written data for reading. The muxer does this to move the index to the front."""
        return io.BytesIO(sink.getvalue())

    with av.open(sink, "w", format="mp4", options={"movflags": "+faststart"}, io_open=written) as container:
        if made is not None:
            container.metadata["comment"] = comment(made)
        stream: Any = container.add_stream(
            "libx264", rate=frame_rate(fps), options={"crf": str(constant_rate_factor), "profile": "high"}
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        codec = stream.codec_context
        codec.thread_count = _X264_THREADS
        codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        audio_stream = None if audio is None else sound.add_stream(container, audio)
        reformatter, packets = VideoReformatter(), []
        for pixels in frames:
            rgb = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = reformatter.reformat(
                rgb,
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=_TO_YUV,
                threads=1,
            )
            packets += stream.encode(frame)
        packets += stream.encode()
        if audio is not None:  # first, so that the muxer can place it between the frames
            sound.write(container, audio_stream, audio)
        container.mux(packets)
    return sink.getvalue()


def frame_rate(fps: float) -> Fraction:
    """Return a frame rate as the fraction that is meant: 23.976, 29.97 and similar rates are N × 1000 / 1001."""
    broadcast = Fraction(round(fps * 1001 / 1000) * 1000, 1001)
    if math.isclose(fps, broadcast, rel_tol=_ROUNDING_OF_BROADCAST_RATES):
        return broadcast
    if fps < 1:
        return 1 / Fraction(1 / fps).limit_denominator(_MAX_DENOMINATOR)
    return Fraction(fps).limit_denominator(_MAX_DENOMINATOR)


def decode_mp4(data: bytes) -> np.ndarray:
    """Return the frames of a file: uint8, (frames, height, width, 3), RGB.

    Files that name no colour matrix, which earlier versions of rendermill wrote, are in BT.601.
    """
    reformatter, frames = VideoReformatter(), []
    with av.open(io.BytesIO(data), "r") as container:
        for frame in container.decode(video=0):
            matrix = Colorspace.ITU709 if frame.colorspace == Colorspace.ITU709 else Colorspace.ITU601
            rgb = reformatter.reformat(
                frame,
                format="rgb24",
                src_colorspace=matrix,
                src_color_range=ColorRange.MPEG,
                interpolation=_TO_RGB,
                threads=1,
            )
            frames.append(rgb.to_ndarray())
    return np.stack(frames)
