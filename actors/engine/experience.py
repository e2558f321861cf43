"""What an actor learns from its batches: how many items to draw at once, their pace, and when they count as hung."""

from collections.abc import Callable
from copy import deepcopy
from threading import Lock

from rendermill.actors.engine.batching import BatchSizer, Learned
from rendermill.actors.engine.deadlines import Deadlines
from rendermill.actors.engine.pace import Pace
from rendermill.actors.services.tuning_profile import Profile
from rendermill.manifests.schema import Shape


class Experience:
    """The experience with shapes of items; one thread may launch batches while another tells of those that are done.

    Args:
        clock: tells the seconds of paces.
    """

    def __init__(self, sizer: BatchSizer, deadlines: Deadlines, clock: Callable[[], float]) -> None:
        self._sizer, self._deadlines, self._clock = sizer, deadlines, clock
        self._paces: dict[str, Pace] = {}
        self._last_end = 0.0
        self._lock = Lock()

    def profile(self) -> Profile:
        """What is worth keeping for the next run, of the shapes that were drawn."""
        with self._lock:
            learned = {shape: deepcopy(self._sizer.learned(shape)) for shape in self._paces}
            paces = {shape: pace.seconds_per_item(learned[shape].size) for shape, pace in self._paces.items()}
            return Profile(
                shapes=learned,
                seconds_per_item={shape: seconds for shape, seconds in paces.items() if seconds is not None},
            )

    def of(self, shape: Shape) -> Learned:
        """What is known of a shape; a copy."""
        with self._lock:
            return deepcopy(self._sizer.learned(str(shape)))

    def size(self, shape: Shape, available_bytes: int | None) -> int:
        """The size of the next batch; see `BatchSizer`."""
        with self._lock:
            return self._sizer.size(str(shape), available_bytes)

    def deadline_seconds(self, shape: Shape, num_items: int) -> float:
        """The deadline for a batch of so many items, or for reading their prompts."""
        with self._lock:
            return self._deadlines.seconds(shape, num_items)

    def drew(self, shape: Shape, num_items: int, seconds: float, chunk_began: float, is_trial: bool) -> None:
        """A batch is done since just now.

        Args:
            seconds: that the device spent on it.
            chunk_began: by the clock.
            is_trial: more was done than drawing.
        """
        now = self._clock()
        with self._lock:
            self._sizer.finished(str(shape), num_items, None if is_trial else seconds)
            self._deadlines.finished(shape, seconds / num_items)
            pace = self._paces.setdefault(str(shape), Pace())
            pace.drew(num_items, now - max(chunk_began, self._last_end), is_trial)
            self._last_end = now

    def took_memory(self, shape: Shape, num_items: int, peak_bytes: int) -> None:
        """Take note of the most memory that so many items had on the device; 0 items: the weights alone."""
        with self._lock:
            self._sizer.finished(str(shape), num_items, None, peak_bytes)

    def ran_out_of_memory(self, shape: Shape, num_items: int) -> bool:
        """A batch of so many items did not fit; returns whether a smaller one can be tried."""
        with self._lock:
            return self._sizer.out_of_memory(str(shape), num_items)

    def forbid(self, shape: Shape, num_items: int) -> None:
        """Batches of this size and more would not give the reference's pixels."""
        with self._lock:
            self._sizer.forbid(str(shape), num_items)
