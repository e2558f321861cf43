"""How media are encoded. Apart from the encoder, so that the driver needs none of its libraries."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Encoding:
    """The settings of a model's files.

    Attributes:
        media_format: png, webp, jpeg or mp4.
        quality: for webp and jpeg 1 … 100; for mp4 x264's constant rate factor, 0 … 51, less is better; None: the
            format's default.
        has_provenance: whether a file says how it was made.
    """

    media_format: str
    quality: int | None = None
    has_provenance: bool = False
