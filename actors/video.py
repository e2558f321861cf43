"""MP4 files of uint8 frames, by PyAV."""

import io
import tempfile
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import av
import numpy as np

from actors.provenance import comment

_X264_THREADS = 4
"""Fixed, because x264's output depends on it."""


def encode_mp4(frames: np.ndarray, fps: float, constant_rate_factor: int, made: Mapping[str, Any] | None) -> bytes:
    """H.264, yuv420p, index in front (faststart), the true frame rate.

    Args:
        frames: uint8, (frames, height, width, 3), RGB.
        fps: frames per second.
        constant_rate_factor: x264's, 0 … 51.
        made: columns that the file's comment says; None: it has no comment.
    """
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:  # moving the index to the front takes a file with a name
        with av.open(file.name, "w", options={"movflags": "+faststart"}) as container:
            if made is not None:
                container.metadata["comment"] = comment(made)
            rate = Fraction(fps).limit_denominator(1001)
            stream: Any = container.add_stream("libx264", rate=rate, options={"crf": str(constant_rate_factor)})
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = _X264_THREADS
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return file.read()


def decode_mp4(data: bytes) -> np.ndarray:
    """The frames of a file: uint8, (frames, height, width, 3), RGB."""
    with av.open(io.BytesIO(data), "r") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
