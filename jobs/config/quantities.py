"""Durations, as a job file may write them: `1h30min`."""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

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
