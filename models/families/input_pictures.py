"""The pictures that a request is conditioned on: as stock pipelines take them, and their encoding one by one."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from rendermill.models.inputs import Media

Condition = TypeVar("Condition")


def picture(media: Media) -> Image.Image:
    """Return an input of the kind `image` or `mask` as the picture that stock pipelines take."""
    assert isinstance(media.frames, np.ndarray)
    return Image.fromarray(media.frames)


def encode_each(encode: Callable[..., Condition], inputs: Sequence[Media], *others: Sequence[Any]) -> list[Condition]:
    """Encode each distinct input once, alone, so that a condition does not depend on other items.

    Args:
        encode: makes the condition of an input; takes the item's value of each of `others`, too.
        inputs: of each item.
        others: what else a condition depends on, of each item; hashable values.

    Returns:
        The condition of each item.
    """
    known: dict[object, Condition] = {}
    conditions = []
    for media, *values in zip(inputs, *others, strict=True):
        shapes = (
            media.frames.shape if isinstance(media.frames, np.ndarray) else tuple(one.shape for one in media.frames)
        )
        key = (media.sha256 or id(media), shapes, *values)
        if key not in known:
            known[key] = encode(media, *values)
        conditions.append(known[key])
    return conditions
