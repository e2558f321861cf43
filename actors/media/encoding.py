"""The table of media formats, and the settings of a model's files. The driver reads it without importing an encoder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rendermill.manifests.errors import Problem
from rendermill.models.capabilities import Capabilities


@dataclass(frozen=True)
class Format:
    """A media format.

    Attributes:
        kind: what a file holds.
        extension: of its files, without the dot.
        max_side: the largest width and height in pixels; None: none that a picture reaches.
        quality_range: the lowest and the highest quality that a job file may set; None: the format has no quality.
        default_quality: the quality if the job file sets none.
        options: more options of Pillow's encoder, as `benchmarks.encoders` compares them.
    """

    kind: Literal["image", "video"]
    extension: str
    max_side: int | None = None
    quality_range: tuple[int, int] | None = None
    default_quality: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


FORMATS: dict[str, Format] = {
    # level 6 takes up to three times as long as 4, and its files are only 1 … 7 % smaller
    "png": Format("image", "png", options={"compress_level": 4}),
    "webp": Format("image", "webp", 16_383, (1, 100), 95, {"method": 4}),
    "jpeg": Format("image", "jpg", 65_500, (1, 100), 95, {"subsampling": 0}),
    # quality is x264's constant rate factor; 0 is lossless, in a profile (High 4:4:4 Predictive) that players refuse
    "mp4": Format("video", "mp4", 16_384, (1, 51), 18),
}
"""The formats by their names in the job file; the first of each kind is its default.

To add an image format that Pillow writes, add a line here. If it cannot store XMP by Pillow's option `xmp`, add that to
`actors.media.encoders`, too.
"""

if TYPE_CHECKING:
    MediaFormat = str
else:
    MediaFormat = Literal[tuple(FORMATS)]  # lets pydantic name the formats in errors and in the job file's schema


def formats_of(kind: str) -> tuple[str, ...]:
    """Return the names of the formats for images (`image`) or videos (`video`); the first is the default."""
    return tuple(name for name, properties in FORMATS.items() if properties.kind == kind)


_MIN_FPS = 0.001

_MACROBLOCK = 16
"""The width and height in pixels of the unit in which H.264 counts."""
_MAX_MACROBLOCKS = 139_264
_MAX_MACROBLOCKS_PER_SECOND = 16_711_680
"""The limits of H.264's highest level, 6.2. Players refuse a file beyond them."""


@dataclass(frozen=True)
class Encoding:
    """The settings of a model's files.

    Attributes:
        media_format: a name in `FORMATS`.
        quality: within the format's `quality_range`; None: its default. For mp4, less is better.
        has_provenance: whether a file says how it was made.
    """

    media_format: str
    quality: int | None = None
    has_provenance: bool = False

    @property
    def format(self) -> Format:
        """The properties of the format."""
        return FORMATS[self.media_format]

    def problem(self, width: int, height: int, fps: float | None) -> Problem | None:
        """Return why the format cannot hold this, and what it could hold; None if it can.

        Args:
            width: pixels.
            height: pixels.
            fps: frames per second; None for an image.
        """
        for name, size in (("width", width), ("height", height)):
            limit = self.format.max_side
            if limit is not None and size > limit:
                hint = "; png has no such limit" if fps is None else ""
                return Problem(name, f"{size} is over {limit}, the most that {self.media_format} holds{hint}")
        return None if fps is None else _problem_of_video(width, height, fps)


def _problem_of_video(width: int, height: int, fps: float) -> Problem | None:
    """Return why H.264 in an mp4 cannot hold this, and what it could hold; None if it can."""
    for name, size in (("width", width), ("height", height)):
        if size % 2:
            return Problem(name, f"{size} is odd, and mp4 holds even sizes; {size + 1} would be")
    num_blocks = math.ceil(width / _MACROBLOCK) * math.ceil(height / _MACROBLOCK)
    if num_blocks > _MAX_MACROBLOCKS:
        most = f"{_MAX_MACROBLOCKS * _MACROBLOCK**2:,}"
        return Problem(
            "width, height", f"{width} x {height} is over the {most} pixels that a frame of an mp4 (H.264) holds"
        )
    if fps < _MIN_FPS:
        return Problem("fps", f"{fps} is below {_MIN_FPS}, the least that mp4 holds")
    most_fps = _MAX_MACROBLOCKS_PER_SECOND / num_blocks
    if fps > most_fps:
        return Problem(
            "fps", f"{fps} is over {math.floor(most_fps)}, the most that mp4 (H.264) holds at {width} x {height}"
        )
    return None


@dataclass(frozen=True)
class Limits:
    """The limits of a model and of the format of its files."""

    capabilities: Capabilities
    encoding: Encoding

    def problem(self, fields: Mapping[str, Any]) -> Problem | None:
        """Return why a request cannot be rendered or stored; None if it can. See `Capabilities.problem`."""
        return self.capabilities.problem(fields) or self.encoding.problem(
            fields["width"], fields["height"], fields["fps"]
        )
