"""Run a function over row groups: in the driver if there are few rows, else in Ray tasks; results come in order."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError

from rendermill.manifests.reader.row_group import RowGroup
from rendermill.manifests.storage.urls import is_local

MAX_ROWS_IN_DRIVER = 100_000
"""The rows that the driver reads itself: a second's work, and it takes longer to start processes for tasks."""

_NUM_ROWS_PER_TASK = 20_000
"""A task reads several row groups if they are smaller than this."""
_NUM_THREADS = 16
"""The threads of a process that reads files of a remote store, where most of the time is spent waiting."""
_NUM_TASKS_PER_CPU = 2
_Result = TypeVar("_Result")


def map_row_groups(function: Callable[..., _Result], arguments: Sequence[tuple[RowGroup, Any]]) -> Iterator[_Result]:
    """Call a function with every row group and its argument, and yield the results in the order of the arguments.

    Raises:
        Exception: whatever the function raises, also if it runs in a task.
    """
    if sum(row_group.num_rows for row_group, _ in arguments) <= MAX_ROWS_IN_DRIVER:
        yield from _map_in_process(function, arguments)
    else:
        yield from _map_in_tasks(function, arguments)


def _map_in_tasks(function: Callable[..., _Result], arguments: Sequence[tuple[RowGroup, Any]]) -> Iterator[_Result]:
    task: Any = ray.remote(num_cpus=1)(_call)
    shared = ray.put(function)
    # Results wait in the object store until their turn comes, so their number is bounded.
    max_waiting = max(_NUM_THREADS, int(_NUM_TASKS_PER_CPU * ray.cluster_resources().get("CPU", 1)))
    waiting: deque[Any] = deque()
    for part in _parts_of_tasks(arguments):
        waiting.append(task.remote(shared, part))
        if len(waiting) >= max_waiting:
            yield from _result_of(waiting.popleft())
    while waiting:
        yield from _result_of(waiting.popleft())


def _map_in_process(function: Callable[..., _Result], arguments: Sequence[tuple[RowGroup, Any]]) -> Iterator[_Result]:
    is_near = all(row_group.file.content is not None or is_local(row_group.file.url) for row_group, _ in arguments[:1])
    if is_near or len(arguments) == 1:
        yield from (function(*given) for given in arguments)
        return
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        waiting: deque[Future[_Result]] = deque()
        for given in arguments:
            waiting.append(threads.submit(function, *given))
            if len(waiting) >= _NUM_THREADS:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)


def _parts_of_tasks(arguments: Sequence[tuple[RowGroup, Any]]) -> Iterator[list[tuple[RowGroup, Any]]]:
    """Yield consecutive row groups that together have enough rows for a task."""
    part: list[tuple[RowGroup, Any]] = []
    for given in arguments:
        part.append(given)
        if sum(row_group.num_rows for row_group, _ in part) >= _NUM_ROWS_PER_TASK:
            yield part
            part = []
    if part:
        yield part


def _result_of(task: Any) -> Any:
    try:
        return ray.get(task)
    except RayTaskError as error:
        raise error.cause from error  # callers decide by the class of a store's error


def _call(function: Callable[..., _Result], part: list[tuple[RowGroup, Any]]) -> list[_Result]:
    """Do the work of one task."""
    return list(_map_in_process(function, part))
