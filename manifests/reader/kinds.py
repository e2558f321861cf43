"""The kinds of values that a manifest may hold: their types in Arrow and in a job file, and how a value is read."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pyarrow as pa
from pydantic import Field

from rendermill.manifests.arrow.values import Unreadable
from rendermill.manifests.errors import RowProblem

MAX_SEED = 2**63 - 1
MAX_NUM_SAMPLES = 10_000
"""The most samples of one row: a typing error beyond that would fill a worker's memory."""
_FIRST_ROUNDED = 2**53
"""From here on, a float64 may be the result of rounding another whole number."""


@dataclass(frozen=True)
class Kind:
    """A kind of values.

    Attributes:
        in_manifest: the Arrow type that the documentation names; a manifest may use others that hold the same values.
        in_record: the Arrow type of requests and records.
        read: returns a value of a manifest (its column's name, the value) in normal form, or raises `RowProblem`.
        in_job_file: the type of a default in the job file, as pydantic takes it.
    """

    in_manifest: pa.DataType
    in_record: pa.DataType
    read: Callable[[str, Any], Any]
    in_job_file: Any = None


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
    """Return a whole number as int if it comes from a column of floating-point or decimal numbers; else the value.

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
    limits = re.sub(f"{MAX_SEED}$", "2^63-1", f"{minimum} … {maximum}")

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
    return float(value) + 0.0  # turns -0.0 into 0.0, which is equal and would have another hash


TEXT = Kind(pa.string(), pa.string(), _text, str)
ID = Kind(pa.string(), pa.string(), _id)
"""Text, a whole number or a UUID; becomes text."""
SEED = Kind(pa.int64(), pa.int64(), _whole_number(0, MAX_SEED))
INDEX = Kind(pa.int64(), pa.int32(), _whole_number(0, 2**31 - 1))
COUNT = Kind(pa.int64(), pa.int32(), _whole_number(1, 2**31 - 1), Annotated[int, Field(ge=1)])
NUM_SAMPLES = Kind(pa.int64(), pa.int32(), _whole_number(1, MAX_NUM_SAMPLES))
JSON_TEXT = Kind(pa.string(), pa.string(), _text)
"""Canonical JSON (`manifests.identity.canonical_json`) as text."""
NUMBER = Kind(pa.float64(), pa.float64(), _number, Annotated[float, Field(allow_inf_nan=False)])
RATE = Kind(pa.float64(), pa.float64(), _number, Annotated[float, Field(gt=0, allow_inf_nan=False)])
"""A number above 0. A manifest's is checked by the model, whose message says the range."""
