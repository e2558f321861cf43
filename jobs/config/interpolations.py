"""Mistakes in the `${…}` of a job file, in words for its author."""

import difflib
import re
from collections.abc import Collection

from omegaconf.errors import (
    GrammarParseError,
    InterpolationKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from rendermill.jobs.config.mistakes import Mistake, plain_words
from rendermill.manifests.errors import Keys

_KNOWN_INTERPOLATIONS = "${date:%Y-%m-%d} and ${oc.env:NAME}"


class ResolverError(ValueError):
    """A `${oc.env:…}` or `${date:…}` that has no value. Its text says why, in words for the user."""


def bad_interpolation(error: OmegaConfBaseException, known: Collection[Keys] = ()) -> Mistake:
    """Return the mistake because of which OmegaConf could not resolve a value.

    Args:
        known: All keys of the job.
    """
    by_name = {".".join(keys): keys for keys in known}
    name = re.sub(r"\[\d+\]", "", error.full_key or "")
    keys = by_name.get(name, tuple(name.split(".")) if name else ())
    return Mistake(keys, _problem(error, by_name.keys() - {name}))


def _problem(error: OmegaConfBaseException, other_names: Collection[str]) -> str:
    if isinstance(error, MissingMandatoryValue):
        return "is ???, and so has to be given by a file that extends this one, or by an override"
    reason = _reason(error)
    first_line = next(iter(str(reason).splitlines()), type(reason).__name__)  # OmegaConf appends its own details
    problem = plain_words(first_line.strip('"'))
    quoted = re.search(r"'(.+)'", problem)
    if isinstance(reason, InterpolationKeyError) and quoted:  # OmegaConf gives the key in its message only
        near = difflib.get_close_matches(quoted[1], other_names, n=1, cutoff=0.6)
        hint = f"did you mean ${{{near[0]}}}?" if near else f"other values are {_KNOWN_INTERPOLATIONS}"
        return f"${{{quoted[1]}}}: the job has no such key; {hint}"
    if isinstance(reason, UnsupportedInterpolationType):
        return f"{problem}; known are {_KNOWN_INTERPOLATIONS}"
    if isinstance(error, GrammarParseError):
        return f"{problem}; write ${{key}}, {_KNOWN_INTERPOLATIONS}, or \\${{ where no value is meant"
    return "its ${…} leads back to itself; remove one" if problem == "recursive interpolation detected" else problem


def _reason(error: BaseException) -> BaseException:
    """The exception that OmegaConf wrapped in others of its own, whose texts repeat it."""
    while type(error) is InterpolationResolutionError and error.__context__ is not None:
        error = error.__context__
    return error
