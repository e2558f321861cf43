"""The job file: what wins, where each value comes from, the date, `rendermill config`, the schema, and mistakes."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rendermill.jobs.cli import main
from rendermill.jobs.commands.show_config import config_as_yaml
from rendermill.jobs.config.job import Job
from rendermill.jobs.config.job_file import JobFile, read_job_file
from rendermill.jobs.config.json_schema import job_schema, schema_text
from rendermill.jobs.running.run_file import RunFile, job_of_run
from rendermill.manifests.errors import UserError
from rendermill.manifests.storage.folder import Folder
from tests.support.commands import ROOT
from tests.support.job_files import SMALL, write


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["config", *arguments]) == 0
    return capsys.readouterr().out


def test_later_sources_win_and_each_value_knows_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        common__root="name: root\nseed: 1\nlimit: 1\nmodels:\n  sana: {checkpoint: root, batch: 2, revision: a}\n",
        common__night="extends: root.yaml\nname: night\nstop_after: 6h\n",
        sizes="extends: common/root.yaml\nseed: 2\nmodels: {sana: {defaults: {width: 64}}}\n",
        job="""\
extends: [common/night.yaml, sizes.yaml]
manifest: x
output: out/${name}/${models.sana.batch}
environments:
  dev: {limit: 8, models: {sana: {batch: 1}}}
  prod:
    output: s3://bucket/${name}
""",
    )
    monkeypatch.setenv("RENDERMILL_MODELS__SANA__POOL__MAX_ACTORS", "3")
    monkeypatch.setenv("RENDERMILL_MODELS__SANA__BATCH", "5")
    read = read_job_file("job.yaml", ["models.sana.batch=4", "audit=5 %"])
    sana = read.job.models["sana"]
    assert (read.job.name, read.job.seed, read.job.limit, read.job.output) == ("night", 2, 1, "out/night/4")
    assert (sana.checkpoint, sana.batch, sana.defaults.width, sana.pool.max_actors) == ("root", 4, 64, 3)
    expected = {
        "name": "common/night.yaml:2",
        "seed": "sizes.yaml:2",
        "limit": "common/root.yaml:3",
        "output": "job.yaml:3",
        "audit": "command line",
        "storage_patience": "default",
        "models.sana.checkpoint": "common/root.yaml:5",
        "models.sana.defaults.width": "sizes.yaml:3",
        "models.sana.defaults.height": "default",
        "models.sana.batch": "command line",
        "models.sana.pool.max_actors": "RENDERMILL_MODELS__SANA__POOL__MAX_ACTORS",
    }
    assert {keys: read.source(tuple(keys.split("."))) for keys in expected} == expected

    monkeypatch.delenv("RENDERMILL_MODELS__SANA__BATCH")
    dev = read_job_file("job.yaml", preset="dev")
    assert (dev.job.limit, dev.job.models["sana"].batch, dev.source(("limit",))) == (8, 1, "job.yaml:5")
    monkeypatch.setenv("RENDERMILL_ENVIRONMENT", "prod")
    assert read_job_file("job.yaml").job.output == "s3://bucket/night"
    assert read_job_file("job.yaml", preset="dev").job.limit == 8, "the command line wins"


def test_environments_of_files_are_merged_over_all_files() -> None:
    write(
        base="limit: 1\nenvironments: {dev: {limit: 2, seed: 2}, idle: }\n",
        job=f"extends: base.yaml\n{SMALL}limit: 3\nenvironments: {{dev: {{seed: 4}}}}\n",
    )
    job = read_job_file("job.yaml", preset="dev").job
    assert (job.limit, job.seed) == (2, 4)
    assert read_job_file("job.yaml", preset="idle").job.limit == 3


def test_the_date_is_given_or_now_and_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    write(job=SMALL + "name: ${date:%Y-%m-%d}\nprofile: ${date:%Y/%m/%d %H:%M}\n")

    def name(**given: str) -> str | None:
        return read_job_file("job.yaml", **given).job.name

    before, now, after = datetime.now(UTC), name(), datetime.now(UTC)
    assert now in {f"{before:%Y-%m-%d}", f"{after:%Y-%m-%d}"}
    monkeypatch.setenv("RENDERMILL_DATE", "2026-11-24")
    assert name() == "2026-11-24", "however often it is tried, and whenever"
    assert name(date="2026-11-23") == "2026-11-23"
    monkeypatch.setenv("RENDERMILL_DATE", "2026-11-24T20:30:00-05:00")
    assert read_job_file("job.yaml").job.profile == "2026/11/25 01:30"


def test_config_prints_a_job_file_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        job="""\
manifest: https://me:pass/word@host/prompts.parquet?part=1&X-Signature=abc
output: s3://key:${oc.env:BUCKET_SECRET}@bucket/${date:%Y-%m-%d}
storage_patience: 90min
models:
  sana: &sana {checkpoint: org/sana, dtype: {default: bfloat16, vae: float32}, scheduler: {flow_shift: 5.0}}
  sprint:
    <<: *sana
    checkpoint: org/sprint
    pool: ${models.sana.pool}
    pipeline_arguments: {complex_human_instruction: ["a # b", "1e3", '\\${x}']}
