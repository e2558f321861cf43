"""Whatever one item does, the others are rendered, and what happened is reported. No Ray."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rendermill.actors.engine.engine import Engine, EngineOptions
from rendermill.actors.engine.outcome import Outcome
from rendermill.actors.engine.reporter import PlainReporter
from rendermill.actors.engine.watchdog import Watchdog
from rendermill.manifests.request import Request
from rendermill.models import registry
from rendermill.models.interface import Model, Rendered
from rendermill.models.settings import Settings
from tests.support.requests import request_for

SETTINGS = Settings(dtype={"default": "float32"}, compile=False, reference_batch=None)
REQUESTS = [request_for(f"prompt {number}", number, id=str(number), request_hash=str(number)) for number in range(4)]
AT_FAULT = 2


class Blamed(Exception):
    """Raised for the item at fault."""


def render_all(model: Model, reporter: PlainReporter) -> dict[str, Outcome]:
    options = EngineOptions(registry.FAMILIES["SanaPipeline"], SETTINGS, batch=4)
    engine = Engine(model, options, reporter, Watchdog(reporter))
    outcomes = [outcome for outcomes in engine.render(REQUESTS) for outcome in outcomes.result()]
    assert len(outcomes) == len(REQUESTS)
    return {outcome.request.id: outcome for outcome in outcomes}


@pytest.fixture
def model(checkpoints: Path) -> Model:
    return registry.load("SanaPipeline", checkpoints / "sana-shapes", SETTINGS, "cpu")


@pytest.mark.parametrize("stage", ["encode", "render"])
def test_an_item_that_raises_fails_alone(model: Model, stage: str) -> None:
    original, reporter = getattr(model, stage), PlainReporter()

    def poisoned(requests: Sequence[Request], *arguments: Any) -> Any:
        if any(request.id == str(AT_FAULT) for request in requests):
            raise Blamed("at fault")
        return original(requests, *arguments)

    setattr(model, stage, poisoned)
    outcomes = render_all(model, reporter)
    failure = outcomes.pop(str(AT_FAULT))
    assert (failure.error_type, failure.error, failure.frames, failure.attempt) == ("Blamed", "at fault", None, 2)
    assert [(outcome.error, outcome.attempt) for outcome in outcomes.values()] == [(None, 2)] * 3
    assert all(isinstance(outcome.frames, np.ndarray) for outcome in outcomes.values())
    ((request, attempt, error),) = reporter.failures
    assert (request.id, attempt, type(error)) == (str(AT_FAULT), 2, Blamed)


def test_an_item_that_is_no_number_fails_alone(model: Model) -> None:
    original, reporter = model.render, PlainReporter()

    def without_one(requests: Sequence[Request], embeddings: Sequence[Any]) -> Rendered:
        rendered = original(requests, embeddings)
        rendered.is_finite = torch.tensor([request.id != str(AT_FAULT) for request in requests])
        return rendered

    model.render = without_one  # type: ignore[method-assign]
    outcomes = render_all(model, reporter)
    assert {item for item, outcome in outcomes.items() if outcome.error_type == "NonFinite"} == {str(AT_FAULT)}
    assert {outcome.attempt for outcome in outcomes.values()} == {1}


def test_what_was_done_is_reported(model: Model) -> None:
    reporter = PlainReporter()
    render_all(model, reporter)
    assert (reporter.num_batches, reporter.failures, reporter.notes) == ({4: 1}, [], [])
    assert reporter.num_slots == 4 * REQUESTS[0].num_inference_steps
    assert reporter.num_padding == 0
    assert reporter.seconds.keys() == {"encode", "render"}
