"""Turns uint8 frames into the bytes of a PNG, WebP, JPEG or MP4 file, and back."""

import io
import tempfile
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from actors.encoding import Encoding
from actors.provenance import comment, xmp

EXTENSIONS = {"png": "png", "webp": "webp", "jpeg": "jpg", "mp4": "mp4"}

_X264_THREADS = 4
"""Fixed, because x264's output depends on it."""


def encode(
    frames: np.ndarray, encoding: Encoding, fps: float | None = None, record: Mapping[str, Any] | None = None
) -> bytes:
    """Encode one item.

    Args:
        frames: uint8, (frames, height, width, 3), RGB; one frame for an image.
        fps: frames per second, for mp4.
        record: columns that a file with provenance says; see `actors.provenance`.
    """
    made = record if encoding.has_provenance else None
    if encoding.media_format == "mp4":
        assert fps is not None
        return _encode_mp4(frames, fps, 18 if encoding.quality is None else encoding.quality, made)
    image, sink = Image.fromarray(frames[0]), io.BytesIO()
    options: dict[str, Any] = {"png": {"compress_level": 6}, "webp": {"method": 4}, "jpeg": {"subsampling": 0}}[
        encoding.media_format
    ]
    if encoding.media_format != "png":
        options["quality"] = 95 if encoding.quality is None else encoding.quality
    if made is not None:
        options |= _png_text(xmp(made)) if encoding.media_format == "png" else {"xmp": xmp(made)}
    image.save(sink, encoding.media_format.upper(), **options)
    return sink.getvalue()


def _png_text(packet: bytes) -> dict[str, Any]:
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", packet.decode())
    return {"pnginfo": text}


def decode(data: bytes, media_format: str) -> np.ndarray:
    """The frames of a file from `encode`, as far as its format kept them: uint8, (frames, height, width, 3), RGB."""
    if media_format == "mp4":
        with av.open(io.BytesIO(data), "r") as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[None]


def _encode_mp4(frames: np.ndarray, fps: float, constant_rate_factor: int, made: Mapping[str, Any] | None) -> bytes:
    """H.264, yuv420p, index in front (faststart), the true frame rate."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:  # moving the index to the front takes a file with a name
        with av.open(file.name, "w", options={"movflags": "+faststart"}) as container:
            if made is not None:
                container.metadata["comment"] = comment(made)
            rate = Fraction(fps).limit_denominator(1001)
            stream: Any = container.add_stream("libx264", rate=rate, options={"crf": str(constant_rate_factor)})
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = _X264_THREADS
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return file.read()
