"""Images and videos that a request is conditioned on, as models take them: fetched, checked, decoded and fitted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

InputKind: TypeAlias = Literal["image", "mask", "images", "video", "mask video"]
"""The kind of an input: one picture, one mask, a list of pictures, the frames of a video, the masks of its frames."""


@dataclass(frozen=True)
class InputSpec:
    """An input that a model takes.

    Attributes:
        kind: of its content.
        is_required: whether the model renders nothing without it.
        has_size_of_output: whether it must have the width and height of the request, after `fit`; other inputs, such as
            reference pictures, may have any size.
    """

    kind: InputKind
    is_required: bool = True
    has_size_of_output: bool = True


@dataclass(frozen=True, eq=False)
class Media:
    """A decoded input.

    Attributes:
        kind: of its content.
        frames: uint8; `image`: (height, width, 3), RGB; `mask`: (height, width), white where the picture is replaced;
            `video`: (frames, height, width, 3); `mask video`: (frames, height, width). `images`: a list of pictures.
        fps: frames per second of a video; None for pictures.
        sha256: of the bytes that were read, in hex.
    """

    kind: InputKind
    frames: np.ndarray | Sequence[np.ndarray]
    fps: float | None = None
    sha256: str = ""


Inputs: TypeAlias = Mapping[str, Media]
"""The decoded inputs of one request, by the name of the pipeline's argument."""
