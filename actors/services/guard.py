"""Does a step of a task for items of which any may end the process, so that it costs that item alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

import ray

from rendermill.actors.engine.watchdog import watch_of_this_process
from rendermill.actors.services.crash_journal import Suspicion

_Result = TypeVar("_Result")
_SECONDS_OF_UNKNOWN = 3600.0
_END = object()


class ProcessDied(Exception):
    """A step of a task ended its process again and again; the message says how often, and the cause."""


@dataclass(frozen=True)
class Guard:
    """Does a step with all of its items at once; if the process died over some of them, those one by one.

    Ray starts a task again whose process died. The journal then knows which items were in hand, and counts the deaths
    of an item that was alone. One that is at fault is not tried again.

    Attributes:
        journal: handle of the run's `actors.services.crash_journal.Journal`; None: nothing is guarded, as without Ray.
        stage: what the step does with an item, in words that follow "while it", such as "encoded".
        deadline_seconds: for an item; None: an hour for all.
        patience_seconds: that a step may take beyond, where it waits for a store.
        num_deaths_together: how often the process may die before items are taken one by one.
    """

    journal: Any
    stage: str
    deadline_seconds: float | None = None
    patience_seconds: float = 0.0
    num_deaths_together: int = field(default=0, kw_only=True)

    def each(
        self,
        items: Sequence[str],
        step: Callable[[list[int]], list[_Result]],
        failure: Callable[[int, str, str, int], _Result],
    ) -> list[_Result]:
        """Do the step for every item.

        Args:
            items: request hashes.
            step: given indices of `items`, returns a result for each.
            failure: the result for an item at fault, from its index, the type of error, its message, and how often it
                was tried.

        Returns:
            A result for each item, in order.
        """
        if not items:
            return []
        if self.journal is None:
            return step(list(range(len(items))))
        names = [f"{self.stage} {item}" for item in items]
        suspicions = ray.get(self.journal.suspicions.remote(names))
        alone = {name for name, suspicion in suspicions.items() if suspicion.num_deaths > self.num_deaths_together}
        results: dict[int, _Result] = {}
        for index, name in enumerate(names):
            if name in alone and suspicions[name].is_at_fault:
                results[index] = failure(index, *self._verdict(suspicions[name]), suspicions[name].num_deaths)
            elif name in alone:
                results |= self._do(names, [index], step)
        results |= self._do(names, [index for index, name in enumerate(names) if name not in alone], step)
        return [results[index] for index in range(len(items))]

    def whole(self, name: str, step: Callable[[], _Result]) -> _Result:
        """Do a step that belongs to no single item.

        Raises:
            ProcessDied: the process died over it too often.
        """
        told = f"{self.stage} {name}"
        suspicion = ray.get(self.journal.suspicions.remote([told])).get(told)
        if suspicion is not None and suspicion.is_at_fault:
            error_type, error = self._verdict(suspicion)
            raise ProcessDied(f"{name}: {error_type}: {error}")
        with self._watched([told]):
            return step()

    def steps(self, name: str, results: Iterator[_Result]) -> Iterator[_Result]:
        """Hand out what an iterator gives, guarded while it makes it.

        Raises:
            ProcessDied: as `whole`.
        """
        for number in count():
            result = self.whole(f"{name}, part {number}", lambda: next(results, _END))
            if result is _END:
                return
            yield result  # type: ignore[misc]

    def _do(
        self, names: Sequence[str], indices: list[int], step: Callable[[list[int]], list[_Result]]
    ) -> dict[int, _Result]:
        if not indices:
            return {}
        with self._watched([names[index] for index in indices]):
            return dict(zip(indices, step(indices), strict=True))

    def _watched(self, names: Sequence[str]) -> AbstractContextManager[None]:
        own = _SECONDS_OF_UNKNOWN if self.deadline_seconds is None else self.deadline_seconds * len(names)
        watch = watch_of_this_process(self.journal)
        watch.allow_silence(self.deadline_seconds)
        return watch.watched(names, own + self.patience_seconds)

    def _verdict(self, suspicion: Suspicion) -> tuple[str, str]:
        return verdict(suspicion, f"{self.stage} this item alone")


def costs_its_item(error: BaseException) -> bool:
    """Whether what was raised while an item was in hand is the item's own; else this process or task has to end."""
    if isinstance(error, KeyboardInterrupt):
        return not (ray.is_initialized() and ray.get_runtime_context().is_canceled())
    return not isinstance(error, GeneratorExit) and not hasattr(error, "is_ray_terminate")


def verdict(suspicion: Suspicion, doing: str) -> tuple[str, str]:
    """The type of error and the message of an item that is at fault."""
    error_type, error = suspicion.cause or ("WorkerDied", "unknown")
    return error_type, f"the process ended {suspicion.num_deaths_alone} times while it {doing}: {error}"
