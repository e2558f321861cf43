"""The sound of a video: in the column of a table, and as the AAC stream of an MP4 file."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from av.container import OutputContainer

_LAYOUTS = {1: "mono", 2: "stereo"}
_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
"""The rates that AAC holds, in samples per second."""
_RATE_OF_OTHERS = 48_000
"""The rate to which sound of any other rate is converted."""
_BITS_PER_SECOND = 192_000

AUDIO_TYPE = pa.struct([("samples", pa.large_binary()), ("num_channels", pa.int32()), ("rate", pa.int32())])
"""The type of the column `manifests.schema.AUDIO`; samples are float32 in order channel, sample."""


class Sound(NamedTuple):
    """A sound.

    Attributes:
        samples: float32, (channels, samples), -1 … 1.
        rate: samples per second.
    """

    samples: np.ndarray
    rate: int

    @property
    def sha256(self) -> str:
        """The hash of the samples, as records give it."""
        return hashlib.sha256(np.ascontiguousarray(self.samples, np.float32).data).hexdigest()


def as_column(sounds: Sequence[Sound | None]) -> pa.Array:
    """Return sounds as a column of a table; null where there is none."""
    rows = [
        sound
        and {
            "samples": np.ascontiguousarray(sound.samples, np.float32).tobytes(),
            "num_channels": len(sound.samples),
            "rate": sound.rate,
        }
        for sound in sounds
    ]
    return pa.array(rows, AUDIO_TYPE)


def from_column(value: pa.StructScalar) -> Sound | None:
    """Return the sound in one value of such a column."""
    if not value.is_valid:
        return None
    samples = np.frombuffer(value["samples"].as_buffer(), np.float32)
    return Sound(samples.reshape(value["num_channels"].as_py(), -1), value["rate"].as_py())


def add_stream(container: "OutputContainer", sound: Sound) -> Any:
    """Add a stream for a sound to a file to which nothing has been written yet.

    Raises:
        ValueError: the sound has neither one channel nor two.
    """
    num_channels = len(sound.samples)
    if num_channels not in _LAYOUTS:
        raise ValueError(f"the sound has {num_channels} channels; mp4 files are written with 1 or 2")
    rate = sound.rate if sound.rate in _RATES else _RATE_OF_OTHERS
    stream: Any = container.add_stream("aac", rate=rate, layout=_LAYOUTS[num_channels])
    stream.bit_rate = _BITS_PER_SECOND
    return stream


def write(container: "OutputContainer", stream: Any, sound: Sound) -> None:
    """Encode a sound as AAC, and write it to its stream."""
    import av

    samples = np.ascontiguousarray(sound.samples, np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=_LAYOUTS[len(samples)])
    frame.sample_rate, frame.pts = sound.rate, 0
    resampler = av.AudioResampler("fltp", stream.codec_context.layout, stream.codec_context.sample_rate)
    for part in (*resampler.resample(frame), *resampler.resample(None)):
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))
