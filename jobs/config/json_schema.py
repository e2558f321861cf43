"""The JSON Schema of a job file, for editors; `docs/job.schema.json` is a copy of it."""

import json
from typing import Any

from rendermill.jobs.config.job import Job

_ANNOTATIONS = ("description", "default")
_INTERPOLATION = {"$ref": "#/$defs/Interpolation"}


def job_schema() -> dict[str, Any]:
    """Return the schema of `Job` with `extends`, `environments` and `${…}` for any value; no key is required."""
    schema = Job.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        section.pop("required", None)  # a file that extends this one, or an override, may give the rest
        section["properties"] = {name: _or_interpolation(value) for name, value in section["properties"].items()}
    settings = {name: {"$ref": f"#/properties/{name}"} for name in schema["properties"]}
    schema["properties"] |= {
        "extends": {
            "description": "Job files that this file extends, relative to it; its own settings win.",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        },
        "environments": {
            "description": "Settings that win over all others, by names for --environment or RENDERMILL_ENVIRONMENT.",
            "type": "object",
            "additionalProperties": {
                "type": ["object", "null"],
                "properties": settings,
                "additionalProperties": False,
            },
        },
    }
    schema["$defs"]["Interpolation"] = {
        "description": "${another.key}, ${date:%Y-%m-%d}, ${oc.env:NAME}; ??? is set by a file that extends this one.",
        "type": "string",
        "pattern": r"\$\{.+\}|^\?\?\?$",
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "rendermill's job file"}


def schema_text() -> str:
    """Return the schema as the text of a JSON file."""
    return json.dumps(job_schema(), indent=2, ensure_ascii=False) + "\n"


def _or_interpolation(value: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that may also be an interpolation."""
    kept = {name: value[name] for name in _ANNOTATIONS if name in value}
    own = {name: part for name, part in value.items() if name not in (*_ANNOTATIONS, "title")}
    if own.get("type") == "string" and "enum" not in own and "pattern" not in own:
        return kept | own
    return kept | {"anyOf": [*map(_of_entries, own.get("anyOf", [own])), _INTERPOLATION]}


def _of_entries(value: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value whose entries, if it maps names to entries, may also be interpolations."""
    if isinstance(value.get("additionalProperties"), dict):
        return value | {"additionalProperties": _or_interpolation(value["additionalProperties"])}
    if "patternProperties" in value:
        entries = {pattern: _or_interpolation(entry) for pattern, entry in value["patternProperties"].items()}
        return value | {"patternProperties": entries}
    return value
