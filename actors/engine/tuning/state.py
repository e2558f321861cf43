"""What an engine learns from its batches: how many items to render at once, their pace, and when they count as hung."""

from collections.abc import Callable
from copy import deepcopy
from threading import Lock

from rendermill.actors.engine.tuning.batch_sizer import BatchSizer, Learned
from rendermill.actors.engine.tuning.deadlines import Deadlines
from rendermill.actors.engine.tuning.pace import Pace
from rendermill.actors.engine.tuning.profile import Profile
from rendermill.manifests.request import Shape


class TuningState:
    """The state of tuning for all shapes. Thread-safe: one thread starts batches while another records finished ones.

    Args:
        clock: returns the seconds that paces are measured in.
    """

    def __init__(self, sizer: BatchSizer, deadlines: Deadlines, clock: Callable[[], float]) -> None:
        self._sizer, self._deadlines, self._clock = sizer, deadlines, clock
        self._paces: dict[str, Pace] = {}
        self._last_end = 0.0
        self._lock = Lock()

    def profile(self) -> Profile:
        """Return what is worth keeping for the next run, of the shapes that were rendered."""
        with self._lock:
            learned = {shape: deepcopy(self._sizer.learned(shape)) for shape in self._paces}
            paces = {shape: pace.seconds_per_item(learned[shape].size) for shape, pace in self._paces.items()}
            return Profile(
                shapes=learned,
                seconds_per_item={shape: seconds for shape, seconds in paces.items() if seconds is not None},
            )

    def of(self, shape: Shape) -> Learned:
        """Return a copy of what is known of a shape."""
        with self._lock:
            return deepcopy(self._sizer.learned(str(shape)))

    def batch_size(self, shape: Shape, available_bytes: int | None) -> int:
        """Return the size of the next batch; see `BatchSizer.size`."""
        with self._lock:
            return self._sizer.size(str(shape), available_bytes)

    def deadline_seconds(self, shape: Shape, num_items: int) -> float:
        """Return the deadline for rendering a batch, or for encoding its prompts."""
        with self._lock:
            return self._deadlines.seconds(shape, num_items)

    def add_batch(self, shape: Shape, num_items: int, seconds: float, chunk_began: float, is_trial: bool) -> None:
        """Record a batch that has just been finished.

        Args:
            seconds: the device's time for the batch.
            chunk_began: when the batch's chunk began, by the clock.
            is_trial: whether the batch was more than rendered, as in a trial of a size.
        """
        now = self._clock()
        with self._lock:
            self._sizer.add(str(shape), num_items, None if is_trial else seconds)
            self._deadlines.add(shape, seconds / num_items)
            pace = self._paces.setdefault(str(shape), Pace())
            pace.add(num_items, now - max(chunk_began, self._last_end), is_trial)
            self._last_end = now

    def add_peak(self, shape: Shape, num_items: int, peak_bytes: int) -> None:
        """Record the peak of device memory with a batch of `num_items`; 0 items: the weights alone."""
        with self._lock:
            self._sizer.add(str(shape), num_items, None, peak_bytes)

    def shrink(self, shape: Shape, num_items: int) -> bool:
        """Lower the size after a batch did not fit into memory; return whether a smaller one is allowed."""
        with self._lock:
            return self._sizer.shrink(str(shape), num_items)

    def forbid(self, shape: Shape, num_items: int) -> None:
        """Use only batches smaller than this size from now on, because it changes the reference's pixels."""
        with self._lock:
            self._sizer.forbid(str(shape), num_items)
