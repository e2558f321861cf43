"""Inputs for pipelines, made of random squares: pictures, masks and videos, as the steps before a model decode them."""

import numpy as np

from rendermill.models.inputs import InputSpec, Media

_SQUARE = 8


def condition(spec: InputSpec, width: int, height: int, num_frames: int, seed: int = 0) -> Media:
    """Return an input of these sizes."""
    values = np.random.default_rng(seed)

    def picture() -> np.ndarray:
        squares = values.integers(0, 256, (height // _SQUARE, width // _SQUARE, 3), dtype=np.uint8)
        return squares.repeat(_SQUARE, 0).repeat(_SQUARE, 1)

    def mask() -> np.ndarray:
        return (picture()[..., 0] > 127).astype(np.uint8) * 255

    match spec.kind:
        case "image":
            return Media("image", picture())
        case "mask":
            return Media("mask", mask())
        case "images":
            return Media("images", [picture() for _ in range(2)])
        case "video":
            return Media("video", np.stack([picture() for _ in range(num_frames)]), fps=16.0)
        case "mask video":
            return Media("mask video", np.stack([mask() for _ in range(num_frames)]), fps=16.0)
