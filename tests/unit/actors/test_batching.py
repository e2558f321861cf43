"""Batch sizes by measurement, against curves that were recorded on GPUs: speed, noise, and memory."""

import random

import pytest

from rendermill.actors.engine.tuning.batch_sizer import BatchSizer, Learned
from rendermill.actors.services.audit import Audits, is_chosen
from rendermill.manifests.output.tuning_report import AuditedRendering
from rendermill.manifests.request import Request
from tests.support.requests import request_for

GIB = 2**30

# images a second at 1024 px, 20 steps, on an H100; Wan: videos a second of 480p x 81 frames on an H200
SANA_EAGER = {1: 1.34, 2: 1.75, 4: 1.98, 8: 2.04, 16: 2.06, 32: 1.98}
SANA_COMPILED = {8: 3.09, 16: 3.13, 32: 3.1}
WAN = {1: 0.01, 2: 0.0099, 4: 0.0098}

# most that was allocated, eager Sana 1.6B with its text encoder: weights, and what an item takes
SANA_BYTES = {0: 9.5 * GIB, 1: 11.0 * GIB, 2: 12.4 * GIB, 4: 15.3 * GIB, 8: 21.2 * GIB, 16: 32.8 * GIB, 32: 56.0 * GIB}


def run(
    sizer: BatchSizer,
    rates: dict[int, float],
    num_batches: int = 20,
    noise: float = 0.0,
    available: float | None = None,
    seed: int = 0,
) -> list[int]:
    """Render batches on a device of these rates; returns their sizes."""
    generator, sizes = random.Random(seed), []
    for _ in range(num_batches):
        size = sizer.size("shape", None if available is None else int(available))
        sizes.append(size)
        seconds = size / rates[size] * (1 + generator.uniform(-noise, noise))
        if available is None:
            sizer.add("shape", size, seconds)
        else:
            assert SANA_BYTES[size] < available, "this batch would have run out of memory"
            sizer.add("shape", 0, None, int(SANA_BYTES[0]))
            sizer.add("shape", size, seconds, int(SANA_BYTES[size]))
    return sizes


@pytest.mark.parametrize(
    ("rates", "smallest", "knee"),
    [(SANA_EAGER, 1, 8), (SANA_COMPILED, 8, 16), (WAN, 1, 1), ({1: 1.0, 2: 1.04}, 1, 2), ({1: 1.0, 2: 1.005}, 1, 1)],
)
def test_a_batch_grows_to_the_knee(rates: dict[int, float], smallest: int, knee: int) -> None:
    sizes = run(BatchSizer(None, smallest), rates)
    assert sizes[-1] == knee
    assert sum(sizes[: sizes.index(knee)]) < 64, "found within the first 64 items"


@pytest.mark.parametrize("seed", range(20))
def test_noise_costs_at_most_one_doubling(seed: int) -> None:
    assert run(BatchSizer(None), SANA_EAGER, noise=0.03, seed=seed)[-1] in (4, 8, 16)


def test_a_curve_that_falls_is_not_followed() -> None:
    assert run(BatchSizer(None), {1: 1.0, 2: 2.0, 4: 1.0})[-1] == 2
    assert max(run(BatchSizer(None, largest=8), {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0})) == 8


def test_the_first_batch_of_a_size_may_be_slow() -> None:
    sizer = BatchSizer(None)
    for size, seconds in ((1, 9.0), (1, 1.0), (2, 30.0), (2, 1.2)):
        assert sizer.size("shape") == size
        sizer.add("shape", size, seconds)
    assert sizer.size("shape") == 4


def test_a_trial_says_nothing_of_speed() -> None:
    sizer = BatchSizer(None)
    for _ in range(5):
        sizer.add("shape", 1, None)
    assert sizer.size("shape") == 1


@pytest.mark.parametrize("available", [12.5, 14, 18, 24, 40, 70])
def test_memory_is_never_run_out_of_to_find_its_limit(available: float) -> None:
    always_faster = {size: float(size) for size in SANA_EAGER} | {64: 1.0}
    sizes = run(BatchSizer(None, largest=32), always_faster, available=available * GIB)
    assert SANA_BYTES[sizes[-1]] < 0.9 * available * GIB
    assert 2 * sizes[-1] > 32 or SANA_BYTES[2 * sizes[-1]] > 0.85 * available * GIB, "and what there is, is used"


def test_memory_that_shrinks_and_comes_back() -> None:
    sizer = BatchSizer(None, largest=16)
    rates = {size: float(size) for size in SANA_EAGER}
    assert run(sizer, rates, available=70 * GIB)[-1] == 16
    assert set(run(sizer, rates, available=20 * GIB)) == {4}
    assert set(run(sizer, rates, available=70 * GIB)) == {16}


def test_running_out_of_memory_halves_and_is_remembered() -> None:
    for sizer in (BatchSizer(8), BatchSizer(None)):
        while sizer.size("shape") < 8:
            sizer.add("shape", sizer.size("shape"), 1.0)
        assert sizer.shrink("shape", 8)
        assert set(run(sizer, {4: 10.0})) == {4}
    assert not BatchSizer(1).shrink("shape", 1)
    assert not BatchSizer(None, smallest=8).shrink("shape", 8), "strict mode's reference cannot be undercut"


def test_a_size_that_changes_pixels_is_never_rendered_again() -> None:
    sizer = BatchSizer(None)
    rates = {1: 1.0, 2: 2.0, 4: 4.0}
    run(sizer, rates, num_batches=5)
    sizer.forbid("shape", 4)
    assert set(run(sizer, rates)) == {2}


def test_what_was_learned_is_where_the_next_run_begins() -> None:
    first, second = BatchSizer(None), BatchSizer(None)
    run(first, SANA_EAGER)
    second.start_from("shape", first.learned("shape"))
    assert set(run(second, SANA_EAGER)) == {8}
    fixed = BatchSizer(2)
    fixed.start_from("shape", Learned(16))
    assert fixed.size("shape") == 2


def test_shapes_are_sized_apart() -> None:
    sizer = BatchSizer(4)
    sizer.shrink("large", 4)
    assert (sizer.size("large"), sizer.size("small")) == (2, 4)


def request(request_hash: str) -> Request:
    return request_for("a cat", seed=1, model="sana", request_hash=request_hash)


def test_an_audit_is_another_actors_unless_there_is_none() -> None:
    audits = Audits()
    audits.join("sana", "first")
    audits.add_first(request("aa"), AuditedRendering(renderer="first", pixel_sha256="pixels", batch_size=4))
    assert audits.take("sana", "first") == [request("aa")]
    audits.add_second("aa", AuditedRendering(renderer="first", pixel_sha256="pixels", batch_size=1))
    audits.join("sana", "second")
    audits.add_first(request("bb"), AuditedRendering(renderer="first", pixel_sha256="pixels", batch_size=4))
    assert audits.take("sana", "first") == []
    assert audits.take("sana", "second") == [request("bb")]
    audits.add_second("bb", AuditedRendering(renderer="second", pixel_sha256="other pixels", batch_size=1))
    assert audits.num_equal == 1
    (difference,) = audits.differences
    assert (difference.request["request_hash"], difference.first.renderer, difference.second.renderer) == (
        "bb",
        "first",
        "second",
    )


def test_the_share_that_is_audited() -> None:
    hashes = [f"{random.Random(number).getrandbits(128):032x}" for number in range(2000)]
    assert 60 < sum(is_chosen(value, 0.05) for value in hashes) < 140
    assert not any(is_chosen(value, 0.0) for value in hashes)
    assert all(is_chosen(value, 1.0) for value in hashes)
