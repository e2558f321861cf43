"""Runs every model's Dataset in a thread of its own, and hands their receipts to the one thread that commits them."""

import logging
import queue
import re
import threading
from collections.abc import Iterator, Mapping

import pyarrow as pa
from ray.data import Dataset

from rendermill.manifests.errors import one_line, traceback_of

_logger = logging.getLogger(__name__)

_NUM_WAITING = 64
"""The number of tables of receipts that may wait to be committed; beyond that the Datasets wait."""


class Arrivals:
    """Receipts of several Datasets that run at once.

    Args:
        datasets: By model; each a lazy Dataset of receipts.
    """

    def __init__(self, datasets: Mapping[str, Dataset]) -> None:
        self._queue: queue.Queue[tuple[str, pa.Table | Exception | None]] = queue.Queue(_NUM_WAITING)
        self._stopped = {model: threading.Event() for model in datasets}
        for model, dataset in datasets.items():
            threading.Thread(target=self._run, args=(model, dataset), name=f"dataset-{model}", daemon=True).start()

    def __iter__(self) -> Iterator[tuple[str, pa.Table | Exception | None]]:
        """Yield (model, receipts), or (model, the error that ended its Dataset), until all Datasets have ended.

        Every second in which nothing arrives yields ("", None), so that the caller can look at the clock.
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
        """Yield (model, receipts) of what has arrived already, without waiting for more."""
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


def log(error: Exception) -> None:
    """Log an error with its traceback. A command has its log file, to which it redirects standard error."""
    _logger.error(traceback_of(error))


def root_cause(error: Exception) -> str:
    """Describe in one line what went wrong in a worker, without the layers that Ray adds; the log gets all of it."""
    log(error)
    original = getattr(error, "cause", None)
    if original is not None:
        message = str(original).partition("Failed to apply UDF")[0].rstrip(": '\n")  # Ray appends advice of its own
        return f"{type(original).__name__}: {one_line(Exception(message))}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
    without_module = re.sub(r"^(\w+\.)+(?=\w+: )", "", lines[-1])  # Ray quotes the worker's traceback, error last
    return one_line(Exception(without_module))
