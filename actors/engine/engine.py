"""The engine: renders requests with a loaded model, batch by batch, whatever one of the items does."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from rendermill.actors.checkpoints.checkpoint import Checkpoint
from rendermill.actors.engine.batch_queue import BatchQueue
from rendermill.actors.engine.device_memory import DeviceMemory
from rendermill.actors.engine.isolation import Isolation
from rendermill.actors.engine.loading import load_model
from rendermill.actors.engine.memory import DoesNotFit, MemoryGuard
from rendermill.actors.engine.outcome import Encoded, Outcome, Outcomes, completed
from rendermill.actors.engine.reporter import PlainReporter, Reporter
from rendermill.actors.engine.stopwatch import Stopwatch, pace_clock
from rendermill.actors.engine.tuning.batch_sizer import BatchSizer
from rendermill.actors.engine.tuning.certificate import Certificate, limit_of_time
from rendermill.actors.engine.tuning.certifier import Certifier
from rendermill.actors.engine.tuning.deadlines import Deadlines
from rendermill.actors.engine.tuning.profile import Profile
from rendermill.actors.engine.tuning.state import TuningState
from rendermill.actors.engine.watchdog import Watchdog
from rendermill.actors.environment import make_deterministic
from rendermill.manifests.request import Request, Shape
from rendermill.models.capabilities import Family
from rendermill.models.inputs import Inputs
from rendermill.models.interface import Model
from rendermill.models.registry import family_of
from rendermill.models.settings import Settings


@dataclass(frozen=True)
class EngineOptions:
    """The rules by which an engine forms batches and counts them as hung.

    Attributes:
        family: of the model.
        settings: with which the model was loaded.
        batch: the number of items in a batch; None: found by measurement (in strict mode, from the reference batch).
        deadline_seconds: the time an item may take before the process is ended; None: by what other items took.
        planned_seconds: the time that this process is expected to render; 0: unknown.
    """

    family: Family
    settings: Settings
    batch: int | None = None
    deadline_seconds: float | None = None
    planned_seconds: float = 0.0

    def tuning(self, known: Profile) -> TuningState:
        """Return the state in which tuning starts, from what is known already."""
        smallest = self.settings.reference_batch or 1
        sizer = BatchSizer(
            self.batch,
            smallest=smallest,
            first=self.family.reference_batch[self.settings.compile],
            largest=max(self.family.num_items_per_chunk, smallest),
        )
        for shape, learned in known.shapes.items():
            sizer.start_from(shape, learned)
        return TuningState(sizer, Deadlines(self.deadline_seconds, self.settings.compile, smallest), pace_clock)


class Engine:
    """A loaded model, and what was learned of it.

    Batches are started while the device is still busy with the one before, and a thread collects the frames, so that
    the device never waits. An engine may be used by one thread at a time.

    Args:
        reporter: receives notes, failures and timings.
        watchdog: of this process, which has one only.
        known: what earlier runs and other processes learned.
        memory: of the device; tests give another one.
    """

    def __init__(
        self,
        model: Model,
        options: EngineOptions,
        reporter: Reporter,
        watchdog: Watchdog,
        known: Profile | None = None,
        memory: DeviceMemory | None = None,
    ) -> None:
        known, settings = known or Profile(), options.settings
        self._model, self._watchdog = model, watchdog
        self._tuning = options.tuning(known)
        self._memory = MemoryGuard(memory or DeviceMemory(), model, self._tuning, settings.reference_batch, reporter)
        self._isolation = Isolation(reporter, settings.dtype)
        self._queue = BatchQueue(model, self._tuning, self._memory, self._isolation, watchdog, reporter)
        self._is_strict = settings.reference_batch is not None
        self._certifier = Certifier(
            self._render_dropped, self._queue.wait, limit_of_time(options.planned_seconds), settings.compile
        )
        self._certificate, self._is_certified = known.certificate, False
        for name, batches in model.stages.items():
            batches.sizes |= known.proven.get(name, {})
            batches.refuted |= known.refuted.get(name, {})

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, settings: Settings | None = None, reporter: Reporter | None = None
    ) -> "Engine":
        """Load a model in this process, on its GPU if it has one, and return an engine that renders with it.

        A batch that takes far too long ends the process: see `Watchdog`.

        Args:
            checkpoint: from `actors.checkpoints.checkpoint.describe`.
            settings: None: bfloat16, not compiled, and pixels that do not depend on the batch.
            reporter: receives notes, failures and timings; None: they are dropped.

        Raises:
            DoesNotFit: the weights need more memory than the device has.
        """
        settings = settings or Settings(dtype={"default": "bfloat16"}, compile=False, reference_batch=1)
        reporter = reporter or PlainReporter()
        model = load_model(checkpoint, settings, make_deterministic(settings.compile))
        return cls(model, EngineOptions(family_of(checkpoint.pipeline_class), settings), reporter, Watchdog(reporter))

    @property
    def busy_seconds(self) -> float:
        """The time for which this process has had items in hand so far."""
        return self._watchdog.busy_seconds

    def learned(self) -> Profile:
        """Return what was learned of the batches that were collected so far, and what was known before."""
        profile = self._tuning.profile()
        profile.certificate = self._certificate
        for name, batches in self._model.stages.items():
            if batches.sizes:
                profile.proven[name] = batches.sizes
            if batches.refuted:
                profile.refuted[name] = batches.refuted
            if batches.reasons:
                profile.reasons[name] = batches.reasons
        return profile

    def certify(
        self, known: Certificate, requests: Sequence[Request], inputs: Mapping[str, Inputs] | None = None
    ) -> Certificate:
        """Test what these requests allow to test of the model's certificate, before they are rendered.

        From now on, strict mode renders one request at a time unless it is proven that the seed decides.

        Args:
            known: what other processes found.
            requests: of any shapes; perhaps none.
            inputs: the decoded inputs of the requests that have any, by request hash.

        Returns:
            The certificate, for other processes.
        """
        self._certificate, self._is_certified = self._certificate.merged(known), True
        if requests:
            self._certificate = self._certifier.certify(self._certificate, requests, inputs or {})
        return self._certificate

    def render(self, requests: Sequence[Request], inputs: Mapping[str, Inputs] | None = None) -> Iterator[Outcomes]:
        """Render requests of any shapes, one shape after another.

        Args:
            inputs: the decoded inputs of the requests that have any, by request hash.

        Yields:
            The outcomes of each batch, as soon as the batch is in the device's queue. Each request has one outcome.
        """
        by_shape: dict[Shape, list[Request]] = {}
        for request in requests:
            by_shape.setdefault(request.shape, []).append(request)
        for shape in sorted(by_shape):
            yield from self._render_shape(by_shape[shape], inputs or {}, attempt=1)

    def render_one(self, request: Request, attempt: int = 1, inputs: Inputs | None = None) -> Outcome:
        """Render an item alone, while the device does nothing else, and wait for it.

        Args:
            attempt: the number of the attempt, from 1.
            inputs: the decoded inputs of the request.
        """
        self._queue.wait()
        rendering = self._render_shape([request], {request.request_hash: inputs or {}}, attempt)
        (outcome,) = [outcome for outcomes in rendering for outcome in outcomes.result()]
        return outcome

    def _render_shape(
        self, requests: Sequence[Request], inputs: Mapping[str, Inputs], attempt: int
    ) -> Iterator[Outcomes]:
        began = pace_clock()
        try:
            items = self._encode(requests, inputs)
        except BaseException as error:  # a model may raise anything; signals arrive in another thread
            if len(requests) == 1 or isinstance(error, DoesNotFit):
                yield self._isolation.failures(requests, error, attempt)
            else:
                for request in requests:
                    yield from self._render_shape([request], inputs, attempt + 1)
            return
        yield from self._render_encoded(items, began, attempt)

    def _encode(self, requests: Sequence[Request], inputs: Mapping[str, Inputs]) -> list[Encoded]:
        """Encode the prompts and inputs of a shape's requests, and check that memory suffices to render them."""
        names, shape = [request.request_hash for request in requests], requests[0].shape
        with self._watchdog.watching(names, self._tuning.deadline_seconds(shape, len(requests))):
            stopwatch = Stopwatch()
            embeddings = self._model.encode(requests, [inputs.get(name, {}) for name in names])
            stopwatch.stop()
            num_tokens_cut = self._model.count_cut_tokens(requests)
            self._queue.report_stage("encode", stopwatch)
            items = list(map(Encoded, requests, embeddings, num_tokens_cut))
            self._memory.check(*items[0][:2])
        return items

    @property
    def _is_unproven(self) -> bool:
        """Whether strict mode was asked for, and tests could not prove that the seed decides."""
        return self._is_strict and self._is_certified and self._certificate.seed_decides.verdict != "proven"

    def _render_dropped(self, request: Request, inputs: Inputs) -> bytes:
        """Render a request alone, for a test.

        Returns:
            The hash of its frames and its sound.

        Raises:
            ArithmeticError: the render came out as NaN or infinity.
        """
        deadline_seconds = self._tuning.deadline_seconds(request.shape, 1)
        with self._watchdog.watching([request.request_hash], deadline_seconds):
            (embeddings,) = self._model.encode([request], [inputs])
            rendered = self._model.render([request], [embeddings])
            if not rendered.is_finite.all():
                raise ArithmeticError("it came out as NaN or infinity")
            parts = [rendered.frames, *(rendered.audio or ())]
            return hashlib.sha256(b"".join(part.contiguous().cpu().numpy().tobytes() for part in parts)).digest()

    def _render_encoded(self, waiting: list[Encoded], began: float, attempt: int) -> Iterator[Outcomes]:
        shape = waiting[0].request.shape
        while waiting:
            size = 1 if self._is_unproven else self._memory.batch_size(shape)
            batch, waiting = waiting[:size], waiting[size:]
            try:
                outcomes = self._queue.start(batch, began, attempt)
            except torch.OutOfMemoryError as error:
                failures = [self._isolation.failure(item.request, error, attempt) for item in batch]
                for failure in failures:
                    failure.error = f"{failure.error} ({self._memory.describe()})"
            except BaseException as error:
                if len(batch) > 1:
                    yield from self._isolation.one_by_one(
                        batch, lambda items, number: self._queue.start(items, began, number), attempt
                    )
                else:
                    yield self._isolation.failures([batch[0].request], error, attempt)
                continue
            else:
                yield outcomes
                continue
            # only here is the error gone, and with it the tensors that its traceback held
            if self._memory.make_room(shape, len(batch)):
                waiting = batch + waiting
            else:
                yield completed(failures)
