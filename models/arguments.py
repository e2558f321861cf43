"""Further arguments of pipelines: their values, as rows and job files give them, checked against their types."""

import json
import math
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rendermill.manifests.errors import RowProblem

_WORDS = {
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "string": "text",
    "null": "null",
}
_BOUNDS = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}


@dataclass(frozen=True)
class Argument:
    """Reads the values of one argument.

    Args:
        type: as pydantic takes it. A default in it, as in `Annotated[float, Field(0.6)]`, is the pipeline's own.
    """

    type: Any

    def __call__(self, name: str, value: Any) -> Any:
        """Return a value as JSON has it, or None if it is the pipeline's own default.

        A number that a column of another type holds exactly, such as 3.0 for 3, is that number; a text is no number.

        Raises:
            RowProblem: the value does not suit the type; the message says what would.
        """
        for candidate in (value, _without_points(value)):
            try:
                found = self._adapter.validate_json(_as_json(candidate), strict=True)
            except (ValidationError, TypeError, ValueError):
                continue
            plain = self._adapter.dump_python(found, mode="json")
            plain = plain + 0.0 if isinstance(plain, float) else plain  # -0.0 is equal to 0.0
            return None if plain == self._default else plain
        raise RowProblem(f"{name}: expected {self._words}, got {value!r:.100} ({type(value).__name__})")

    def __getstate__(self) -> dict[str, Any]:
        return {"type": self.type}  # what pydantic makes of it, each process makes for itself

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.type)

    @cached_property
    def _default(self) -> Any:
        default = self._adapter.get_default_value()
        return None if default is None else self._adapter.dump_python(default.value, mode="json")

    @cached_property
    def _words(self) -> str:
        return _in_words(self._adapter.json_schema())


def _as_json(value: Any) -> str:
    """Return a value of a manifest as JSON.

    Raises:
        TypeError: JSON has no such values.
        ValueError: it is not finite.
    """
    return json.dumps(value, allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError


def _without_points(value: Any) -> Any:
    """Return a value with whole numbers in the place of floating-point numbers that are whole, also within lists."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return [_without_points(inner) for inner in value] if isinstance(value, list | tuple) else value


def _in_words(schema: Any) -> str:
    """Return a JSON schema in words, as far as arguments of pipelines need it."""
    if "anyOf" in schema:
        branches = [branch for branch in schema["anyOf"] if branch.get("type") != "null"]
        return " or ".join(dict.fromkeys(map(_in_words, branches)))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return f"one of {', '.join(map(repr, values))}" if len(values) > 1 else repr(values[0])
    if schema.get("type") == "array":
        items = schema.get("items") or {}
        return f"a list of {_in_words(items)}" if items else "a list"
    words = _WORDS.get(str(schema.get("type")), "another value")
    if "minimum" in schema and "maximum" in schema:
        return f"{words} from {schema['minimum']} to {schema['maximum']}"
    bounds = [f"{word} {schema[key]}" for key, word in _BOUNDS.items() if key in schema]
    return f"{words} {' and '.join(bounds)}" if bounds else words
