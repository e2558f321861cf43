"""Decoded inputs as bytes, in which they travel from the tasks that decode to the actors that render."""

import json

import numpy as np

from rendermill.models.inputs import Media

_NUM_LENGTH_BYTES = 4


def packed(media: Media) -> bytes:
    """Return decoded media as bytes: the length of a JSON header, the header, and the pixels."""
    is_list = media.kind == "images"
    arrays = list(media.frames) if is_list else [np.asarray(media.frames)]
    shapes = [array.shape for array in arrays]
    header = json.dumps({"kind": media.kind, "shapes": shapes, "fps": media.fps, "sha256": media.sha256}).encode()
    length = len(header).to_bytes(_NUM_LENGTH_BYTES, "little")
    return b"".join([length, header, *(np.ascontiguousarray(array).tobytes() for array in arrays)])


def unpacked(data: memoryview) -> Media:
    """Return what `packed` was given. The pixels are not copied, and cannot be written."""
    end = _NUM_LENGTH_BYTES + int.from_bytes(data[:_NUM_LENGTH_BYTES], "little")
    header = json.loads(bytes(data[_NUM_LENGTH_BYTES:end]))
    arrays = []
    for shape in header["shapes"]:
        size = int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(data, np.uint8, size, end).reshape(shape))
        end += size
    frames = arrays if header["kind"] == "images" else arrays[0]
    return Media(kind=header["kind"], frames=frames, fps=header["fps"], sha256=header["sha256"])
