"""Files of runs: what today's version writes, and what it and earlier versions wrote, is read by one class."""

import json
from pathlib import Path

import pytest

from rendermill.jobs.cli import main
from rendermill.jobs.commands.status import look
from rendermill.jobs.running.run_file import job_of_run
from rendermill.manifests.output.runs import RunState, newest_run, read_run
from rendermill.manifests.storage.folder import Folder

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = {path.name: json.loads(path.read_text()) for path in GOLDEN.glob("run*.json")}
SHAPE = "64 x 32, 2 steps, guided"


@pytest.fixture(params=FILES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Folder, str]:
    run_id = FILES[request.param]["run_id"]
    output = Folder(str(tmp_path))
    output.write("rendermill.json", b"{}")
    output.write(f"runs/{run_id}.json", (GOLDEN / request.param).read_bytes())
    return output, run_id


def test_there_are_files_of_today_and_of_an_earlier_version() -> None:
    assert set(FILES) == {"run.json", "run_of_an_earlier_version.json"}
    assert "lease" not in FILES["run_of_an_earlier_version.json"]


def test_a_file_is_written_with_the_keys_and_values_with_which_it_was_read(run: tuple[Folder, str]) -> None:
    output, run_id = run
    before = json.loads(output.read(f"runs/{run_id}.json"))
    read_run(output, run_id).write(output)
    assert json.loads(output.read(f"runs/{run_id}.json")) == before


def test_every_attribute_is_a_key_of_todays_file_and_every_key_an_attribute() -> None:
    assert set(RunState.model_fields) == set(FILES["run.json"])
    report = RunState.model_validate(FILES["run.json"]).found.model_dump(mode="json")
    assert report == FILES["run.json"]["found"]


def test_a_status_is_the_same_as_before(run: tuple[Folder, str], capfd: pytest.CaptureFixture[str]) -> None:
    output, run_id = run
    assert newest_run(output) == run_id
    found = look(output)
    sana = found.models["sana"]
    assert (sana.num_to_do, sana.num_done, sana.num_failed, sana.items_per_second_now) == (16, 8, 2, 0.1333)
    assert (sana.items_per_second, sana.seconds_left) == (0.0698, None)
    assert main(["status", output.url]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith(f"run {run_id}: {found.state}; began 2026-11-26T")
    earlier = "; 3 finished before" if sana.num_finished_before else ""
    size = sana.batch_sizes[SHAPE]
    assert f"  sana: 8 of 16 (50%); 2 failed{earlier}; 0.07/s; 8 left; batch {size} for {SHAPE}" in lines


def test_the_job_within_is_the_job_that_was_submitted(run: tuple[Folder, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMIT", "5")
    job = job_of_run(*run)
    assert (job.seed, job.models["sana"].batch) == (7, 4)
    assert job.limit == (5 if "broken" in job.models else None)
