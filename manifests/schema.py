"""The columns of manifests, requests, records, failures and rejected rows: the contract that files and code share."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from rendermill.manifests.arrow.types import as_type

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Column:
    """One column: its name, Arrow type and what it holds."""

    name: str
    type: pa.DataType
    meaning: str


MANIFEST_COLUMNS = (
    Column("prompt", pa.string(), "What to draw. Required; must not be empty."),
    Column("id", pa.string(), "The item's name, unique in the manifest. Default: a hash of the row's content."),
    Column("model", pa.string(), "A model of the job file. Default: its `default_model`."),
    Column("negative_prompt", pa.string(), "What to keep out; has no effect at a guidance scale of 1 or less."),
    Column("seed", pa.int64(), "0 … 2^63-1, the first sample's; later samples count up from it. Default: from the id."),
    Column("num_samples", pa.int64(), "How many to draw, up to 10,000, each with its own seed. Default: 1."),
    Column("width", pa.int64(), "Pixels."),
    Column("height", pa.int64(), "Pixels."),
    Column("num_frames", pa.int64(), "Frames of a video; Wan draws 4k + 1 of them."),
    Column("fps", pa.float64(), "Frames per second of a video."),
    Column("num_inference_steps", pa.int64(), "Denoising steps."),
    Column("guidance_scale", pa.float64(), "Classifier-free guidance (Sprint: embedded guidance)."),
    Column("guidance_scale_2", pa.float64(), "Guidance of Wan's low-noise expert. Default: `guidance_scale`."),
)

MANIFEST_NAMES = frozenset(column.name for column in MANIFEST_COLUMNS)

REQUEST_COLUMNS = (
    Column("id", pa.string(), "The item's id: the manifest's, else a hash of the row."),
    Column("sample_index", pa.int32(), "Which sample of the item, from 0."),
    Column("model", pa.string(), "The model's name in the job file."),
    Column("prompt", pa.string(), "As in the manifest."),
    Column("negative_prompt", pa.string(), "As in the manifest or the job file; null: none."),
    Column("seed", pa.int64(), "The sample's seed."),
    Column("width", pa.int32(), "Pixels."),
    Column("height", pa.int32(), "Pixels."),
    Column("num_frames", pa.int32(), "1 for an image."),
    Column("fps", pa.float64(), "Frames per second; null for an image."),
    Column("num_inference_steps", pa.int32(), "Denoising steps."),
    Column("guidance_scale", pa.float64(), "Guidance used."),
    Column("guidance_scale_2", pa.float64(), "Guidance of the low-noise expert; null: as `guidance_scale`."),
    Column("request_hash", pa.string(), "Hash of all that was asked for (see docs/reproducibility.md)."),
)

_REQUEST = {column.name: column for column in REQUEST_COLUMNS}

RECORD_COLUMNS = (
    _REQUEST["id"],
    _REQUEST["sample_index"],
    _REQUEST["model"],
    Column("checkpoint", pa.string(), "As in the job file."),
    Column("revision", pa.string(), "The Hub's commit; null for a folder or URL."),
    _REQUEST["prompt"],
    _REQUEST["negative_prompt"],
    _REQUEST["seed"],
    _REQUEST["width"],
    _REQUEST["height"],
    _REQUEST["num_frames"],
    _REQUEST["fps"],
    _REQUEST["num_inference_steps"],
    _REQUEST["guidance_scale"],
    _REQUEST["guidance_scale_2"],
    Column(
        "num_tokens_cut",
        pa.int32(),
        "Tokens of the prompt and the negative prompt that are beyond what the text encoder takes. Null: not known.",
    ),
    Column("scheduler", pa.string(), "Class of the scheduler."),
    Column("path", pa.string(), "The media file, or the shard that holds it, relative to the output folder."),
    Column("member", pa.string(), "The media file's name in its shard; null where it is a file of its own."),
    Column("format", pa.string(), "The media file's format, as in the job file."),
    Column("bytes", pa.int64(), "Size of the media file."),
    Column("sha256", pa.string(), "Of the media file."),
    Column("pixel_sha256", pa.string(), "Of the uint8 frames before encoding, in order frame, row, column, RGB."),
    Column("batch_size", pa.int32(), "Items that were drawn together."),
    Column("device", pa.string(), "Model of the device."),
    Column("environment", pa.string(), "Versions and settings that pixels may depend on, as JSON."),
    Column("started_at", pa.timestamp("us", tz="UTC"), "When the item's batch began."),
    Column("seconds", pa.float64(), "The item's share of its batch's time."),
    Column("attempt", pa.int32(), "Which attempt succeeded, from 1."),
    Column("run_id", pa.string(), "The submission; see `runs/<run_id>.json`."),
    _REQUEST["request_hash"],
)

ERROR_COLUMNS = (
    Column("error_type", pa.string(), "Class of the error, or `NonFinite` for a render that came out as NaN."),
    Column("error", pa.string(), "Its message."),
    Column("attempts", pa.int32(), "How often the item was tried."),
)

REJECTED_COLUMNS = (
    Column("file", pa.string(), "The manifest file."),
    Column("row_number", pa.int64(), "From 0; null where the whole file could not be read."),
    Column("reason", pa.string(), "Why, and what would be right."),
    Column("row", pa.string(), "The manifest row as it was, as JSON."),
)

RESERVED_NAMES = frozenset(column.name for column in (*REQUEST_COLUMNS, *RECORD_COLUMNS, *ERROR_COLUMNS))
"""Names that a manifest's own extra columns cannot have (beside `MANIFEST_COLUMNS`, which it can)."""

