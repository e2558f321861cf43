"""Renders batches in the device's queue: while the device computes one, the next one already waits there."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import torch

from rendermill.actors.engine.isolation import Isolation
from rendermill.actors.engine.memory import MemoryGuard
from rendermill.actors.engine.outcome import Encoded, Outcome, Outcomes
from rendermill.actors.engine.reporter import Reporter
from rendermill.actors.engine.stopwatch import Stopwatch
from rendermill.actors.engine.tuning.state import TuningState
from rendermill.actors.engine.watchdog import Attempt, Watchdog
from rendermill.manifests.request import Request
from rendermill.models.interface import Model, Rendered

_MAX_NUM_BATCHES = 2
"""The batch that the device computes, and the next one."""


@dataclass(frozen=True)
class _Batch:
    """A batch in the device's queue.

    Attributes:
        requests: with the number of tokens that were cut. Their embeddings are not kept, as they take device memory.
        attempt: the number of the attempt, from 1.
        began: when its chunk began, by `pace_clock`.
        watched: from the watchdog.
        rendered: with tensors in this process's memory, which hold their values once `stopwatch` has returned.
        stopwatch: measures the batch.
    """

    requests: Sequence[tuple[Request, int | None]]
    attempt: int
    began: float
    watched: Attempt
    rendered: Rendered
    stopwatch: Stopwatch


class BatchQueue:
    """Starts batches without waiting for them; a thread collects their frames."""

    def __init__(
        self,
        model: Model,
        tuning: TuningState,
        memory: MemoryGuard,
        isolation: Isolation,
        watchdog: Watchdog,
        reporter: Reporter,
    ) -> None:
        self._model, self._tuning, self._memory = model, tuning, memory
        self._isolation, self._watchdog, self._reporter = isolation, watchdog, reporter
        self._collecting = ThreadPoolExecutor(max_workers=1, thread_name_prefix="collecting")
        self._started: deque[Outcomes] = deque()

    def start(self, items: Sequence[Encoded], began: float, attempt: int) -> Outcomes:
        """Put a batch into the device's queue; waits only while two others are there.

        Args:
            items: of one shape.
            began: when their chunk began, by `pace_clock`.
            attempt: the number of the attempt, from 1.

        Raises:
            BaseException: whatever the model raises.
        """
        while len(self._started) >= _MAX_NUM_BATCHES:
            wait([self._started.popleft()])
        requests, shape = [item.request for item in items], items[0].request.shape
        with self._memory.measuring(shape, len(items)):
            deadline_seconds = self._tuning.deadline_seconds(shape, len(items))
            watched = self._watchdog.begin([request.request_hash for request in requests], deadline_seconds)
            try:
                stopwatch = Stopwatch()
                rendered = _copied(self._model.render(requests, [item.embeddings for item in items]))
                stopwatch.stop()
            except BaseException as error:
                self._watchdog.end(watched, error)
                raise
        if rendered.refuted_size is not None:
            self._tuning.forbid(shape, rendered.refuted_size)
        self._reporter.batch_started(rendered.num_slots, rendered.num_padding)
        cut = [(item.request, item.num_tokens_cut) for item in items]
        batch = _Batch(cut, attempt, began, watched, rendered, stopwatch)
        outcomes = self._collecting.submit(self._collect, batch)
        self._started.append(outcomes)
        return outcomes

    def wait(self) -> None:
        """Wait until the device has rendered all batches."""
        wait(self._started)

    def report_stage(self, stage: str, stopwatch: Stopwatch) -> None:
        """Report a stage's time when the device has finished it, without waiting here."""
        self._collecting.submit(lambda: self._reporter.stage_finished(stage, stopwatch.seconds()))

    def _collect(self, batch: _Batch) -> list[Outcome]:
        """Wait for a batch, learn from it, and take its frames."""
        try:
            seconds = batch.stopwatch.seconds()
        except BaseException as error:
            self._watchdog.end(batch.watched, error)
            return [self._isolation.failure(request, error, batch.attempt) for request, _ in batch.requests]
        self._watchdog.end(batch.watched)
        started_at, num_items = datetime.now(UTC) - timedelta(seconds=seconds), len(batch.requests)
        shape, is_trial = batch.requests[0][0].shape, batch.rendered.num_trials > 0
        self._tuning.add_batch(shape, num_items, seconds, batch.began, is_trial)
        self._reporter.stage_finished("render", seconds)
        self._reporter.batch_rendered(num_items)
        rendered = batch.rendered
        frames, is_finite = rendered.frames.numpy(), rendered.is_finite.tolist()
        outcomes = []
        for index, (request, num_tokens_cut) in enumerate(batch.requests):
            outcome = Outcome(request, num_items, started_at, seconds / num_items, batch.attempt, num_tokens_cut)
            if is_finite[index]:
                outcome.frames = frames[index]
                if rendered.audio is not None:
                    outcome.audio, outcome.audio_rate = rendered.audio[index].numpy(), rendered.audio_rate
            else:
                self._isolation.fail_as_nonfinite(outcome)
            outcomes.append(outcome)
        return outcomes


def _copied(rendered: Rendered) -> Rendered:
    """Put copies to this process's memory into the device's queue, and return the tensors that they will fill."""
    frames, is_finite = _to_host(rendered.frames), _to_host(rendered.is_finite)
    audio = None if rendered.audio is None else [_to_host(sound) for sound in rendered.audio]
    return replace(rendered, frames=frames, is_finite=is_finite, audio=audio)


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type == "cpu":
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
