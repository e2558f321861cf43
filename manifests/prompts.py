"""Reads manifests: finds the files, streams their rows with file and row number, validates each row."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import identity
from manifests.errors import UserError, one_line
from manifests.schema import MANIFEST_COLUMNS, RESERVED_NAMES, ModelContract, Request
from manifests.storage import first_contact, is_passing, masked_errors, open_filesystem, patience

MAX_SEED = 2**63 - 1
MAX_NUM_SAMPLES = 10_000
"""Of one row; a slip of the pen beyond that would fill a worker's memory."""
_MANIFEST_NAMES = frozenset(column.name for column in MANIFEST_COLUMNS)
_NUM_FOOTER_THREADS = 32
_NUM_ROWS_PER_READ = 8192


@dataclass(frozen=True)
class RowGroup:
    """A row group of a manifest file: the unit in which tasks read."""

    file: str
    index: int
    first_row: int
    num_rows: int
    patience_seconds: float = 0.0


@dataclass(frozen=True)
class Manifest:
    """What a manifest holds, from its files' footers alone.

    Attributes:
        row_groups: in the order of files and rows.
        extra: the user's own columns, in name order, with their types.
        unreadable: files that are no manifest, with the reason.
    """

    row_groups: list[RowGroup]
    extra: pa.Schema
    unreadable: dict[str, str]


class RowProblem(Exception):
    """Why one row cannot be drawn, in words."""


def open_manifest(url: str, patience_seconds: float = 0.0) -> Manifest:
    """Read the footers of every Parquet file of a manifest.

    Args:
        url: a file, a folder (searched for `*.parquet` at any depth) or a glob; any fsspec URL.
        patience_seconds: how long to try again while the manifest's store fails, once it has answered.

    Raises:
        UserError: nothing there, no readable file, or extra columns that no record could carry.
    """
    filesystem, path = open_filesystem(url)
    with first_contact(f"manifest {url}: cannot be read"):
        if any(character in path for character in "*?["):
            files = sorted(filesystem.glob(path))
        elif filesystem.isdir(path):
            files = sorted(filesystem.glob(f"{path.rstrip('/')}/**/*.parquet"))
        else:
            files = [path] if filesystem.exists(path) else []
    if not files:
        raise UserError(f"manifest {url}: no such file, folder with *.parquet files, or glob with a match")

    files = [filesystem.unstrip_protocol(file) if "://" in url else str(file) for file in files]
    with ThreadPoolExecutor(_NUM_FOOTER_THREADS) as threads:
        footers = list(threads.map(partial(patience(patience_seconds), _read_footer), files))
    unreadable = {file: footer for file, footer in zip(files, footers, strict=True) if isinstance(footer, str)}
    readable = {file: footer for file, footer in zip(files, footers, strict=True) if not isinstance(footer, str)}
    if not readable:
        file, reason = next(iter(unreadable.items()))
        raise UserError(f"manifest {file}: {reason}")

    row_groups = []
    for file, footer in readable.items():
        first_row = 0
        for index in range(footer.num_row_groups):
            num_rows = footer.row_group(index).num_rows
            row_groups.append(RowGroup(file, index, first_row, num_rows, patience_seconds))
            first_row += num_rows
    if not any(group.num_rows for group in row_groups):
        raise UserError(f"manifest {url}: it has no rows")
    extra = _extra_columns({file: footer.schema.to_arrow_schema() for file, footer in readable.items()})
    return Manifest(row_groups, extra, unreadable)


def _read_footer(file: str) -> "pq.FileMetaData | str":
    filesystem, path = open_filesystem(file)
    try:
        with filesystem.open(path, "rb") as opened:
            metadata = pq.read_metadata(opened)
    except (pa.ArrowInvalid, OSError) as error:
        if is_passing(error):
            raise
        return f"not a readable Parquet file: {one_line(error)}"
    names = metadata.schema.to_arrow_schema().names
    if "prompt" not in names:
        return f"no column `prompt`, which is the one required; it has {', '.join(names)}"
    return metadata


def _extra_columns(schemas: Mapping[str, pa.Schema]) -> pa.Schema:
    fields: dict[str, pa.Field] = {}
    for file, schema in schemas.items():
        for field in schema:
            if field.name in _MANIFEST_NAMES:
                continue
            if field.name in RESERVED_NAMES:
                raise UserError(
                    f"manifest {file}: column `{field.name}` is the name of a record's own column; rename it"
                )
            carried = pa.field(field.name, _plain_type(field.type))
            known = fields.setdefault(field.name, carried)
            if known.type != carried.type:
                raise UserError(
                    f"manifest {file}: column `{field.name}` is {carried.type}, but {known.type} in another file of it"
                )
    return pa.schema([fields[name] for name in sorted(fields)])


def _plain_type(data_type: pa.DataType) -> pa.DataType:
    return data_type.value_type if pa.types.is_dictionary(data_type) else data_type


def read_rows(row_group: RowGroup) -> Iterator[tuple[int, dict[str, Any]]]:
    """Stream a row group as (row number in the file, row); holds a few thousand rows at a time."""
    row_number, num_batches = row_group.first_row, 0
    with masked_errors():
        for attempt in patience(row_group.patience_seconds):
            with attempt:
                for batch in islice(_batches(row_group), num_batches, None):
                    for row in batch.to_pylist():
                        yield row_number, row
                        row_number += 1
                    num_batches += 1


def _batches(row_group: RowGroup) -> Iterator[pa.RecordBatch]:
    filesystem, path = open_filesystem(row_group.file)
    with filesystem.open(path, "rb") as opened, pq.ParquetFile(opened) as parquet:
        yield from parquet.iter_batches(_NUM_ROWS_PER_READ, row_groups=[row_group.index])


