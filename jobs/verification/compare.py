"""Compare an item that was rendered again with its record: bit by bit if possible, else by PSNR with its file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rendermill.actors.media.encoders import decode
from rendermill.actors.media.sound import Sound
from rendermill.jobs.planning.origins import differing
from rendermill.manifests.errors import one_line
from rendermill.manifests.output.shards import read_member
from rendermill.manifests.storage.folder import Folder

RECORDED = ("path", "member", "format", "pixel_sha256", "audio_sha256", "device", "environment")
"""The columns of a record that travel with its request, with `recorded_` before their names."""
MIN_PSNR = 25.0
"""Decibels. Other devices and versions sum in another order, and a video's file has lost a little too."""

NOT_TRIED = "not tried: their job, checkpoint or settings are gone"
HAD_INLINE_INPUTS = "not tried: the manifest itself held their images, or a URL had a secret"


@dataclass(frozen=True)
class RenderedAgain:
    """The result of rendering one record again.

    Attributes:
        item: Its id and sample index, in words.
        verdict: In words; items are counted by it.
        is_different: Whether it came out different without a reason.
        details: What differs, in words.
    """

    item: str
    verdict: str
    is_different: bool
    details: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it was rendered and came out as it should."""
        return not self.is_different and self.verdict not in (NOT_TRIED, HAD_INLINE_INPUTS)


def item_name(row: Mapping[str, Any]) -> str:
    """Return an item's id and sample index, in words."""
    return f"{row['id']!r} sample {row['sample_index']}"


def compare(row: Mapping[str, Any], pixels: Any, audio: Sound | None, output: Folder) -> RenderedAgain:
    """Compare new pixels and a new sound with a record.

    Args:
        row: What rendering gave, and the columns `RECORDED` of the record.
        pixels: The new frames: an Arrow scalar of uint8 values in binary.
        audio: The new sound; None if there is none.
    """
    item = item_name(row)
    if row["error_type"] is not None:
        return RenderedAgain(item, "failed", True, f"{row['error_type']}: {row['error']}")
    data = pixels.as_buffer()
    has_same_sound = (audio and audio.sha256) == row["recorded_audio_sha256"]
    if hashlib.sha256(data).hexdigest() == row["recorded_pixel_sha256"] and has_same_sound:
        return RenderedAgain(item, "with the same pixels", False)
    decibels, likeness = _likeness(np.frombuffer(data, np.uint8), row, output)
    changed = differing(
        {"device": row["recorded_device"]} | json.loads(row["recorded_environment"]),
        {"device": row["device"]} | json.loads(row["environment"]),
    )
    if not changed:
        what = "other pixels" if has_same_sound else "another sound"
        return RenderedAgain(item, f"with {what}, in the same environment", True, likeness)
    is_alike = decibels is not None and decibels >= MIN_PSNR
    verdict = f"{'alike' if is_alike else 'unlike'} by PSNR, as the environment is another ({changed})"
    return RenderedAgain(item, verdict, not is_alike, likeness)


def _likeness(pixels: np.ndarray, row: Mapping[str, Any], output: Folder) -> tuple[float | None, str]:
    """Compare pixels with a record's file.

    Args:
        pixels: shape (bytes,), dtype uint8.

    Returns:
        The PSNR in decibels, None if there is nothing to compare with; and the same in words.
    """
    path, member = row["recorded_path"], row["recorded_member"]
    try:
        stored = output.read(path) if member is None else read_member(output, path, member)
        if stored is None:
            return None, "its file is gone"
        decibels = _psnr(pixels, decode(stored, row["recorded_format"]))
    except Exception as error:  # decoders of damaged files, and clients of stores, have errors of their own
        return None, f"its file cannot be read: {one_line(error)}"
    return decibels, "its file has another size" if decibels is None else f"PSNR {decibels:.1f} dB"


def _psnr(pixels: np.ndarray, stored: np.ndarray) -> float | None:
    """Return the peak signal-to-noise ratio of uint8 values in decibels; None if the sizes differ."""
    if pixels.size != stored.size:
        return None
    error = np.mean((pixels.astype(np.float32) - stored.ravel().astype(np.float32)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")
