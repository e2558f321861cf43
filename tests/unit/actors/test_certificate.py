"""The certificate of a model: what is tested, with real checkpoints, and what the tests may cost."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rendermill.actors.checkpoints.checkpoint import describe
from rendermill.actors.engine import loading
from rendermill.actors.engine.engine import Engine
from rendermill.actors.engine.tuning.certificate import Certificate, SeedDoesNotDecide, Statement, limit_of_time
from rendermill.actors.engine.tuning.certifier import Certifier
from rendermill.manifests.request import Request
from rendermill.models.families.sana import text_to_image
from tests.support.requests import request_for

ROWS: dict[str, dict[str, Any]] = {
    "sana-shapes": {"negative_prompt": "a blue square"},
    "sana-sprint-shapes": {},
    "wan-shapes": {"num_frames": 5},
}


def engine_and_request(checkpoints: Path, name: str, **row: Any) -> tuple[Engine, Request]:
    checkpoint = describe(str(checkpoints / name), None)
    small = {"prompt": "a red circle", "seed": 7, "width": 64, "height": 32}
    request = loading.request_for(checkpoint, **small, **ROWS[name], **row)
    return Engine.load(checkpoint), replace(request, request_hash="hash")


@pytest.mark.parametrize("name", ROWS)
def test_the_seed_and_the_arguments_of_a_checkpoint_are_proven(checkpoints: Path, name: str) -> None:
    engine, request = engine_and_request(checkpoints, name)
    of_torch = torch.get_rng_state()
    certificate = engine.certify(Certificate(), [request])
    names = ["the seed decides", "the seed matters", "guidance_scale has an effect"]
    names += ["negative_prompt has an effect"] if request.negative_prompt else []
    assert {name: statement.verdict for name, statement in certificate.statements.items()} == dict.fromkeys(
        names, "proven"
    )
    certificate.require_seed()
    assert engine.learned().certificate == certificate
    assert torch.equal(torch.get_rng_state(), of_torch), "the global generators go on as if nothing had happened"


def test_a_seed_that_does_not_decide_is_refuted(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, request = engine_and_request(checkpoints, "sana-shapes")
    monkeypatch.setattr(text_to_image, "noise", lambda shape, generators, _: torch.randn(len(generators), *shape))
    certificate = engine.certify(Certificate(), [request])
    assert certificate.seed_decides.verdict == "refuted"
    assert certificate.seed_matters.verdict == "refuted", "it is the same noise for any seed under one global seed"
    with pytest.raises(SeedDoesNotDecide, match=r"strict mode cannot be kept; reproducibility: fast renders"):
        certificate.require_seed()


def test_without_proof_strict_mode_renders_one_request_at_a_time(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, request = engine_and_request(checkpoints, "sana-shapes")
    engine._tuning.batch_size = lambda *_: 2  # without measurements
    requests = [replace(request, seed=seed, request_hash=str(seed)) for seed in range(2)]

    def sizes() -> list[int]:
        return [outcome.batch_size for outcomes in engine.render(requests) for outcome in outcomes.result()]

    with monkeypatch.context() as broken:
        broken.setattr(engine._model, "render", lambda *_: 1 / 0)
        certificate = engine.certify(Certificate(), requests)
    assert certificate.seed_decides == Statement(
        "not tested", "rendering failed with ZeroDivisionError: division by zero"
    )
    certificate.require_seed()
    assert sizes() == [1, 1]
    assert engine.certify(Certificate(), requests).seed_decides.verdict == "proven", "the next chunk tries again"
    assert sizes() == [2, 2]


class Pipeline:
    """Renders in no time, and counts.

    Args:
        pixels: of a request.
        seconds: that the clock goes forward with each rendering.
    """

    def __init__(self, pixels: Callable[[Request], object], seconds: float = 0.0) -> None:
        self._pixels, self._seconds = pixels, seconds
        self.requests: list[Request] = []
        self.now = 0.0

    def render(self, request: Request, _: Mapping[str, Any]) -> bytes:
        self.now += self._seconds
        self.requests.append(request)
        return repr(self._pixels(request)).encode()

    def wait(self) -> None:
        """Wait for other batches, which count for nothing."""
        self.now += 1000.0

    def certify(
        self, *requests: Request, known: Certificate | None = None, seconds: float = 60.0, is_compiled: bool = False
    ) -> Certificate:
        certifier = Certifier(self.render, self.wait, seconds, is_compiled, clock=lambda: self.now)
        return certifier.certify(known or Certificate(), requests, {})


REQUEST = request_for("a cat", seed=1, request_hash="hash", arguments='{"clip_skip":2,"eta":0.0,"strength":0.8}')


def test_an_argument_without_effect_is_told_apart() -> None:
    def pixels(request: Request) -> object:
        arguments = json.loads(request.arguments or "{}")
        if arguments["eta"]:
            raise ValueError("eta must be 0")
        return request.seed, arguments["strength"], request.guidance_scale

    pipeline = Pipeline(pixels)
    certificate = pipeline.certify(REQUEST)
    assert certificate.arguments == {
        "clip_skip": Statement("refuted", "1 in place of 2 gave the same pixels"),
        "eta": Statement("not tested", "rendering failed with ValueError: eta must be 0"),
        "strength": Statement("proven", "0.4 in place of 0.8 gave other pixels"),
        "guidance_scale": Statement("proven", "6.5 in place of 4.5 gave other pixels"),
    }
    assert len(pipeline.requests) == 3 + 4
    assert {request.num_inference_steps for request in pipeline.requests} == {2}
    certificate.require_seed()


def test_what_is_known_is_not_rendered_again_and_a_new_argument_is_tested_alone() -> None:
    pipeline = Pipeline(lambda request: (request.seed, request.arguments, request.guidance_scale))
    known = pipeline.certify(replace(REQUEST, arguments=None))
    assert len(pipeline.requests) == 4
    assert pipeline.certify(replace(REQUEST, arguments=None), known=known) == known
    assert len(pipeline.requests) == 4
    more = pipeline.certify(replace(REQUEST, arguments='{"eta":0.5}'), known=known)
    assert len(pipeline.requests) == 6
    assert more.arguments.keys() == {"guidance_scale", "eta"}


def test_the_smallest_shape_tests_the_seed() -> None:
    pipeline = Pipeline(lambda request: request.seed)
    sizes = [96, 32, 64]
    pipeline.certify(*[replace(REQUEST, width=width, guidance_scale=1.0, arguments=None) for width in sizes])
    assert [request.width for request in pipeline.requests] == [32] * 3


@pytest.mark.parametrize(
    ("seconds", "is_compiled", "num_renderings", "verdicts"),
    [
        (8.0, False, 7, ("proven", "proven", 0)),
        (15.0, False, 4, ("proven", "proven", 3)),
        (20.0, False, 3, ("proven", "proven", 4)),
        (25.0, False, 2, ("proven", "not tested", 4)),
        (25.0, True, 3, ("proven", "proven", 4)),
        (45.0, False, 1, ("not tested", "not tested", 4)),
    ],
)
def test_the_limit_of_time_is_kept(
    seconds: float, is_compiled: bool, num_renderings: int, verdicts: tuple[str, str, int]
) -> None:
    pipeline = Pipeline(lambda request: request, seconds)
    certificate = pipeline.certify(REQUEST, is_compiled=is_compiled)
    untested = [statement for statement in certificate.arguments.values() if not statement.is_settled]
    assert len(pipeline.requests) == num_renderings
    assert (certificate.seed_decides.verdict, certificate.seed_matters.verdict, len(untested)) == verdicts
    if untested:
        assert untested[0].reason == f"a rendering takes {seconds:.0f} s, and all tests may take 60 s"


def test_a_run_that_is_known_to_have_no_time_renders_nothing_and_a_longer_one_does() -> None:
    pipeline = Pipeline(lambda request: request, 45.0)
    known = pipeline.certify(REQUEST)
    assert len(pipeline.requests) == 1
    pipeline.certify(REQUEST, known=known)
    assert len(pipeline.requests) == 1
    certificate = pipeline.certify(REQUEST, known=known, seconds=limit_of_time(20_000))
    assert certificate.seed_decides.verdict == "proven"
    assert limit_of_time(5000) == 60.0


def test_requests_that_fail_leave_the_seed_untested_and_are_not_tried_for_ever() -> None:
    def pixels(request: Request) -> object:
        raise SystemExit(3)

    pipeline = Pipeline(pixels)
    certifier = Certifier(pipeline.render, pipeline.wait, 60.0, is_compiled=False)
    certificate = Certificate()
    for _ in range(9):
        certificate = certifier.certify(certificate, [replace(REQUEST, guidance_scale=1.0, arguments=None)], {})
    assert len(pipeline.requests) == 3
    assert certificate.seed_decides == Statement("not tested", "rendering failed with SystemExit: 3")


def test_what_one_process_refuted_another_cannot_prove() -> None:
    refuted = Certificate(Statement("refuted", "no"), arguments={"eta": Statement("not tested", "no time")})
    proven = Certificate(
        Statement("proven", "yes"), Statement("proven", "yes"), {"eta": Statement("proven", "yes")}, seconds=2.0
    )
    for both in (refuted.merged(proven), proven.merged(refuted)):
        assert [statement.verdict for statement in both.statements.values()] == ["refuted", "proven", "proven"]
        assert both.seconds == 2.0
