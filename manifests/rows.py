"""Validates manifest rows, and turns them into items: what is to be drawn, every default filled in."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from rendermill.manifests import identity
from rendermill.manifests.arrow.values import Unreadable
from rendermill.manifests.schema import ModelContract, Shape

MAX_SEED = 2**63 - 1
_FIRST_ROUNDED = 2**53
"""From here on a float64 may stand for another whole number that was rounded."""
MAX_NUM_SAMPLES = 10_000
"""Of one row; a slip of the pen beyond that would fill a worker's memory."""


class RowProblem(Exception):
    """Why one row cannot be drawn, in words."""


class Sample(NamedTuple):
    """What a request has that others of its item do not."""

    sample_index: int
    seed: int
    request_hash: str


@dataclass(frozen=True)
class Settled:
    """What rows may leave to the job file, and most rows of a manifest share, every default filled in.

    Attributes:
        fields: of a request, by name.
        shape: of what is drawn.
        hasher: of requests with these fields.
    """

    fields: Mapping[str, Any]
    shape: Shape
    hasher: identity.RequestHasher = field(compare=False, repr=False)


class Item(NamedTuple):
    """The request of a valid row."""

    id: str
    prompt: str
    settled: Settled
    samples: list[Sample]


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

        Args:
            row: by column; of one without an id the user's own columns, too, as they are part of what it is named by.

        Raises:
            RowProblem: the row cannot be drawn; the message says why and what would be right.
        """
        given, extra = _read(row)
        item_id = given.get("id") or identity.content_hash(given | extra).hex()
        prompt, seed, num_samples = given.get("prompt", ""), given.get("seed"), given.get("num_samples", 1)
        if not prompt.strip():
            raise RowProblem("prompt: empty; every row needs a text to draw")
        if seed is not None and seed + num_samples - 1 > MAX_SEED:
            raise RowProblem(f"seed: {seed} with {num_samples} samples would pass 2^63-1, the largest seed")
        model = self._model(given.get("model"))
        shared = tuple([pair for pair in given.items() if pair[0] in _OPEN])
        settled = _settle(self.models[model], model, shared)
        samples = []
        for sample_index in range(num_samples):
            sample_seed = identity.sample_seed(self.job_seed, item_id, sample_index, seed)
            request_hash = settled.hasher(item_id, prompt, sample_index, sample_seed)
            samples.append(Sample(sample_index, sample_seed, request_hash))
        return Item(item_id, prompt, settled, samples)

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
def _settle(contract: ModelContract, model: str, given: tuple[tuple[str, Any], ...]) -> Settled:
    """Fill in what a row leaves to the job file.

    Args:
        given: by a row, of what it may leave; read, so that values that are equal are the same.
    """
    # what neither row nor job file says (a second guidance, fps of an image) stays null
    drawn: dict[str, Any] = {**_OPEN, **contract.defaults, **dict(given)}
    drawn["negative_prompt"] = drawn["negative_prompt"] or None
    problem = contract.rules.problem(**{name: drawn[name] for name in _JUDGED})
    if problem:
        raise RowProblem(problem)
    fields = {"model": model, **drawn}
    return Settled(fields, Shape.of(**drawn), identity.RequestHasher(fields, contract.settings_hash))


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise _wrong(name, "text", value)


def _wrong(name: str, expected: str, value: Any) -> RowProblem:
    if isinstance(value, Unreadable):
        return RowProblem(f"{name}: {value.problem}")
    return RowProblem(f"{name}: expected {expected}, got {value!r} ({type(value).__name__})")


def _id(name: str, value: Any) -> str:
    if isinstance(value, UUID):
        return str(value)
    value = value if isinstance(value, str) else _without_point(name, value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(name, value)


def _without_point(name: str, value: Any) -> Any:
    """A whole number as int where it stands in a column of floating-point or decimal numbers; else the value itself.

    pandas writes a column of whole numbers with nulls as floats, DuckDB its large ones as decimals.
    """
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else value
    if isinstance(value, float) and value.is_integer():
        if abs(value) >= _FIRST_ROUNDED:
            raise RowProblem(f"{name}: {value!r} is too large to be exact in a floating-point column; use int64")
        return int(value)
    return value


def _whole_number(minimum: int, maximum: int) -> Callable[[str, Any], int]:
    limits = re.sub("9223372036854775807$", "2^63-1", f"{minimum} … {maximum}")

    def read(name: str, value: Any) -> int:
        if type(value) is not int:
            value = _without_point(name, value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong(name, "a whole number", value)
        if not minimum <= value <= maximum:
            raise RowProblem(f"{name}: {value} is outside {limits}")
        return value

    return read


def _number(name: str, value: Any) -> float:
    if not isinstance(value, int | float | Decimal) or isinstance(value, bool):
        raise _wrong(name, "a number", value)
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
