"""Encodes and stores what was rendered, and returns receipts: first the media, then the rows that name them."""

import errno
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from tenacity import retry_if_exception

from rendermill.actors.media.encoders import encode
from rendermill.actors.media.encoding import FORMATS, Encoding
from rendermill.actors.media.sound import Sound, from_column
from rendermill.actors.services import metrics
from rendermill.actors.services.guard import Guard, costs_its_item
from rendermill.manifests.arrow.values import python_rows
from rendermill.manifests.errors import one_line
from rendermill.manifests.output.layout import key_in_shard, media_path, shard
from rendermill.manifests.output.shards import json_of, pack, sample_json
from rendermill.manifests.schema import AUDIO, ERROR_COLUMNS, FRAMES, MEDIA, REQUEST_COLUMNS
from rendermill.manifests.storage.folder import Folder
from rendermill.manifests.storage.retries import with_retries

_ERROR = tuple(column.name for column in ERROR_COLUMNS)
_MEDIA = ("path", "member", "format", "bytes", "sha256", "pixel_sha256", "audio_sha256")
_FOUND = (*_MEDIA, *_ERROR)
"""Columns of a receipt that are known only after its item is encoded and stored."""
_NEEDED = (*(column.name for column in REQUEST_COLUMNS), "checkpoint", "revision", "scheduler", "attempt", *_ERROR)
"""Columns that paths and the content of files depend on."""
_OUT_OF_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}
"""Errors of a machine's disk or its number of open files, which pass when another process ends. They fail no item."""


@dataclass
class _Item:
    """An item on its way to the store.

    Attributes:
        row: the columns that its path and its file depend on.
        data: the bytes of its file; None for a failure.
        found: further columns of its receipt.
        own: the manifest's own columns as a table of one row, if its file contains them.
    """

    row: dict[str, Any]
    data: bytes | pa.Buffer | None = None
    found: dict[str, Any] = field(default_factory=dict)
    own: pa.Table | None = None

    def fail(self, error_type: str, error: str, num_attempts: int) -> None:
        """Turn the item into a failure."""
        self.found = dict.fromkeys(_MEDIA) | {"error_type": error_type, "error": error, "attempts": num_attempts}
        self.data = None


def store(
    rendered: pa.Table, output: Folder, encoding: Encoding, receipts: pa.Schema, encoder: Guard, writer: Guard
) -> pa.Table:
    """Encode every item of a table, and store each one as a file.

    Args:
        rendered: from `Renderer`: request and record columns known so far, `FRAMES` (raw uint8 bytes) and `AUDIO`.
        receipts: the schema of the result, `manifests.schema.receipt_schema`.
        encoder: guards the encoding.
        writer: guards the storing.

    Returns:
        One receipt per item. An item that cannot be encoded becomes a failure; a store that cannot be written raises.
    """
    with metrics.timed(_model_of(rendered), "store"):
        items = _encoded(rendered, encoding, encoder, output.patience_seconds)
        to_store = [item for item in items if item.data is not None]
        for item in to_store:
            row = item.row
            names = (row["model"], row["id"], row["sample_index"], row["request_hash"])
            item.found["path"] = media_path(*names, item.found["sha256"], encoding.format.extension)
        _guarded(
            to_store,
            writer,
            lambda some: output.write_all({item.found["path"]: item.data or b"" for item in some}),
        )
    return _receipts(rendered, items, receipts)


def encode_all(
    rendered: pa.Table, encoding: Encoding, receipts: pa.Schema, encoder: Guard, patience_seconds: float = 0.0
) -> pa.Table:
    """Encode every item of a table, for `store_shard`.

    Args:
        rendered: as for `store`.
        receipts: as for `store`.
        encoder: guards the encoding.
        patience_seconds: how long to wait for space on the machine's own disk.

    Returns:
        One receipt per item, still without its `path`, and a column `MEDIA` with the file's bytes; null for a failure.
    """
    with metrics.timed(_model_of(rendered), "store"):
        items = _encoded(rendered, encoding, encoder, patience_seconds)
    table = _receipts(rendered, items, receipts)
    return table.append_column(MEDIA, pa.array([item.data for item in items], pa.large_binary()))