"""
    )
    monkeypatch.setenv("BUCKET_SECRET", "hunter2")
    monkeypatch.setenv("RENDERMILL_DATE", "2026-11-24")
    arguments = ["models.sana.pool.max_actors=3", "seed=7"]
    text = config(capsys, "job.yaml", "--date", "2026-11-23", *arguments)
    assert "hunter2" not in text
    assert "word" not in text
    assert "abc" not in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "# job.yaml, date 2026-11-23 00:00 UTC"
    assert "output: s3://key:${oc.env:BUCKET_SECRET}@bucket/2026-11-23 # job.yaml:2" in lines
    assert "seed: 7 # command line" in lines
    assert "storage_patience: 90min # job.yaml:3" in lines
    assert "max_actors: 3 # job.yaml:9" in lines, "of sprint's"
    assert lines.count("flow_shift: 5.0 # job.yaml:5") == 2, "once by way of <<"
    assert len({line.rfind("  # ") for line in text.splitlines() if line[:2] == "  " and not line.endswith(":")}) == 1

    write(printed=text)
    printed = read_job_file("printed.yaml").job
    original = read_job_file("job.yaml", arguments, date="2026-11-23").job
    hidden = "https://me:***@host/prompts.parquet?part=1&X-Signature=***"
    assert printed == original.model_copy(update={"manifest": hidden})
    assert original.output == "s3://key:hunter2@bucket/2026-11-23"

    machine = json.loads(config(capsys, "job.yaml", *arguments, "--json"))
    assert machine["date"] == "2026-11-24T00:00:00+00:00"
    assert machine["job"]["models"]["sprint"]["pool"]["max_actors"] == 3
    assert machine["sources"]["models.sana.pool.max_actors"] == "command line"
    assert "hunter2" not in str(machine)


def test_values_of_variables_are_used_and_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    given = {"NAME": "hunter2", "PLACE": "cellar", "LIMIT": "731", "SHIFT": "5.25", "LINES": "[swordfish, mellon]"}
    write(
        job="""\
name: ${oc.env:NAME} and \\${x}
manifest: ${oc.env:PLACE}/prompts.parquet
output: s3://bucket/${oc.env:PLACE}/${name}
limit: ${oc.env:LIMIT}
models:
  sana:
    checkpoint: org/sana
    scheduler: {flow_shift: "${oc.decode:${oc.env:SHIFT}}"}
    pipeline_arguments: {complex_human_instruction: "${oc.decode:${oc.env:LINES}}"}
