"""The columns of manifests, requests, records, failures and rejected rows: the contract that files and code share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from rendermill.manifests.arrow.types import as_type
from rendermill.manifests.errors import Problem
from rendermill.manifests.request import FIELDS, MANIFEST_FIELDS

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Column:
    """The name, the Arrow type and the meaning of one column."""

    name: str
    type: pa.DataType
    meaning: str


MANIFEST_COLUMNS = tuple(Column(name, field.kind.in_manifest, field.meaning) for name, field in MANIFEST_FIELDS.items())

MANIFEST_NAMES = frozenset(MANIFEST_FIELDS)

REQUEST_COLUMNS = tuple(
    Column(name, field.kind.in_record, field.recorded or field.meaning) for name, field in FIELDS.items()
)

_FIRST = ("id", "sample_index", "model")
"""The columns of a request that records begin with."""
_LAST = "request_hash"

RECORD_COLUMNS = (
    *(column for column in REQUEST_COLUMNS if column.name in _FIRST),
    Column("checkpoint", pa.string(), "As in the job file."),
    Column("revision", pa.string(), "The Hub's commit; null for a folder or URL."),
    *(column for column in REQUEST_COLUMNS if column.name not in (*_FIRST, _LAST)),
    Column(
        "num_tokens_cut",
        pa.int32(),
        "Tokens of the prompt and the negative prompt beyond the limit of the text encoder. Null: not known.",
    ),
    Column("scheduler", pa.string(), "Class of the scheduler."),
    Column("path", pa.string(), "The media file, or the shard that holds it, relative to the output folder."),
    Column("member", pa.string(), "The media file's name in its shard; null if it is a file of its own."),
    Column("format", pa.string(), "The media file's format, as in the job file."),
    Column("bytes", pa.int64(), "Size of the media file."),
    Column("sha256", pa.string(), "Of the media file."),
    Column("pixel_sha256", pa.string(), "Of the uint8 frames before encoding, in order frame, row, column, RGB."),
    Column(
        "audio_sha256",
        pa.string(),
        "Of the float32 samples of the sound before encoding, in order channel, sample. Null without sound.",
    ),
    Column(
        "requested_sizes",
        pa.string(),
        "The `width`, `height` and `num_frames` that were asked for, as JSON, if the pipeline rendered others. "
        "Null: those of the record.",
    ),
    Column("batch_size", pa.int32(), "The number of items that were rendered together."),
    Column("device", pa.string(), "Model of the device."),
    Column("environment", pa.string(), "Versions and settings that pixels may depend on, as JSON."),
    Column("started_at", pa.timestamp("us", tz="UTC"), "When the item's batch began."),
    Column("seconds", pa.float64(), "The item's share of its batch's time."),
    Column("attempt", pa.int32(), "The attempt that succeeded, from 1."),
    Column("run_id", pa.string(), "The submission; see `runs/<run_id>.json`."),
    *(column for column in REQUEST_COLUMNS if column.name == _LAST),
)

PROVENANCE_NAMES = tuple(
    column.name
    for column in RECORD_COLUMNS
    if column.name in ("checkpoint", "revision", "scheduler")
    or (column.name in FIELDS and FIELDS[column.name].in_provenance)
)
"""The columns of a record that its media file repeats."""

ERROR_COLUMNS = (
    Column("error_type", pa.string(), "Class of the error, or `NonFinite` if the pixels are NaN or infinite."),
    Column("error", pa.string(), "Its message."),
    Column("attempts", pa.int32(), "The number of attempts."),
)

REJECTED_COLUMNS = (
    Column("file", pa.string(), "The manifest file."),
    Column("row_number", pa.int64(), "From 0; null if the whole file could not be read."),
    Column("reason", pa.string(), "Why, and what would be right instead."),
    Column("row", pa.string(), "The manifest row without changes, as JSON."),
)

RESERVED_NAMES = frozenset(column.name for column in (*REQUEST_COLUMNS, *RECORD_COLUMNS, *ERROR_COLUMNS))
"""Names that the user's own columns of a manifest cannot have, except those of `MANIFEST_COLUMNS`."""

