"""The files `runs/<run_id>.json` as `status` and `retry` read them, also damaged, of earlier versions, or several."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rendermill.jobs.cli import main
from rendermill.manifests.output.holder import new_holder
from rendermill.manifests.storage.folder import Folder


@pytest.mark.parametrize(
    "change", [{"state": 7}, {"num_to_do": {"sana": 3}}, {"errors": "none"}, {"num_to_do": [1]}, {"started_at": None}]
)
@pytest.mark.parametrize("options", [[], ["--watch"], ["--json"]])
def test_a_damaged_file_of_a_run_is_named(
    folder: Path, capfd: pytest.CaptureFixture[str], change: dict[str, object], options: list[str]
) -> None:
    file = folder / "out/runs/20261126T000000-aaaaaa.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert main(["status", "out", *options]) == 2
    told = capfd.readouterr()
    assert "runs/20261126T000000-aaaaaa.json is damaged (" in told.err
    assert told.err.count("\n") == 1, told.err
    assert told.out.strip() == ""


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[" * 100_000,
        b"\xff",
        b"7",
        b'{"from_variables": 3}',
        b'{"job": {"models": {}}, "from_variables": [[["models", "sana", "batch"], "${oc.env:HOME}"]]}',
    ],
)
def test_retry_names_a_damaged_file_of_a_run(folder: Path, capfd: pytest.CaptureFixture[str], content: bytes) -> None:
    (folder / "out/runs/20261126T000000-aaaaaa.json").write_bytes(content)
    assert main(["retry", "out"]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"rendermill: output {folder}/out: runs/20261126T000000-aaaaaa.json is damaged (")
    assert error.endswith("delete it: it says what one run did, and no record depends on it\n")
    assert error.count("\n") == 1


@pytest.mark.parametrize("change", [{"num_to_do": [1]}, {"state": 7}, {"num_to_do": {"sana": 3}, "errors": "none"}])
def test_retry_needs_of_a_run_s_file_what_it_reads_alone(
    folder: Path, capfd: pytest.CaptureFixture[str], change: dict[str, object]
) -> None:
    file, told = folder / "out/runs/20261126T000000-aaaaaa.json", []
    for content in ({"job": {}}, {"job": {}} | change):
        file.write_text(json.dumps(json.loads(file.read_text()) | content))
        assert main(["retry", "out"]) == 2
        told.append(capfd.readouterr().err)
    assert told[0] == told[1], "the mistake in the job, not that in the counts"
    assert "is damaged" not in told[1]


@pytest.mark.parametrize("has_lease_file", [True, False])
def test_the_newest_run_is_the_one_that_took_the_lease_last_whatever_clocks_said(
    folder: Path, capfd: pytest.CaptureFixture[str], has_lease_file: bool
) -> None:
    first, second = "20991231T235959-ffffff", "20261126T000000-aaaaaa"
    told = json.loads((folder / f"out/runs/{second}.json").read_text()) | {"job_file": "job.yaml"}
    for run_id, number in ((first, 9), (second, 10)):
        job = told["job"] | {"manifest": f"of-{run_id}.parquet"}
        content = told | {"run_id": run_id, "started_at": run_id[:8], "job": job}
        content |= {} if has_lease_file else {"lease": number}  # in which an earlier version wrote none
        (folder / f"out/runs/{run_id}.json").write_text(json.dumps(content))
    if has_lease_file:
        holder = replace(new_holder(second), is_released=True)
        Folder("out").write("lease/000010.json", holder.as_json())
    assert main(["status", "out"]) == 0
    assert f"run {second}: failed; began 20261126" in capfd.readouterr().out
    assert main(["retry", "out"]) == 2
    assert f"manifest {folder}/of-{second}.parquet: no such file" in capfd.readouterr().err
