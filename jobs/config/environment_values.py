"""Values that a job takes from environment variables with `${oc.env:NAME}`. They are used, and never shown.

A job is resolved twice: once with the values, and once with a mark in place of each value. The marks show which of the
job's values contain which variable, so that messages and printed jobs have `${oc.env:NAME}` there instead.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from rendermill.jobs.config.interpolations import ResolverError, bad_interpolation
from rendermill.jobs.config.job import Job
from rendermill.jobs.config.mistakes import Mistake
from rendermill.manifests.errors import Keys
from rendermill.manifests.secrets import hide, mask_secrets

Templates = Mapping[Keys, str]
"""By keys, the text of a job file that gave a value, such as `s3://bucket/${oc.env:FOLDER}`."""

_MARK = re.compile("oc9env_([0-9a-f]+)_vne9co")  # of characters that may stand in any expression of OmegaConf
_SHORTEST_HIDDEN = 4
"""Values with at least this many characters are hidden everywhere; shorter ones are part of many words."""
_is_marking = False
_names_read: set[str] = set()


def _read(*arguments: Any) -> Any:
    """The value of `${oc.env:NAME}` or `${oc.env:NAME,default}`, or its mark."""
    name = str(arguments[0])
    _names_read.add(name)
    if _is_marking and name in os.environ:
        return _mark(name)
    if len(arguments) == 1 and name not in os.environ:
        hint = f"set it, or give a default: ${{oc.env:{name},default}}"
        raise ResolverError(f"environment variable {name!r} not found; {hint}")
    return oc.env(*arguments)


def _mark(name: str) -> str:
    return f"oc9env_{name.encode().hex()}_vne9co"


OmegaConf.register_resolver("oc.env", _read, replace=True)


def templates_of(content: Any, resolve: Callable[[], Any]) -> Templates:
    """Return the texts that gave those values of a job which contain environment variables.

    Args:
        content: The content of the job, resolved.
        resolve: Resolves the job again.
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
    """Replace the values at these keys of a job's content, and return the content."""
    for keys, value in values.items():
        section = _at(content, keys[:-1])
        section[int(keys[-1]) if isinstance(section, list) else keys[-1]] = value
    return content


def resolved(template: str, keys: Keys) -> Any:
    """Return the value that a template has with the present environment variables.

    Raises:
        Mistake: A variable is not set.
    """
    try:
        return OmegaConf.create({"value": template}).value
    except OmegaConfBaseException as error:
        raise Mistake(keys, bad_interpolation(error).problem) from error


def as_expression(text: str) -> str:
    """Return a text as a job file has to write it, where `${` would begin an expression."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def without_values(texts: Sequence[str], keys: Keys, content: Any, templates: Templates) -> list[str]:
    """Replace values of environment variables, however short, by their templates.

    Args:
        texts: The parts of a message about the value at some keys, without the keys.
        content: The content of the job, resolved.
    """
    kept = list(texts)
    for own, template in templates.items():
        if own[: len(keys)] == keys or keys[: len(own)] == own:
            kept = _without(kept, _at(content, own), template)
    return kept


def _without(texts: list[str], value: Any, template: str) -> list[str]:
    """Replace the value that a message is about.

    A long value is replaced everywhere. A short value may be a part of other words and numbers, so it is replaced in
    quotes, after "got" and as a name in a path, or else where it first stands by itself.
    """
    text = str(value)
    if len(text) >= _SHORTEST_HIDDEN:
        return [part.replace(repr(value), template).replace(text, template) for part in texts]
    alone = re.escape(text) + r"(?![\w.-])"
    for pattern in (re.escape(repr(text)), f"(?<=got ){alone}", f"(?<=/){alone}"):
        if any(re.search(pattern, part) for part in texts):
            return [re.sub(pattern, lambda _: template, part) for part in texts]
    alone = rf"(?<![\w.-]){alone}"
    first = next((index for index, part in enumerate(texts) if re.search(alone, part)), None)
    return [
        re.sub(alone, lambda _: template, part, count=1) if index == first else part for index, part in enumerate(texts)
    ]


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
    """A resolved job with marks in place of all texts that equal the value of a variable that was read."""
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
    """Hide the values in all later messages, except short ones, numbers, and words that the job also has in clear."""
    names = {name for template in templates.values() for name in re.findall(r"\$\{oc\.env:([^}]+)\}", template)}
    in_clear = _MARK.sub("", json.dumps(marked, default=str)) + (json.dumps(Job.model_json_schema()) if names else "")
    for name in names:
        value = os.environ[name]
        if len(value) >= _SHORTEST_HIDDEN and not re.fullmatch(r"[\d.]+", value) and value not in in_clear:
            hide(value, f"${{oc.env:{name}}}")