INTERNAL_PREFIX = "rendermill:"
"""The beginning of the names of columns that exist only within a run, so that they clash with no other."""
FRAMES = f"{INTERNAL_PREFIX}frames"
"""Raw pixels: uint8 bytes in order frame, row, column, RGB."""
AUDIO = f"{INTERNAL_PREFIX}audio"
"""The sound before encoding (`actors.media.sound`)."""
MEDIA = f"{INTERNAL_PREFIX}media"
"""The bytes of an encoded media file."""
INPUT_PREFIX = f"{INTERNAL_PREFIX}input:"
"""Begins the names of columns with the content of inputs that the manifest itself holds: bytes, or a list of them."""
DECODED_PREFIX = f"{INTERNAL_PREFIX}decoded:"
"""Begins the names of columns with decoded inputs, as `actors.media.inputs.packing` packs them."""
INPUT_ERROR = f"{INTERNAL_PREFIX}input_error"
"""The reason why a request's inputs cannot be used, as JSON: the type and the message of the error; else null."""


def arrow_schema(columns: tuple[Column, ...], extra: pa.Schema | None = None) -> pa.Schema:
    """Return the Arrow schema of these columns, followed by the user's own."""
    return pa.schema([pa.field(column.name, column.type) for column in columns] + list(extra or ()))


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of a schema; those that an earlier rendermill did not write are null."""

    def column(field: pa.Field) -> pa.ChunkedArray | pa.Array:
        if field.name not in table.column_names:
            return pa.nulls(table.num_rows, field.type)
        return pa.chunked_array([as_type(chunk, field.type) for chunk in table[field.name].chunks], field.type)

    return pa.table([column(field) for field in schema], schema)


def receipt_schema(extra: pa.Schema) -> pa.Schema:
    """Return the schema of receipts: a record, or a failure (`error_type` is not null, media columns are null)."""
    return arrow_schema(RECORD_COLUMNS + ERROR_COLUMNS, extra)


def sha256_column(name: str) -> str:
    """Return the name of the column that may give the sha256 of the content of an input's URL."""
    return f"{name}_sha256"


def inline_column(name: str) -> str:
    """Return the name of the column of request tables with the bytes of an input that the manifest itself holds.

    Its type is large_binary, or a list of it for an input of several pictures; null for URLs.
    """
    return f"{INPUT_PREFIX}{name}"


class InputColumn(NamedTuple):
    """The part of an input that reading a manifest needs.

    Attributes:
        is_required: whether the model renders nothing without it.
        is_list: whether a row may give several pictures.
    """

    is_required: bool
    is_list: bool


@dataclass(frozen=True, eq=False)
class ModelContract:
    """The part of a model that reading a manifest needs.

    Equal to itself alone, so that results derived from one can be cached.

    Attributes:
        defaults: values of a request's fields that neither row nor job file may say.
        problem: takes the fields that rows may leave open, all filled in; returns why the model cannot render them, or
            None if it can.
        settings_hash: of the model's settings, part of every request hash.
        arguments: reads the value of each further argument that the model takes (the argument's name, the value), and
            returns it as a JSON value, or None if it is the pipeline's own default; raises `RowProblem`.
        argument_defaults: values of further arguments that the job file gives, as `arguments` returned them.
        inputs: the images and videos that the model takes, by the name of the pipeline's argument.
    """

    defaults: Mapping[str, Any]
    problem: Callable[[Mapping[str, Any]], Problem | None]
    settings_hash: str
    arguments: Mapping[str, Callable[[str, Any], Any]] = field(default_factory=dict)
    argument_defaults: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, InputColumn] = field(default_factory=dict)

    @property
    def further_columns(self) -> list[str]:
        """The names of the manifest's columns that it takes beside `MANIFEST_COLUMNS`."""
        return [*self.arguments, *self.inputs, *map(sha256_column, self.inputs)]