def row_as_json(row: Mapping[str, Any]) -> str:
    """A manifest row as it was, for `rejected/`."""
    return json.dumps(row, ensure_ascii=False, default=str)


@dataclass(frozen=True)
class Item:
    """A valid row: its id, its requests, one a sample, and the user's own columns."""

    id: str
    requests: list[Request]
    extra: dict[str, Any]


@dataclass(frozen=True)
class RowValidator:
    """Turns manifest rows into items.

    Args:
        models: the job's models by name.
        default_model: for rows that name none.
        job_seed: seeds of samples without a row seed derive from it.
    """

    models: Mapping[str, ModelContract]
    default_model: str | None
    job_seed: int

    def item(self, row: Mapping[str, Any]) -> Item:
        """The item in a row.

        Raises:
            RowProblem: the row cannot be drawn; the message says why and what would be right.
        """
        given, extra = _read(row)
        item_id = given.get("id") or identity.content_hash(given | extra).hex()
        prompt, seed = given.get("prompt", ""), given.get("seed")
        if not prompt.strip():
            raise RowProblem("prompt: empty; every row needs a text to draw")
        num_samples = given.get("num_samples", 1)
        if seed is not None and seed + num_samples - 1 > MAX_SEED:
            raise RowProblem(f"seed: {seed} with {num_samples} samples would pass 2^63-1, the largest seed")
        model = self._model(given.get("model"))
        shared = tuple((name, value) for name, value in given.items() if name in _OPEN)
        fields, hasher = _settle(self.models[model], model, shared)

        requests = []
        for sample_index in range(num_samples):
            sample_seed = identity.sample_seed(self.job_seed, item_id, sample_index, seed)
            request_hash = hasher(item_id, prompt, sample_index, sample_seed)
            requests.append(
                Request(
                    id=item_id,
                    sample_index=sample_index,
                    prompt=prompt,
                    seed=sample_seed,
                    **fields,
                    request_hash=request_hash,
                )
            )
        return Item(item_id, requests, extra)

    def _model(self, name: str | None) -> str:
        name = name or self.default_model
        if name is None:
            raise RowProblem("model: none named, and the job file has no default_model")
        if name not in self.models:
            raise RowProblem(f"model: {name!r} is not in the job file, which has {', '.join(sorted(self.models))}")
        return name


def content_hash(row: Mapping[str, Any]) -> bytes:
    """What tells a valid row from others of its id; see `manifests.identity.content_hash`."""
    given, extra = _read(row)
    return identity.content_hash(given | extra)


def _read(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a row gives of the manifest's own columns, normalized, and its others as they are."""
    given, extra = {}, {}
    for name, value in row.items():
        read = _READERS.get(name)
        if read is None:
            extra[name] = value
        elif value is not None:
            given[name] = read(name, value)
    return given, extra


@lru_cache(maxsize=1024)
def _settle(
    contract: ModelContract, model: str, given: tuple[tuple[str, Any], ...]
) -> tuple[dict[str, Any], identity.RequestHasher]:
    """The fields of a request that most rows of a manifest share, and what hashes such requests.

    Args:
        given: by a row, of what it may leave to the job file; read, so that values that are equal are the same.
    """
    # what neither row nor job file says (a second guidance, fps of an image) stays null
    drawn: dict[str, Any] = {**_OPEN, **contract.defaults, **dict(given)}
    drawn["negative_prompt"] = drawn["negative_prompt"] or None
    problem = contract.rules.problem(**{name: drawn[name] for name in _JUDGED})
    if problem:
        raise RowProblem(problem)
    fields = {"model": model, **drawn}
    return fields, identity.RequestHasher(fields, contract.settings_hash)


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise RowProblem(f"{name}: expected text, got {value!r} ({type(value).__name__})")


def _id(name: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(name, value)


def _whole_number(minimum: int, maximum: int) -> Callable[[str, Any], int]:
    limits = re.sub("9223372036854775807$", "2^63-1", f"{minimum} … {maximum}")

    def read(name: str, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            if abs(value) > 2**53:
                raise RowProblem(f"{name}: {value!r} is too large to be exact in a floating-point column; use int64")
            value = int(value)  # pandas writes a whole-number column with nulls as floats
        if not isinstance(value, int) or isinstance(value, bool):
            raise RowProblem(f"{name}: expected a whole number, got {value!r} ({type(value).__name__})")
        if not minimum <= value <= maximum:
            raise RowProblem(f"{name}: {value} is outside {limits}")
        return value

    return read


def _number(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RowProblem(f"{name}: expected a number, got {value!r} ({type(value).__name__})")
    if not math.isfinite(value):
        raise RowProblem(f"{name}: {value} is not a finite number")
    return float(value) + 0.0  # no -0.0, which equals 0.0 and would hash otherwise


_COUNT = _whole_number(1, 2**31 - 1)
_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "prompt": _text,
    "id": _id,
    "model": _text,
    "negative_prompt": _text,
    "seed": _whole_number(0, MAX_SEED),
    "num_samples": _whole_number(1, MAX_NUM_SAMPLES),
    "width": _COUNT,
    "height": _COUNT,
    "num_frames": _COUNT,
    "fps": _number,
    "num_inference_steps": _COUNT,
    "guidance_scale": _number,
    "guidance_scale_2": _number,
}
"""How the manifest's columns are read, of values that are not null; in `schema.MANIFEST_COLUMNS` they are explained."""
_OPEN = dict.fromkeys(_READERS.keys() - {"prompt", "id", "model", "seed", "num_samples"})
"""What a row may leave to the job file."""
_JUDGED = [name for name in _OPEN if name != "guidance_scale"]
