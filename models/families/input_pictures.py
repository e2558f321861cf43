"""The pictures that a request is conditioned on: as stock pipelines take them, and their encoding one by one."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from rendermill.models.inputs import Inputs, Media

Condition = TypeVar("Condition")


def picture(media: Media) -> Image.Image:
    """Return an input of the kind `image` or `mask` as the picture that stock pipelines take."""
    assert isinstance(media.frames, np.ndarray)
    return Image.fromarray(media.frames)


def pictures(inputs: Inputs, name: str, num_frames: int | None = None) -> list[Image.Image]:
    """Return the pictures of an input of any kind, or nothing if the item has no such input.

    Args:
        num_frames: of a video; frames after these are left out.

    Raises:
        ValueError: the video has fewer frames.
    """
    if name not in inputs:
        return []
    if inputs[name].kind in ("image", "mask"):
        return [picture(inputs[name])]
    frames = inputs[name].frames
    if num_frames is not None and len(frames) < num_frames:
        raise ValueError(f"{name}: it has {len(frames)} frames, fewer than the {num_frames} of `num_frames`")
    return [Image.fromarray(frame) for frame in frames[:num_frames]]


def encode_each(
    encode: Callable[..., Condition], inputs: Sequence[Media | Inputs], *others: Sequence[Any]
) -> list[Condition]:
    """Encode each distinct input once, alone, so that a condition does not depend on other items.

    Args:
        encode: makes the condition of an input; takes the item's value of each of `others`, too.
        inputs: of each item: one, or several by name that make one condition together.
        others: what else a condition depends on, of each item; hashable values.

    Returns:
        The condition of each item.
    """
    known: dict[Hashable, Condition] = {}
    conditions = []
    for given, *values in zip(inputs, *others, strict=True):
        key = (_content(given), *values)
        if key not in known:
            known[key] = encode(given, *values)
        conditions.append(known[key])
    return conditions


def _content(given: Media | Inputs) -> Hashable:
    """Return what is equal for inputs with the same pixels."""
    if not isinstance(given, Media):
        return tuple((name, _content(given[name])) for name in sorted(given))
    frames = given.frames
    shapes = frames.shape if isinstance(frames, np.ndarray) else tuple(one.shape for one in frames)
    return given.sha256 or id(given), shapes
