"""The way of one manifest row through the files, from the manifest to its record, in the driver and in workers."""

import os
import shutil
import sys
from itertools import groupby
from pathlib import Path

import pytest

from tests.support.commands import ROOT, Rendermill

STATIONS = [
    "manifests/rows.py",
    "jobs/running/dataset/requests.py",
    "actors/renderer.py",
    "actors/engine/engine.py",
    "models/families/sana/text_to_image.py",
    "actors/media/rendered_table.py",
    "jobs/running/dataset/media_tasks.py",
    "actors/media/store.py",
    "manifests/storage/folder.py",
    "jobs/running/dataset/arrivals.py",
    "jobs/running/commit.py",
    "manifests/output/ledger/ledger.py",
    "manifests/output/ledger/parts.py",
]
"""Where every row comes, in this order; docs/design.md has a picture of it."""

MAX_RETURNS = 20
"""Most are within the ledger, whose parts share `keyed_rows.py`, and between a family's steps and their parts."""


def test_a_row_seldom_returns_to_a_file(rendermill: Rendermill, capsys: pytest.CaptureFixture[str]) -> None:
    stages = follow(rendermill)
    returns = [file for stage in stages for index, file in enumerate(stage) if file in stage[:index]]
    with capsys.disabled():
        for stage in stages:
            sys.stdout.write("\n" + " → ".join(stage) + "\n")
        sys.stdout.write(f"\n{sum(map(len, stages))} steps, {len(returns)} of them returns: {returns}\n")
    first_visits = list(dict.fromkeys(file for stage in stages for file in stage))
    assert [file for file in first_visits if file in STATIONS] == STATIONS
    assert len(returns) <= MAX_RETURNS, returns


def follow(rendermill: Rendermill) -> list[list[str]]:
    """The files to which one row comes, by stage: what one process does with the row until another one has it."""
    folder = rendermill.folder / "followed"
    folder.mkdir()
    shutil.copy(ROOT / "tests/support/sabotage/followed/sitecustomize.py", folder)
    rendermill.model("sana", "sana-shapes")
    rendermill.manifest([{"prompt": "another row"}])
    before = rendermill.generate(output=str(rendermill.folder / "before"))
    assert before.status == 0, before  # the certificate, for which an item is rendered many times, is known from now on
    rendermill.manifest([{"id": "the-row", "prompt": "the-row is a red circle"}])
    path = os.pathsep.join([str(folder), str(ROOT)])
    finished = rendermill.run("generate", rendermill.write_job(), PYTHONPATH=path)
    assert finished.status == 0, finished
    steps = sorted(step for way in folder.glob("*.way") for step in steps_of(way))
    return [
        [file for file, _ in groupby(file for _, _, file in stage)] for _, stage in groupby(steps, lambda step: step[1])
    ]


def steps_of(way: Path) -> list[tuple[int, str, str]]:
    """The time, the process and the file of each step."""
    lines = [line.split(" ", 1) for line in way.read_text().splitlines()]
    return [(int(time), way.stem, file) for time, file in lines]
