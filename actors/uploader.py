"""Encodes and stores what the renderer drew, and completes its receipts: media first, then the row that names them."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from actors import metrics
from actors.encoding import Encoding
from actors.media import EXTENSIONS, encode
from manifests.errors import one_line
from manifests.layout import key_in_shard, media_path, shard
from manifests.schema import ERROR_COLUMNS, FRAMES, MEDIA, REQUEST_COLUMNS
from manifests.shards import json_of, pack, sample_json
from manifests.storage import Folder
from manifests.values import python_rows

_ERROR = tuple(column.name for column in ERROR_COLUMNS)
_FOUND = ("path", "member", "format", "bytes", "sha256", "pixel_sha256", *_ERROR)
"""Columns of a receipt that are known only when its item is encoded and stored."""
_NEEDED = (*(column.name for column in REQUEST_COLUMNS), "checkpoint", "revision", "scheduler", "attempt", *_ERROR)
"""Columns that paths and files are made of."""


def store(rendered: pa.Table, output: Folder, encoding: Encoding, receipts: pa.Schema) -> pa.Table:
    """Encode and store every item of a table, each as a file.

    Args:
        rendered: from `Renderer`: request and record columns known so far, and `FRAMES` (raw uint8 bytes).
        receipts: the schema to return, `manifests.schema.receipt_schema`.

    Returns:
        One receipt an item. An item that cannot be encoded becomes a failure; a store that cannot be written raises.
    """
    found, files = [], {}
    with metrics.timed(_model_of(rendered), "store"):
        for row, outcome, data in _encoded(rendered, encoding):
            found.append(outcome)
            if data is not None:
                extension = EXTENSIONS[encoding.media_format]
                path = media_path(row["model"], row["id"], row["sample_index"], row["request_hash"], extension)
                outcome["path"], files[path] = path, data
        output.write_all(files)
    return _receipts(rendered, found, receipts)


def encode_all(rendered: pa.Table, encoding: Encoding, receipts: pa.Schema) -> pa.Table:
    """Encode every item of a table, for `store_shard`.

    Args:
        rendered: as for `store`.
        receipts: as for `store`.

    Returns:
        One receipt an item, still without its `path`, and a column `MEDIA`: the file's bytes; null for a failure.
    """
    with metrics.timed(_model_of(rendered), "store"):
        encoded = list(_encoded(rendered, encoding))
    table = _receipts(rendered, [outcome for _, outcome, _ in encoded], receipts)
    return table.append_column(MEDIA, pa.array([data for _, _, data in encoded], pa.large_binary()))


def store_shard(encoded: pa.Table, output: Folder, extra: pa.Schema) -> pa.Table:
    """Store all items of a table as one shard.

    Args:
        encoded: from `encode_all`.
        extra: the manifest's own columns.

    Returns:
        One receipt an item.
    """
    names = [name for name in encoded.schema.names if name not in (MEDIA, *extra.names)]
    rows = encoded.select(names).to_pylist()
    own_columns = encoded.select(extra.names)
    drawn = [(index, rows[index], media) for index, media in enumerate(encoded[MEDIA]) if media.is_valid]
    files: dict[str, bytes | pa.Buffer] = {}
    for index, row, media in drawn:
        key = key_in_shard(row["id"], row["sample_index"], row["request_hash"])
        row["member"] = f"{key}.{EXTENSIONS[row['format']]}"
        if row["member"] not in files:  # Ray may have had an item drawn twice: the first one's receipt counts
            (own,) = python_rows(own_columns.slice(index, 1))
            files |= {row["member"]: media.as_buffer(), json_of(row["member"]): sample_json(row | own, extra.names)}
    if drawn:
        data = pack(files)
        _, first, _ = drawn[0]
        path = shard(first["model"], first["run_id"], hashlib.sha256(data).hexdigest())
        with metrics.timed(first["model"], "store"):
            output.write(path, data)
        for _, row, _ in drawn:
            row["path"] = path
    known = pa.Table.from_pylist(rows, pa.schema([encoded.schema.field(name) for name in names]))
    receipts = encoded.drop_columns([MEDIA]).schema
    return pa.table([(known if name in names else encoded)[name] for name in receipts.names], schema=receipts)


def _model_of(rendered: pa.Table) -> str:
    return rendered["model"][0].as_py() if rendered.num_rows else ""


def _encoded(rendered: pa.Table, encoding: Encoding) -> Iterator[tuple[dict[str, Any], dict[str, Any], bytes | None]]:
    """Every item's row, what its receipt says beside that, but for its place, and its file; a failure has none."""
    rows = rendered.select(_NEEDED).to_pylist()
    for row, frames in zip(rows, rendered[FRAMES], strict=True):
        if row["error_type"] is not None:
            yield row, {name: row[name] for name in _ERROR}, None
            continue
        pixels = frames.as_buffer()
        shape = (row["num_frames"], row["height"], row["width"], 3)
        try:
            data = encode(np.frombuffer(pixels, np.uint8).reshape(shape), encoding, row["fps"], row)
        except (ValueError, MemoryError) as error:
            problem = {"error_type": type(error).__name__, "error": one_line(error, 2000), "attempts": row["attempt"]}
            yield row, problem, None
            continue
        yield row, _described(data, pixels, encoding.media_format), data


def _receipts(rendered: pa.Table, found: Sequence[dict[str, Any]], receipts: pa.Schema) -> pa.Table:
    """What was found out beside what the renderer knew."""
    new = pa.Table.from_pylist(found, pa.schema([receipts.field(name) for name in _FOUND]))
    return pa.table([(new if name in _FOUND else rendered)[name] for name in receipts.names], schema=receipts)


def _described(data: bytes, pixels: pa.Buffer, media_format: str) -> dict[str, Any]:
    """What the record says of a file."""
    return {
        "format": media_format,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "pixel_sha256": hashlib.sha256(pixels).hexdigest(),
    }
