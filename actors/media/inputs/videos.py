"""Decodes videos with PyAV to RGB frames at the rate of the output."""

import io
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
from PIL import Image

from rendermill.actors.media.inputs.images import description
from rendermill.actors.media.inputs.options import BadInput
from rendermill.manifests.errors import one_line

_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegts,ogg,flv,asf"
"""FFmpeg's names of formats that are taken. Others, such as HLS and concat, would let a file name other files."""
_OPENING = {"format_whitelist": _FORMATS, "protocol_whitelist": "pipe"}

MAX_PIXELS_OF_FRAME = 36_000_000
"""The largest number of pixels of a frame, checked before it is decoded: 8K video has 33 megapixels."""
MAX_PIXELS_OF_VIDEO = 1_000_000_000
"""The largest number of pixels of all frames of an input: 1 gigapixel takes 3 GB."""
_MAX_FRAMES_PER_FRAME = 64
"""The largest number of frames that are decoded for each that is taken: 64 allows 960 frames per second at 15."""

_LINES_OF_HD = 720
_TO_RGB = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""As for `actors.media.video`: without these flags swscale's faster arithmetic is wrong by up to 4 levels."""
_RGB, _UNSPECIFIED = 0, 2
"""FFmpeg's numbers of colour matrices that say nothing."""
_HDR = {ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}


class Clip(NamedTuple):
    """A decoded video.

    Attributes:
        frames: uint8, (frames, height, width, 3), RGB; (frames, height, width) for masks.
        fps: frames per second.
        size: width and height of the frames as they were read, upright.
    """

    frames: np.ndarray
    fps: float | None
    size: tuple[int, int]


def decode_clip(
    data: bytes,
    num_frames: int,
    fps: float | None,
    prepare: Callable[[Image.Image], Image.Image],
) -> Clip:
    """Decode the beginning of a video.

    Frame k is the one whose timestamp is nearest to k / fps, so that a video of another or a variable rate moves at
    its own speed; frames are not interpolated. Rotation is applied. Sound is ignored. Files that name no colour
    matrix are read as BT.709 from 720 lines on, else as BT.601.

    Args:
        num_frames: that are taken; further ones are ignored.
        fps: of the output; None: the frames are taken one after another.
        prepare: makes each frame what is needed: fits its size, turns a mask to grey.

    Raises:
        BadInput: it is no video of a known format, damaged, too short, too large, or of high dynamic range.
    """
    if not data:
        raise BadInput("the file is empty")
    try:
        with av.open(io.BytesIO(data), "r", options=_OPENING) as container:
            if not container.streams.video:
                raise BadInput("it has no video, only sound or nothing")
            stream = container.streams.video[0]
            _check_size(stream.codec_context.width, stream.codec_context.height)
            stream.thread_type = "AUTO"
            source_fps = float(stream.average_rate) if stream.average_rate else None
            frames, size = _taken(container, num_frames, fps, prepare)
    except BadInput:
        raise
    except (av.FFmpegError, ValueError, OSError, EOFError) as error:
        words = "damaged or cut off" if data[4:8] == b"ftyp" else description(data).replace("pictures", "videos")
        reason = error.strerror if isinstance(error, av.FFmpegError) else one_line(error)
        raise BadInput(f"it cannot be decoded as a video ({words}): {reason}") from error
    return Clip(frames, fps or source_fps, size)


def _taken(
    container: Any, num_frames: int, fps: float | None, prepare: Callable[[Image.Image], Image.Image]
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the frames that are taken, and the size of the frames before they were prepared."""
    reformatter, taken, size = VideoReformatter(), list[np.ndarray](), (0, 0)
    last: tuple[Any, np.ndarray] | None = None
    num_decoded = 0
    for frame in _nearest(container.decode(video=0), num_frames, fps, _MAX_FRAMES_PER_FRAME):
        if last is None or last[0] is not frame:
            _check_size(frame.width, frame.height)
            image = _as_image(frame, reformatter)
            if num_decoded and image.size != size:
                raise BadInput(f"its size changes from {size[0]} x {size[1]} to {image.width} x {image.height}")
            size, num_decoded = image.size, num_decoded + 1
            pixels = np.asarray(prepare(image))
            if pixels.shape[0] * pixels.shape[1] * num_frames > MAX_PIXELS_OF_VIDEO:
                raise BadInput(f"{num_frames} frames have more than the {MAX_PIXELS_OF_VIDEO} pixels that are taken")
            last = (frame, pixels)
        taken.append(last[1])
    if len(taken) < num_frames:
        rate = f" at {fps:g} per second" if fps else ""
        raise BadInput(f"it has {len(taken)} frames{rate}, and the request needs {num_frames}")
    return np.stack(taken), size


def _nearest(frames: Iterator[Any], num_frames: int, fps: float | None, max_per_frame: int) -> Iterator[Any]:
    """Yield for each frame of the output the nearest one of the source, while there are any."""
    before: Any = None
    number, start, interval, num_read = 0, 0.0, 1 / fps if fps else 0.0, 0
    for frame in frames:
        num_read += 1
        if num_read > num_frames * max_per_frame:
            raise BadInput(f"it has more than {max_per_frame} times the frames per second of the output")
        if fps is None or frame.time is None:
            yield frame
            number += 1
        else:
            start = float(frame.time) if before is None else start
            while before is not None and number < num_frames:
                wanted = start + number * interval
                if wanted - float(before.time) > float(frame.time) - wanted:
                    break  # this frame is nearer, or its successor
                yield before
                number += 1
            if before is not None:
                interval_of_source = float(frame.time) - float(before.time)
            before = frame
        if number >= num_frames:
            return
    if before is not None:  # the last frame is shown for half an interval beyond its timestamp, at most
        shown = max(interval, interval_of_source if num_read > 1 else 0.0) / 2
        while number < num_frames and start + number * interval <= float(before.time) + shown:
            yield before
            number += 1


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS_OF_FRAME:
        raise BadInput(f"its frames have {width} x {height} pixels, more than the {MAX_PIXELS_OF_FRAME} that are taken")


def _as_image(frame: Any, reformatter: VideoReformatter) -> Image.Image:
    """Return a frame as an upright RGB picture."""
    if frame.color_trc in _HDR:
        raise BadInput("it has a high dynamic range (PQ or HLG); convert it to BT.709")
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    rgb = reformatter.reformat(
        frame,
        format="rgb24",
        src_colorspace=_matrix(frame),
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_TO_RGB,
        threads=1,
    )
    quarter_turns = round(frame.rotation / 90) % 4
    return Image.fromarray(np.ascontiguousarray(np.rot90(rgb.to_ndarray(), quarter_turns)))


def _matrix(frame: Any) -> Any:
    if frame.colorspace in (_RGB, _UNSPECIFIED):
        return Colorspace.ITU709 if frame.height >= _LINES_OF_HD else Colorspace.ITU601
    return frame.colorspace
