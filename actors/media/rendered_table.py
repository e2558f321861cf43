"""Outcomes as a table: the rows that asked for them, with what a record says of rendering, and the frames."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from rendermill.actors.engine.outcome import Outcome
from rendermill.actors.media.sound import Sound, as_column
from rendermill.manifests.schema import AUDIO, FRAMES

_SIZES = ("num_frames", "height", "width")
"""The sizes of frames in the order of their axes."""


def rendered_table(rows: pa.Table, outcomes: Sequence[Outcome], constants: Mapping[str, str | None]) -> pa.Table:
    """Return the outcomes beside their rows.

    Args:
        rows: the row of each outcome's request, in order.
        constants: columns that are equal in all rows, by name.

    Returns:
        The columns of `rows` with the sizes of the frames, what the record says of rendering, `FRAMES`, the raw uint8
        bytes in order frame, row, column, RGB, null for a failure, and `AUDIO`.
    """
    table, requested_sizes = _with_rendered_sizes(rows, outcomes)
    columns = {name: pa.array([value] * len(outcomes), pa.string()) for name, value in constants.items()}
    columns |= {
        "num_tokens_cut": pa.array([outcome.num_tokens_cut for outcome in outcomes], pa.int32()),
        "batch_size": pa.array([outcome.batch_size for outcome in outcomes], pa.int32()),
        "started_at": pa.array([outcome.started_at for outcome in outcomes], pa.timestamp("us", tz="UTC")),
        "seconds": pa.array([outcome.seconds for outcome in outcomes], pa.float64()),
        "attempt": pa.array([outcome.attempt for outcome in outcomes], pa.int32()),
        "error_type": pa.array([outcome.error_type for outcome in outcomes], pa.string()),
        "error": pa.array([outcome.error for outcome in outcomes], pa.string()),
        "attempts": pa.array([outcome.attempt if outcome.error_type else None for outcome in outcomes], pa.int32()),
        "requested_sizes": requested_sizes,
        FRAMES: _as_binary([outcome.frames for outcome in outcomes]),
        AUDIO: as_column([_sound(outcome) for outcome in outcomes]),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def _with_rendered_sizes(rows: pa.Table, outcomes: Sequence[Outcome]) -> tuple[pa.Table, pa.Array]:
    """Return the rows with the sizes of the frames, and as JSON the sizes that were asked for where they differ."""
    requested: list[str | None] = [None] * len(outcomes)
    sizes = rows.select(_SIZES).to_pylist()
    for index, outcome in enumerate(outcomes):
        if outcome.frames is not None:
            rendered = dict(zip(_SIZES, outcome.frames.shape[:3], strict=True))
            if rendered != sizes[index]:
                requested[index], sizes[index] = json.dumps(sizes[index], sort_keys=True), rendered
    for name in _SIZES if any(requested) else ():
        column = pa.array([size[name] for size in sizes], rows.schema.field(name).type)
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    return rows, pa.array(requested, pa.string())


def _sound(outcome: Outcome) -> Sound | None:
    if outcome.audio is None or outcome.audio_rate is None:
        return None
    return Sound(outcome.audio, outcome.audio_rate)


def _as_binary(frames: Sequence[np.ndarray | None]) -> pa.LargeBinaryArray:
    """Return a column of the frames' bytes. Each is copied only once, because frames are most of what a table holds."""
    sizes = [0 if pixels is None else pixels.size for pixels in frames]
    rendered = [pixels.reshape(-1) for pixels in frames if pixels is not None]
    offsets = np.cumsum([0, *sizes], dtype=np.int64)
    is_rendered = pa.array([pixels is not None for pixels in frames], pa.bool_())
    data = np.concatenate([np.empty(0, np.uint8), *rendered])
    buffers = [is_rendered.buffers()[1], pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(frames), buffers)
