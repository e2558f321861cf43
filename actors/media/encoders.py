"""Turns uint8 frames into the bytes of a media file, and back."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rendermill.actors.media.encoding import FORMATS, Encoding
from rendermill.actors.media.provenance import xmp
from rendermill.actors.media.sound import Sound


def encode(
    frames: np.ndarray,
    encoding: Encoding,
    fps: float | None = None,
    record: Mapping[str, Any] | None = None,
    audio: Sound | None = None,
) -> bytes:
    """Return the bytes of a media file.

    Args:
        frames: uint8, (frames, height, width, 3), RGB; one frame for an image.
        fps: frames per second of a video.
        record: the columns of the item's record, for a file with provenance; see `actors.media.provenance`.
        audio: the sound of a video; None: it has none.
    """
    made = record if encoding.has_provenance else None
    quality = encoding.format.default_quality if encoding.quality is None else encoding.quality
    if encoding.format.kind == "video":
        from rendermill.actors.media.video import encode_mp4  # images need no PyAV

        assert fps is not None
        assert quality is not None
        return encode_mp4(frames, fps, quality, made, audio)
    options = {**encoding.format.options, **({} if quality is None else {"quality": quality})}
    if made is not None:
        options |= _png_text(xmp(made)) if encoding.media_format == "png" else {"xmp": xmp(made)}
    sink = io.BytesIO()
    Image.fromarray(frames[0]).save(sink, encoding.media_format.upper(), **options)
    return sink.getvalue()


def _png_text(packet: bytes) -> dict[str, Any]:
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", packet.decode())
    return {"pnginfo": text}


def decode(data: bytes, media_format: str) -> np.ndarray:
    """Return the frames of a file, as exactly as its format keeps them: uint8, (frames, height, width, 3), RGB."""
    if FORMATS[media_format].kind == "video":
        from rendermill.actors.media.video import decode_mp4

        return decode_mp4(data)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[None]
