"""Pipelines without a loop of their own, as their users call them: with the bits of the stock pipeline."""

import random
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from transformers import CLIPImageProcessor

from rendermill.models.families.diffusers import Diffusers
from rendermill.models.inspection.weights import problem_of_processor
from rendermill.models.parts.pipeline_state import SchedulerStates, seeded
from tests.pipelines import equality, images
from tests.pipelines.equality import Case

FLUX = Case(images.flux, {}, {"max_sequence_length": 48})


@pytest.mark.parametrize("build", [images.flux, images.sdxl_inpaint, images.sdxl_controlnet])
def test_a_pipeline_has_the_bits_of_stock_and_the_seed_alone_decides(build: object, tmp_path: Path) -> None:
    equality.hold(Case(build, {}, FLUX.arguments if build is images.flux else {}), tmp_path)


def test_further_arguments_reach_the_pipeline(tmp_path: Path) -> None:
    case = Case(images.sdxl, {}, {})
    checkpoint = equality.save(case, tmp_path)
    engine = equality.engine_for(checkpoint, case)
    request = replace(equality.request_of(checkpoint, case, 3), arguments='{"original_size": [16, 32]}')
    found = equality.render(engine, request, {})
    theirs = equality.stock(tmp_path, Case(images.sdxl, {}, {"original_size": (16, 32)}), request, {})
    np.testing.assert_array_equal(found.frames, theirs)
    plain = equality.render(engine, replace(request, arguments=None, request_hash="plain"), {})
    assert not np.array_equal(found.frames, plain.frames)


def test_several_requests_are_rendered_alone(tmp_path: Path) -> None:
    checkpoint = equality.save(FLUX, tmp_path)
    model = Diffusers(tmp_path, equality.SETTINGS, "cpu")
    requests = [equality.request_of(checkpoint, FLUX, seed) for seed in (1, 2, 3)]
    together = model.render(requests, model.encode(requests)).frames
    for request, frames in zip(requests, together, strict=True):
        assert torch.equal(model.render([request], model.encode([request])).frames[0], frames)


def test_the_global_generators_are_seeded_and_left_as_they_were() -> None:
    def values() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    with equality.global_seed(5):
        expected = values()
    with equality.global_seed(6):
        with seeded(5):
            assert values() == expected
        after = values()
    with equality.global_seed(6):
        assert values() == after


def test_noise_from_a_global_generator_is_the_item_s_own(tmp_path: Path) -> None:
    equality.save(FLUX, tmp_path)
    model = Diffusers(tmp_path, equality.SETTINGS, "cpu")
    model._pipeline.transformer.register_forward_hook(lambda *call: (call[-1][0] + torch.randn(call[-1][0].shape),))
    first, second = (equality.request_for("a cat", seed) for seed in (1, 2))
    frames = []
    for seed, request in ((1, first), (2, first), (2, second)):
        with equality.global_seed(seed):
            frames.append(model.render([request], [{}]).frames)
    assert torch.equal(frames[0], frames[1])
    assert not torch.equal(frames[1], frames[2])


def test_a_scheduler_is_as_it_was_loaded_for_each_request(tmp_path: Path) -> None:
    equality.save(FLUX, tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    states, before = SchedulerStates(pipeline), dict(vars(pipeline.scheduler))
    pipeline.scheduler.set_timesteps(3, mu=0.5)
    pipeline.scheduler.left_by_a_request = True
    states.restore()
    after = vars(pipeline.scheduler)
    assert after.keys() == before.keys()
    assert torch.equal(after["timesteps"], before["timesteps"])


def test_a_render_of_nan_is_reported(tmp_path: Path) -> None:
    equality.save(FLUX, tmp_path)
    model = Diffusers(tmp_path, equality.SETTINGS, "cpu")
    request = equality.request_for("a cat", 1)
    assert model.render([request], model.encode([request])).is_finite.tolist() == [True]
    torch.nn.init.constant_(model._pipeline.transformer.proj_out.bias, float("nan"))
    assert model.render([request], model.encode([request])).is_finite.tolist() == [False]


def test_a_processor_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    CLIPImageProcessor().save_pretrained(tmp_path)
    assert problem_of_processor("CLIPImageProcessor", str(tmp_path)) is None  # with Pillow if torchvision is missing
    assert problem_of_processor("CLIPImageProcesor", str(tmp_path)) == (
        "transformers has no class CLIPImageProcesor; another version may have it"
    )
    problem = problem_of_processor("PixtralProcessor", str(tmp_path))
    assert problem is not None
    if find_spec("torchvision") is None:
        assert problem == "PixtralProcessor needs torchvision, which is not installed"
