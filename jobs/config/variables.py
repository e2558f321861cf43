"""Values that a job takes from environment variables with `${oc.env:NAME}`: they are used, and never shown.

A job is resolved twice: once with the values, and once with a mark in the place of each, which says where they went.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from rendermill.jobs.config.job import Job
from rendermill.jobs.config.mistakes import Keys, Mistake, bad_interpolation
from rendermill.manifests.secrets import hide, mask_secrets

Templates = Mapping[Keys, str]
"""By keys, how a job file writes a value that holds some of a variable's: `s3://bucket/${oc.env:FOLDER}`."""

_MARK = re.compile("oc9env_([0-9a-f]+)_vne9co")  # of characters that may stand in any expression of OmegaConf
_SHORTEST_HIDDEN = 4
"""Characters of a value that is hidden everywhere; shorter ones are part of many words."""
_is_marking = False
_names_read: set[str] = set()


def _read(*given: Any) -> Any:
    name = str(given[0])
    _names_read.add(name)
    return _mark(name) if _is_marking and name in os.environ else oc.env(*given)


def _mark(name: str) -> str:
    return f"oc9env_{name.encode().hex()}_vne9co"


OmegaConf.register_resolver("oc.env", _read, replace=True)


def templates_of(content: Any, resolve: Callable[[], Any]) -> Templates:
    """How the values of a job that come from variables are written.

    Args:
        content: the job's, resolved.
        resolve: resolves it once more.
    """
    with _marking():
        try:
            marked = resolve()
        except (Mistake, OmegaConfBaseException):  # an expression may need the value, as `${date:${oc.env:FORMAT}}`
            marked = _marked(content)
    templates = dict(_templates(marked, content, ()))
    _hide(content, marked, templates)
    return templates


def fill_in(content: Any, values: Mapping[Keys, Any]) -> Any:
    """A job's content with other values at these keys."""
    for keys, value in values.items():
        section = _at(content, keys[:-1])
        section[int(keys[-1]) if isinstance(section, list) else keys[-1]] = value
    return content


def resolved(template: str, keys: Keys) -> Any:
    """The value that a template stands for now.

    Raises:
        Mistake: a variable is not set.
    """
    try:
        return OmegaConf.create({"value": template}).value
    except OmegaConfBaseException as error:
        raise Mistake(keys, str(bad_interpolation(error)).partition(": ")[2]) from error


def as_expression(text: str) -> str:
    """A text as a job file writes it, where `${` would begin an expression."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def without_values(problem: str, keys: Keys, content: Any, templates: Templates) -> str:
    """What is wrong at some keys, with templates in the place of values that come from variables, however short.

    Args:
        problem: in words, without the keys.
        content: the job's, resolved.
    """
    for own, template in templates.items():
        if own[: len(keys)] == keys or keys[: len(own)] == own:
            problem = _without(problem, _at(content, own), template)
    return problem


def _without(problem: str, value: Any, template: str) -> str:
    """A problem without the value that it is about.

    A long value is replaced wherever it stands; a short one, which may be a part of other words and numbers, in quotes,
    after "got" or as a name in a path, or else where it first stands by itself.
    """
    text = str(value)
    if len(text) >= _SHORTEST_HIDDEN:
        return problem.replace(repr(value), template).replace(text, template)
    alone = re.escape(text) + r"(?![\w.-])"
    for pattern in (re.escape(repr(text)), f"(?<=got ){alone}", f"(?<=/){alone}"):
        if re.search(pattern, problem):
            return re.sub(pattern, lambda _: template, problem)
    return re.sub(rf"(?<![\w.-]){alone}", lambda _: template, problem, count=1)


def _at(content: Any, keys: Keys) -> Any:
    for key in keys:
        content = content[int(key) if isinstance(content, list) else key]
    return content


@contextmanager
def _marking() -> Iterator[None]:
    global _is_marking
    _is_marking = True
    try:
        yield
    finally:
        _is_marking = False


def _marked(content: Any) -> Any:
    """A resolved job with marks wherever a text holds the value of a variable that was read."""
    if isinstance(content, dict):
        return {key: _marked(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_marked(value) for value in content]
    if isinstance(content, str):
        for name in sorted(_names_read & os.environ.keys(), key=lambda name: -len(os.environ[name])):
            if len(os.environ[name]) >= _SHORTEST_HIDDEN:
                content = content.replace(os.environ[name], _mark(name))
    return content


def _templates(marked: Any, content: Any, keys: Keys) -> Iterator[tuple[Keys, str]]:
    if isinstance(marked, dict) and isinstance(content, dict):
        for key in marked.keys() & content.keys():
            yield from _templates(marked[key], content[key], (*keys, str(key)))
    elif isinstance(marked, list) and isinstance(content, list) and len(marked) == len(content):
        for index, (inner, value) in enumerate(zip(marked, content, strict=True)):
            yield from _templates(inner, value, (*keys, str(index)))
    elif isinstance(marked, str) and _MARK.search(marked):
        yield keys, _template(marked, is_text=isinstance(content, str))


def _template(marked: str, is_text: bool) -> str:
    masked = mask_secrets(marked, lambda found: not re.fullmatch(f"({_MARK.pattern})+", found))
    template = _MARK.sub(lambda mark: f"${{oc.env:{bytes.fromhex(mark[1]).decode()}}}", as_expression(masked))
    return template if is_text else f"${{oc.decode:{template}}}"


def _hide(content: Any, marked: Any, templates: Templates) -> None:
    """Keep the values out of messages, too, but for those that say nothing: short ones, numbers, words in clear."""
    names = {name for template in templates.values() for name in re.findall(r"\$\{oc\.env:([^}]+)\}", template)}
    in_clear = _MARK.sub("", json.dumps(marked, default=str)) + (json.dumps(Job.model_json_schema()) if names else "")
    for name in names:
        value = os.environ[name]
        if len(value) >= _SHORTEST_HIDDEN and not re.fullmatch(r"[\d.]+", value) and value not in in_clear:
            hide(value, f"${{oc.env:{name}}}")
