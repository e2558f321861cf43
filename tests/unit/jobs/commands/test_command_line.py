"""What commands take, and what reaches a terminal or a pipe: no traceback, and nothing that a terminal would obey."""

import json
import os
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from rendermill.jobs.cli import main, rendermill
from rendermill.manifests.output.format import ensure_format
from rendermill.manifests.storage.folder import Folder
from tests.unit.jobs.commands.conftest import EVIL, NOT_PRINTABLE

GIVEN = {
    ("status", "nowhere"): "output {folder}/nowhere: no such folder; rendermill generate writes one",
    ("status", "empty"): "output {folder}/empty: no rendermill.json there, so it is no output of rendermill",
    ("verify", "prompts.parquet"): "prompts.parquet: a Parquet file, and no output; give the folder or URL that a job "
    "writes, or its job file",
    (
        "retry",
        "notes.txt",
    ): "notes.txt: a file, and no output; give the folder or URL that a job writes, or its job file",
    ("status", "out/metadata"): "out/metadata: lies in output {folder}/out; give that",
    ("verify", "out/runs/20261126T000000-aaaaaa.json"): "out/runs/20261126T000000-aaaaaa.json: lies in output "
    "{folder}/out; give that",
    (
        "status",
        "job.yaml",
        "--environment",
        "other",
    ): "job.yaml: its output {folder}/nowhere: no such folder; rendermill generate writes one",
    ("status", "out", "--date", "2026-11-26"): "out: --environment and --date are for a job file, and this is none",
    ("verify", "out", "--sample", "-1"): "--sample: -1 is less than 0; 0 renders nothing again",
    ("generate", "out"): "out: an output, and no job file; give the job file that writes it, or use rendermill status, "
    "retry or verify, which take an output",
    ("plan", "."): ".: a folder, and no job file; there are binary.yaml, evil.yaml, job.yaml in it",
    ("generate", "empty"): "empty: a folder, and no job file",
    ("config", "prompts.parquet"): "prompts.parquet: a Parquet file, and no job file; a job file names it as its "
    "`manifest`",
    ("generate", "s3://bucket/job.yaml"): "s3://bucket/job.yaml: a URL, and a job file is read from a local disk",
    ("plan", "nowhere.yaml"): "nowhere.yaml: no such job file",
    ("plan", "binary.yaml"): "binary.yaml: cannot be read as YAML: ",
    (
        "plan",
        "job.yaml",
        "output=new",
        "profile=notes.txt",
    ): "command line: profile {folder}/notes.txt: {folder}/notes.txt is a file; give a folder",
    ("plan", "job.yaml", "output=notes.txt/x"): "command line: output {folder}/notes.txt/x: cannot be read: ",
    ("generate", "job.yaml", "manifest=empty"): "command line: manifest {folder}/empty: no such file, folder with "
    "*.parquet files, or glob with a match",
    ("generate", "job.yaml", "manifest=notes.txt"): "command line: manifest {folder}/notes.txt: not a readable Parquet",
    ("config", "evil.yaml"): "evil.yaml:1: \N{REPLACEMENT CHARACTER}]0;red",
    ("config", f"{EVIL}.yaml"): "\N{REPLACEMENT CHARACTER}]0;red",
    ("generate", "job.yaml", "--limit", "8"): "generate: no such option: --limit; write limit=8, without dashes; see",
    ("plan", "job.yaml", "--models.sana.batch=4"): "plan: no such option: --models.sana.batch; write "
    "models.sana.batch=4, without dashes; see rendermill plan --help",
    ("plan", "--stop-after", "--json", "job.yaml"): "plan: no such option: --stop-after; write stop_after=VALUE,",
    ("plan", "job.yaml", "-limit", "8"): "plan: no such option: -limit; write limit=8, without dashes",
    ("plan", "job.yaml", "--jso"): "plan: No such option '--jso'. Did you mean '--json'?; see rendermill plan --help",
    ("verify", "out", "--sample", EVIL): "verify: Invalid value for '--sample': ",
    ("generate",): "generate: Missing argument 'JOB.yaml'; see rendermill generate --help",
    (f"{EVIL}",): "No such command ",
    ("status", "out", "limit=8"): "status: Got unexpected extra argument (limit=8); see rendermill status --help",
}


@pytest.mark.parametrize("given", GIVEN)
def test_what_a_command_does_not_take_is_told_in_a_line(
    folder: Path, capfd: pytest.CaptureFixture[str], given: tuple[str, ...]
) -> None:
    assert main(given) == 2
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.startswith("rendermill: " + GIVEN[given].format(folder=folder)), told.err
    assert told.err.endswith("\n")
    assert told.err.removesuffix("\n").isprintable(), "a line, and nothing that a terminal would obey"


def test_overrides_may_stand_before_and_after_options(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "job.yaml", "limit=8", "--json", "--environment", "other", "seed=3"]) == 0
    job = json.loads(capfd.readouterr().out)["job"]
    assert (job["limit"], job["seed"], job["output"]) == (8, 3, "nowhere")


