"""Clocks: the time between two points of the device's queue, and the time that paces are measured in."""

import time

import torch


def pace_clock() -> float:
    """Return the seconds that paces are measured in: on a GPU wall-clock time, on a CPU this process's CPU time.

    How long a process waits for a core depends on what else the machine does, and would differ in another job.
    """
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


class Stopwatch:
    """Measures the time between two points of the device's queue, or without a GPU between two calls."""

    def __init__(self) -> None:
        self._start = self._end = _Moment()

    def stop(self) -> None:
        """End the measured time at this point of the queue."""
        self._end = _Moment()

    def seconds(self) -> float:
        """Wait until the device has reached the end, and return the time it took."""
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
