"""State around a pipeline's call that its result could depend on: the global generators, and the schedulers."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import SchedulerMixin


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch within this context, and restore them afterwards.

    A pipeline may take noise from them in spite of its `generator`, and a test of that gives them other seeds.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class SchedulerStates:
    """The state in which a pipeline's schedulers were loaded, to which each request finds them restored.

    They are restored in place, because pipelines that are made of other pipelines hold them several times.
    """

    def __init__(self, pipeline: Any) -> None:
        components = pipeline.components.values()
        self._schedulers: list[Any] = [component for component in components if isinstance(component, SchedulerMixin)]
        self._states = [_state(scheduler) for scheduler in self._schedulers]

    def restore(self) -> None:
        """Set all schedulers to the state in which they were loaded."""
        for scheduler, state in zip(self._schedulers, self._states, strict=True):
            unchanged = {name: value for name, value in vars(scheduler).items() if value is scheduler.config}
            vars(scheduler).clear()
            vars(scheduler).update(unchanged | copy.deepcopy(state))


def _state(scheduler: Any) -> dict[str, Any]:
    """Return a copy of a scheduler's attributes, but for its config, which never changes and cannot be copied."""
    return copy.deepcopy({name: value for name, value in vars(scheduler).items() if value is not scheduler.config})
