"""Runs every model's Dataset in a thread of its own, and hands their receipts to the one thread that commits them."""

import queue
import threading
from collections.abc import Iterator, Mapping

import pyarrow as pa
from ray.data import Dataset

_NUM_WAITING = 64
"""Tables of receipts; beyond that the Datasets wait."""


class Arrivals:
    """Receipts of several Datasets that run at once.

    Args:
        datasets: by model; each a lazy Dataset of receipts.
    """

    def __init__(self, datasets: Mapping[str, Dataset]) -> None:
        self._queue: queue.Queue[tuple[str, pa.Table | Exception | None]] = queue.Queue(_NUM_WAITING)
        self._datasets = datasets
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

    def end(self) -> None:
        """End all Datasets and whatever their tasks are doing: once this has returned, none of them stores anything."""
        for dataset in self._datasets.values():
            if dataset._current_executor is not None:  # there is no public way to wait for tasks that are given up
                dataset._current_executor.shutdown(force=True)

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
