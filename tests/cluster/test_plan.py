"""`rendermill plan` and `rendermill status`: what a job would do, and how far it is."""

import json
import os
from dataclasses import replace

from rendermill.jobs.commands.status import in_words, look
from rendermill.manifests.output.holder import read_holder
from rendermill.manifests.output.layout import run_file
from rendermill.manifests.output.lease import Lease
from rendermill.manifests.output.runs import newest_run
from rendermill.manifests.storage.folder import Folder
from tests.support.commands import Rendermill


def test_a_job_is_planned_rendered_and_looked_at(rendermill: Rendermill) -> None:
    rendermill.model("sana", "sana-shapes")
    rows = [{"id": str(index), "prompt": f"prompt {index}", "width": 32 if index % 3 else 64} for index in range(12)]
    rendermill.manifest([*rows, rows[0], {"id": "bad", "prompt": "bad", "width": 65}])
    job, profile = rendermill.write_job(models=rendermill.models), rendermill.folder / "profile"
    profile.mkdir()
    (profile / "notes.txt").write_text("mine")
    before = rendermill.run("plan", job)
    assert before.status == 0, before
    lines = before.out.splitlines()
    assert lines[1].split() == ["sana", "32", "x", "32,", "2", "steps,", "guided", "8", "0", "0", "?", "?", "0.0%", "?"]
    assert "to render: 12 items; how long it takes is not known yet, --calibrate finds out" in lines
    assert "1 rows repeat an earlier row" in lines
    assert "  1 × width: 65 is not a multiple of 32; 64 or 96 would be" in lines
    assert f"profile {profile}/notes.txt: ignored, as it is no profile" in lines
    assert not rendermill.output.exists(), "plan writes nothing"

    rendered = rendermill.run("generate", job, "limit=9")
    assert rendered.status == 3, rendered
    assert "to render: nothing" in rendermill.run("plan", job, "limit=9").out.splitlines()
    rows[0]["prompt"] = "another prompt"
    del rows[1]
    rendermill.manifest(rows)
    after = rendermill.run("plan", job, "--json", "stop_after=0.1s")
    assert after.status == 0, after
    plan = json.loads(after.out)
    counted = {shape["shape"]: (shape["num_to_do"], shape["num_changed"]) for shape in plan["shapes"]}
    assert counted == {"32 x 32, 2 steps, guided": (2, 0), "64 x 32, 2 steps, guided": (2, 1)}
    assert (sum(shape["num_finished"] for shape in plan["shapes"]), plan["num_not_in_manifest"]) == (7, 1)
    assert all(shape["is_measured"] and shape["seconds_per_item"] > 0 for shape in plan["shapes"])
    assert plan["seconds"] > 0
    assert plan["num_runs"] > 1
    assert plan["bytes"] > 0
    assert plan["ends_at"] > "2026"

    status = json.loads(rendermill.run("status", rendermill.output, "--json").out)
    assert (status["state"], status["num_rejected"], status["holder"]) == ("finished", 1, None)
    progress = status["models"]["sana"]
    assert (progress["num_to_do"], progress["num_done"], progress["seconds_left"]) == (9, 9, 0)
    assert set(progress["batch_sizes"]) == {"32 x 32, 2 steps, guided", "64 x 32, 2 steps, guided"}
    _under_way(Folder(str(rendermill.output)))
    watched = rendermill.run("status", rendermill.output, "--watch")
    assert watched.status == 0, watched
    assert "died" in watched.out


def test_limit_takes_the_first_items_from_any_files(rendermill: Rendermill) -> None:
    rendermill.model("sana", "sana-shapes")
    for part in range(3):
        rows = [{"prompt": f"prompt {index}", "width": 32 * (1 + part)} for index in range(2)]
        rendermill.manifest(rows, f"parts/{part}.parquet")
    for scheme in ("", "file://"):
        manifest = f"{scheme}{rendermill.folder}/parts/*.parquet"
        planned = rendermill.run("plan", rendermill.write_job(manifest=manifest), "limit=3", "--json")
        shapes = json.loads(planned.out)["shapes"]
        assert {shape["shape"].split()[0]: shape["num_to_do"] for shape in shapes} == {"32": 2, "64": 1}


def _under_way(output: Folder) -> None:
    """Look at an output while its run is half done, and after that run died."""
    run_id = newest_run(output)
    told = json.loads(output.read(run_file(run_id)))
    told |= {"state": "running", "num_finished": {"sana": 4}, "items_per_second_now": {"sana": 0.5}}
    output.write(run_file(run_id), json.dumps(told).encode())
    with Lease(output, run_id):
        running = look(output)
        assert (running.state, running.models["sana"].seconds_left) == ("running", 10)
        assert "  sana: 4 of 9 (44%);" in "\n".join(in_words(running))
        assert "0.50/s now, 10 s left" in "\n".join(in_words(running))
    silent = replace(read_holder(output), is_released=False, machine="another")
    output.write("lease/000099.json", silent.as_json())
    assert look(output).state == "running", "heard of a moment ago"
    os.utime(output.path("lease/000099.json"), (0, 0))
    died = look(output)
    assert (died.state, died.models["sana"].seconds_left) == ("died", None)
    assert "; 5 left;" in "\n".join(in_words(died)), "at no pace, as nobody renders"


def test_calibrating_learns_the_pace_without_an_output(rendermill: Rendermill) -> None:
    rendermill.model("sana", "sana-shapes", batch=2)
    rendermill.manifest([{"prompt": f"prompt {index}"} for index in range(9)])
    planned = rendermill.run("plan", rendermill.write_job(), "--calibrate", "--json")
    assert planned.status == 0, planned
    (shape,) = json.loads(planned.out)["shapes"]
    assert shape["is_measured"]
    assert shape["bytes"] > 0
    assert not rendermill.output.exists()
