"""Draws requests of one shape batch by batch: at the size that pays, in the memory there is, whatever one item does."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import torch

from rendermill.actors.engine import memory
from rendermill.actors.engine.batching import MEMORY_MARGIN, BatchSizer
from rendermill.actors.engine.deadlines import Deadlines
from rendermill.actors.engine.experience import Experience
from rendermill.actors.engine.launching import Flight, Stopwatch, launch, pace_clock
from rendermill.actors.engine.watchdog import Watch, Watched
from rendermill.actors.services import metrics
from rendermill.actors.services.tuning_profile import Profile
from rendermill.actors.spec import RendererSpec
from rendermill.manifests.errors import one_line
from rendermill.manifests.schema import Request, Shape
from rendermill.models.interface import Model
from rendermill.models.registry import FAMILIES

_NUM_LAUNCHED = 2
"""Batches on their way: the one that the device computes, and the next."""

_logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """One request's result: frames or an error.

    Attributes:
        batch_size: items that were drawn together.
        num_tokens_cut: of its prompts; None: not known.
        frames: uint8, (frames, height, width, 3), RGB; None for a failure.
    """

    request: Request
    batch_size: int
    started_at: datetime
    seconds: float | None
    attempt: int
    num_tokens_cut: int | None = None
    frames: np.ndarray | None = None
    error_type: str | None = None
    error: str | None = None


Outcomes = Future[list[Outcome]]
"""The outcomes of a batch, once it is drawn."""


class Drawer:
    """A loaded model and what was learned of it.

    Whoever draws launches a batch while the device is still busy with the one before, whose frames a thread collects.

    Args:
        known: what earlier runs and other actors learned.
        watch: of this process.
    """

    def __init__(self, spec: RendererSpec, model: Model, known: Profile, watch: Watch) -> None:
        self._spec = spec
        self._model = model
        self._watch = watch
        self._collecting = ThreadPoolExecutor(max_workers=1, thread_name_prefix="collecting")
        self._launched: deque[Outcomes] = deque()
        self._num_tokens_cut: dict[str, int] = {}
        self._reference_batch = spec.settings.reference_batch
        family = FAMILIES[spec.checkpoint.pipeline_class]
        sizer = BatchSizer(
            spec.batch,
            smallest=self._reference_batch or 1,
            first=family.reference_batch[spec.settings.compile],
            largest=max(family.num_items_per_chunk, self._reference_batch or 1),
        )
        for shape, learned in known.shapes.items():
            sizer.start_from(shape, learned)
        self._experience = Experience(sizer, Deadlines(spec.deadline_seconds, spec.settings.compile), pace_clock)
        for name, batches in model.stages.items():
            batches.sizes |= known.proven.get(name, {})
            batches.refuted |= known.refuted.get(name, {})

    @property
    def seconds_at_work(self) -> float:
        """The time that encoding prompts and drawing took, so far."""
        return self._watch.seconds_at_work

    def learned(self) -> Profile:
        """What is known by now, of the batches that were collected."""
        profile = self._experience.profile()
        for name, batches in self._model.stages.items():
            if batches.sizes:
                profile.proven[name] = batches.sizes
            if batches.refuted:
                profile.refuted[name] = batches.refuted
            if batches.reasons:
                profile.reasons[name] = batches.reasons
        return profile

    def draw(self, requests: Sequence[Request], attempt: int = 1) -> Iterator[Outcomes]:
        """Draw requests of one shape; every one has one outcome in the end.

        Yields:
            The outcomes of a batch, as soon as it is launched.
        """
        began = pace_clock()
        try:
            with self._watched(requests):
                embeddings = self._encode(requests)
                self._check_memory(requests[0], embeddings[0])
        except BaseException as error:  # a model may raise whatever it likes; signals come to another thread
            if len(requests) == 1 or isinstance(error, memory.DoesNotFit):
                yield known([self._failure(request, error, attempt) for request in requests])
            else:
                for request in requests:
                    yield from self.draw([request], attempt + 1)
            return
        yield from self._draw_encoded(list(zip(requests, embeddings, strict=True)), began, attempt)

    def draw_alone(self, request: Request, attempt: int = 1) -> list[Outcome]:
        """Draw an item while the device does nothing else."""
        wait(self._launched)
        return [outcome for outcomes in self.draw([request], attempt) for outcome in outcomes.result()]

    def _draw_encoded(self, waiting: list[tuple[Request, Any]], began: float, attempt: int) -> Iterator[Outcomes]:
        shape = waiting[0][0].shape
        while waiting:
            size = self._experience.size(shape, memory.available_bytes())
            batch, waiting = waiting[:size], waiting[size:]
            try:
                outcomes = self._launch(batch, began, attempt)
            except torch.OutOfMemoryError as error:
                failures = [self._failure(request, error, attempt) for request, _ in batch]
                for failure in failures:
                    failure.error = f"{failure.error} ({memory.figures()})"
            except BaseException as error:
                if len(batch) > 1:
                    yield from self._draw_one_by_one(batch, began, attempt + 1)
                else:
                    yield known([self._failure(batch[0][0], error, attempt)])
                continue
            else:
                yield outcomes
                continue
            # here the error is gone, and with it the tensors that its traceback held
            torch.cuda.empty_cache()
            if self._make_room(shape, len(batch)):
                waiting = batch + waiting
            else:
                yield known(failures)

    def _make_room(self, shape: Shape, num_items: int) -> bool:
        """Make room after memory ran out with so many items; returns whether another try can go better."""
        if self._experience.ran_out_of_memory(shape, num_items):
            self._note(f"memory ran out with {num_items} items of {shape}; they were drawn again in smaller batches")
            return True
        if self._reference_batch:  # what saves memory changes bits
            self._experience.took_memory(shape, self._reference_batch, (memory.available_bytes() or 0) + 1)
            return False
        rescue = self._model.save_memory()
        if rescue is not None:
            self._note(f"memory ran out with {num_items} items of {shape}; since then {rescue}")
        return rescue is not None

    def _draw_one_by_one(self, batch: list[tuple[Request, Any]], began: float, attempt: int) -> Iterator[Outcomes]:
        """Find out which item of a failed batch is at fault; the others are drawn all the same."""
        for pair in batch:
            try:
                outcomes = self._launch([pair], began, attempt)
            except BaseException as error:
                outcomes = known([self._failure(pair[0], error, attempt)])
            yield outcomes

    def _launch(self, batch: list[tuple[Request, Any]], began: float, attempt: int) -> Outcomes:
        """Start drawing a batch, while at most one other is on its way.

        Args:
            began: when its chunk began, by `pace_clock`.
        """
        while len(self._launched) >= _NUM_LAUNCHED:
            wait([self._launched.popleft()])
        requests = [request for request, _ in batch]
        shape = requests[0].shape
        weights_bytes = memory.allocated_bytes()
        memory.begin_peak()
        watched = self._begin(requests)
        try:
            flight = launch(lambda: self._model.render(requests, [embeddings for _, embeddings in batch]))
        except BaseException as error:
            self._watch.end(watched, error)
            raise
        self._learn_memory(shape, len(batch), weights_bytes)
        rendered = flight.rendered
        if rendered.refuted_size is not None:
            self._experience.forbid(shape, rendered.refuted_size)
        self._spec.findings.worked.remote(self._spec.model_name, rendered.num_slots, rendered.num_padding)
        is_trial = rendered.num_trials > 0
        outcomes = self._collecting.submit(self._collect, flight, watched, requests, began, attempt, is_trial)
        self._launched.append(outcomes)
        return outcomes

    def _collect(
        self, flight: Flight, watched: Watched, requests: Sequence[Request], began: float, attempt: int, is_trial: bool
    ) -> list[Outcome]:
        """Wait for a batch, learn from it, and take its frames."""
        try:
            seconds = flight.stopwatch.seconds()
        except BaseException as error:
            self._watch.end(watched, error)
            return [self._failure(request, error, attempt) for request in requests]
        self._watch.end(watched)
        started_at = datetime.now(UTC) - timedelta(seconds=seconds)
        self._experience.drew(requests[0].shape, len(requests), seconds, began, is_trial)
        self._worked("draw", seconds)
        metrics.BATCH_SIZE.set(len(requests), {"model": self._spec.model_name})
        outcomes = []
        rendered = flight.rendered
        for request, frames, is_finite in zip(
            requests, rendered.frames.numpy(), rendered.is_finite.tolist(), strict=True
        ):
            outcome = Outcome(
                request=request,
                batch_size=len(requests),
                started_at=started_at,
                seconds=seconds / len(requests),
                attempt=attempt,
                num_tokens_cut=self._num_tokens_cut.pop(request.request_hash, None),
            )
            if is_finite:
                outcome.frames = frames
            else:
                outcome.error_type = "NonFinite"
                outcome.error = f"the render came out as NaN or infinity in {self._spec.settings.dtype}; try float32"
                self._log_failure(request, attempt)
            outcomes.append(outcome)
        return outcomes

    def _learn_memory(self, shape: Shape, num_items: int, weights_bytes: int) -> None:
        peak = memory.peak_bytes()
        if peak is not None:
            self._experience.took_memory(shape, 0, weights_bytes)
            self._experience.took_memory(shape, num_items, peak)

    def _encode(self, requests: Sequence[Request]) -> list[Any]:
        stopwatch = Stopwatch()
        embeddings = self._model.encode(requests)
        stopwatch.stop()
        for request, num_cut in zip(requests, self._model.count_cut_tokens(requests), strict=True):
            self._num_tokens_cut[request.request_hash] = num_cut
        self._collecting.submit(lambda: self._worked("encode", stopwatch.seconds()))
        return embeddings

    def _worked(self, stage: str, seconds: float) -> None:
        metrics.STAGE_SECONDS.inc(seconds, {"model": self._spec.model_name, "stage": stage})

    def _check_memory(self, request: Request, embeddings: Any) -> None:
        """See to it that memory is known to suffice before a batch is drawn.

        Raises:
            DoesNotFit: strict mode's reference batch; the message says what would.
        """
        shape, available, reference_batch = request.shape, memory.available_bytes(), self._reference_batch
        if available is None:
            return
        if not self._experience.of(shape).peak_bytes:
            self._rehearse(request, embeddings, available)
        if reference_batch:
            peaks = self._experience.of(shape)
            needed, weights = peaks.predicted_peak(reference_batch), peaks.peak_bytes[0]
            if needed is not None and needed > available:
                fitting = int((available * (1 - MEMORY_MARGIN) - weights) / max(1, peaks.peak_bytes[1] - weights))
                raise memory.DoesNotFit(memory.explain_reference(reference_batch, needed, available, weights, fitting))

    def _rehearse(self, request: Request, embeddings: Any, available: int) -> None:
        """Draw a shape's first item and drop it, alone and then in strict mode's reference batch: memory is known then.

        Args:
            available: in bytes.
        """
        shape, reference_batch = request.shape, self._reference_batch
        request = request._replace(num_inference_steps=1)  # every step needs the same
        self._experience.took_memory(shape, 0, memory.allocated_bytes())
        peak = _peak_of(lambda: self._model.rehearse(request, embeddings))
        self._experience.took_memory(shape, 1, peak or available + 1)
        if reference_batch and (self._experience.of(shape).predicted_peak(reference_batch) or 0) <= available:
            peak = _peak_of(lambda: self._model.render([request], [embeddings]))
            self._experience.took_memory(shape, reference_batch, peak or available + 1)

    def _failure(self, request: Request, error: BaseException, attempt: int) -> Outcome:
        self._log_failure(request, attempt, error)
        return failed(request, type(error).__name__, one_line(error, max_length=2000), attempt)

    def _log_failure(self, request: Request, attempt: int, error: BaseException | None = None) -> None:
        """Ray keeps an actor's log."""
        run_id, model = self._spec.run_id, self._spec.model_name
        fields = {"run": run_id, "model": model, "item": request.id, "attempt": attempt}
        _logger.warning("item %r failed; why is in failures/", request.id, exc_info=error, extra=fields)

    def _note(self, words: str) -> None:
        self._spec.findings.note.remote(self._spec.model_name, words)

    def _begin(self, requests: Sequence[Request]) -> Watched:
        num_items = max(len(requests), self._reference_batch or 1)
        deadline_seconds = self._experience.deadline_seconds(requests[0].shape, num_items)
        return self._watch.begin([request.request_hash for request in requests], deadline_seconds)

    @contextmanager
    def _watched(self, requests: Sequence[Request]) -> Iterator[None]:
        watched = self._begin(requests)
        try:
            yield
        except BaseException as error:
            self._watch.end(watched, error)
            raise
        self._watch.end(watched)


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


def known(outcomes: list[Outcome]) -> Outcomes:
    """Outcomes that nobody has to wait for."""
    future = Outcomes()
    future.set_result(outcomes)
    return future


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
