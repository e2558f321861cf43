"""Work on its way through the device's queue, which nobody waits for before it is needed."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from rendermill.models.interface import Rendered


def pace_clock() -> float:
    """The seconds that paces are told in: on a GPU those that pass, on a CPU those that this process computes.

    How long it waits for a core depends on what else the machine does, and would be another in another job.
    """
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


class Stopwatch:
    """Takes the time between two points of the device's queue, or without a GPU between two calls."""

    def __init__(self) -> None:
        self._start = self._end = _Moment()

    def stop(self) -> None:
        """End the time that is measured here."""
        self._end = _Moment()

    def seconds(self) -> float:
        """The time it took; waits for its end."""
        return self._end.seconds_since(self._start)


class _Moment:
    def __init__(self) -> None:
        self._time = time.perf_counter()
        self._event = None
        if torch.cuda.is_available():
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record()

    def seconds_since(self, start: "_Moment") -> float:
        if self._event is None or start._event is None:
            return self._time - start._time
        self._event.synchronize()
        return start._event.elapsed_time(self._event) / 1000


@dataclass(frozen=True)
class Flight:
    """A launched batch, its frames on their way to this process.

    Attributes:
        rendered: with tensors in this process's memory; to be read only after `stopwatch` has returned its time.
    """

    rendered: Rendered
    stopwatch: Stopwatch


def launch(draw: Callable[[], Rendered]) -> Flight:
    """Put a batch into the device's queue, and the copies of its frames behind it."""
    stopwatch = Stopwatch()
    rendered = draw()
    copied = replace(rendered, frames=_on_its_way(rendered.frames), is_finite=_on_its_way(rendered.is_finite))
    flight = Flight(copied, stopwatch)
    stopwatch.stop()
    return flight


def _on_its_way(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type == "cpu":
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
