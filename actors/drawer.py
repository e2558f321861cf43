"""Draws requests of one shape batch by batch: at the size that pays, in the memory there is, whatever one item does."""

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import ray
import torch

from actors import memory, metrics
from actors.batching import MEMORY_MARGIN, BatchSizer
from actors.deadlines import Deadlines
from actors.pace import Pace
from actors.profile import Profile
from actors.spec import RendererSpec
from manifests.errors import one_line
from manifests.schema import Request
from models.base import Model
from models.registry import FAMILIES

_SECONDS_FOR_LAST_WORDS = 2.0

_logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """One request's result: frames or an error.

    Attributes:
        batch_size: items that were drawn together.
        frames: raw uint8 bytes in order frame, row, column, RGB; None for a failure.
    """

    request: Request
    batch_size: int
    started_at: datetime
    seconds: float | None
    attempt: int
    frames: bytes | None = None
    error_type: str | None = None
    error: str | None = None


class Drawer:
    """A loaded model and what was learned of it.

    Args:
        known: what earlier runs and other actors learned.

    Attributes:
        seconds_at_work: that encoding prompts and drawing took, so far.
    """

    def __init__(self, spec: RendererSpec, model: Model, known: Profile) -> None:
        self.seconds_at_work = 0.0
        self._spec = spec
        self._model = model
        self._reference_batch = spec.settings.reference_batch
        family = FAMILIES[spec.checkpoint.pipeline_class]
        self._sizer = BatchSizer(
            spec.batch,
            smallest=self._reference_batch or 1,
            first=family.reference_batch[spec.settings.compile],
            largest=max(family.num_items_per_chunk, self._reference_batch or 1),
        )
        self._deadlines = Deadlines(spec.deadline_seconds, spec.settings.compile)
        self._paces: dict[str, Pace] = {}
        for shape, learned in known.shapes.items():
            self._sizer.start_from(shape, learned)
        for name, batches in model.stages.items():
            batches.sizes |= known.proven.get(name, {})
            batches.refuted |= known.refuted.get(name, {})

    def learned(self) -> Profile:
        """What is known by now."""
        return Profile(
            shapes={shape: self._sizer.learned(shape) for shape in self._paces},
            proven={name: batches.sizes for name, batches in self._model.stages.items() if batches.sizes},
            refuted={name: batches.refuted for name, batches in self._model.stages.items() if batches.refuted},
            seconds_per_item={
                shape: seconds for shape, pace in self._paces.items() if (seconds := pace.seconds_per_item) is not None
            },
        )

    def draw(self, requests: Sequence[Request], attempt: int = 1) -> Iterator[list[Outcome]]:
        """Draw requests of one shape; every one has one outcome in the end.

        Yields:
            The outcomes of a batch.
        """
        pace = self._paces.setdefault(str(requests[0].shape), Pace())
        pace.begin()
        try:
            with self._watched(requests):
                embeddings = self._encode(requests)
                self._check_memory(requests[0], embeddings[0])
        except Exception as error:
            if len(requests) == 1 or isinstance(error, memory.DoesNotFit):
                yield [self._failure(request, error, attempt) for request in requests]
            else:
                for request in requests:
                    yield from self.draw([request], attempt + 1)
            return
        yield from self._draw_encoded(list(zip(requests, embeddings, strict=True)), attempt)

    def _draw_encoded(self, waiting: list[tuple[Request, Any]], attempt: int) -> Iterator[list[Outcome]]:
        shape = str(waiting[0][0].shape)
        while waiting:
            size = self._sizer.size(shape, memory.available_bytes())
            batch, waiting = waiting[:size], waiting[size:]
            try:
                yield self._draw_batch(batch, attempt)
                continue
            except torch.OutOfMemoryError as error:
                failures = [self._failure(request, error, attempt) for request, _ in batch]
                for failure in failures:
                    failure.error = f"{failure.error} ({memory.figures()})"
            except Exception as error:
                if len(batch) > 1:
                    yield from self._draw_one_by_one(batch, attempt + 1)
                    continue
                yield [self._failure(batch[0][0], error, attempt)]
                continue
            # here the error is gone, and with it the tensors that its traceback held
            torch.cuda.empty_cache()
            if self._make_room(shape, len(batch)):
                waiting = batch + waiting
            else:
                yield failures

    def _make_room(self, shape: str, num_items: int) -> bool:
        """After memory ran out with so many items: whether another try can go better."""
        if self._sizer.out_of_memory(shape, num_items):
            self._note(f"memory ran out with {num_items} items of {shape}; they were drawn again in smaller batches")
            return True
        if self._reference_batch:  # what saves memory changes bits
            self._sizer.finished(shape, self._reference_batch, None, (memory.available_bytes() or 0) + 1)
            return False
        rescue = self._model.save_memory()
        if rescue is not None:
            self._note(f"memory ran out with {num_items} items of {shape}; since then {rescue}")
        return rescue is not None

    def _draw_one_by_one(self, batch: list[tuple[Request, Any]], attempt: int) -> Iterator[list[Outcome]]:
        """Find out which item of a failed batch is at fault; the others are drawn all the same."""
        for pair in batch:
            try:
                yield self._draw_batch([pair], attempt)
            except Exception as error:
                yield [self._failure(pair[0], error, attempt)]

    def _draw_batch(self, batch: list[tuple[Request, Any]], attempt: int) -> list[Outcome]:
        requests = [request for request, _ in batch]
        shape, denoiser = str(requests[0].shape), self._model.stages["denoiser"]
        num_trials = self._num_trials()
        num_slots, num_padding = denoiser.num_slots, denoiser.num_padding
        weights_bytes = memory.allocated_bytes()
        memory.begin_peak()
        started_at, start = datetime.now(UTC), time.perf_counter()
        with self._watched(requests):
            rendered = self._model.render(requests, [embeddings for _, embeddings in batch])
            frames = rendered.frames.cpu().numpy()  # waits for the device, so what follows is the batch's true time
        seconds = time.perf_counter() - start
        self._worked("draw", seconds)
        metrics.BATCH_SIZE.set(len(batch), {"model": self._spec.model_name})
        peak = memory.peak_bytes()
        if peak is not None:
            self._sizer.finished(shape, 0, None, weights_bytes)
        is_trial = self._num_trials() > num_trials
        self._sizer.finished(shape, len(batch), None if is_trial else seconds, peak)
        self._paces[shape].drew(len(batch), is_trial)
        if denoiser.refuted_at is not None:
            self._sizer.forbid(shape, denoiser.refuted_at)
        self._deadlines.finished(requests[0].shape, seconds / len(batch))
        self._spec.findings.worked.remote(
            self._spec.model_name, denoiser.num_slots - num_slots, denoiser.num_padding - num_padding
        )
        outcomes = []
        for request, item_frames, is_finite in zip(requests, frames, rendered.is_finite.tolist(), strict=True):
            outcome = Outcome(
                request=request,
                batch_size=len(batch),
                started_at=started_at,
                seconds=seconds / len(batch),
                attempt=attempt,
            )
            if is_finite:
                outcome.frames = item_frames.tobytes()
            else:
                outcome.error_type = "NonFinite"
                outcome.error = f"the render came out as NaN or infinity in {self._spec.settings.dtype}; try float32"
                self._log_failure(request, attempt)
            outcomes.append(outcome)
        return outcomes

    def _encode(self, requests: Sequence[Request]) -> list[Any]:
        start = time.perf_counter()
        embeddings = self._model.encode(requests)
        self._worked("encode", time.perf_counter() - start)
        return embeddings

    def _worked(self, stage: str, seconds: float) -> None:
        self.seconds_at_work += seconds
        metrics.STAGE_SECONDS.inc(seconds, {"model": self._spec.model_name, "stage": stage})

    def _num_trials(self) -> int:
        return sum(batches.num_trials_run for batches in self._model.stages.values())

    def _check_memory(self, request: Request, embeddings: Any) -> None:
        """See to it that memory is known to suffice before a batch is drawn.

        Raises:
            DoesNotFit: strict mode's reference batch; the message says what would.
        """
        shape, available, reference_batch = str(request.shape), memory.available_bytes(), self._reference_batch
        if available is None:
            return
        if not self._sizer.learned(shape).peak_bytes:
            self._rehearse(request, embeddings, available)
        if reference_batch:
            peaks = self._sizer.learned(shape)
            needed, weights = peaks.predicted_peak(reference_batch), peaks.peak_bytes[0]
            if needed is not None and needed > available:
                fitting = int((available * (1 - MEMORY_MARGIN) - weights) / max(1, peaks.peak_bytes[1] - weights))
                raise memory.DoesNotFit(memory.explain_reference(reference_batch, needed, available, weights, fitting))

    def _rehearse(self, request: Request, embeddings: Any, available: int) -> None:
        """Draw a shape's first item and drop it, alone and then in strict mode's reference batch: memory is known then.

        Args:
            available: in bytes.
        """
        shape, reference_batch = str(request.shape), self._reference_batch
        request = replace(request, num_inference_steps=1)  # every step needs the same
        self._sizer.finished(shape, 0, None, memory.allocated_bytes())
        peak = _peak_of(lambda: self._model.rehearse(request, embeddings))
        self._sizer.finished(shape, 1, None, peak or available + 1)
        if reference_batch and (self._sizer.learned(shape).predicted_peak(reference_batch) or 0) <= available:
            peak = _peak_of(lambda: self._model.render([request], [embeddings]))
            self._sizer.finished(shape, reference_batch, None, peak or available + 1)

    def _failure(self, request: Request, error: Exception, attempt: int) -> Outcome:
        self._log_failure(request, attempt, error)
        return failed(request, type(error).__name__, one_line(error, max_length=2000), attempt)

    def _log_failure(self, request: Request, attempt: int, error: Exception | None = None) -> None:
        """Ray keeps an actor's log."""
        run_id, model = self._spec.run_id, self._spec.model_name
        fields = {"run": run_id, "model": model, "item": request.id, "attempt": attempt}
        _logger.warning("item %r failed; why is in failures/", request.id, exc_info=error, extra=fields)

    def _note(self, words: str) -> None:
        self._spec.findings.note.remote(self._spec.model_name, words)

    @contextmanager
    def _watched(self, asked: Sequence[Request]) -> Iterator[None]:
        """Note what is being drawn, and end the process past its deadline, even where Python does not get a turn."""
        journal, items = self._spec.journal, [request.request_hash for request in asked]
        num_items = max(len(asked), self._reference_batch or 1)
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


def _peak_of(draw: Callable[[], object]) -> int | None:
    """The most memory in bytes that was allocated meanwhile; None if there was not enough."""
    memory.begin_peak()
    try:
        draw()
    except torch.OutOfMemoryError:
        return None
    finally:
        torch.cuda.empty_cache()
    return memory.peak_bytes()


def failed(request: Request, error_type: str, error: str, attempt: int) -> Outcome:
    """The outcome of an item that could not be drawn."""
    return Outcome(
        request=request,
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
