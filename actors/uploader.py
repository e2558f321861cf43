"""Stores what the renderer drew and completes its receipts: the media first, then the row that names it."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa

from actors.media import EXTENSIONS, encode
from manifests.errors import one_line
from manifests.layout import media_path
from manifests.storage import Folder


def store(rendered: pa.Table, output: Folder, media_format: str, quality: int | None, receipts: pa.Schema) -> pa.Table:
    """Encode and store every item of a table.

    Args:
        rendered: from `Renderer`: request and record columns known so far, and `frames` (raw uint8 bytes).
        receipts: the schema to return, `manifests.schema.receipt_schema`.

    Returns:
        One receipt an item. An item that cannot be encoded becomes a failure; a store that cannot be written raises.
    """
    completed, files = encode_all(rendered, media_format, quality, receipts)
    output.write_all(files)
    return completed


def encode_all(
    rendered: pa.Table, media_format: str, quality: int | None, receipts: pa.Schema
) -> tuple[pa.Table, dict[str, bytes]]:
    """Encode every item of a table.

    Returns:
        One receipt an item, and the files by path. An item that cannot be encoded becomes a failure.
    """
    rows = rendered.drop_columns(["frames"]).to_pylist()
    files: dict[str, bytes] = {}
    for row, frames in zip(rows, rendered["frames"], strict=True):
        if row["error_type"] is None:
            pixels = frames.as_buffer()
            try:
                data = _encoded(row, pixels, media_format, quality)
            except (ValueError, MemoryError) as error:
                row |= {"error_type": type(error).__name__, "error": one_line(error, 2000), "attempts": row["attempt"]}
                continue
            row |= _described(row, data, pixels, media_format)
            files[row["path"]] = data
    return pa.Table.from_pylist(rows, receipts), files


def _encoded(row: dict[str, Any], pixels: pa.Buffer, media_format: str, quality: int | None) -> bytes:
    shape = (row["num_frames"], row["height"], row["width"], 3)
    return encode(np.frombuffer(pixels, np.uint8).reshape(shape), media_format, row["fps"], quality)


def _described(row: dict[str, Any], data: bytes, pixels: pa.Buffer, media_format: str) -> dict[str, Any]:
    """What the record says of a file."""
    path = media_path(row["model"], row["id"], row["sample_index"], row["request_hash"], EXTENSIONS[media_format])
    return {
        "path": path,
        "format": media_format,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "pixel_sha256": hashlib.sha256(pixels).hexdigest(),
    }
