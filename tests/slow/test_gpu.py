"""Tests that need a GPU, and are skipped without one. On a CUDA machine: `python -m pytest tests/slow/test_gpu.py`."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from rendermill.actors.environment import make_deterministic
from rendermill.models import registry
from rendermill.models.interface import Model
from rendermill.models.settings import Settings
from tests.support.commands import Rendermill, sabotaged_by
from tests.support.requests import request_for
from tests.unit.models.test_models import FAMILIES, render

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def load(checkpoints: Path, family: str, reference_batch: int, is_compiled: bool = False, **settings: str) -> Model:
    make_deterministic(is_compiled)
    given = Settings(dtype={"default": "bfloat16"}, compile=is_compiled, reference_batch=reference_batch, **settings)
    return registry.load(family, checkpoints / FAMILIES[family][0], given, "cuda")


@pytest.mark.parametrize("offload", ["model", "sequential", "group"])
@pytest.mark.parametrize("family", FAMILIES)
def test_offloading_changes_no_pixel(checkpoints: Path, family: str, offload: str) -> None:
    requests = [request_for("a cat", seed, **FAMILIES[family][1]) for seed in range(3)]
    kept = render(load(checkpoints, family, reference_batch=2), requests)
    np.testing.assert_array_equal(render(load(checkpoints, family, reference_batch=2, offload=offload), requests), kept)


@pytest.mark.parametrize("reference_batch", [1, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_items_do_not_depend_on_their_batch(checkpoints: Path, family: str, reference_batch: int) -> None:
    model = load(checkpoints, family, reference_batch, is_compiled=True)
    requests = [request_for("a cat", seed, guidance_scale=3.0 + seed, **FAMILIES[family][1]) for seed in range(5)]
    together = render(model, requests)
    np.testing.assert_array_equal(render(model, requests[3:4])[0], together[3])


def test_an_item_after_which_the_device_answers_nothing_is_a_failure_alone(tmp_path: Path, checkpoints: Path) -> None:
    rendermill = Rendermill(tmp_path, checkpoints, os.environ | {"RAY_ADDRESS": "local"})
    rendermill.model("sana", "sana-shapes", batch=4, compile=False, pool={"num_gpus": 1})
    rows = [{"id": str(index), "prompt": f"prompt {index}"} for index in range(12)]
    rows[5]["prompt"] = "an item that breaks the device"
    rendermill.manifest(rows)
    finished = rendermill.run("generate", rendermill.write_job(), **sabotaged_by("poison"))
    assert finished.status == 3, finished
    assert "11 items finished, 1 failed, 0 rejected" in finished.out
    (failure,) = rendermill.table("failures")
    assert failure["id"] == "5"
    assert "device-side assert" in failure["error"]
