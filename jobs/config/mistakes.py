"""Mistakes in a job's content as one line each: the key, what is wrong, and what would be right."""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args, get_origin

import yaml
from omegaconf.errors import (
    GrammarParseError,
    InterpolationKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)
from pydantic import BaseModel, ValidationError

from rendermill.jobs.config.job import Job
from rendermill.manifests.errors import one_line

Keys = tuple[str, ...]
"""The keys that lead to a value: `("models", "sana", "batch")`."""

_INTERPOLATIONS = "${date:%Y-%m-%d} and ${oc.env:NAME}"

_BRANCH = re.compile(r"[\[(]|^(constrained-)?(int|bool|str|dict|list)$")
"""How pydantic names the branch of a union."""

_YAML_REMEDIES = {
    "cannot start any token": "indent with spaces, and put a text that begins with @, ` or % in quotes",
    "tab character": "indent with spaces",
    "mapping values are not allowed": "put a text that holds `: ` in quotes, and indent keys of a section alike",
    "expected ',' or": "close the bracket that was opened before",
    "expected node content": "close the bracket that was opened before",
    "end of stream": "close the quote that was opened before",
    "expected <block end>": "indent keys of a section alike",
    "expected key": "indent keys of a section alike",
}


class Mistake(Exception):
    """Something wrong at a key; its text is `models.sana.batch: what is wrong and what would be right`.

    Args:
        is_missing: the key is not there at all.
    """

    def __init__(self, keys: Keys, problem: str, is_missing: bool = False) -> None:
        super().__init__(f"{'.'.join(keys) or 'job'}: {problem}")
        self.keys = keys
        self.is_missing = is_missing


def invalid_value(error: ValidationError) -> Mistake:
    """The first problem that pydantic found."""
    problems = error.errors(include_url=False)
    first = _keys(problems[0])
    # a union's branches all complain; the one that got deepest is the one that was meant
    problem = max(
        (other for other in problems if _keys(other)[: len(first)] == first), key=lambda other: len(_keys(other))
    )
    keys = _keys(problem)
    if problem["type"] == "extra_forbidden":
        return Mistake(keys, _unknown_key(keys))
    if problem["type"] == "missing":
        return Mistake(keys, "missing, and needed", is_missing=True)
    if problem["type"] == "disagreement":
        return Mistake((*keys, *problem["ctx"]["keys"]), problem["msg"])
    # a value that may be of several types has a problem with each of them
    messages = [_plainly(other["msg"]) for other in problems if _keys(other) == keys]
    shown = problem["input"]
    got = "" if isinstance(shown, Mapping | list | BaseModel) else f", got {shown!r}"
    remedy = "; put it in quotes" if problem["type"] == "string_type" and isinstance(shown, int | float) else ""
    return Mistake(keys, f"{' or '.join(dict.fromkeys(messages))}{got}{remedy}")


def bad_interpolation(error: OmegaConfBaseException, known: Collection[Keys] = ()) -> Mistake:
    """What OmegaConf could not resolve.

    Args:
        known: all keys of the job.
    """
    by_name = {".".join(keys): keys for keys in known}
    name = re.sub(r"\[\d+\]", "", error.full_key or "")
    keys = by_name.get(name, tuple(name.split(".")) if name else ())
    if isinstance(error, MissingMandatoryValue):
        return Mistake(keys, "is ???, and so has to be given by a file that extends this one, or by an override")
    reason = str(error).splitlines()[0].partition(" raised while resolving interpolation: ")
    problem = _plainly((reason[2] or reason[0]).strip('"'))
    quoted = re.search(r"'(.+)'", problem)
    if isinstance(error, InterpolationKeyError) and quoted:
        near = difflib.get_close_matches(quoted[1], by_name.keys() - {name}, n=1, cutoff=0.6)
        hint = f"did you mean ${{{near[0]}}}?" if near else f"other values are {_INTERPOLATIONS}"
        return Mistake(keys, f"${{{quoted[1]}}}: the job has no such key; {hint}")
    if isinstance(error, UnsupportedInterpolationType):
        return Mistake(keys, f"{problem}; known are {_INTERPOLATIONS}")
    if isinstance(error, GrammarParseError):
        return Mistake(keys, f"{problem}; write ${{key}}, {_INTERPOLATIONS}, or \\${{ where no value is meant")
    if problem.startswith("environment variable") and quoted:
        return Mistake(keys, f"{problem}; set it, or give a default: ${{oc.env:{quoted[1]},default}}")
    if problem == "recursive interpolation detected":
        return Mistake(keys, "its ${…} leads back to itself; remove one")
    return Mistake(keys, problem)


def yaml_problem(error: yaml.YAMLError) -> str:
    """What is wrong with a text that is no YAML, without its line."""
    problem = getattr(error, "problem", None) or one_line(error)
    if problem.startswith("found duplicate key "):
        return f"{problem.removeprefix('found duplicate key ')}: stands here twice; remove one"
    remedy = next((f"; {remedy}" for words, remedy in _YAML_REMEDIES.items() if words in problem), "")
    return f"cannot be read as YAML: {problem}{remedy}"


def nearest(name: str, known: Collection[str]) -> str:
    """The known name that was meant, as a question, or else all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"


def _unknown_key(keys: Keys) -> str:
    if keys in {("extends",), ("environments",)}:
        return "only a job file has this key, at its top"
    return f"unknown key; {nearest(keys[-1], _known_keys(keys[:-1]))}"


def _plainly(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    message = re.sub("valid dictionary( or instance of .*)?", "section of keys and values", message)
    return message[0].lower() + message[1:]


def _keys(problem: Mapping[str, Any]) -> Keys:
    """The keys that lead to a problem, without the branches of a union, which pydantic names among them."""
    *outer, last = map(str, problem["loc"]) if problem["loc"] else [""]
    is_key = problem["type"] == "extra_forbidden"  # whatever it looks like
    inner = [part for part in outer if not _BRANCH.search(part)]
    return (*inner, last) if last and (is_key or not _BRANCH.search(last)) else tuple(inner)


def _known_keys(location: Sequence[str]) -> list[str]:
    """The keys of the section at a location."""
    section: type[BaseModel] = Job
    annotation: Any = Job
    for part in location:
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]  # the part is a model's name
        else:
            annotation = section.model_fields[part].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            section = annotation
    return list(section.model_fields)
