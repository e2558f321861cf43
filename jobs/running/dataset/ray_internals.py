"""What Ray Data offers no public way to do. All private names of Ray Data that rendermill uses are in this file."""

import threading
from typing import Any

import ray
from ray import ObjectRefGenerator
from ray.data import Dataset, TaskPoolStrategy
from ray.data._internal.execution.streaming_executor import StreamingExecutor

_SECONDS_FOR_TASKS_TO_END = 10.0


def in_blocks(
    dataset: Dataset,
    num_rows: int,
    num_cpus: float,
    compute: TaskPoolStrategy,
    max_retries: int,
    is_exact: bool = False,
) -> Dataset:
    """Cut the rows into blocks of at most `num_rows`.

    Args:
        num_cpus: The CPUs of a task of this step. Ray's own choice is one, which a small machine may never have free.
        compute: That of the step before, which this one becomes a part of.
        max_retries: The number of times that a task may be tried again if its process died.
        is_exact: Whether every block but the last has exactly `num_rows`.
    """
    blocks = dataset.repartition(target_num_rows_per_block=num_rows, strict=is_exact)
    step: Any = blocks._logical_plan.dag
    step.ray_remote_args.update(num_cpus=num_cpus, max_retries=max_retries)
    object.__setattr__(step, "compute", compute)
    return blocks


def end_datasets(name: str) -> None:
    """End all Datasets of a name in this process and wait for their tasks to end, so that none stores anything later.

    Other Datasets, such as those of a notebook from which a job was started, go on. Ray's own end of a Dataset does not
    wait for the tasks.

    Args:
        name: Each of the Datasets was named so by `Dataset.set_name`.
    """
    executors = [thread for thread in threading.enumerate() if isinstance(thread, StreamingExecutor)]
    for executor in executors:
        if not executor._dataset_id.startswith(f"{name}_"):  # Ray adds the Dataset's own number to its name
            continue
        tasks = [task.get_waitable() for step in executor._topology or () for task in step.get_active_tasks()]
        executor.shutdown(force=True)
        ends = [task.completed() for task in tasks if isinstance(task, ObjectRefGenerator)]
        ray.wait(ends, num_returns=len(ends), timeout=_SECONDS_FOR_TASKS_TO_END)
