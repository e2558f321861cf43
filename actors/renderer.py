"""The actor that draws: a loaded model that takes chunks of requests, and gives a table a batch."""

import gc
import hashlib
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from rendermill.actors.checkpoints.checkpoint import fetched
from rendermill.actors.engine import memory
from rendermill.actors.engine.engine import Drawer, Outcome, Outcomes, failed, known
from rendermill.actors.engine.watchdog import watch_of_this_process
from rendermill.actors.environment import device_name, environment, make_deterministic
from rendermill.actors.services import metrics
from rendermill.actors.services.audit import Drawn, is_chosen
from rendermill.actors.services.compiled import SharedCompilation
from rendermill.actors.services.crash_journal import Suspicion
from rendermill.actors.services.guard import verdict
from rendermill.actors.spec import RendererSpec
from rendermill.manifests.errors import one_line
from rendermill.manifests.schema import FRAMES, Request, Shape
from rendermill.models import registry

_NUM_BATCHES_WAITING = 2


class Renderer:
    """A loaded model in a Ray actor; a Ray Data `map_batches` class over chunks of requests.

    One thread loads and draws, chunk after chunk, while the threads of Ray's calls hand over what was drawn: so the
    device has its next batch, or the next chunk's first, in its queue before the last one is done.
    """

    def __init__(self, spec: RendererSpec) -> None:
        self._spec = spec
        self._id = uuid.uuid4().hex
        self._began: float | None = None
        self._drawing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="drawing")
        # a crash while loading names this actor, which Ray starts again
        actor = f"the model {spec.model_name} in actor {ray.get_runtime_context().get_actor_id()}"
        spec.loader.whole(actor, lambda: self._drawing.submit(self._load).result())
        watch = watch_of_this_process(spec.journal)
        watch.allow_silence(spec.deadline_seconds)
        self._seconds_loading = watch.seconds_at_work

    def _load(self) -> None:
        spec = self._spec
        device = make_deterministic(spec.settings.compile)
        place: dict[str, str | None] = {
            "device": device_name(device),
            "environment": environment(device, spec.settings.compile),
        }
        self._profile_key = spec.profile_key | place
        known = ray.get(self._join())
        self._compilation = SharedCompilation(spec) if spec.settings.compile else None
        if self._compilation is not None:
            self._compilation.take()
        with fetched(spec.checkpoint, spec.patience_seconds) as folder:
            try:
                model = registry.load(spec.checkpoint.pipeline_class, folder, spec.settings, device)
            except torch.OutOfMemoryError as error:
                raise memory.DoesNotFit(memory.explain_weights()) from error
            except (KeyboardInterrupt, SystemExit) as error:  # Ray would start the actor again and again
                raise RuntimeError(f"{type(error).__name__}: {one_line(error)}") from error
        self._drawer = Drawer(spec, model, known, watch_of_this_process(spec.journal))
        self._constants = place | {
            "checkpoint": spec.checkpoint_name,
            "revision": spec.checkpoint.revision,
            "scheduler": model.scheduler_name,
            "run_id": spec.run_id,
        }
        gc.freeze()  # what is loaded stays, and need not be walked over again and again

    def _join(self) -> Any:
        """Make this actor known to the findings, which may have started again without memory."""
        return self._spec.findings.join.remote(self._spec.model_name, self._id, self._profile_key)

    def __call__(self, chunk: pa.Table) -> Iterator[pa.Table]:
        """Draw a chunk; may be called for the next one while this one is being drawn.

        Args:
            chunk: request columns and the manifest's extra ones.

        Yields:
            A table a batch: the chunk's columns, what the record says of rendering, and `FRAMES`, the raw uint8 bytes
            in order frame, row, column, RGB; null for a failure.
        """
        requests = Request.from_table(chunk)
        place = {request.request_hash: index for index, request in enumerate(requests)}
        launched: Queue[Outcomes | None] = Queue(_NUM_BATCHES_WAITING)
        drawing = self._drawing.submit(self._draw_chunk, requests, launched)
        while (outcomes := launched.get()) is not None:
            self._tell_of_chosen(outcomes.result())
            yield self._as_table(chunk, outcomes.result(), place)
        drawing.result()  # raises what went wrong
        if self._began is not None:
            self._tell_of_work(self._began)
            self._spec.findings.learned.remote(self._spec.model_name, self._drawer.learned())
        if self._spec.audit:
            self._drawing.submit(self._audit).result()

    def _draw_chunk(self, requests: Sequence[Request], launched: "Queue[Outcomes | None]") -> None:
        """Put the outcomes of every batch as soon as it is launched, and None after the last."""
        try:
            self._join()
            suspicions = ray.get(self._spec.journal.open_chunk.remote([request.request_hash for request in requests]))
            if suspicions is None:
                launched.put(known([]))
                return
            self._began = self._began or perf_counter()
            for outcomes in self._draw(requests, suspicions):
                launched.put(outcomes)
            if self._compilation is not None:
                self._compilation.give()
        finally:
            launched.put(None)

    def _tell_of_work(self, began: float) -> None:
        """Say how much of the time since its first chunk this actor had something to draw."""
        seconds, seconds_at_work = perf_counter() - began, self._drawer.seconds_at_work - self._seconds_loading
        self._spec.findings.at_work.remote(self._spec.model_name, self._id, seconds_at_work, seconds)
        metrics.ACTOR_BUSY.set(seconds_at_work / seconds, {"model": self._spec.model_name})

    def _draw(self, requests: Sequence[Request], suspicions: dict[str, Suspicion]) -> Iterator[Outcomes]:
        # suspects first and alone: should one kill this process too, the others need not be drawn again
        for request in requests:
            if request.request_hash in suspicions:
                yield known(self._draw_suspect(request, suspicions[request.request_hash]))
        others: dict[Shape, list[Request]] = {}
        for request in requests:
            if request.request_hash not in suspicions:
                others.setdefault(request.shape, []).append(request)
        for shape in sorted(others):
            yield from self._drawer.draw(others[shape])

    def _draw_suspect(self, request: Request, suspicion: Suspicion) -> list[Outcome]:
        if suspicion.is_at_fault:
            return [failed(request, *verdict(suspicion, "drew this item alone"), suspicion.num_deaths)]
        return self._drawer.draw_alone(request, attempt=suspicion.num_deaths + 1)

    def _tell_of_chosen(self, outcomes: Sequence[Outcome]) -> None:
        """Let those items that are to be audited be drawn by another actor, too."""
        for outcome in outcomes:
            if outcome.frames is not None and is_chosen(outcome.request.request_hash, self._spec.audit):
                self._spec.findings.drawn.remote(outcome.request, self._drawn(outcome))

    def _audit(self) -> None:
        """Draw again what others drew, each item alone."""
        for request in ray.get(self._spec.findings.take_audits.remote(self._spec.model_name, self._id)):
            for outcome in self._drawer.draw_alone(request):
                ray.get(self._spec.findings.drawn_again.remote(request.request_hash, self._drawn(outcome)))

    def _drawn(self, outcome: Outcome) -> Drawn:
        if outcome.frames is None:
            return Drawn(self._id, "", outcome.batch_size)
        pixels = np.ascontiguousarray(outcome.frames)
        return Drawn(self._id, hashlib.sha256(pixels.data).hexdigest(), outcome.batch_size)

    def _as_table(self, chunk: pa.Table, outcomes: Sequence[Outcome], place: dict[str, int]) -> pa.Table:
        """The outcomes beside the rows of the chunk that asked for them.

        Args:
            place: row in the chunk by request hash.
        """
        rows = [place[outcome.request.request_hash] for outcome in outcomes]
        table = chunk.take(pa.array(rows, pa.int64()))
        columns = {name: pa.array([value] * len(outcomes), pa.string()) for name, value in self._constants.items()}
        columns |= {
            "num_tokens_cut": pa.array([outcome.num_tokens_cut for outcome in outcomes], pa.int32()),
            "batch_size": pa.array([outcome.batch_size for outcome in outcomes], pa.int32()),
            "started_at": pa.array([outcome.started_at for outcome in outcomes], pa.timestamp("us", tz="UTC")),
            "seconds": pa.array([outcome.seconds for outcome in outcomes], pa.float64()),
            "attempt": pa.array([outcome.attempt for outcome in outcomes], pa.int32()),
            "error_type": pa.array([outcome.error_type for outcome in outcomes], pa.string()),
            "error": pa.array([outcome.error for outcome in outcomes], pa.string()),
            "attempts": pa.array([outcome.attempt if outcome.error_type else None for outcome in outcomes], pa.int32()),
            FRAMES: _as_binary([outcome.frames for outcome in outcomes]),
        }
        for name, column in columns.items():
            table = table.append_column(name, column)
        return table


def _as_binary(frames: Sequence[np.ndarray | None]) -> pa.LargeBinaryArray:
    """Frames as a column of their bytes, each copied once: pictures make most of what a table weighs."""
    sizes = [0 if pixels is None else pixels.size for pixels in frames]
    drawn = [pixels.reshape(-1) for pixels in frames if pixels is not None]
    offsets = np.cumsum([0, *sizes], dtype=np.int64)
    is_drawn = pa.array([pixels is not None for pixels in frames], pa.bool_())
    data = np.concatenate([np.empty(0, np.uint8), *drawn])
    buffers = [is_drawn.buffers()[1], pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(frames), buffers)
