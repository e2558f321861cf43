"""The Python API in a process like a notebook's: results, silence, and a process that stays as it was."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import rendermill as api
from tests.support.commands import ROOT, Rendermill

EXAMPLE = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)[1]

SESSION = """
import json, os, signal, threading, time
import ray
from ray.data import DataContext

def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

signal.signal(signal.SIGTERM, lambda *_: print("still the notebook's"))
before = handlers()
exec(open("example.py").read())
assert handlers() == before
assert not ray.is_initialized()
signal.raise_signal(signal.SIGTERM)

ray.init(log_to_driver=False, logging_level="ERROR")
before = handlers()
content = json.load(open("job.json"))
results = []
overrides = {"seed": 8, "models.sana.batch": 2}

DataContext.get_current().enable_progress_bars = False
begun, go = os.path.abspath("begun"), os.path.abspath("go")
def when_told(row):
    open(begun, "w").close()
    while not os.path.exists(go):
        time.sleep(0.05)
    return row

three_tasks = ray.data.TaskPoolStrategy(3)
mine, read = ray.data.range(3, override_num_blocks=3).map(when_told, num_cpus=0.1, compute=three_tasks), []
reader = threading.Thread(target=lambda: read.extend(row["id"] for row in mine.iter_rows()))
reader.start()
DataContext.get_current().enable_progress_bars = True
while not os.path.exists(begun):
    time.sleep(0.05)
thread = threading.Thread(target=lambda: results.append(rendermill.generate(content, **overrides)))
thread.start()
thread.join()
(second,) = results
assert (second.state, second.exit_status, second.num_finished, second.num_rejected) == ("finished", 3, {"sana": 9}, 1)
assert ray.is_initialized() and DataContext.get_current().enable_progress_bars
assert handlers() == before
open(go, "w").close()
reader.join()
assert sorted(read) == [0, 1, 2], "the notebook's own Dataset goes on"
"""

SAID_OF_A_NOTEBOOKS_DATASET = ("Dataset dataset_", "Progress bars disabled")
"""Parts of what Ray prints about a Dataset without a name; those of rendermill have one."""


def run_python(script: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script.name], cwd=script.parent, env=environment, capture_output=True, text=True, timeout=240
    )


def test_a_notebook_gets_results_and_keeps_its_signals_ray_and_screen(rendermill: Rendermill) -> None:
    rendermill.model("sana", "sana-shapes")
    rendermill.manifest([*({"id": str(index), "prompt": f"prompt {index}"} for index in range(9)), {"prompt": ""}])
    content = {"manifest": str(rendermill.folder / "prompts.parquet"), "profile": str(rendermill.folder / "profile")}
    content |= {"output": str(rendermill.output), "models": rendermill.models}
    (rendermill.folder / "nightly.yaml").write_text(json.dumps(content))
    (rendermill.folder / "job.json").write_text(json.dumps(content))
    (rendermill.folder / "example.py").write_text(EXAMPLE)
    script = rendermill.folder / "session.py"
    script.write_text(SESSION)
    done = run_python(script, {**rendermill.environment, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    assert lines[0] == "8 items to render"
    assert lines[1] == f"finished {{'sana': 8}} {{'sana': 0}} {rendermill.output}"
    assert lines[2:4] == ["finished", lines[3]]
    assert lines[3].startswith("files: 8 of 8 are as recorded")
    assert lines[4:] == ["rendered again: 2 with the same pixels", "no problems found", "still the notebook's"]
    said = [
        line for line in done.stderr.splitlines() if not any(words in line for words in SAID_OF_A_NOTEBOOKS_DATASET)
    ]
    assert said == []
    assert len(rendermill.table("metadata")) == 9


def test_importing_takes_no_time_and_neither_ray_nor_torch() -> None:
    code = """
        import sys, time
        began = time.perf_counter()
        import rendermill
        assert time.perf_counter() - began < 0.1
        rendermill.config({"manifest": "m", "output": "o", "models": {"sana": {"checkpoint": "c"}}})
        assert rendermill.__version__ and not {"ray", "torch"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=ROOT, env={**os.environ})


def test_jobs_are_files_contents_or_jobs_and_mistakes_are_told(tmp_path: Path) -> None:
    content = {"manifest": "prompts.parquet", "output": "out", "models": {"sana": {"checkpoint": "c"}}}
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(content | {"environments": {"prod": {"limit": 7}}}))
    from_file = api.config(path, environment="prod", models={"sana": {"batch": 4}})
    assert (from_file.limit, from_file.models["sana"].batch) == (7, 4)
    from_job = api.config(from_file, **{"models.sana.batch": 2, "stop_after": "6h", "name": None})
    assert (from_job.limit, from_job.models["sana"].batch, from_job.name) == (7, 2, None)
    assert api.config(from_job) == from_job
    mistakes = {
        "Python: limitt: unknown key; did you mean 'limit'?": lambda: api.config(content, limitt=3),
        f"{path}: no such": lambda: api.config(path, environment="test"),
        "environment and date are for a job file": lambda: api.config(content, environment="prod"),
        "no rendermill.json there, so it is no output of rendermill": lambda: api.status(tmp_path),
        "Python: manifest ": lambda: api.generate(content, manifest=str(tmp_path / "none.parquet")),
    }
    for words, call in mistakes.items():
        try:
            call()
        except api.UserError as error:
            assert words in str(error) or words.startswith(str(path))
        else:
            raise AssertionError(words)
