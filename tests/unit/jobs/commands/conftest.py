"""A folder as a user may have one, with an output whose run failed, and text that a terminal would obey."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

EVIL = "\x1b]0;red\x07 \x9b31m \u202eright to left\u2066"
NOT_PRINTABLE = "\x1b\x9b\x07\u202e\u2066"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a manifest, a job file, its output after a run that failed, and what may be taken for these."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"prompt": ["a cat"]}), "prompts.parquet")
    job = {
        "manifest": "prompts.parquet",
        "output": "out",
        "models": {"sana": {"checkpoint": "sana"}},
    }
    Path("job.yaml").write_text(yaml.safe_dump(job | {"environments": {"other": {"output": "nowhere"}}}))
    Path("evil.yaml").write_text(json.dumps(job | {"name": EVIL, EVIL: 1}))
    Path("named.yaml").write_text(json.dumps(job | {"name": EVIL}))
    Path("notes.txt").write_text("notes")
    Path("binary.yaml").write_bytes(bytes(range(256)))
    Path("empty").mkdir()
    for name in ("runs", "metadata"):
        Path("out", name).mkdir(parents=True)
    Path("out/rendermill.json").write_text("{}")
    run = {"state": "failed", "started_at": "then", "updated_at": "now", "errors": {"sana": EVIL}, "job": job}
    Path("out/runs/20261126T000000-aaaaaa.json").write_text(json.dumps(run))
    return tmp_path
