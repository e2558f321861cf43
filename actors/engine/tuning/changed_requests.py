"""Requests with one thing changed, to test whether it has an effect."""

import json
from dataclasses import replace
from typing import Any, NamedTuple

from rendermill.manifests.request import FIELDS, Request

_MORE_GUIDANCE = 2.0
"""Added to a guidance scale, so that a guided request stays guided."""
_TEXTS = ("a blurred photograph", "a sharp drawing")


class Changed(NamedTuple):
    """A request with another value of one argument.

    Attributes:
        own: the value of the request, as JSON.
        other: the other value, as JSON.
    """

    request: Request
    own: str
    other: str


def arguments_set(request: Request) -> list[str]:
    """Return the names of the arguments of a request whose effect can be tested."""
    names = list(request.further_arguments)
    if request.is_guided:
        names.append("guidance_scale")
        names += [name for name in ("guidance_scale_2", "negative_prompt") if getattr(request, name) is not None]
    return names


def with_another_seed(request: Request) -> Request:
    """Return the request with another seed."""
    return replace(request, seed=request.seed ^ 1)


def with_another_value(request: Request, name: str) -> Changed | None:
    """Return the request with another value of an argument; None if no other value of its type is known."""
    if name in FIELDS:
        own = getattr(request, name)
        other = own + _MORE_GUIDANCE if isinstance(own, float) else _other(own)
        changed: dict[str, Any] = {name: other}
        return Changed(replace(request, **changed), json.dumps(own), json.dumps(other))
    arguments = request.further_arguments
    other = _other(arguments[name])
    if other is None:
        return None
    further = json.dumps({**arguments, name: other}, sort_keys=True)
    return Changed(replace(request, arguments=further), json.dumps(arguments[name]), json.dumps(other))


def _other(value: Any) -> Any:
    """Return another value of the same type that is likely to be allowed, too; None if none is known.

    Smaller numbers are, more often than larger ones: shares have a maximum of 1, and lengths have a limit.
    """
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value // 2 if value > 1 else value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.5
    if isinstance(value, str):
        return next(text for text in _TEXTS if text != value)
    if isinstance(value, list) and value:
        others = [_other(part) for part in value]
        return None if None in others else others
    return None
