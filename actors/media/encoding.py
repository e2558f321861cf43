"""How media are encoded, and what their formats can hold. The driver reads this, and needs none of the encoders."""

import math
from dataclasses import dataclass
from typing import Any

from rendermill.manifests.schema import Rules

_MAX_SIDE = {"webp": 16_383, "jpeg": 65_500, "mp4": 16_384}
"""Pixels; a png has no limit that a picture meets."""

_MIN_FPS = 0.001

_MACROBLOCK = 16
"""Pixels, both ways: H.264 counts in these."""
_MAX_MACROBLOCKS = 139_264
_MAX_MACROBLOCKS_PER_SECOND = 16_711_680
"""The most of H.264's highest level, 6.2; players refuse a file beyond it."""


@dataclass(frozen=True)
class Encoding:
    """The settings of a model's files.

    Attributes:
        media_format: png, webp, jpeg or mp4.
        quality: for webp and jpeg 1 … 100; for mp4 x264's constant rate factor, 1 … 51, less is better; None: the
            format's default.
        has_provenance: whether a file says how it was made.
    """

    media_format: str
    quality: int | None = None
    has_provenance: bool = False

    def problem(self, width: int, height: int, fps: float | None) -> str | None:
        """Why the format cannot hold this, in words that say what it could; None if it can.

        Args:
            width: pixels.
            height: pixels.
            fps: frames per second; None for an image.
        """
        for name, size in (("width", width), ("height", height)):
            limit = _MAX_SIDE.get(self.media_format, size)
            if size > limit:
                hint = "; png has no such limit" if fps is None else ""
                return f"{name}: {size} is over {limit}, the most that {self.media_format} holds{hint}"
        return None if fps is None else _problem_of_video(width, height, fps)


def _problem_of_video(width: int, height: int, fps: float) -> str | None:
    """The same of H.264 in an mp4."""
    for name, size in (("width", width), ("height", height)):
        if size % 2:
            return f"{name}: {size} is odd, and mp4 holds even sizes; {size + 1} would be"
    num_blocks = math.ceil(width / _MACROBLOCK) * math.ceil(height / _MACROBLOCK)
    if num_blocks > _MAX_MACROBLOCKS:
        most = f"{_MAX_MACROBLOCKS * _MACROBLOCK**2:,}"
        return f"width, height: {width} x {height} is over the {most} pixels that a frame of an mp4 (H.264) holds"
    if fps < _MIN_FPS:
        return f"fps: {fps} is below {_MIN_FPS}, the least that mp4 holds"
    most_fps = _MAX_MACROBLOCKS_PER_SECOND / num_blocks
    if fps > most_fps:
        return f"fps: {fps} is over {math.floor(most_fps)}, the most that mp4 (H.264) holds at {width} x {height}"
    return None


@dataclass(frozen=True)
class EncodableRules:
    """The rules of a model and of the format of its files.

    Args:
        rules: the model's.
        encoding: of its files.
    """

    rules: Rules
    encoding: Encoding

    def problem(self, **asked: Any) -> str | None:
        """Why this cannot be drawn or stored, in words that say what could be; None if it can. See `Rules.problem`."""
        return self.rules.problem(**asked) or self.encoding.problem(asked["width"], asked["height"], asked["fps"])
