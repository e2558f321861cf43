"""Inputs as stock pipelines take them, and the encoding of each distinct set of inputs once."""

import hashlib
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from PIL import Image

from rendermill.manifests.request import Request
from rendermill.models.families.wan.conditions import Condition
from rendermill.models.inputs import Inputs, Media


def pictures(inputs: Inputs, name: str, num_frames: int | None = None) -> list[Image.Image]:
    """Return a picture, the pictures of a list, or the frames of a video; nothing if there is no such input.

    Args:
        num_frames: of a video; frames after these are left out.

    Raises:
        ValueError: the video has fewer frames.
    """
    if name not in inputs:
        return []
    frames = inputs[name].frames
    if isinstance(frames, np.ndarray) and "video" not in inputs[name].kind:
        frames = frames[None]
    if num_frames is not None and len(frames) < num_frames:
        raise ValueError(f"{name}: it has {len(frames)} frames, fewer than the {num_frames} of `num_frames`")
    return [Image.fromarray(frame) for frame in frames[:num_frames]]


def encode_each(
    encode: Callable[[Request, Inputs], Condition], requests: Sequence[Request], inputs: Sequence[Inputs]
) -> list[Condition]:
    """Encode each distinct set of inputs once for each size, alone, so that a condition does not depend on a batch.

    Returns:
        The condition of each request.
    """
    known: dict[Hashable, Condition] = {}
    conditions = []
    for request, own in zip(requests, inputs, strict=True):
        size = (request.width, request.height, request.num_frames)
        key = (size, *((name, _fingerprint(own[name])) for name in sorted(own)))
        if key not in known:
            known[key] = encode(request, own)
        conditions.append(known[key])
    return conditions


def _fingerprint(media: Media) -> Hashable:
    """Return what is equal for inputs with the same pixels; their files' hashes do not tell of how they were fitted."""
    arrays = [media.frames] if isinstance(media.frames, np.ndarray) else media.frames
    return tuple((array.shape, hashlib.blake2b(np.ascontiguousarray(array).data).digest()) for array in arrays)
