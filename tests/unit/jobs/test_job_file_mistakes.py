"""Mistakes in job files: one line each, with the place, the key and what would be right."""

from pathlib import Path
from typing import Any

import pytest

from rendermill.jobs.cli import main
from rendermill.jobs.config.job_file import read_job_file
from rendermill.manifests.errors import UserError
from tests.support.job_files import SMALL, write


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_file(text: str, *arguments: str) -> dict[str, Any]:
    return {"job": SMALL + text, "arguments": arguments}


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": (in_file("sead: 3"), "job.yaml:4: sead: unknown key; did you mean 'seed'?"),
    "unknown key that looks like a type": (in_file("dict: 3"), "job.yaml:4: dict: unknown key; did you mean 'audit'?"),
    "unknown key with a bracket": (in_file('"limit[x": 3'), "job.yaml:4: limit[x: unknown key; did you mean 'limit'?"),
    "unknown key of a file that is extended": (
        {"base": "models:\n  sana:\n    pool: {max_actor: 3}", "job": f"extends: base.yaml\n{SMALL}"},
        "base.yaml:3: models.sana.pool.max_actor: unknown key; did you mean 'max_actors'?",
    ),
    "unknown key of an environment": (
        in_file("environments:\n  dev:\n    sead: 3", "--environment", "dev"),
        "job.yaml:6: sead: unknown key; did you mean 'seed'?",
    ),
    "unknown key of a variable": (
        {"job": SMALL, "RENDERMILL_MODELS__SANA__BATCHES": "3"},
        "RENDERMILL_MODELS__SANA__BATCHES: models.sana.batches: unknown key; did you mean 'batch'?",
    ),
    "unknown key of the command line": (
        in_file("", "models.sana.pool.max_actor=3"),
        "command line: models.sana.pool.max_actor: unknown key; did you mean 'max_actors'?",
    ),
    "extends on the command line": (
        in_file("", "extends=base.yaml"),
        "command line: extends: only a job file has this key, at its top",
    ),
    "place of inputs as a file URL": (
        in_file("inputs: {allow: ['file:///data']}"),
        "job.yaml:4: inputs.allow.0: should be a path without a scheme, such as /data/images, or a URL such as "
        "s3://bucket/folder",
    ),
    "place of inputs with dots": (
        in_file("inputs: {allow: ['s3://bucket/../other']}"),
        "job.yaml:4: inputs.allow.0: should be a folder or a URL, without `..` and `::`",
    ),
    "wrong type": (in_file("limit: many"), "job.yaml:4: limit: should be a valid integer"),
    "wrong type, deeper": (
        in_file("", "models.sana.defaults.width=wide"),
        "command line: models.sana.defaults.width: should be a valid int",
    ),
    "wrong type of a variable": (
        {"job": SMALL, "RENDERMILL_LIMIT": "many"},
        "RENDERMILL_LIMIT: limit: should be a valid integer",
    ),
    "number for a text": (in_file("name: 12"), "job.yaml:4: name: should be a valid string, got 12; put it in quotes"),
    "value for a section": (
        in_file("", "models.sana.pool=3"),
        "command line: models.sana.pool: should be a section of keys and values, got 3",
    ),
    "list for a section": (
        in_file("", "models=[sana]"),
        "command line: models: should be keys and values, or else a list, in all places that set it",
    ),
    "no manifest": ({"job": "output: out"}, "job.yaml: manifest: missing, and needed"),
    "null manifest": (in_file("", "manifest=null"), "command line: manifest: should be a valid string"),
    "no checkpoint": (
        {
            "base": "models:\n  sana: {batch: 2}",
            "job": "extends: base.yaml\nmanifest: a\noutput: b",
            "arguments": ["models.sana.batch=3"],
        },
        "base.yaml:2: models.sana.checkpoint: missing, and needed",
    ),
    "left to others": (
        {"base": "manifest: ???", "job": "extends: base.yaml\noutput: b"},
        "base.yaml:1: manifest: is ???, and so has to be given by a file that extends this one, or by an override",
    ),
    "out of range": (
        in_file("", "models.sana.batch=-2"),
        "command line: models.sana.batch: should be 'auto' or should be g",
    ),
    "keys that disagree": (
        in_file("", "models.sana.pool.min_actors=9"),
        "command line: models.sana.pool.max_actors: 8 is less than min_actors 9",
    ),
    "a size of shards without shards": (
        in_file("", "models.sana.num_items_per_shard=4"),
        "command line: models.sana.num_items_per_shard: only `layout: webdataset` has shards; remove it",
    ),
    "unknown default_model": (
        in_file("default_model: sanna"),
        "job.yaml:4: default_model: 'sanna' is not among models: sana",
    ),
    "bad duration": (in_file("stop_after: 6 hours"), "job.yaml:4: stop_after: should be a duration such as 30s, 10min"),
    "no duration": (in_file("stop_after: 0s"), "job.yaml:4: stop_after: should be longer than 0s, got '0s'"),
    "endless duration": (in_file("stop_after: 9999999999d"), "job.yaml:4: stop_after: should be shorter than"),
    "bad share": (in_file("audit: half %"), "job.yaml:4: audit: should be a share such as 0.001 or 0.1 %"),
    "unknown environment": (
        in_file("environments: {dev: , prod: }", "--environment", "pord"),
        "--environment: environments.pord: job.yaml has no such environment; did you mean 'prod'?",
    ),
    "unknown environment of the variable": (
        {"job": SMALL, "RENDERMILL_ENVIRONMENT": "dev"},
        "RENDERMILL_ENVIRONMENT: environments.dev: job.yaml has no such environment; it has none at all",
    ),
    "environments of another form": (
        in_file("environments: dev"),
        "job.yaml:4: environments: should be settings by a name",
    ),
    "unknown key in ${}": (
        in_file("name: ${manifes}"),
        "job.yaml:4: name: ${manifes}: the job has no such key; did you mean ${manifest}?",
    ),
    "unknown resolver": (
        in_file("name: ${dat:%Y}"),
        "job.yaml:4: name: unsupported interpolation type dat; known are ${date:%Y-%m-%d} and ${oc.env:NAME}",
    ),
    "variable that is not set": (
        in_file("name: ${oc.env:NO_SUCH}"),
        "job.yaml:4: name: environment variable 'NO_SUCH' not found; set it, or give a default: ${oc.env:NO_SUCH",
    ),
    "unclosed ${": (in_file("name: ${manifest"), "job.yaml:4: name: no viable alternative"),
    "${} of itself": (in_file("name: ${name}"), "job.yaml:4: name: its ${…} leads back to itself; remove one"),
    "bad format of the date": (in_file("name: ${date:YYYY-MM-DD}"), "job.yaml:4: name: should be ${date:FORMAT}, with"),
    "bad date": (in_file("", "--date", "yesterday"), "--date: 'yesterday' is no date; write 2026-11-24 or"),
    "bad date of the variable": ({"job": SMALL, "RENDERMILL_DATE": "soon"}, "RENDERMILL_DATE: 'soon' is no date"),
    "extends a file that is not there": (
        in_file("extends: base/night.yaml"),
        "job.yaml:4: extends: no such file base/night.yaml; a relative path begins at the folder of job.yaml",
    ),
    "extends itself": (
        {"base": "name: x\nextends: job.yaml", "job": "extends: base.yaml"},
        "base.yaml:2: extends: job.yaml extends itself, by way of job.yaml → base.yaml → job.yaml; remove one of them",
    ),
    "extends a number": (in_file("extends: 3"), "job.yaml:4: extends: should be a file or a list of files"),
    "no such file": ({}, "job.yaml: no such job file"),
    "no YAML": (in_file("name: a: b"), "job.yaml:4: cannot be read as YAML: mapping values are not allowed"),
    "no YAML on the command line": (
        in_file("", "name=[x"),
        "command line: name: cannot be read as YAML: did not find expected ',' or ']'; close the bracket",
    ),
    "unclosed bracket": (
        {"job": "models: ["},
        "job.yaml:1: cannot be read as YAML: did not find expected node content",
    ),
    "aliases of aliases": (
        {
            "job": "a: &a x\n"
            + "".join(f"{x}: &{x} [{', '.join([f'*{y}'] * 99)}]\n" for x, y in ("ba", "cb", "dc", "ed"))
        },
        "job.yaml: it has more than 1000000 keys and values, its aliases written out; make it smaller",
    ),
    "tab": (in_file("environments:\n\tdev:"), "job.yaml:5: cannot be read as YAML: found character that cannot start"),
    "key twice": (in_file("seed: 1\noutput: b"), "job.yaml:5: output: stands here twice; remove one"),
    "no keys": ({"job": "- a"}, "job.yaml: a job file holds keys and values, such as `manifest: prompts.parquet`"),
    "override without =": (in_file("", "batch"), "command line: 'batch': an override is written key=value"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_its_place(
    mistake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given, message = MISTAKES[mistake]
    for name, text in given.items():
        if name.startswith("RENDERMILL_"):
            monkeypatch.setenv(name, text)
        elif name != "arguments":
            write(**{name: text})
    assert main(["generate", "job.yaml", *given.get("arguments", ())]) == 2
    out, error = capsys.readouterr()
    assert error.startswith(f"rendermill: {message}"), error
    assert (out, error.count("\n")) == ("", 1), error


def test_a_mistake_found_later_has_its_place_too() -> None:
    write(job=SMALL)
    read = read_job_file("job.yaml", ["models.sana.quality=90"])
    found = [
        (UserError("png has none", ("models", "sana", "quality")), "command line: models.sana.quality: png has none"),
        (
            UserError("gone", ("checkpoint",), "org/sana").within("models", "sana"),
            "job.yaml:3: models.sana.checkpoint org/sana: gone",
        ),
        (UserError("too few", ("models", "sana", "pool")), "command line: models.sana.pool: too few"),
        (UserError("cannot be written", ("output",), "out"), "job.yaml:2: output out: cannot be written"),
        (UserError("output is full"), "output is full"),
    ]
    for error, message in found:
        assert str(read.at_its_place(error)) == message


def test_a_mistake_found_later_does_not_tell_a_number_of_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    write(job=SMALL)
    for value, told in (("50", "{} is not a multiple of 32; 32 or 64 would be"), ("16384", "{} is over 16383")):
        monkeypatch.setenv("X", value)
        read = read_job_file("job.yaml", ["models.sana.defaults.width=${oc.env:X}"])
        error = read.at_its_place(UserError(told.format(value), ("models", "sana", "defaults", "width")))
        assert str(error) == f"command line: models.sana.defaults.width: {told.format('${oc.env:X}')}"
