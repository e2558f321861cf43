"""Rows that are rejected, items that fail, and models that cannot load: each ends as little as it has to."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors.torch import load_file, save_file

from tests.support.commands import Rendermill

BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "prompt: empty"),
    ({"prompt": "   "}, "prompt: empty"),
    ({"prompt": None}, "prompt: empty"),
    ({"prompt": "x", "seed": -1}, "seed: -1 is outside 0 … 2^63-1"),
    ({"prompt": "x", "seed": 2**63 - 1, "num_samples": 2}, "seed: 9223372036854775807 with 2 samples"),
    ({"prompt": "x", "width": 50}, "width: 50 is not a multiple of 32; 32 or 64 would be"),
    ({"prompt": "x", "height": 0}, "height: 0 is outside 1 …"),
    ({"prompt": "x", "num_frames": 5}, "num_frames, fps: this model renders images"),
    ({"prompt": "x", "guidance_scale_2": 2.0}, "guidance_scale_2: this model has no second expert"),
    ({"prompt": "x", "model": "wan", "num_frames": 6}, "num_frames: 6 is not 4k + 1; 5 or 9 would be"),
    ({"prompt": "x", "model": "wan", "fps": 0.0}, "fps: 0.0 is outside"),
    ({"prompt": "x", "model": "nope"}, "model: 'nope' is not in the job file"),
    ({"prompt": "x", "guidance_scale": float("nan")}, "guidance_scale: nan is not a finite number"),
    ({"prompt": "x", "guidance_scale": float("inf")}, "guidance_scale: inf is not a finite number"),
    ({"prompt": "x", "model": "sprint", "negative_prompt": "y"}, "negative_prompt: this model takes none"),
    ({"prompt": "x", "num_inference_steps": 1001}, "num_inference_steps: 1001 is over the scheduler's 1000"),
    ({"prompt": "x", "num_samples": 0}, "num_samples: 0 is outside 1 …"),
    ({"prompt": "x", "num_samples": 2**31}, "num_samples: 2147483648 is outside 1 … 10000"),
    ({"prompt": "one", "id": "twice"}, "id: 'twice' stands in several rows"),
    ({"prompt": "two", "id": "twice"}, "id: 'twice' stands in several rows"),
]


def test_bad_rows_are_rejected_with_their_reason_and_the_job_goes_on(rendermill: Rendermill) -> None:
    rendermill.model("sana", "sana-shapes")
    rendermill.model("sprint", "sana-sprint-shapes")
    rendermill.model("wan", "wan-shapes")
    rendermill.manifest([row for row, _ in BAD_ROWS] + [{"prompt": "good", "model": "sana"}], "prompts/a.parquet")
    wrong_types = pa.table({"prompt": ["typed"], "seed": ["12"], "width": [64.5], "id": [True]})
    for name in ("seed", "width", "id"):
        rendermill.manifest(wrong_types.select(["prompt", name]), f"prompts/{name}.parquet")
    rendermill.manifest(pa.table({"text": ["no prompt column"]}), "prompts/sub/odd.parquet")
    rendermill.manifest(pa.table({"prompt": pa.array([b"\xff"]).view(pa.string())}), "prompts/sub/garbled.parquet")
    finished = rendermill.generate(manifest=str(rendermill.folder / "prompts"), default_model="sana")
    assert finished.status == 3, finished
    assert f"1 items finished, 0 failed, {len(BAD_ROWS) + 5} rejected" in finished.out
    rejected = rendermill.table("rejected")
    of_first_file = {row["row_number"]: row for row in rejected if row["file"].endswith("prompts/a.parquet")}
    for row_number, (row, reason) in enumerate(BAD_ROWS):
        assert reason in of_first_file[row_number]["reason"], row
        assert json.loads(of_first_file[row_number]["row"])["prompt"] == row["prompt"]
    others = {Path(row["file"]).stem: row["reason"] for row in rejected if not row["file"].endswith("a.parquet")}
    assert others["seed"] == "column `seed` is string; it has to be a number"
    assert "width: expected a whole number, got 64.5" in others["width"]
    assert others["id"] == "column `id` is bool; it has to be text or a number or a UUID"
    assert "no column `prompt`" in others["odd"]
    assert "prompt: not UTF-8" in others["garbled"]
    again = rendermill.generate(manifest=str(rendermill.folder / "prompts"), default_model="sana")
    assert again.status == 3
    assert len(rendermill.table("rejected")) == len(rejected), "rejected rows should be listed once"


def test_a_nan_is_a_failure_of_its_item_alone_and_can_be_retried(rendermill: Rendermill) -> None:
    rendermill.model("sana", "sana-shapes", batch=4)
    rows = [{"id": str(index), "prompt": f"prompt {index}"} for index in range(4)]
    rows[2]["guidance_scale"] = 3e38
    rendermill.manifest(rows)
    finished = rendermill.generate("reproducibility=fast")
    assert finished.status == 3, finished
    assert "3 items finished, 1 failed, 0 rejected" in finished.out
    (failure,) = rendermill.table("failures")
    assert (failure["id"], failure["error_type"], failure["path"]) == ("2", "NonFinite", None)
    assert {record["id"] for record in rendermill.table("metadata")} == {"0", "1", "3"}
    again = rendermill.generate("reproducibility=fast")
    assert (again.status, "1 failed before" in again.out) == (3, True)
    retried = rendermill.run("retry", rendermill.output, cwd=rendermill.folder)
    assert (retried.status, "to render: sana 1; 3 finished before" in retried.out) == (3, True)
    assert len(rendermill.table("failures")) == 1


def test_a_broken_checkpoint_stops_the_run_before_it_burns_a_night(rendermill: Rendermill, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(rendermill.checkpoints / "sana-shapes", broken)
    weights = broken / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in load_file(weights).items()}, weights)
    rendermill.model("sana", str(broken), defaults={"width": 32, "num_inference_steps": 1})
    rendermill.model("good", "sana-shapes", defaults={"width": 32, "num_inference_steps": 1})
    rows = [{"prompt": f"prompt {index}", "model": "good" if index % 8 == 0 else "sana"} for index in range(40)]
    rendermill.manifest(rows)
    finished = rendermill.generate()
    assert finished.status == 1, finished
    assert "stopped: sana: its first" in finished.out
    assert "items all failed, with NonFinite" in finished.out
    assert "5 items finished" in finished.out, "the other model goes on"

    shutil.rmtree(rendermill.output)
    del rendermill.models["good"]
    rendermill.manifest([row for row in rows if row["model"] == "sana"])
    finished = rendermill.generate("max_failure_rate=0.01")
    assert finished.status == 1, finished
    assert "stopped: max_failure_rate: more than 1% of the last 1000 items failed" in finished.out
    failures = rendermill.table("failures")
    assert 10 < len(failures) <= 40
    assert {failure["error_type"] for failure in failures} == {"NonFinite"}


def test_a_model_that_cannot_load_ends_its_part_and_the_others_finish(rendermill: Rendermill) -> None:
    rendermill.model("sana", "sana-shapes")
    # also the name of what may end a run
    rendermill.model("max_failure_rate", "wan-shapes", speedups={"attention_backend": "flash"})
    rendermill.manifest([{"prompt": "a cat", "model": model} for model in rendermill.models])
    finished = rendermill.generate()
    assert finished.status == 1, finished
    assert "stopped: max_failure_rate: RuntimeError: Flash Attention backend" in finished.out
    assert "Traceback" not in finished.out + finished.error
    assert [record["model"] for record in rendermill.table("metadata")] == ["sana"]
    (run,) = (rendermill.output / "runs").iterdir()
    told = json.loads(run.read_text())
    assert (list(told["errors"]), told["run_errors"]) == (["max_failure_rate"], {})
