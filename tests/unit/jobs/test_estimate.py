"""Estimates of how long rendering takes: arithmetic over profiles, and how it is put into words."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from rendermill.actors.engine.tuning.batch_sizer import BatchSizer, Learned
from rendermill.actors.engine.tuning.deadlines import Deadlines
from rendermill.actors.engine.tuning.pace import Pace
from rendermill.actors.engine.tuning.profile import Profile
from rendermill.actors.engine.tuning.state import TuningState
from rendermill.actors.services.findings import Findings
from rendermill.actors.services.tuning.profile_store import ProfileStore
from rendermill.actors.services.tuning.profiles import FirstBatch
from rendermill.jobs.console.units import duration, size
from rendermill.jobs.planning.estimate import ModelWork, estimate_shape, padding, seconds_of_job
from rendermill.jobs.running.observers.stored_files import StoredFiles
from rendermill.manifests.request import BATCH_KEY, Shape
from rendermill.manifests.storage.folder import Folder

IMAGE = Shape(1024, 1024, 1, 20, is_guided=True)
VIDEO = Shape(832, 480, 81, 40, is_guided=False)


@pytest.mark.parametrize("shape", [IMAGE, VIDEO])
def test_a_shape_in_words_is_that_shape_again(shape: Shape) -> None:
    assert Shape.parse(str(shape)) == shape


def profile(**seconds: float) -> Profile:
    """Return the profile of images that are 1024 pixels wide and have these heights."""
    shapes = {str(IMAGE._replace(height=int(height[1:]))): pace for height, pace in seconds.items()}
    return Profile(
        shapes={shape: Learned(size=16) for shape in shapes},
        seconds_per_item=shapes,
        bytes_per_item={shape: 1000.0 * Shape.parse(shape).height for shape in shapes},
    )


def test_a_shape_that_was_rendered_has_its_own_pace_and_batch() -> None:
    estimate = estimate_shape(IMAGE, profile(h1024=0.3, h512=0.2))
    assert (estimate.seconds_per_item, estimate.is_measured, estimate.batch_size) == (0.3, True, 16)
    assert estimate.bytes_per_item == 1_024_000


def test_any_other_shape_has_the_nearest_ones_in_proportion_to_its_work() -> None:
    known = profile(h1024=0.3, h512=0.2)
    unguided = estimate_shape(IMAGE._replace(height=512, num_inference_steps=80, is_guided=False), known)
    assert (unguided.seconds_per_item, unguided.is_measured, unguided.batch_size) == (0.3, False, None)
    assert unguided.bytes_per_item == 512_000, "files depend on pixels alone"
    wide = estimate_shape(IMAGE._replace(width=2048), known)
    assert (wide.seconds_per_item, wide.bytes_per_item) == (0.6, 2_048_000)


def test_batches_alone_serve_where_no_pace_is_known_and_nothing_is_made_up() -> None:
    learned = Learned(size=8, seconds_per_item={4: [0.5, 0.4], 8: [0.35, 0.31]})
    assert estimate_shape(IMAGE, Profile(shapes={str(IMAGE): learned})).seconds_per_item == 0.31
    assert estimate_shape(IMAGE, Profile(shapes={str(IMAGE): Learned(size=1)})).seconds_per_item is None


def test_a_job_takes_as_long_as_its_slowest_model_or_as_all_its_devices() -> None:
    images = ModelWork(seconds=8000, start_up_seconds=60, num_actors=8, num_gpus=1, num_cpus=1)
    videos = ModelWork(seconds=4000, start_up_seconds=100, num_actors=2, num_gpus=1, num_cpus=1)
    assert seconds_of_job([images, videos], {"GPU": 100, "CPU": 8}) == 2100
    assert seconds_of_job([images, videos], {"GPU": 4, "CPU": 8}) == 3000, "they share four GPUs"
    on_cpus = ModelWork(seconds=800, start_up_seconds=10, num_actors=4, num_gpus=0, num_cpus=0.5)
    assert seconds_of_job([on_cpus], {"GPU": 4, "CPU": 8}) == 210
    assert seconds_of_job([on_cpus], {"GPU": 4, "CPU": 2}) == 400, "each computes, whatever it reserves"
    assert seconds_of_job([], {"CPU": 8}) == 0


@pytest.mark.parametrize(
    ("batches", "size", "seconds_per_item"),
    [
        ([(1, 9.0), (1, 1.5), (1, 0.5), (2, 3.0), (2, 1.2)], 2, 0.6),
        ([(1, 9.0), (1, 1.5), (1, 0.5)], 16, 1.0),
        ([(8, 9.0), (5, 9.0), (8, 4.0), (5, 2.5), (3, 9.0), (3, 9.0), (8, 4.0), (5, 2.5)], 8, 0.5),
        ([(4, 9.0), (8, 9.0), (4, 2.0), (8, 9.0)], 4, 0.5),
        ([(1, 9.0), *[(1, 5.0)] * 5, *[(1, 1.0)] * 12], 1, 1.0),
        ([(4, 9.0)], 4, None),
    ],
    ids=[
        "while sizes grow",
        "before they are reached",
        "chunks' ends",
        "a larger one did not pay",
        "the last ones",
        "warming up",
    ],
)
def test_the_pace_is_that_of_batches_as_a_later_run_draws_them(
    batches: list[tuple[int, float]], size: int, seconds_per_item: float | None
) -> None:
    pace = Pace()
    for num_items, seconds in batches:
        pace.add(num_items, seconds, is_trial=False)
    pace.add(size, 100.0, is_trial=True)
    assert pace.seconds_per_item(size) == seconds_per_item


def test_a_pace_counts_what_is_between_batches_and_not_what_is_between_chunks() -> None:
    ends = iter([3.0, 5.0, 9.0])
    state = TuningState(BatchSizer(fixed=2), Deadlines(None, is_compiled=False), lambda: next(ends))
    for chunk_began in (0.0, 0.0, 8.0):
        state.add_batch(IMAGE, 2, seconds=0.5, chunk_began=chunk_began, is_trial=False)
    assert state.profile().seconds_per_item == {str(IMAGE): (2.0 + 1.0) / 4}


def test_start_up_ends_where_the_first_batch_begins_to_go_at_its_pace(tmp_path: Path) -> None:
    began = datetime(2026, 11, 25, tzinfo=UTC)
    shape = dict.fromkeys([*BATCH_KEY, "inputs"]) | {"width": 1024, "height": 1024, "num_frames": 1}
    shape |= {"num_inference_steps": 20, "guidance_scale": 4.5}
    rendered = {"started_at": began + timedelta(seconds=60), "seconds": 5.0, "batch_size": 4, "bytes": 1000}
    later = rendered | {"started_at": began + timedelta(seconds=80), "seconds": 1.0, "bytes": 2000}
    failure = rendered | {"started_at": began + timedelta(seconds=50), "seconds": None, "bytes": None}
    files = StoredFiles(began)
    for rows in ([failure], [later, *[rendered] * 4], [later]):
        files.add(pa.Table.from_pylist([shape | row for row in rows]))
    assert files.first == FirstBatch(str(IMAGE), 4, 80.0)
    assert files.bytes_per_item == {str(IMAGE): 8000 / 6}

    findings = Findings(Folder(str(tmp_path)))
    findings.join("sana", "a renderer", {"device": "a GPU"})
    findings.learned("sana", Profile(seconds_per_item={str(IMAGE): 0.5}))
    findings.stored("sana", files.first, files.bytes_per_item)
    findings.report()
    _, profile = ProfileStore(Folder(str(tmp_path))).newest({})
    assert profile.start_up_seconds == 78.0, "60 until it begins, and 18 for warming up"


def test_padding_is_the_last_batchs() -> None:
    assert padding(20, 8) == pytest.approx(4 / 24)
    assert padding(16, 8) == padding(3, None) == padding(0, 8) == 0


def test_durations_and_sizes_in_words() -> None:
    assert [duration(seconds) for seconds in (0.4, 119, 121, 7000, 7200, 13_000, 201_600)] == [
        "0 s",
        "119 s",
        "2 min",
        "117 min",
        "2 h",
        "3 h 37 min",
        "2 d 8 h",
    ]
    assert [size(number) for number in (0, 999, 1000, 1.44e6, 7e15)] == ["0 B", "999 B", "1 KB", "1.44 MB", "7 PB"]
