"""Durations and sizes, as a job file may write them: `1h30min`, `64MiB`."""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1), "min": timedelta(minutes=1), "s": timedelta(seconds=1)}
_DURATION_PART = r"(\d+(?:\.\d+)?) *(d|h|min|s)"
_DURATION = rf"(?:{_DURATION_PART} *)+"


def _duration(value: Any) -> Any:
    """Convert a text such as `1h30min`; leave anything else to pydantic."""
    if not isinstance(value, str) or value.startswith("P"):  # ISO 8601 begins with P
        return value
    if not re.fullmatch(_DURATION, value):
        raise ValueError("should be a duration such as 30s, 10min, 1h30min or 2d")
    parts = re.findall(_DURATION_PART, value)
    try:
        return sum((float(number) * _UNITS[unit] for number, unit in parts), timedelta(0))
    except OverflowError as error:
        raise ValueError("should be shorter than a million years") from error


def _positive(duration: timedelta) -> timedelta:
    if duration <= timedelta(0):
        raise ValueError("should be longer than 0s")
    return duration


def duration_text(duration: timedelta) -> str:
    """Return a duration as a job file writes it: `6h`, `10min` or `1.5s`."""
    unit = next((unit for unit in ("h", "min") if not duration % _UNITS[unit]), "s")
    return f"{duration / _UNITS[unit]}".removesuffix(".0") + unit


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    AfterValidator(_positive),
    PlainSerializer(duration_text, when_used="json"),
    WithJsonSchema({"type": ["string", "number"], "pattern": rf"^({_DURATION}|P.+)$", "exclusiveMinimum": 0}),
]


_SIZE_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = rf"(\d+(?:\.\d+)?) *({'|'.join(_SIZE_UNITS)})"


def _size(value: Any) -> Any:
    """Convert a text such as `64MiB`; leave anything else to pydantic."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(_SIZE, value)
    if match is None:
        raise ValueError("should be a size such as 500kB, 64MiB or 1GiB")
    return int(float(match[1]) * _SIZE_UNITS[match[2]])


def size_text(num_bytes: int) -> str:
    """Return a size as a job file writes it: `64MiB`, or `1000B`."""
    unit = next(unit for unit in ("GiB", "MiB", "KiB", "B") if num_bytes % _SIZE_UNITS[unit] == 0)
    return f"{num_bytes // _SIZE_UNITS[unit]}{unit}"


Size = Annotated[
    int,
    BeforeValidator(_size),
    Field(ge=1),
    PlainSerializer(size_text, when_used="json"),
    WithJsonSchema({"type": ["string", "integer"], "pattern": f"^{_SIZE}$", "minimum": 1}),
]
"""A number of bytes, or a text such as `64MiB`."""
