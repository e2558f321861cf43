"""Ray Data's face of the engine: an actor that takes tables of requests, and yields a table for each batch."""

import gc
import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from rendermill.actors.engine.engine import Engine, EngineOptions
from rendermill.actors.engine.loading import load_model
from rendermill.actors.engine.outcome import Outcome, Outcomes, completed, failed
from rendermill.actors.engine.tuning.profile import Profile
from rendermill.actors.environment import device_name, environment, make_deterministic
from rendermill.actors.media.inputs.chunks import Chunk, taken_apart
from rendermill.actors.media.rendered_table import rendered_table
from rendermill.actors.services import metrics
from rendermill.actors.services.audit import is_chosen
from rendermill.actors.services.crash_journal import Suspicion
from rendermill.actors.services.guard import verdict
from rendermill.actors.services.reporter import RayReporter, watchdog_of_this_process
from rendermill.actors.services.tuning.compiled import SharedCompilation
from rendermill.actors.spec import RendererSpec
from rendermill.manifests.errors import one_line
from rendermill.manifests.output.tuning_report import AuditedRendering
from rendermill.manifests.request import Request
from rendermill.models.inputs import Inputs
from rendermill.models.registry import family_of

_NUM_BATCHES_WAITING = 2


class Renderer:
    """An engine in a Ray actor; a Ray Data `map_batches` class over chunks of requests.

    One thread loads and renders, chunk after chunk, while the threads of Ray's calls return what was rendered. So the
    device has the next batch, or the next chunk's first one, in its queue before the current one is finished.
    """

    def __init__(self, spec: RendererSpec) -> None:
        self._spec = spec
        self._id = uuid.uuid4().hex
        self._began: float | None = None
        self._rendering = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rendering")
        # a crash while loading is blamed on this actor, which Ray starts again under the same id
        actor = f"the model {spec.model_name} in actor {ray.get_runtime_context().get_actor_id()}"
        spec.loader.whole(actor, lambda: self._rendering.submit(self._load).result())
        watchdog = watchdog_of_this_process(spec.journal)
        watchdog.show_life(spec.deadline_seconds)
        self._seconds_loading = watchdog.busy_seconds

    def _load(self) -> None:
        spec, settings = self._spec, self._spec.settings
        device = make_deterministic(settings.compile)
        place: dict[str, str | None] = {
            "device": device_name(device),
            "environment": environment(device, settings.compile),
        }
        self._profile_key = spec.profile_key | place
        known = ray.get(self._join())
        self._compilation = SharedCompilation(spec) if settings.compile else None
        if self._compilation is not None:
            self._compilation.take()
        try:
            model = load_model(spec.checkpoint, settings, device, spec.patience_seconds)
        except (KeyboardInterrupt, SystemExit) as error:  # Ray would start the actor again endlessly
            raise RuntimeError(f"{type(error).__name__}: {one_line(error)}") from error
        planned_seconds = sum(num * known.seconds_per_item.get(shape, 0.0) for shape, num in spec.planned.items())
        options = EngineOptions(
            family_of(spec.checkpoint.pipeline_class), settings, spec.batch, spec.deadline_seconds, planned_seconds
        )
        reporter = RayReporter(spec.journal, spec.findings, spec.model_name, spec.run_id)
        self._engine = Engine(model, options, reporter, watchdog_of_this_process(spec.journal), known)
        self._constants = place | {
            "checkpoint": spec.checkpoint_name,
            "revision": spec.checkpoint.revision,
            "scheduler": model.scheduler_name,
            "run_id": spec.run_id,
        }
        gc.freeze()  # the loaded objects stay, so the garbage collector need not visit them again

    def _join(self) -> Any:
        """Report this actor to the findings, which may have started again without memory."""
        return self._spec.findings.join.remote(self._spec.model_name, self._id, self._profile_key)

    def __call__(self, chunk: pa.Table) -> Iterator[pa.Table]:
        """Render a chunk. Ray may call this for the next chunk while the current one is being rendered.

        Args:
            chunk: request columns, the manifest's extra ones, and those of `actors.media.inputs.step` if there are
                inputs. A request whose inputs cannot be used becomes a failure without being rendered.

        Yields:
            A table for each batch; see `rendered_table`.
        """
        parts = taken_apart(chunk)
        requests = Request.from_table(parts.rows)
        row_of = {request.request_hash: index for index, request in enumerate(requests)}
        batches: Queue[Outcomes | None] = Queue(_NUM_BATCHES_WAITING)
        rendering = self._rendering.submit(self._render_chunk, requests, parts, batches)
        while (batch := batches.get()) is not None:
            outcomes = batch.result()
            self._report_audited(outcomes, parts.inputs)
            rows = [row_of[outcome.request.request_hash] for outcome in outcomes]
            yield rendered_table(parts.rows.take(pa.array(rows, pa.int64())), outcomes, self._constants)
        rendering.result()  # raises what went wrong
        if self._began is not None:
            self._report_busy_seconds(self._began)
            self._spec.findings.learned.remote(self._spec.model_name, self._engine.learned())
        if self._spec.audit:
            self._rendering.submit(self._audit).result()

    def _render_chunk(self, requests: Sequence[Request], parts: Chunk, batches: "Queue[Outcomes | None]") -> None:
        """Put the outcomes of every batch as soon as it is in the device's queue, and None after the last one."""
        try:
            hashes = [request.request_hash for request in requests]
            profile, suspicions = ray.get([self._join(), self._spec.journal.open_chunk.remote(hashes)])
            if suspicions is None:
                batches.put(completed([]))
                return
            bad = [request for request in requests if request.request_hash in parts.errors]
            if bad:
                batches.put(completed([failed(request, *parts.errors[request.request_hash], 1) for request in bad]))
            good = [request for request in requests if request.request_hash not in parts.errors]
            safe = [request for request in good if request.request_hash not in suspicions]
            self._began = self._began or perf_counter()
            self._certify(profile, safe, parts.inputs)
            for outcomes in self._render(good, parts.inputs, suspicions):
                batches.put(outcomes)
            if self._compilation is not None:
                self._compilation.give()
        finally:
            batches.put(None)

    def _certify(self, profile: Profile, requests: Sequence[Request], inputs: Mapping[str, Inputs]) -> None:
        """Complete the model's certificate as far as these requests allow, and share it before it refuses anything.

        Actors that begin at the same time test at the same time, as none of them could render meanwhile. A later one
        takes what is known.
        """
        certificate = self._engine.certify(profile.certificate, requests, inputs)
        if certificate != profile.certificate:
            ray.get(self._spec.findings.learned.remote(self._spec.model_name, Profile(certificate=certificate)))
        if self._spec.settings.reference_batch is not None:
            certificate.require_seed()

    def _render(
        self, requests: Sequence[Request], inputs: Mapping[str, Inputs], suspicions: dict[str, Suspicion]
    ) -> Iterator[Outcomes]:
        # suspects first and alone: if one ends this process, too, the others need not be rendered again
        for request in requests:
            if request.request_hash in suspicions:
                suspicion = suspicions[request.request_hash]
                yield completed([self._render_suspect(request, inputs.get(request.request_hash), suspicion)])
        others = [request for request in requests if request.request_hash not in suspicions]
        yield from self._engine.render(others, inputs)

    def _render_suspect(self, request: Request, inputs: Inputs | None, suspicion: Suspicion) -> Outcome:
        if suspicion.is_at_fault:
            return failed(request, *verdict(suspicion, "rendered this item alone"), suspicion.num_deaths)
        return self._engine.render_one(request, suspicion.num_deaths + 1, inputs)

    def _report_busy_seconds(self, began: float) -> None:
        """Report for how much of the time since its first chunk this actor had items to render."""
        seconds, busy_seconds = perf_counter() - began, self._engine.busy_seconds - self._seconds_loading
        self._spec.findings.busy.remote(self._spec.model_name, self._id, busy_seconds, seconds)
        metrics.ACTOR_BUSY.set(busy_seconds / seconds, {"model": self._spec.model_name})

    def _report_audited(self, outcomes: Sequence[Outcome], inputs: Mapping[str, Inputs]) -> None:
        """Let another actor render the items again that are to be audited."""
        for outcome in outcomes:
            if outcome.frames is not None and is_chosen(outcome.request.request_hash, self._spec.audit):
                own = inputs.get(outcome.request.request_hash, {})
                self._spec.findings.rendered.remote(outcome.request, self._rendering_of(outcome), own)

    def _audit(self) -> None:
        """Render again what other actors rendered, each item alone."""
        for request, inputs in ray.get(self._spec.findings.take_audits.remote(self._spec.model_name, self._id)):
            rendering = self._rendering_of(self._engine.render_one(request, inputs=inputs))
            ray.get(self._spec.findings.rendered_again.remote(request.request_hash, rendering))

    def _rendering_of(self, outcome: Outcome) -> AuditedRendering:
        sha256 = ""
        if outcome.frames is not None:
            sha256 = hashlib.sha256(np.ascontiguousarray(outcome.frames).data).hexdigest()
        return AuditedRendering(renderer=self._id, pixel_sha256=sha256, batch_size=outcome.batch_size)
