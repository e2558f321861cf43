"""Checkpoints that are odd: each renders as the one that it is derived from, or is refused in one line by planning."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rendermill.models import registry
from rendermill.models.inspection.weights import WrongWeights
from tests.slow.checkpoints.cases import NOT_LOADED, REFUSED, RENDERED
from tests.slow.checkpoints.planned import pixels, planned, refused


@pytest.fixture(scope="module")
def original(checkpoints: Path) -> dict[str, np.ndarray]:
    return {kind: pixels(planned(checkpoints / f"{kind}-shapes")) for kind in ("sana", "wan")}


@pytest.mark.parametrize("name", RENDERED)
def test_an_odd_checkpoint_renders_as_the_original(
    name: str, copy: Callable[[str], Path], original: dict[str, np.ndarray]
) -> None:
    kind, make_odd, config = RENDERED[name]
    folder = copy(kind)
    make_odd(folder)
    np.testing.assert_array_equal(pixels(planned(folder, **config)), original[kind])


@pytest.mark.parametrize("name", REFUSED)
def test_what_files_tell_is_refused(name: str, copy: Callable[[str], Path]) -> None:
    kind, make_odd, message = REFUSED[name]
    folder = copy(kind)
    make_odd(folder)
    assert message in refused(folder)


@pytest.mark.parametrize("name", NOT_LOADED)
def test_what_torch_tells_is_refused(name: str, copy: Callable[[str], Path]) -> None:
    kind, make_odd, message = NOT_LOADED[name]
    folder = copy(kind)
    make_odd(folder)
    assert message in refused(folder)


@pytest.mark.parametrize("name", ["no tensor", "no tensor of a text encoder", "other names", "one more"])
def test_weights_that_planning_did_not_judge_are_not_loaded(name: str, copy: Callable[[str], Path]) -> None:
    kind, make_odd, message = NOT_LOADED[name]
    folder = copy(kind)
    settings = planned(folder).settings
    make_odd(folder)
    with pytest.raises(WrongWeights) as wrong:
        registry.load("SanaPipeline" if kind == "sana" else "WanPipeline", folder, settings, "cpu")
    assert message in str(wrong.value)
