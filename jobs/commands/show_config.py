"""`rendermill config`: a job with all values resolved, and where each was set; the text is a job file again."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from rendermill.jobs.config.environment_values import as_expression, fill_in
from rendermill.jobs.config.job_file import JobFile
from rendermill.jobs.config.pipeline_defaults import pipeline_defaults
from rendermill.jobs.console.screen import json_text, printable
from rendermill.manifests.errors import Keys
from rendermill.manifests.secrets import mask_secrets

_WIDEST = 60
"""The width in characters up to which a line moves the comments of all lines to the right."""


def config_as_yaml(job_file: JobFile) -> str:
    """Return the job as a job file, with a comment at each value that says where it was set."""
    job = _without_secrets(job_file)
    lines = list(_lines(job, _fill_in(job, job_file)))
    width = max(len(text) for text, _ in lines if len(text) <= _WIDEST)
    preset = f", environment {job_file.preset}" if job_file.preset else ""
    head = printable(f"# {job_file.path}{preset}, date {job_file.date:%Y-%m-%d %H:%M} UTC")
    return "\n".join([head, *(f"{text:{width}}  # {source}" if source else text for text, source in lines)])


def config_as_json(job_file: JobFile) -> str:
    """Return the job as JSON, and where each value was set, by keys with dots between them."""
    job = _without_secrets(job_file)
    source = _fill_in(job, job_file)
    content = {
        "environment": job_file.preset,
        "date": job_file.date.isoformat(timespec="seconds"),
        "job": job,
        "sources": {".".join(keys): source(keys) for keys in _keys_of_values(job)},
    }
    return json_text(content, indent=2)


def _fill_in(job: dict[str, Any], job_file: JobFile) -> Callable[[Keys], str]:
    """Fill in the defaults of pipelines, and return a function that says where a value was set."""
    sources: dict[Keys, str] = {}
    for name, model in job["models"].items():
        pipeline_class, defaults = pipeline_defaults(job_file.job.models[name].checkpoint) or ("", {})
        for key, value in defaults.items():
            if model["defaults"].get(key) is None:
                model["defaults"][key] = value
                sources["models", name, "defaults", key] = f"default of {pipeline_class}"
    return lambda keys: sources.get(keys) or job_file.source(keys)


def _lines(section: Mapping[str, Any], source: Callable[[Keys], str], keys: Keys = ()) -> Iterator[tuple[str, str]]:
    """The lines of a section, and for each value its source."""
    for key, value in section.items():
        start, inner = f"{'  ' * len(keys)}{_on_one_line(key)}:", (*keys, key)
        if isinstance(value, dict) and value:
            yield start, ""
            yield from _lines(value, source, inner)
        else:
            yield f"{start} {_on_one_line(value)}", printable(source(inner))


def _keys_of_values(section: Mapping[str, Any], keys: Keys = ()) -> Iterator[Keys]:
    for key, value in section.items():
        if isinstance(value, dict) and value:
            yield from _keys_of_values(value, (*keys, key))
        else:
            yield (*keys, key)


class _Dumper(yaml.SafeDumper):
    """Keeps texts on one line, and in quotes where OmegaConf would read numbers, such as `1e3`."""

    def represent_text(self, text: str) -> yaml.Node:
        is_plain = text.isprintable() and not _is_number(text)
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_Dumper.add_representer(str, _Dumper.represent_text)


def _on_one_line(value: Any) -> str:
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10**9)
    text = text.removesuffix("\n").removesuffix("\n...")
    # YAML puts a text with such characters in double quotes, where their numbers stand for them
    return "".join(character if character.isprintable() else f"\\U{ord(character):08X}" for character in text)


def _without_secrets(job_file: JobFile) -> Any:
    """The content of the job as a job file may write it, with templates in place of values of environment variables."""
    content = _map_texts(job_file.job.model_dump(mode="json"))
    return fill_in(content, job_file.job.templates)


def _map_texts(value: Any) -> Any:
    """The texts as a job file writes them, with `***` in place of secrets within URLs."""
    if isinstance(value, dict):
        return {key: _map_texts(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_map_texts(inner) for inner in value]
    return as_expression(mask_secrets(value)) if isinstance(value, str) else value
