"""`verify --inputs`: images that have changed since they were rendered, told by the sha256 in records."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rendermill.jobs.config.job_file import parse_job
from rendermill.jobs.running.run_file import RunFile
from rendermill.jobs.verification.inputs import check_inputs
from rendermill.jobs.verification.report import DAMAGED, OK, Report
from rendermill.manifests.output import layout
from rendermill.manifests.schema import RECORD_COLUMNS, arrow_schema
from rendermill.manifests.storage.folder import Folder
from tests.support.outputs import receipt


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def output_in(folder: Path, *inputs: Any) -> Folder:
    """An output with a record for each of these inputs, and the file of the run that made them."""
    job = {"manifest": "manifest/m.parquet", "output": str(folder / "out"), "models": {"sana": {"checkpoint": "c"}}}
    output = Folder(str(folder / "out"))
    pq.write_table(pa.table({"prompt": ["a cat"]}), folder / "manifest" / "m.parquet")
    RunFile(output, "run", parse_job(job, "job.yaml"), "job.yaml", 1).update("finished")
    rows = [
        receipt(str(index)) | {"run_id": "run", "inputs": given and json.dumps(given)}
        for index, given in enumerate(inputs)
    ]
    (folder / "out" / layout.METADATA).mkdir(parents=True)
    records = pa.Table.from_pylist(rows, arrow_schema(RECORD_COLUMNS))
    pq.write_table(records, folder / "out" / layout.part(layout.METADATA, 0))
    return output


def test_inputs_are_compared_with_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "manifest" / "a").mkdir(parents=True)
    (tmp_path / "manifest" / "a" / "1.png").write_bytes(b"one")
    (tmp_path / "manifest" / "2.png").write_bytes(b"two")
    same = {"image": {"url": "a/1.png", "sha256": sha256(b"one")}}
    several = {"references": [same["image"], {"url": "2.png", "sha256": sha256(b"two")}]}
    inline = {"image": {"sha256": sha256(b"of the manifest")}}
    gone = {"image": {"url": "3.png", "sha256": sha256(b"three")}}
    signed = {"image": {"url": "https://a.b/1.png?sig=***", "sha256": sha256(b"x")}}

    def checked(*inputs: Any) -> Report:
        report = Report()
        check_inputs(output_in(tmp_path, *inputs), None, report)
        for path in sorted((tmp_path / "out").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        return report

    sound = checked(same, several, inline, None)
    assert (sound.num_inputs, sound.status) == (3, OK)
    assert "inputs: 3 of 3 are as they were" in list(sound.lines("out"))
    (tmp_path / "manifest" / "2.png").write_bytes(b"other")
    changed = checked(same, several, gone, signed)
    assert (changed.num_inputs, changed.status) == (5, DAMAGED)
    assert changed.changed_inputs.examples == [
        f"1 (sample 0): references 2.png has the sha256 {sha256(b'other')}, and had {sha256(b'two')}"
    ]
    missing, secret = changed.unreadable_inputs.examples
    assert missing.startswith("2 (sample 0): image 3.png: ")
    assert "No such file" in missing
    assert secret.endswith("its URL had a secret, which records leave out")