"""
    )
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    secret = re.compile("hunter2|cellar|731|5.25|swordfish|mellon")
    read = read_job_file("job.yaml")
    assert (read.job.name, read.job.limit) == ("hunter2 and ${x}", 731)
    assert read.job.models["sana"].scheduler == {"flow_shift": 5.25}
    for arguments in ([], ["--json"]):
        text = config(capsys, "job.yaml", *arguments)
        assert not secret.search(text)
    write(printed=config(capsys, "job.yaml"))
    assert read_job_file("printed.yaml").job.model_dump() == read.job.model_dump()

    output = Folder(str(folder / "out"))
    RunFile(output, "1", read.job, "job.yaml", 1).update("failed", errors={"sana": "no cellar for hunter2"})
    assert not secret.search((folder / "out/runs/1.json").read_text())
    monkeypatch.chdir("/")
    again = job_of_run(output, "1")
    assert again.manifest == f"{folder}/cellar/prompts.parquet"
    assert again.models == read.job.models
    RunFile(output, "2", again, "job.yaml", 2).update("failed")
    assert not secret.search((folder / "out/runs/2.json").read_text())
    monkeypatch.delenv("LIMIT")
    with pytest.raises(UserError, match=r"out/runs/1.json: limit: environment variable 'LIMIT' not found; set it"):
        job_of_run(output, "1")

    monkeypatch.chdir(folder)
    for argument in ("models.sana.batch", "default_model", "models.sana.dtype", "audit", "limit"):
        assert main(["config", "job.yaml", "limit=1", f"{argument}=${{oc.env:NAME}}"]) == 2
        error = capsys.readouterr().err
        assert f"command line: {argument}: " in error
        assert not secret.search(error), error


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("models.sana.batch", "q7", "should be a valid integer, unable to parse string as an integer, got ${oc.env:X}"),
        ("stop_after", "0s", ": should be longer than 0s, got ${oc.env:X}"),
        ("models.sana.dtype", "bf", "got ${oc.env:X}"),
        ("default_model", "is", ": ${oc.env:X} is not among models: sana"),
        ("manifest", "a", "manifest {folder}/${oc.env:X}: no such file, folder with *.parquet files, or glob"),
        ("manifest", "no", "manifest {folder}/${oc.env:X}: no such file, folder with *.parquet files, or glob"),
    ],
)
def test_a_short_value_of_a_variable_is_hidden_where_it_stands_by_itself(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    key: str,
    value: str,
    told: str,
) -> None:
    write(job=SMALL)
    monkeypatch.setenv("X", value)
    assert main(["generate", "job.yaml", f"{key}=${{oc.env:X}}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"rendermill: command line: {key}")
    assert told.replace("{folder}", str(folder)) in error


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0@?&"), min_size=1, max_size=50))
@example("1e3")
@example("\\${x}")
@example("a\nb: ${c}")
def test_any_text_comes_back_from_a_printed_config(text: str) -> None:
    models = {"sana": {"checkpoint": text, "scheduler": {text: [text, {text: 1e-5}]}}}
    job = Job.model_validate({"manifest": text, "output": "${x}", "models": models})
    Path("printed.yaml").write_text(config_as_yaml(JobFile("job.yaml", None, datetime.now(UTC), [], {}, job)))
    assert read_job_file("printed.yaml").job == job


def test_config_imports_nothing_slow() -> None:
    program = f"""\
import sys
from rendermill.jobs.cli import main
main(["config", "{ROOT}/examples/demo.yaml", "stop_after=6h"])
sys.exit(", ".join({{"ray", "torch", "pandas", "diffusers"}} & set(sys.modules)) or None)
"""
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (finished.returncode, finished.stderr) == (0, ""), finished.stderr


def test_the_schema_is_in_step_and_knows_what_a_job_file_may_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--schema"]) == 0
    assert capsys.readouterr().out == schema_text() == (ROOT / "docs/job.schema.json").read_text()
    schema = jsonschema.Draft202012Validator(job_schema())
    schema.check_schema(schema.schema)

    def is_valid(text: str) -> bool:
        return schema.is_valid(yaml.safe_load(text))

    assert is_valid((ROOT / "examples/demo.yaml").read_text())
    assert is_valid("extends: [a.yaml, b.yaml]\nenvironments: {dev: {limit: 8, models: {sana: {batch: 1}}}, prod: }")
    assert is_valid(
        "limit: ${oc.env:LIMIT}\nmodels: {sana: {batch: '${x}', dtype: {vae: '${x}'}}, b: '${models.sana}'}"
    )
    assert is_valid("audit: 0.1 %\nstop_after: 1h30min\nstorage_patience: 90\nmanifest: ???")
    assert not is_valid("seed: many")
    assert not is_valid("sead: 1")
    assert not is_valid("stop_after: soon")
    assert not is_valid("environments: {dev: {sead: 1}}")
    assert not is_valid("models: {sana: {batch: 0}}")
    assert not is_valid("models: {sana: {pool: {max_actor: 1}}}")
    assert not is_valid("models: {sana: {dtype: int8}}")


def test_a_job_may_have_a_thousand_models() -> None:
    models = "".join(f"  m{n}: {{checkpoint: a/b, batch: 1, revision: x, format: png}}\n" for n in range(1100))
    write(job=f"manifest: a\noutput: b\nmodels:\n{models}")
    assert len(read_job_file("job.yaml").job.models) == 1100
