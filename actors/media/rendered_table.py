"""Outcomes as a table: the rows that asked for them, with what a record says of rendering, and the frames."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from rendermill.actors.engine.outcome import Outcome
from rendermill.manifests.schema import FRAMES


def rendered_table(rows: pa.Table, outcomes: Sequence[Outcome], constants: Mapping[str, str | None]) -> pa.Table:
    """Return the outcomes beside their rows.

    Args:
        rows: the row of each outcome's request, in order.
        constants: columns that are equal in all rows, by name.

    Returns:
        The columns of `rows`, what the record says of rendering, and `FRAMES`, the raw uint8 bytes in order frame, row,
        column, RGB; null for a failure.
    """
    table = rows
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
        FRAMES: _as_binary([outcome.frames for outcome in outcomes]),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def _as_binary(frames: Sequence[np.ndarray | None]) -> pa.LargeBinaryArray:
    """Return a column of the frames' bytes. Each is copied only once, because frames are most of what a table holds."""
    sizes = [0 if pixels is None else pixels.size for pixels in frames]
    rendered = [pixels.reshape(-1) for pixels in frames if pixels is not None]
    offsets = np.cumsum([0, *sizes], dtype=np.int64)
    is_rendered = pa.array([pixels is not None for pixels in frames], pa.bool_())
    data = np.concatenate([np.empty(0, np.uint8), *rendered])
    buffers = [is_rendered.buffers()[1], pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(frames), buffers)
