"""The actor that draws: takes chunks of requests, encodes their prompts in one go, draws them batch by batch."""

import faulthandler
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import pyarrow as pa
import ray
import torch

from actors.batching import BatchSizer
from actors.checkpoints import fetch
from actors.deadlines import Deadlines
from actors.environment import device_name, environment, make_deterministic
from actors.journal import MAX_DEATHS_ALONE, Suspicion
from actors.spec import RendererSpec
from manifests.errors import one_line
from manifests.schema import Request
from models import registry

_SECONDS_FOR_LAST_WORDS = 2.0


@dataclass
class _Outcome:
    """One request's result: frames or an error."""

    index: int
    batch_size: int
    started_at: datetime
    seconds: float | None
    attempt: int
    frames: Any = None
    error_type: str | None = None
    error: str | None = None


class Renderer:
    """A loaded model in a Ray actor; a Ray Data `map_batches` class over chunks of requests."""

    def __init__(self, spec: RendererSpec) -> None:
        self._spec = spec
        device = make_deterministic()
        folder = fetch(spec.checkpoint, spec.patience_seconds)
        self._model = registry.load(spec.checkpoint.pipeline_class, folder, spec.settings, device)
        self._sizer = BatchSizer(spec.batch or spec.settings.reference_batch)
        self._deadlines = Deadlines(spec.deadline_seconds, spec.settings.compile)
        self._constants = {
            "checkpoint": spec.checkpoint_name,
            "revision": spec.checkpoint.revision,
            "scheduler": self._model.scheduler_name,
            "device": device_name(device),
            "environment": environment(device, spec.settings.compile),
            "run_id": spec.run_id,
        }

    def __call__(self, chunk: pa.Table) -> Iterator[pa.Table]:
        """Draw a chunk.

        Args:
            chunk: request columns and the manifest's extra ones.

        Yields:
            A table a batch: the chunk's columns, what the record says of rendering, and `frames`, the raw uint8 bytes
            in order frame, row, column, RGB; null for a failure.
        """
        requests = [Request.from_row(row) for row in chunk.to_pylist()]
        suspicions = ray.get(self._spec.journal.open_chunk.remote([request.request_hash for request in requests]))
        if suspicions is None:
            yield self._as_table(chunk, [])
            return
        # suspects first and alone: should one kill this process too, the others need not be drawn again
        suspects = [index for index, request in enumerate(requests) if request.request_hash in suspicions]
        for index in suspects:
            yield from self._draw_suspect(chunk, requests, index, suspicions[requests[index].request_hash])
        others = set(range(len(requests))).difference(suspects)
        order = sorted(others, key=lambda index: requests[index].shape)
        for _, indices in groupby(order, key=lambda index: requests[index].shape):
            for outcomes in self._draw_shape(requests, list(indices)):
                yield self._as_table(chunk, outcomes)

    def _draw_suspect(
        self, chunk: pa.Table, requests: list[Request], index: int, suspicion: Suspicion
    ) -> Iterator[pa.Table]:
        if suspicion.num_deaths_alone >= MAX_DEATHS_ALONE:
            yield self._as_table(chunk, [_conviction(index, suspicion)])
            return
        for outcomes in self._draw_shape(requests, [index], attempt=suspicion.num_deaths + 1):
            yield self._as_table(chunk, outcomes)

    def _draw_shape(self, requests: list[Request], indices: list[int], attempt: int = 1) -> Iterator[list[_Outcome]]:
        shape = requests[indices[0]].shape
        try:
            asked = [requests[index] for index in indices]
            with self._watched(asked):
                encoded = self._model.encode(asked)
        except Exception as error:
            if len(indices) == 1:
                yield [_failure(indices[0], error, attempt)]
            else:
                for index in indices:
                    yield from self._draw_shape(requests, [index], attempt + 1)
            return
        embeddings = dict(zip(indices, encoded, strict=True))
        waiting = indices
        while waiting:
            size = self._sizer.size(shape)
            batch, waiting = waiting[:size], waiting[size:]
            try:
                yield self._draw_batch(requests, embeddings, batch, attempt)
                continue
            except torch.OutOfMemoryError as error:
                if self._sizer.out_of_memory(shape):
                    waiting = batch + waiting
                    failures = []
                else:
                    failures = [_failure(index, error, attempt) for index in batch]
            except Exception as error:
                if len(batch) > 1:
                    yield from self._draw_one_by_one(requests, embeddings, batch, attempt + 1)
                    continue
                failures = [_failure(batch[0], error, attempt)]
            # here the error is gone, and with it the tensors that its traceback held
            torch.cuda.empty_cache()
            if failures:
                yield failures

    def _draw_one_by_one(
        self, requests: list[Request], embeddings: dict[int, Any], batch: list[int], attempt: int
    ) -> Iterator[list[_Outcome]]:
        """Find out which item of a failed batch is at fault; the others are drawn all the same."""
        for index in batch:
            try:
                yield self._draw_batch(requests, embeddings, [index], attempt)
            except Exception as error:
                yield [_failure(index, error, attempt)]

    def _draw_batch(
        self, requests: list[Request], embeddings: dict[int, Any], batch: list[int], attempt: int
    ) -> list[_Outcome]:
        started_at, start = datetime.now(UTC), time.perf_counter()
        asked = [requests[index] for index in batch]
        with self._watched(asked):
            rendered = self._model.render(asked, [embeddings[index] for index in batch])
            frames = rendered.frames.cpu().numpy()  # waits for the device, so what follows is the batch's true time
        seconds = time.perf_counter() - start
        self._sizer.finished(asked[0].shape, len(batch), seconds)
        self._deadlines.finished(asked[0].shape, seconds / len(batch))
        outcomes = []
        for index, item_frames, is_finite in zip(batch, frames, rendered.is_finite.tolist(), strict=True):
            outcome = _Outcome(
                index=index,
                batch_size=self._spec.settings.reference_batch or len(batch),
                started_at=started_at,
                seconds=seconds / len(batch),
                attempt=attempt,
            )
            if is_finite:
                outcome.frames = item_frames.tobytes()
            else:
                outcome.error_type = "NonFinite"
                outcome.error = f"the render came out as NaN or infinity in {self._spec.settings.dtype}; try float32"
            outcomes.append(outcome)
        return outcomes

    @contextmanager
    def _watched(self, asked: Sequence[Request]) -> Iterator[None]:
        """Note what is being drawn, and end the process past its deadline, even where Python does not get a turn."""
        journal, items = self._spec.journal, [request.request_hash for request in asked]
        num_items = max(len(asked), self._spec.settings.reference_batch or 1)
        deadline_seconds = self._deadlines.seconds(asked[0].shape, num_items)

        def dying(error_type: str, error: str) -> None:
            ray.get(journal.dying.remote(items, error_type, error))

        overdue = f"not done after {deadline_seconds:.0f} s, its deadline"
        last_words = threading.Timer(deadline_seconds, dying, args=("DeadlinePassed", overdue))
        ray.get(journal.began.remote(items))
        last_words.start()
        faulthandler.dump_traceback_later(deadline_seconds + _SECONDS_FOR_LAST_WORDS, exit=True)
        try:
            yield
        except Exception as error:
            if _is_device_lost():
                dying(type(error).__name__, one_line(error, max_length=1000))
                os._exit(1)
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
            last_words.cancel()
            journal.ended.remote(items)

    def _as_table(self, chunk: pa.Table, outcomes: list[_Outcome]) -> pa.Table:
        table = chunk.take(pa.array([outcome.index for outcome in outcomes], pa.int64()))
        columns = {name: pa.array([value] * len(outcomes), pa.string()) for name, value in self._constants.items()}
        columns |= {
            "batch_size": pa.array([outcome.batch_size for outcome in outcomes], pa.int32()),
            "started_at": pa.array([outcome.started_at for outcome in outcomes], pa.timestamp("us", tz="UTC")),
            "seconds": pa.array([outcome.seconds for outcome in outcomes], pa.float64()),
            "attempt": pa.array([outcome.attempt for outcome in outcomes], pa.int32()),
            "error_type": pa.array([outcome.error_type for outcome in outcomes], pa.string()),
            "error": pa.array([outcome.error for outcome in outcomes], pa.string()),
            "attempts": pa.array([outcome.attempt if outcome.error_type else None for outcome in outcomes], pa.int32()),
            "frames": pa.array([outcome.frames for outcome in outcomes], pa.large_binary()),
        }
        for name, column in columns.items():
            table = table.append_column(name, column)
        return table


def _failure(index: int, error: Exception, attempt: int) -> _Outcome:
    return _failed(index, type(error).__name__, one_line(error, max_length=2000), attempt)


def _conviction(index: int, suspicion: Suspicion) -> _Outcome:
    """The failure of an item that may not be tried again."""
    error_type, error = suspicion.last_words or ("WorkerDied", "a crash, or memory ran out")
    error = f"the process ended {suspicion.num_deaths_alone} times while it drew this item alone: {error}"
    return _failed(index, error_type, error, suspicion.num_deaths)


def _failed(index: int, error_type: str, error: str, attempt: int) -> _Outcome:
    return _Outcome(
        index=index,
        batch_size=1,
        started_at=datetime.now(UTC),
        seconds=None,
        attempt=attempt,
        error_type=error_type,
        error=error,
    )


def _is_device_lost() -> bool:
    """Whether the GPU answers nothing but errors, as after an illegal access: only a new process gets it back."""
    if not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
