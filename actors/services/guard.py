"""Runs a step of a task so that an item that ends the process costs only itself."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

import ray

from rendermill.actors.services.crash_journal import Suspicion
from rendermill.actors.services.reporter import watchdog_of_this_process

_Result = TypeVar("_Result")
_SECONDS_OF_UNKNOWN = 3600.0
_END = object()


class ProcessDied(Exception):
    """A step of a task ended its process repeatedly. The message says how often, and the cause."""


@dataclass(frozen=True)
class Guard:
    """Runs a step with all of its items at once, and after the process died with some of them, with those one by one.

    Ray starts a task again if its process dies. The journal then knows which items were in hand, and counts the deaths
    of items that were alone. An item that is at fault is not tried again.

    Attributes:
        journal: handle of the run's `actors.services.crash_journal.CrashJournal`; None: nothing is guarded, as without
            Ray.
        stage: what the step does with an item, as a verb that follows "while it", such as "encoded".
        deadline_seconds: for an item; None: one hour for all items together.
        patience_seconds: additional time for a step that may have to wait for a store.
        num_deaths_together: the number of deaths after which items are still taken together.
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
        """Run the step for every item.

        Args:
            items: request hashes.
            step: takes indices of `items`, and returns a result for each.
            failure: returns the result of an item at fault, given its index, the type and the message of the error, and
                the number of attempts.

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
        """Run a step that belongs to no single item.

        Raises:
            ProcessDied: the process died in it too often.
        """
        step_name = f"{self.stage} {name}"
        suspicion = ray.get(self.journal.suspicions.remote([step_name])).get(step_name)
        if suspicion is not None and suspicion.is_at_fault:
            error_type, error = self._verdict(suspicion)
            raise ProcessDied(f"{name}: {error_type}: {error}")
        with self._watching([step_name]):
            return step()

    def steps(self, name: str, results: Iterator[_Result]) -> Iterator[_Result]:
        """Yield what an iterator yields, and guard each of its steps.

        Raises:
            ProcessDied: the process died in a step too often.
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
        with self._watching([names[index] for index in indices]):
            return dict(zip(indices, step(indices), strict=True))

    def _watching(self, names: Sequence[str]) -> AbstractContextManager[None]:
        own = _SECONDS_OF_UNKNOWN if self.deadline_seconds is None else self.deadline_seconds * len(names)
        watchdog = watchdog_of_this_process(self.journal)
        watchdog.show_life(self.deadline_seconds)
        return watchdog.watching(names, own + self.patience_seconds)

    def _verdict(self, suspicion: Suspicion) -> tuple[str, str]:
        return verdict(suspicion, f"{self.stage} this item alone")


def costs_its_item(error: BaseException) -> bool:
    """Return whether an error while an item was in hand fails the item; else it has to end this process or task."""
    if isinstance(error, KeyboardInterrupt):
        return not (ray.is_initialized() and ray.get_runtime_context().is_canceled())
    return not isinstance(error, GeneratorExit) and not hasattr(error, "is_ray_terminate")


def verdict(suspicion: Suspicion, doing: str) -> tuple[str, str]:
    """Return the type and the message of the error of an item that is at fault.

    Args:
        doing: what the process did, as a clause that follows "while it", such as "encoded this item alone".
    """
    error_type, error = suspicion.cause or ("WorkerDied", "unknown")
    return error_type, f"the process ended {suspicion.num_deaths_alone} times while it {doing}: {error}"
