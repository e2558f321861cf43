"""How a job file is read: its sources merged, resolved and checked; and which of them set what."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from rendermill.jobs.config.dates import find_date, register_date
from rendermill.jobs.config.job import Job
from rendermill.jobs.config.layers import ENVIRONMENT_VARIABLE, File, Layer, override, read_files, variables
from rendermill.jobs.config.mistakes import Keys, Mistake, bad_interpolation, invalid_value, nearest
from rendermill.jobs.config.variables import Templates, fill_in, resolved, templates_of, without_values
from rendermill.manifests.errors import UserError

COMMAND_LINE = "command line"
DEFAULT = "default"


@dataclass(frozen=True)
class JobFile:
    """A job that was read, and who set what in it.

    Attributes:
        path: the job file's.
        environment: which of its environments was chosen, if any.
        date: what `${date:…}` writes.
        content: all that was set, merged and resolved, without defaults.
    """

    path: str
    environment: str | None
    date: datetime
    layers: Sequence[Layer]
    content: Mapping[str, Any]
    job: Job

    def source(self, keys: Keys) -> str:
        """Where a value comes from: `job.yaml:3`, a variable's name, `command line` or `default`."""
        value: Any = self.content
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                return DEFAULT
            value = value[key]
        return _place(self.layers, keys) or self.path

    def at_its_place(self, error: UserError) -> UserError:
        """An error that begins with one of the job's keys, with the place of that key before it."""
        text = str(error)
        named = [
            keys
            for layer in self.layers
            for keys in layer.places
            if re.match(rf"{re.escape('.'.join(keys))}[:. ]", text)
        ]
        if not named:
            return error
        keys = max(named, key=len)
        name = ".".join(keys)
        problem = without_values(text.removeprefix(name), keys, self.content, self.job.templates)
        return UserError(f"{_place(self.layers, keys)}: {name}{problem}")


def read_job_file(
    path: str, overrides: Sequence[str] = (), environment: str | None = None, date: str | None = None
) -> JobFile:
    """Read a job file.

    Later wins: files named by `extends`, the file itself, the chosen one of its `environments`, `RENDERMILL_…`
    variables (`RENDERMILL_MODELS__SANA__BATCH=4`), overrides.

    Args:
        overrides: `key=value`, with dots in keys: `models.sana.batch=4`.
        environment: one of the file's `environments`; None: what `RENDERMILL_ENVIRONMENT` says, or none.
        date: what `${date:…}` writes, ISO 8601; None: what `RENDERMILL_DATE` says, or now.

    Raises:
        UserError: a mistake in any of these, as one line that names where it is, the key and what would be right.
    """
    run_date = find_date(date)
    register_date(run_date)
    files = list(read_files(Path(path)).values())
    chosen = _choose(path, files, environment)
    layers = [
        *(file.settings for file in files),
        *(file.environments[chosen] for file in files if chosen and chosen in file.environments),
        *variables(),
        *(override(COMMAND_LINE, text) for text in overrides),
    ]
    try:
        content = _resolve(layers)
        reads_variables = any("oc.env" in str(OmegaConf.to_container(layer.content)) for layer in layers)
        templates = templates_of(content, lambda: _resolve(layers)) if reads_variables else {}
        return JobFile(path, chosen, run_date, layers, content, _check(content, templates).with_templates(templates))
    except Mistake as mistake:
        raise UserError(f"{_place(layers, mistake.keys, mistake.is_missing) or path}: {mistake}") from mistake


def parse_job(content: Any, source: str, templates: Templates | None = None) -> Job:
    """Check a job's content.

    Args:
        templates: how its values that come from variables are written, instead of which it may have anything.

    Raises:
        UserError: names the source and the key, what is wrong and what would be right.
    """
    try:
        if templates:
            content = fill_in(content, {keys: resolved(template, keys) for keys, template in templates.items()})
        return _check(content, templates or {}).with_templates(templates or {})
    except Mistake as mistake:
        raise UserError(f"{source}: {mistake}") from mistake


def _check(content: Any, templates: Templates) -> Job:
    try:
        return Job.model_validate(content)
    except ValidationError as error:
        mistake = invalid_value(error)
        problem = str(mistake).removeprefix(f"{'.'.join(mistake.keys)}: ")
        problem = without_values(problem, mistake.keys, content, templates)
        raise Mistake(mistake.keys, problem, mistake.is_missing) from error


def _resolve(layers: Sequence[Layer]) -> Any:
    """The layers merged, and then their interpolations resolved."""
    merged: Any = OmegaConf.create({})
    try:
        for layer in layers:
            keys = _clash(OmegaConf.to_container(merged), OmegaConf.to_container(layer.content))
            if keys is not None:
                raise Mistake(keys, "should be keys and values, or else a list, in all places that set it")
            merged = OmegaConf.merge(merged, layer.content)
        return OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise bad_interpolation(error, [keys for layer in layers for keys in layer.places]) from error
    except RecursionError as error:
        raise Mistake((), "some of its ${…} lead back to one another without end; remove one") from error


def _clash(earlier: Any, later: Any, keys: Keys = ()) -> Keys | None:
    """The keys of a list that would have to be merged with keys and values, which OmegaConf refuses."""
    if isinstance(earlier, dict) and isinstance(later, dict):
        shared = ((key, value) for key, value in later.items() if key in earlier)
        found = (_clash(earlier[key], value, (*keys, str(key))) for key, value in shared)
        return next((clash for clash in found if clash), None)
    return keys if {type(earlier), type(later)} == {dict, list} else None


def _place(layers: Sequence[Layer], keys: Keys, is_missing: bool = False) -> str | None:
    """Where a key stands, or else the section that it belongs to: there where it was set last.

    Args:
        is_missing: tell where its section was begun instead.
    """
    for num_keys in range(len(keys), 0, -1):
        for layer in layers if is_missing else reversed(layers):
            if keys[:num_keys] in layer.places:
                return layer.places[keys[:num_keys]]
    return None


def _choose(path: str, files: Sequence[File], given: str | None) -> str | None:
    """The environment that was asked for, which one of the files has to have."""
    place, name = ("--environment", given) if given else (ENVIRONMENT_VARIABLE, os.environ.get(ENVIRONMENT_VARIABLE))
    if not name:
        return None
    known = list(dict.fromkeys(name for file in files for name in file.environments))
    if name not in known:
        hint = nearest(name, known) if known else "it has none at all"
        raise UserError(f"{place}: environments.{name}: {path} has no such environment; {hint}")
    return name
