"""The reading of a job file: its layers are merged, resolved and checked; each value knows where it was set."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from rendermill.jobs.config.dates import find_date, register_date
from rendermill.jobs.config.environment_values import Templates, fill_in, resolved, templates_of, without_values
from rendermill.jobs.config.interpolations import bad_interpolation
from rendermill.jobs.config.job import Job
from rendermill.jobs.config.layers import PRESET_VARIABLE, File, Layer, given, override, read_files, variables
from rendermill.jobs.config.mistakes import Mistake, invalid_value, nearest
from rendermill.manifests.errors import Keys, UserError

COMMAND_LINE = "command line"
PYTHON = "Python"
DEFAULT = "default"


@dataclass(frozen=True)
class JobFile:
    """A job that was read from a file, and where each of its values was set.

    Attributes:
        path: The path of the job file.
        preset: The chosen one of its `environments`; None if none was chosen.
        date: The date that `${date:…}` writes.
        content: All settings, merged and resolved, without defaults.
    """

    path: str
    preset: str | None
    date: datetime
    layers: Sequence[Layer]
    content: Mapping[str, Any]
    job: Job

    def source(self, keys: Keys) -> str:
        """Return where a value was set: `job.yaml:3`, the name of a variable, `command line` or `default`."""
        value: Any = self.content
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                return DEFAULT
            value = value[key]
        return _place(self.layers, keys) or self.path

    def at_its_place(self, error: UserError) -> UserError:
        """Return a mistake at a key of this job with the place where the key was set, as `job.yaml:3: …`."""
        place = _place(self.layers, error.keys)
        if place is None:
            return error
        texts = [error.subject, error.problem]
        subject, problem = without_values(texts, error.keys, self.content, self.job.templates)
        return UserError(problem, error.keys, subject, place)


def read_job_file(
    path: str,
    overrides: Sequence[str] = (),
    preset: str | None = None,
    date: str | None = None,
    overrides_from: str = COMMAND_LINE,
) -> JobFile:
    """Read a job file.

    Later sources win: files named by `extends`, the file itself, the chosen one of its `environments`, `RENDERMILL_…`
    variables (`RENDERMILL_MODELS__SANA__BATCH=4`), overrides.

    Args:
        overrides: `key=value`, with dots in keys: `models.sana.batch=4`.
        preset: One of the file's `environments`; None: that of `RENDERMILL_ENVIRONMENT`, or none.
        date: The date that `${date:…}` writes, ISO 8601; None: that of `RENDERMILL_DATE`, or now.
        overrides_from: The place of the overrides, for messages.

    Raises:
        UserError: There is a mistake in any of these. Its text names the place, the key and what would be right.
    """
    run_date = find_date(date)
    register_date(run_date)
    files = list(read_files(Path(path)).values())
    chosen = _choose(path, files, preset)
    layers = [
        *(file.settings for file in files),
        *(file.presets[chosen] for file in files if chosen and chosen in file.presets),
        *variables(),
        *(override(overrides_from, text) for text in overrides),
    ]
    return _read_layers(path, chosen, run_date, layers)


def read_job_content(content: Mapping[str, Any], overrides: Sequence[str] = ()) -> JobFile:
    """Read a job that Python code gives in place of a file.

    Args:
        content: The content of a job file, without `extends` and `environments`. Variables do not override it.
        overrides: As for `read_job_file`.

    Raises:
        UserError: As `read_job_file`.
    """
    run_date = find_date(None)
    register_date(run_date)
    layers = [given(PYTHON, content), *(override(PYTHON, text) for text in overrides)]
    return _read_layers(PYTHON, None, run_date, layers)


def _read_layers(path: str, chosen: str | None, run_date: datetime, layers: Sequence[Layer]) -> JobFile:
    try:
        content = _resolve(layers)
        reads_variables = any("oc.env" in str(OmegaConf.to_container(layer.content)) for layer in layers)
        templates = templates_of(content, lambda: _resolve(layers)) if reads_variables else {}
        return JobFile(path, chosen, run_date, layers, content, _check(content, templates).with_templates(templates))
    except Mistake as mistake:
        place = _place(layers, mistake.keys, mistake.is_missing) or path
        raise UserError(mistake.problem, mistake.keys, place=place) from mistake


def parse_job(content: Any, source: str, templates: Templates | None = None) -> Job:
    """Check the content of a job.

    Args:
        source: Where the content is from, for messages.
        templates: The texts of its values that come from environment variables; they replace those of the content.

    Raises:
        UserError: There is a mistake. Its text names the source, the key and what would be right.
    """
    try:
        if templates:
            content = fill_in(content, {keys: resolved(template, keys) for keys, template in templates.items()})
        return _check(content, templates or {}).with_templates(templates or {})
    except Mistake as mistake:
        raise UserError(mistake.problem, mistake.keys, place=source) from mistake


def _check(content: Any, templates: Templates) -> Job:
    try:
        return Job.model_validate(content)
    except ValidationError as error:
        mistake = invalid_value(error)
        (problem,) = without_values([mistake.problem], mistake.keys, content, templates)
        raise Mistake(mistake.keys, problem, mistake.is_missing) from error


def _resolve(layers: Sequence[Layer]) -> Any:
    """Merge the layers, and then resolve their interpolations."""
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
    """Return the place that set a key, or else its section, last; None if nothing sets either.

    Args:
        is_missing: Whether to return where the section was begun instead.
    """
    for num_keys in range(len(keys), 0, -1):
        for layer in layers if is_missing else reversed(layers):
            if keys[:num_keys] in layer.places:
                return layer.places[keys[:num_keys]]
    return None


def _choose(path: str, files: Sequence[File], given: str | None) -> str | None:
    """The preset that the command line or the variable asks for, which one of the files has to have."""
    place, name = ("--environment", given) if given else (PRESET_VARIABLE, os.environ.get(PRESET_VARIABLE))
    if not name:
        return None
    known = list(dict.fromkeys(name for file in files for name in file.presets))
    if name not in known:
        hint = nearest(name, known) if known else "it has none at all"
        problem = f"{path} has no such environment; {hint}"
        raise UserError(problem, ("environments", name), place=place)
    return name
