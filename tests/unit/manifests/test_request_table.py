"""The table of a request's fields: everything that derives from it follows when one line is added."""

import json
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from rendermill.manifests.request import FIELDS, Request, Shape
from tests.support.commands import ROOT

LINE = """
    strength: Annotated[float | None, RequestField(NUMBER, "How much noise an image gets.", in_batch_key=True)] = None
"""
CHECK = Path(__file__).parent / "one_more_field.py"


def test_fields_have_no_default_unless_they_were_added_later() -> None:
    defaults = {field.name: field.default for field in fields(Request) if field.default is not MISSING}
    assert defaults.pop("request_hash") == ""
    assert set(defaults.values()) <= {None}, "null means not asked for, and is left out of the hash"
    assert [field.name for field in fields(Request)] == [*FIELDS]


@pytest.mark.parametrize(
    "shape",
    [
        Shape(64, 32, 1, 20, is_guided=True),
        Shape(832, 480, 81, 40, is_guided=False),
        Shape(64, 32, 5, 2, True, (("strength", 0.5), ("loras", 'a, "b"=1'), ("layers", 3))),
    ],
)
def test_a_shape_in_words_is_that_shape_again(shape: Shape) -> None:
    assert Shape.parse(str(shape)) == shape


def test_words_of_shapes_are_those_of_earlier_versions() -> None:
    assert str(Shape(64, 32, 1, 20, True)) == "64 x 32, 20 steps, guided"
    assert str(Shape(832, 480, 81, 40, False)) == "832 x 480 x 81 frames, 40 steps"
    for text in ("", "64 x 32", "64 x 32, 20 steps, guided, ", "64 x 32, 20 steps, strength=", "x64 x 32, 2 steps"):
        with pytest.raises(ValueError, match="is not a shape"):
            Shape.parse(text)


def test_one_more_line_is_one_more_argument_everywhere(tmp_path: Path) -> None:
    for name in ("actors", "jobs", "manifests", "models", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "rendermill", tmp_path / "rendermill", symlinks=True)
    definition = tmp_path / "manifests" / "request.py"
    before, end, after = definition.read_text().partition("    request_hash: Annotated[\n")
    assert end
    definition.write_text(before + LINE.lstrip("\n") + end + after)
    command = [sys.executable, str(CHECK), str(tmp_path), str(ROOT / "checkpoints" / "sana-shapes")]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert found == {
        "manifest column": "strength: double",
        "record columns": ["inputs", "strength", "num_tokens_cut"],
        "documentation": True,
        "default in the job file": 0.25,
        "wrong default": "strength",
        "provenance": True,
        "hash without it": True,
        "hash with it": True,
        "batch key": "64 x 32, 2 steps, guided, strength=0.5",
        "batch key without it": "64 x 32, 2 steps, guided",
        "row that a model rejects": "strength: this model takes none; leave it empty",
        "row of a wrong type": "strength: expected a number, got 'much' (str)",
    }
