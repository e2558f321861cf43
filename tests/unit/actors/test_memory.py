"""Short memory, on a device whose memory is imagined: a CPU cannot run out of it one item at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rendermill.actors.engine import memory
from rendermill.actors.engine import watchdog as watch
from rendermill.actors.engine.engine import Drawer, Outcome
from rendermill.actors.services.tuning_profile import Profile
from rendermill.models import registry
from rendermill.models.interface import Rendered, Settings
from tests.unit.models.test_models import request_for

GIB = 2**30
NUM_ITEMS = 24


class Device:
    """Weights take 1 GiB, an item of a batch 1 GiB, and more where batches are `costly`."""

    def __init__(self, gib: int, costly: int | None = None) -> None:
        self.available, self._costly = gib * GIB, costly
        self.peak = self.num_times_out_of_memory = 0

    def take(self, num_items: int) -> None:
        self.peak = (1 + num_items * (2 if num_items == self._costly else 1)) * GIB
        if self.peak > self.available:
            self.num_times_out_of_memory += 1
            raise torch.OutOfMemoryError


class Said:
    """Stands in for the actors that a renderer reports to, and keeps what it notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *said: self.notes.append(said[-1]) if name == "note" else None)


class Workshop:
    """Draws with real weights on the imagined device."""

    def __init__(
        self,
        checkpoints: Path,
        monkeypatch: pytest.MonkeyPatch,
        device: Device,
        batch: int | None,
        reference: int | None,
    ) -> None:
        self.device, self.said = device, Said()
        settings = Settings(dtype={"default": "float32"}, compile=False, reference_batch=reference)
        model = registry.load("SanaPipeline", checkpoints / "sana-shapes", settings, "cpu")
        render, rehearse = model.render, model.rehearse

        def taking_render(requests: Sequence[Any], embeddings: Sequence[Any]) -> Rendered:
            device.take(max(len(requests), reference or 1))
            return render(requests, embeddings)

        def taking_rehearse(request: Any, embeddings: Any) -> None:
            device.take(1)
            model.render = render
            rehearse(request, embeddings)
            model.render = taking_render

        model.render, model.rehearse = taking_render, taking_rehearse
        monkeypatch.setattr(memory, "available_bytes", lambda: device.available)
        monkeypatch.setattr(memory, "allocated_bytes", lambda: GIB)
        monkeypatch.setattr(memory, "peak_bytes", lambda: device.peak)
        monkeypatch.setattr(watch.ray, "get", lambda answer: answer)
        spec = SimpleNamespace(
            settings=settings,
            batch=batch,
            deadline_seconds=None,
            checkpoint=SimpleNamespace(pipeline_class="SanaPipeline"),
            model_name="sana",
            run_id="a run",
            journal=self.said,
            findings=self.said,
        )
        self._drawer = Drawer(spec, model, Profile(), watch.Watch(self.said, process=None))

    def draw(self) -> list[Outcome]:
        requests = [request_for(f"prompt {seed}", seed, request_hash=str(seed)) for seed in range(NUM_ITEMS)]
        return [outcome for outcomes in self._drawer.draw(requests) for outcome in outcomes.result()]


@pytest.fixture
def open_workshop(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def open_it(device: Device, batch: int | None = None, reference: int | None = None) -> Workshop:
        return Workshop(checkpoints, monkeypatch, device, batch, reference)

    return open_it


@pytest.mark.parametrize("reference", [None, 2])
def test_memory_never_runs_out_to_find_a_size(open_workshop: Any, reference: int | None) -> None:
    workshop = open_workshop(Device(6), reference=reference)
    outcomes = workshop.draw()
    assert [outcome.error for outcome in outcomes] == [None] * NUM_ITEMS
    assert workshop.device.num_times_out_of_memory == 0
    assert max(outcome.batch_size for outcome in outcomes) <= 4


def test_where_memory_runs_out_all_the_same_smaller_batches_go_on(open_workshop: Any) -> None:
    workshop = open_workshop(Device(6, costly=4), batch=4)
    outcomes = workshop.draw()
    assert [outcome.error for outcome in outcomes] == [None] * NUM_ITEMS
    assert workshop.device.num_times_out_of_memory == 1
    (note,) = workshop.said.notes
    assert note.startswith("memory ran out with 4 items of 64 x 32")
    assert {outcome.batch_size for outcome in outcomes} == {2}


@pytest.mark.parametrize("device", [Device(6), Device(10, costly=8)], ids=["foreseen", "found out"])
def test_a_reference_that_does_not_fit_is_refused_before_anything_is_drawn(open_workshop: Any, device: Device) -> None:
    outcomes = open_workshop(device, reference=8).draw()
    assert {outcome.error_type for outcome in outcomes} == {"DoesNotFit"}
    assert len(outcomes) == NUM_ITEMS
    assert "the reference batch of 8 needs about" in outcomes[0].error
    assert "reproducibility: fast" in outcomes[0].error
