"""Mistakes in the content of a job, in one line each: the key, what is wrong, and what would be right."""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from rendermill.jobs.config.job import Job
from rendermill.manifests.errors import Keys, UserError, one_line

_UNION_BRANCH = re.compile(r"[\[(]|^(constrained-)?(int|bool|str|dict|list)$")
"""The names that pydantic gives to the branches of a union."""

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


class Mistake(UserError):
    """A mistake at a key of a job, before it is known which file or variable set the key.

    Args:
        is_missing: Whether the key is absent.
    """

    def __init__(self, keys: Keys, problem: str, is_missing: bool = False) -> None:
        super().__init__(problem if keys else f"job: {problem}", keys)
        self.is_missing = is_missing


def invalid_value(error: ValidationError) -> Mistake:
    """Return the first problem that pydantic found."""
    problems = error.errors(include_url=False)
    first = _keys(problems[0])
    # every branch of a union complains; the user most likely meant the one whose problem lies deepest
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
    # a value that may have several types has a problem with each of them
    messages = [plain_words(other["msg"]) for other in problems if _keys(other) == keys]
    shown = problem["input"]
    got = "" if isinstance(shown, Mapping | list | BaseModel) else f", got {shown!r}"
    remedy = "; put it in quotes" if problem["type"] == "string_type" and isinstance(shown, int | float) else ""
    return Mistake(keys, f"{' or '.join(dict.fromkeys(messages))}{got}{remedy}")


def yaml_problem(error: yaml.YAMLError) -> str:
    """Return why a text is not YAML, without the line."""
    problem = getattr(error, "problem", None) or one_line(error)
    if problem.startswith("found duplicate key "):
        return f"{problem.removeprefix('found duplicate key ')}: stands here twice; remove one"
    remedy = next((f"; {remedy}" for words, remedy in _YAML_REMEDIES.items() if words in problem), "")
    return f"cannot be read as YAML: {problem}{remedy}"


def nearest(name: str, known: Collection[str]) -> str:
    """Return a question with the known name that is most like this one, or a list of all known names."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"


def plain_words(message: str) -> str:
    """Return a message of pydantic or OmegaConf without the words that only Python programmers know."""
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    message = re.sub("valid dictionary( or instance of .*)?", "section of keys and values", message)
    return message[0].lower() + message[1:]


def _unknown_key(keys: Keys) -> str:
    if keys in {("extends",), ("environments",)}:
        return "only a job file has this key, at its top"
    return f"unknown key; {nearest(keys[-1], _known_keys(keys[:-1]))}"


def _keys(problem: Mapping[str, Any]) -> Keys:
    """The keys that lead to a problem, without the branches of a union, which pydantic names among them."""
    *outer, last = map(str, problem["loc"]) if problem["loc"] else [""]
    is_key = problem["type"] == "extra_forbidden"  # even if it looks like the name of a branch
    inner = [part for part in outer if not _UNION_BRANCH.search(part)]
    return (*inner, last) if last and (is_key or not _UNION_BRANCH.search(last)) else tuple(inner)


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
