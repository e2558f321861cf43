"""Short memory, on a device whose memory is imagined: a CPU cannot run out of it one item at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rendermill.actors.engine.device_memory import GIB, DeviceMemory
from rendermill.actors.engine.engine import Engine, EngineOptions
from rendermill.actors.engine.outcome import Outcome
from rendermill.actors.engine.reporter import PlainReporter
from rendermill.actors.engine.watchdog import Watchdog
from rendermill.models import registry
from rendermill.models.interface import Model, Rendered
from rendermill.models.settings import Settings
from tests.pipelines import equality, images, variants
from tests.pipelines.equality import Case
from tests.support.requests import request_for

NUM_ITEMS = 24


class ImaginedMemory(DeviceMemory):
    """Weights take 1 GiB, an item of a batch 1 GiB, and 2 GiB in a batch of the size `costly`."""

    def __init__(self, gib: int, costly: int | None = None) -> None:
        self._available, self._costly = gib * GIB, costly
        self._peak = self.num_times_out_of_memory = 0

    def take(self, num_items: int) -> None:
        self._peak = (1 + num_items * (2 if num_items == self._costly else 1)) * GIB
        if self._peak > self._available:
            self.num_times_out_of_memory += 1
            raise torch.OutOfMemoryError

    def available_bytes(self) -> int:
        return self._available

    def allocated_bytes(self) -> int:
        return GIB

    def peak_bytes(self) -> int:
        return self._peak


def model_on(memory: ImaginedMemory, checkpoints: Path, settings: Settings) -> Model:
    """A model with real weights that takes imagined memory."""
    model = registry.load("SanaPipeline", checkpoints / "sana-shapes", settings, "cpu")
    render, rehearse = model.render, model.rehearse

    def taking_render(requests: Sequence[Any], embeddings: Sequence[Any]) -> Rendered:
        memory.take(max(len(requests), settings.reference_batch or 1))
        return render(requests, embeddings)

    def taking_rehearse(request: Any, embeddings: Any) -> None:
        memory.take(1)
        model.render = render
        rehearse(request, embeddings)
        model.render = taking_render

    model.render, model.rehearse = taking_render, taking_rehearse
    return model


def render_all(
    checkpoints: Path, memory: ImaginedMemory, batch: int | None = None, reference: int | None = None
) -> tuple[list[Outcome], PlainReporter]:
    settings, reporter = (
        Settings(dtype={"default": "float32"}, compile=False, reference_batch=reference),
        PlainReporter(),
    )
    options = EngineOptions(registry.FAMILIES["SanaPipeline"], settings, batch)
    engine = Engine(model_on(memory, checkpoints, settings), options, reporter, Watchdog(reporter), memory=memory)
    requests = [request_for(f"prompt {seed}", seed, request_hash=str(seed)) for seed in range(NUM_ITEMS)]
    return [outcome for outcomes in engine.render(requests) for outcome in outcomes.result()], reporter


@pytest.mark.parametrize("reference", [None, 2])
def test_memory_never_runs_out_to_find_a_size(checkpoints: Path, reference: int | None) -> None:
    memory = ImaginedMemory(6)
    outcomes, _ = render_all(checkpoints, memory, reference=reference)
    assert [outcome.error for outcome in outcomes] == [None] * NUM_ITEMS
    assert memory.num_times_out_of_memory == 0
    assert max(outcome.batch_size for outcome in outcomes) <= 4


def test_where_memory_runs_out_all_the_same_smaller_batches_go_on(checkpoints: Path) -> None:
    memory = ImaginedMemory(6, costly=4)
    outcomes, reporter = render_all(checkpoints, memory, batch=4)
    assert [outcome.error for outcome in outcomes] == [None] * NUM_ITEMS
    assert memory.num_times_out_of_memory == 1
    (note,) = reporter.notes
    assert note.startswith("memory ran out with 4 items of 64 x 32")
    assert {outcome.batch_size for outcome in outcomes} == {2}


@pytest.mark.parametrize("memory", [ImaginedMemory(6), ImaginedMemory(10, costly=8)], ids=["foreseen", "found out"])
def test_a_reference_that_does_not_fit_is_refused_before_anything_is_rendered(
    checkpoints: Path, memory: ImaginedMemory
) -> None:
    outcomes, _ = render_all(checkpoints, memory, reference=8)
    assert {outcome.error_type for outcome in outcomes} == {"DoesNotFit"}
    assert len(outcomes) == NUM_ITEMS
    assert "the reference batch of 8 needs about" in outcomes[0].error
    assert "reproducibility: fast" in outcomes[0].error


def test_a_pipeline_that_cannot_render_in_one_step_is_measured_all_the_same(tmp_path: Path) -> None:
    case = Case(variants.of(images.sdxl, "StableDiffusionXLImg2ImgPipeline"), {"num_inference_steps": 6}, {})
    checkpoint = equality.save(case, tmp_path)
    request = equality.request_of(checkpoint, case, seed=1)  # a `strength` of 0.3 leaves nothing of one step
    model = registry.load(checkpoint.pipeline_class, tmp_path, equality.SETTINGS, "cpu")
    options, reporter = EngineOptions(registry.family_of(checkpoint.pipeline_class), equality.SETTINGS), PlainReporter()
    memory = ImaginedMemory(6)
    memory.take(num_items=1)  # what each rendering is said to have taken
    engine = Engine(model, options, reporter, Watchdog(reporter), memory=memory)
    outcome = engine.render_one(request, inputs=equality.conditions_of(checkpoint, request))
    assert outcome.error is None
    assert outcome.frames is not None