INTERNAL_PREFIX = "rendermill:"
"""Begins the name of every column that exists only between the steps of a run, so that no other column has its name."""
FRAMES = f"{INTERNAL_PREFIX}frames"
"""Raw pixels: uint8 bytes in order frame, row, column, RGB."""
MEDIA = f"{INTERNAL_PREFIX}media"
"""The bytes of an encoded media file."""


def arrow_schema(columns: tuple[Column, ...], extra: pa.Schema | None = None) -> pa.Schema:
    """The Arrow schema of these columns, followed by a manifest's own extra ones."""
    return pa.schema([pa.field(column.name, column.type) for column in columns] + list(extra or ()))


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the columns of a schema; null are those that an earlier rendermill did not write."""

    def column(field: pa.Field) -> pa.ChunkedArray | pa.Array:
        if field.name not in table.column_names:
            return pa.nulls(table.num_rows, field.type)
        return pa.chunked_array([as_type(chunk, field.type) for chunk in table[field.name].chunks], field.type)

    return pa.table([column(field) for field in schema], schema)


def receipt_schema(extra: pa.Schema) -> pa.Schema:
    """What reaches the ledger for every item: a record, or a failure (`error_type` not null, media columns null)."""
    return arrow_schema(RECORD_COLUMNS + ERROR_COLUMNS, extra)


class Shape(NamedTuple):
    """What items share that are drawn in one batch; sizes in pixels.

    Attributes:
        is_guided: whether classifier-free guidance doubles the work.
    """

    width: int
    height: int
    num_frames: int
    num_inference_steps: int
    is_guided: bool

    @classmethod
    def of(
        cls,
        width: int,
        height: int,
        num_frames: int,
        num_inference_steps: int,
        guidance_scale: float,
        **_: object,
    ) -> "Shape":
        """The shape of a request or record with these fields, and others that do not matter."""
        return cls(width, height, num_frames, num_inference_steps, guidance_scale > 1.0)

    @property
    def work(self) -> int:
        """What drawing it takes, in units in which shapes of one model compare: pixels times passes of the denoiser."""
        return self.num_pixels * self.num_inference_steps * (1 + self.is_guided)

    @property
    def num_pixels(self) -> int:
        """The pixels of all frames."""
        return self.width * self.height * self.num_frames

    def __str__(self) -> str:
        frames = f" x {self.num_frames} frames" if self.num_frames > 1 else ""
        guided = ", guided" if self.is_guided else ""
        return f"{self.width} x {self.height}{frames}, {self.num_inference_steps} steps{guided}"

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """The shape that `str` gave as words."""
        width, height, *middle, num_inference_steps = [int(number) for number in re.findall(r"\d+", text)]
        return cls(width, height, middle[0] if middle else 1, num_inference_steps, text.endswith("guided"))


class Request(NamedTuple):
    """One sample to draw, with every default filled in."""

    id: str
    sample_index: int
    model: str
    prompt: str
    negative_prompt: str | None
    seed: int
    width: int
    height: int
    num_frames: int
    fps: float | None
    num_inference_steps: int
    guidance_scale: float
    guidance_scale_2: float | None
    request_hash: str = ""

    @property
    def shape(self) -> "Shape":
        """What items must share to be drawn in one batch."""
        return Shape.of(self.width, self.height, self.num_frames, self.num_inference_steps, self.guidance_scale)

    @classmethod
    def from_table(cls, table: pa.Table) -> "list[Request]":
        """The requests in the rows of a table with `REQUEST_COLUMNS` (and perhaps others)."""
        columns = [table[column.name].to_pylist() for column in REQUEST_COLUMNS]
        return list(map(cls._make, zip(*columns, strict=True)))


class Rules(Protocol):
    """What a model can draw. `models.interface.Rules` is one; manifests and models do not know each other."""

    def problem(
        self,
        *,
        width: int,
        height: int,
        num_frames: int,
        fps: float | None,
        num_inference_steps: int,
        negative_prompt: str | None,
        guidance_scale_2: float | None,
    ) -> str | None:
        """Why this cannot be drawn, in words that say what could be; None if it can."""


@dataclass(frozen=True, eq=False)
class ModelContract:
    """What reading a manifest needs to know of a model: its defaults, its rules and the hash of its settings.

    Equal to itself alone, so that what follows from one can be remembered.
    """

    defaults: Mapping[str, Any]
    rules: Rules
    settings_hash: str
