"""The example that renders one item, in a process that cannot import Ray."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rendermill.actors.checkpoints.checkpoint import describe
from rendermill.actors.engine.loading import request_for
from rendermill.models import registry
from rendermill.models.settings import Settings
from tests.support.commands import ROOT

WITHOUT_RAY = """
import runpy, sys
sys.modules["ray"] = None  # makes every import of it fail
runpy.run_module("examples.render_one", run_name="__main__")
"""
PROMPT = "a red circle"


def test_one_item_is_rendered_without_ray_as_the_model_renders_it(checkpoints: Path, tmp_path: Path) -> None:
    source, picture = str(checkpoints / "sana-shapes"), tmp_path / "circle.png"
    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, source, PROMPT, picture], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    settings = Settings(dtype={"default": "bfloat16"}, compile=False, reference_batch=1)
    model = registry.load("SanaPipeline", Path(source), settings, "cpu")
    request = request_for(describe(source, None), prompt=PROMPT, seed=7)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the engine does, because sums depend on it
    rendered = model.render([request], model.encode([request]))
    torch.set_num_threads(num_threads)
    np.testing.assert_array_equal(np.asarray(Image.open(picture)), rendered.frames[0, 0].numpy())