def store_shard(encoded: pa.Table, output: Folder, extra: pa.Schema, writer: Guard) -> pa.Table:
    """Store all items of a table as one shard, or each as a shard of its own if the process died repeatedly.

    Args:
        encoded: from `encode_all`.
        extra: the manifest's own columns.
        writer: guards the storing.

    Returns:
        One receipt per item.
    """
    names = [name for name in encoded.schema.names if name not in (MEDIA, *extra.names)]
    rows = encoded.select(names).to_pylist()
    own = encoded.select(extra.names)
    to_store = [
        _Item(row, media.as_buffer(), own=own.slice(index, 1))
        for index, (row, media) in enumerate(zip(rows, encoded[MEDIA], strict=True))
        if media.is_valid
    ]
    _guarded(to_store, writer, lambda some: _write_shard(some, output, extra.names))
    for item in to_store:
        item.row |= item.found
    known = pa.Table.from_pylist(rows, pa.schema([encoded.schema.field(name) for name in names]))
    receipts = encoded.drop_columns([MEDIA]).schema
    return pa.table([(known if name in names else encoded)[name] for name in receipts.names], schema=receipts)


def _model_of(rendered: pa.Table) -> str:
    return rendered["model"][0].as_py() if rendered.num_rows else ""


def _guarded(items: Sequence[_Item], guard: Guard, step: Callable[[list[_Item]], None]) -> None:
    """Run a step for all items. Those that end the process fail."""

    def do(indices: list[int]) -> list[None]:
        step([items[index] for index in indices])
        return [None] * len(indices)

    guard.each([item.row["request_hash"] for item in items], do, lambda index, *why: items[index].fail(*why))


def _encoded(rendered: pa.Table, encoding: Encoding, encoder: Guard, patience_seconds: float) -> list[_Item]:
    """Return every item with its file, or as a failure."""
    items = [_Item(row) for row in rendered.select(_NEEDED).to_pylist()]
    for item in items:
        item.found = {name: item.row[name] for name in _ERROR}
    media = dict(zip(map(id, items), zip(rendered[FRAMES], rendered[AUDIO], strict=True), strict=True))
    to_encode = [item for item in items if item.row["error_type"] is None]

    def encode_some(some: Sequence[_Item]) -> None:
        for item in some:
            frames, audio = media[id(item)]
            _encode(item, frames.as_buffer(), from_column(audio), encoding)

    until_there_is_room = with_retries(patience_seconds).copy(retry=retry_if_exception(_is_out_of_room))
    until_there_is_room(_guarded, to_encode, encoder, encode_some)
    return items


def _encode(item: _Item, pixels: pa.Buffer, audio: Sound | None, encoding: Encoding) -> None:
    """Encode an item's frames and its sound. An error of the encoder fails the item only."""
    row = item.row
    shape = (row["num_frames"], row["height"], row["width"], 3)
    try:
        data = encode(np.frombuffer(pixels, np.uint8).reshape(shape), encoding, row["fps"], row, audio)
    except BaseException as error:
        if _is_out_of_room(error) or not costs_its_item(error):
            raise
        item.fail(type(error).__name__, one_line(error, 2000), row["attempt"])
        return
    item.data = data
    item.found = {
        "format": encoding.media_format,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "pixel_sha256": hashlib.sha256(pixels).hexdigest(),
        "audio_sha256": audio and audio.sha256,
    }


def _is_out_of_room(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _OUT_OF_ROOM


def _write_shard(items: Sequence[_Item], output: Folder, extra: Sequence[str]) -> None:
    """Store items as one shard."""
    files: dict[str, bytes | pa.Buffer] = {}
    for item in items:
        row = item.row
        key = key_in_shard(row["id"], row["sample_index"], row["request_hash"])
        row["member"] = f"{key}.{FORMATS[row['format']].extension}"
        if row["member"] not in files:  # Ray may have rendered an item twice: the first receipt counts
            (own,) = python_rows(item.own)
            files |= {row["member"]: item.data or b"", json_of(row["member"]): sample_json(row | own, extra)}
    data, first = pack(files), items[0].row
    path = shard(first["model"], first["run_id"], hashlib.sha256(data).hexdigest())
    with metrics.timed(first["model"], "store"):
        output.write(path, data)
    for item in items:
        item.row["path"] = path


def _receipts(rendered: pa.Table, items: Sequence[_Item], receipts: pa.Schema) -> pa.Table:
    """Return the receipts, which add what is known now to what the renderer knew."""
    new = pa.Table.from_pylist([item.found for item in items], pa.schema([receipts.field(name) for name in _FOUND]))
    return pa.table([(new if name in _FOUND else rendered)[name] for name in receipts.names], schema=receipts)
