"""Runs every model's Dataset in a thread of its own, and hands their receipts to the one thread that commits them."""

import queue
import threading
from collections.abc import Iterator, Mapping

import pyarrow as pa
import ray
from ray import ObjectRefGenerator
from ray.data import Dataset
from ray.data._internal.execution.streaming_executor import StreamingExecutor

_NUM_WAITING = 64
"""Tables of receipts; beyond that the Datasets wait."""
_SECONDS_FOR_TASKS_TO_END = 10.0


class Arrivals:
    """Receipts of several Datasets that run at once.

    Args:
        datasets: by model; each a lazy Dataset of receipts.
    """

    def __init__(self, datasets: Mapping[str, Dataset]) -> None:
        self._queue: queue.Queue[tuple[str, pa.Table | Exception | None]] = queue.Queue(_NUM_WAITING)
        self._stopped = {model: threading.Event() for model in datasets}
        for model, dataset in datasets.items():
            threading.Thread(target=self._run, args=(model, dataset), name=f"dataset-{model}", daemon=True).start()

    def __iter__(self) -> Iterator[tuple[str, pa.Table | Exception | None]]:
        """Yields (model, receipts), or (model, the error that ended its Dataset), until all have ended.

        Yields ("", None) every second in which nothing came, so that the caller can keep time.
        """
        num_running = len(self._stopped)
        while num_running:
            try:
                model, arrival = self._queue.get(timeout=1.0)
            except queue.Empty:
                yield "", None
                continue
            if arrival is None:
                num_running -= 1
            else:
                yield model, arrival

    def stop(self, model: str) -> None:
        """End one model's Dataset; the others go on."""
        self._stopped[model].set()

    def at_hand(self) -> Iterator[tuple[str, pa.Table]]:
        """What has come already, without waiting for more."""
        while True:
            try:
                model, arrival = self._queue.get_nowait()
            except queue.Empty:
                return
            if isinstance(arrival, pa.Table):
                yield model, arrival

    def _run(self, model: str, dataset: Dataset) -> None:
        try:
            for receipts in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                self._queue.put((model, receipts))
                if self._stopped[model].is_set():
                    break  # Ray ends a Dataset that nobody reads any more
        except Exception as error:
            self._queue.put((model, error))
        self._queue.put((model, None))


def end_datasets() -> None:
    """End all Datasets that this process still runs, and what their tasks are doing: none of them stores any more.

    Ray has no public way to do this, and its own does not wait for the tasks.
    """
    for executor in [thread for thread in threading.enumerate() if isinstance(thread, StreamingExecutor)]:
        tasks = [task.get_waitable() for step in executor._topology or () for task in step.get_active_tasks()]
        executor.shutdown(force=True)
        ends = [task.completed() for task in tasks if isinstance(task, ObjectRefGenerator)]
        ray.wait(ends, num_returns=len(ends), timeout=_SECONDS_FOR_TASKS_TO_END)
