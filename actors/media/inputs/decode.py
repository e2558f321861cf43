"""Turns the bytes of an input into what a model takes, and into what the record says of it."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from rendermill.actors.media.inputs.fit import fitted
from rendermill.actors.media.inputs.images import decode_picture
from rendermill.actors.media.inputs.options import BadInput, Fit
from rendermill.actors.media.inputs.videos import decode_clip
from rendermill.models.inputs import InputSpec, Media


class OutputSize(NamedTuple):
    """The size that a request asks for; `num_frames` and `fps` as in the request."""

    width: int
    height: int
    num_frames: int
    fps: float | None


class Decoded(NamedTuple):
    """An input, and what the record says of each of its files: sha256, width, height, and what else is to be known."""

    media: Media
    entries: list[dict[str, Any]]


def decoded(files: Sequence[bytes], spec: InputSpec, size: OutputSize, fit: Fit) -> Decoded:
    """Decode an input.

    Args:
        files: one, or one for each picture of `images`.
        fit: what is done if an input that must have the output's size has another one.

    Raises:
        BadInput: it cannot be used.
    """
    digests = [hashlib.sha256(data).hexdigest() for data in files]
    if spec.kind == "images":
        pictures = [_picture(data, spec, size, fit) for data in files]
        sha256 = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        media = Media("images", [pixels for pixels, _ in pictures], sha256=sha256)
        entries = [entry for _, entry in pictures]
    else:
        if len(files) != 1:
            raise BadInput(f"{len(files)} files are given, and the model takes one")
        if spec.kind in ("image", "mask"):
            pixels, entry = _picture(files[0], spec, size, fit)
            media, entries = Media(spec.kind, pixels, sha256=digests[0]), [entry]
        else:
            media, entries = _video(files[0], spec, size, fit, digests[0])
    named = [{"sha256": digest, **entry} for digest, entry in zip(digests, entries, strict=True)]
    return Decoded(media, named)


def _picture(data: bytes, spec: InputSpec, size: OutputSize, fit: Fit) -> tuple[np.ndarray, dict[str, Any]]:
    picture = decode_picture(data, is_mask=spec.kind == "mask")
    entry = {"width": picture.image.width, "height": picture.image.height, **picture.notes}
    image = fitted(picture.image, (size.width, size.height), fit) if spec.has_size_of_output else picture.image
    return np.asarray(image), entry


def _video(data: bytes, spec: InputSpec, size: OutputSize, fit: Fit, sha256: str) -> tuple[Media, list[dict[str, Any]]]:
    def prepare(image: Image.Image) -> Image.Image:
        image = image.convert("L") if spec.kind == "mask video" else image
        return fitted(image, (size.width, size.height), fit) if spec.has_size_of_output else image

    clip = decode_clip(data, size.num_frames, size.fps, prepare)
    width, height = clip.size
    entry = {"width": width, "height": height, "num_frames": len(clip.frames), "fps": clip.fps}
    return Media(spec.kind, clip.frames, clip.fps, sha256), [entry]