@pytest.mark.parametrize("command", ["generate", "plan", "status", "config", "retry", "verify"])
def test_the_help_of_a_command_has_examples_that_it_understands(
    folder: Path, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, "--help"]) == 0
    text = capfd.readouterr().out
    _, _, examples = text.partition("Examples:\n")
    lines = [line.partition(" #")[0].partition(" |")[0].partition(" &&")[0] for line in examples.splitlines()]
    given = [shlex.split(line)[1:] for line in lines if line.strip()]
    assert given
    for words in given:
        if "--schema" not in words:
            assert words[0] == command
            rendermill.commands[command].make_context(command, words[1:])


def test_the_version_and_the_completion_of_a_shell(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr() == (f"rendermill {version('rendermill')}\n", "")
    assert main([]) == 2
    assert "Examples:" in capfd.readouterr().err
    monkeypatch.setenv("_RENDERMILL_COMPLETE", "bash_complete")
    for words, expected in (("rendermill ver", "plain,verify"), ("rendermill plan --cal", "plain,--calibrate")):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        assert main([]) == 0
        assert capfd.readouterr().out == f"{expected}\n"


def test_help_imports_nothing_slow() -> None:
    program = """\
import sys
from rendermill.jobs.cli import main, rendermill
main(["generate", "--help"])
sys.exit(", ".join({"ray", "torch", "pandas", "pyarrow", "diffusers", "omegaconf"} & set(sys.modules)) or None)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (finished.returncode, finished.stderr) == (0, ""), finished.stderr


def test_commands_for_an_output_take_its_job_file(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "job.yaml"]) == 0
    assert "run 20261126T000000-aaaaaa: failed" in capfd.readouterr().out
    assert main(["verify", "job.yaml"]) == 0
    assert "files: 0 of 0 are as recorded" in capfd.readouterr().out


@pytest.mark.parametrize("options", [[], ["--watch"], ["--json"], ["--watch", "--json"]])
def test_a_status_has_nothing_that_a_terminal_would_obey(
    folder: Path, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert main(["status", "out", *options]) == 0
    out = capfd.readouterr().out
    assert "right to left" in out
    assert not set(NOT_PRINTABLE) & set(out)
    if "--json" in options:
        assert json.loads(out)["errors"] == {"sana": EVIL}


FORMAT_FILES = {
    "empty": (b"", "JSONDecodeError: Expecting value"),
    "a list": (b"[1]", "TypeError: "),
    "a number": (b"7", "TypeError: "),
    "deep": (b"[" * 100_000, "RecursionError: "),
    "not UTF-8": (b"{\xff}", "UnicodeDecodeError: "),
    "somebody else's": (b'{"name": "web-app", "version": "1.0"}', "KeyError: 'extra_schema'"),
    "cut schema": (b'{"format_version": 1, "layout": "files", "extra_schema": "10"}', "ArrowInvalid: "),
    "unknown layout": (b'{"format_version": 1, "layout": "zip", "extra_schema": "%b"}', "ValueError: layout 'zip'"),
}


@pytest.mark.parametrize("kind", FORMAT_FILES)
def test_a_format_file_that_says_nothing_is_named_and_may_be_deleted(
    folder: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    content, reason = FORMAT_FILES[kind]
    schema = pa.schema([("own", pa.int64())])
    (folder / "out/rendermill.json").write_bytes(content.replace(b"%b", schema.serialize().hex()))
    assert main(["verify", "out", "--repair"]) == 2
    told = capfd.readouterr()
    assert told.err.startswith(f"rendermill: output {folder}/out: rendermill.json cannot be read ({reason}"), told.err
    assert told.err.endswith("or delete it, and the next run writes it again from its job and manifest\n")
    assert (told.out, told.err.count("\n")) == ("", 1)
    (folder / "out/rendermill.json").unlink()
    ensure_format(Folder("out"), schema, "files")
    assert main(["verify", "out", "--repair"]) == 0


@pytest.mark.parametrize("command", ["status", "retry", "verify"])
def test_a_newer_output_asks_for_a_newer_rendermill(
    folder: Path, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    (folder / "out/rendermill.json").write_text('{"format_version": 2, "columns": []}')
    assert main([command, "out"]) == 2
    told = f"output {folder}/out: its format 2 is newer than this rendermill's 1; upgrade rendermill"
    assert capfd.readouterr() == ("", f"rendermill: {told}\n")


def test_a_job_is_printed_with_its_characters_escaped(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "named.yaml", "--json"]) == 0
    as_json = capfd.readouterr().out
    assert main(["config", "named.yaml"]) == 0
    as_yaml = capfd.readouterr().out
    assert not set(NOT_PRINTABLE) & set(as_json + as_yaml)
    assert json.loads(as_json)["job"]["name"] == yaml.safe_load(as_yaml)["name"] == EVIL


@pytest.mark.parametrize(
    "given",
    [("config", "job.yaml"), ("status", "out"), ("verify", "out", "--json"), ("plan", "--help"), ("--version",)],
)
def test_a_reader_that_leaves_early_ends_a_command_in_silence(folder: Path, given: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [Path(sys.executable).with_name("rendermill"), *given]
    finished = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert (finished.returncode, finished.stderr) == (141, b"")
