"""Turns uint8 frames into the bytes of a PNG, WebP, JPEG or MP4 file, and back."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rendermill.actors.media.encoding import Encoding
from rendermill.actors.media.provenance import xmp

EXTENSIONS = {"png": "png", "webp": "webp", "jpeg": "jpg", "mp4": "mp4"}

_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "png": {"compress_level": 4},
    "webp": {"method": 4},
    "jpeg": {"subsampling": 0},
}
"""Pillow's, by format, as `benchmarks.encoders` compares them.

PNG's level 6 takes up to three times as long as 4, for files that are 1 … 7 % smaller.
"""


def encode(
    frames: np.ndarray, encoding: Encoding, fps: float | None = None, record: Mapping[str, Any] | None = None
) -> bytes:
    """Encode one item.

    Args:
        frames: uint8, (frames, height, width, 3), RGB; one frame for an image.
        fps: frames per second, for mp4.
        record: columns that a file with provenance says; see `actors.media.provenance`.
    """
    made = record if encoding.has_provenance else None
    if encoding.media_format == "mp4":
        from rendermill.actors.media.video import encode_mp4  # images need no PyAV

        assert fps is not None
        return encode_mp4(frames, fps, 18 if encoding.quality is None else encoding.quality, made)
    image, sink = Image.fromarray(frames[0]), io.BytesIO()
    options = dict(_OPTIONS[encoding.media_format])
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
        from rendermill.actors.media.video import decode_mp4

        return decode_mp4(data)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[None]
