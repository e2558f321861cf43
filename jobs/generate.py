"""`rendermill generate`: runs a job, or finishes what an earlier run of it left."""

import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa
import ray

from actors.spec import RendererSpec
from jobs import cluster
from jobs.config import Job
from jobs.console import Screen, show_progress
from jobs.pipeline import ModelPipeline
from jobs.plan import Plan, make_plan
from jobs.resolve import resolve_model
from jobs.run_file import RunFile, new_run_id
from manifests.errors import one_line
from manifests.ledger import Ledger
from manifests.prompts import RowValidator, open_manifest
from manifests.rejected import RejectedRows
from manifests.storage import Folder, absolute

_SECONDS_BETWEEN_FLUSHES = 5.0
_SECONDS_BETWEEN_ROLL_UPS = 300.0
_NUM_RECEIPTS_BEFORE_ROLL_UP = 50_000
_FAILURE_WINDOW = 1000

DONE, ERROR, DONE_WITH_FAILURES = 0, 1, 3


def generate(job: Job, source: str, screen: Screen, retry_failures: bool = False) -> int:
    """Draw everything that the manifest asks for and the output does not have.

    Args:
        source: the job file's path, for the run's file.
        retry_failures: draw what failed in earlier runs once more.

    Returns:
        The exit status: 0, or 3 with failures or rejected rows, or 1 where the run could not go on.

    Raises:
        UserError: before anything is drawn.
    """
    output = Folder(absolute(job.output))
    manifest = open_manifest(absolute(job.manifest))
    with _ray_cluster() as here:
        cluster.check_disks(job, here)
        cluster.check_resources(job, here)
        num_gpus = {name: cluster.gpus_per_actor(model.pool, here) for name, model in job.models.items()}
        models = {name: resolve_model(job, name, on_gpu=num_gpus[name] > 0) for name in job.models}

        run_id = new_run_id()
        ledger = Ledger(output, run_id, manifest.extra)
        run_file = RunFile(output, run_id, job, source)
        run_file.update("planning")
        contracts = {name: model.contract for name, model in models.items()}
        validator = RowValidator(contracts, job.model_of_rows, job.seed)
        rejected = RejectedRows(output, run_id)
        plan = make_plan(manifest, validator, ledger, rejected, job.limit, retry_failures)
        _announce(screen, plan)

        pipelines = {
            name: ModelPipeline(
                spec=RendererSpec(
                    checkpoint=model.checkpoint,
                    checkpoint_name=job.models[name].checkpoint,
                    settings=model.settings,
                    batch=job.models[name].fixed_batch,
                    run_id=run_id,
                ),
                pool=job.models[name].pool,
                num_gpus=num_gpus[name],
                num_items_per_chunk=model.family.num_items_per_chunk,
                media_format=model.media_format,
                quality=job.models[name].quality,
                validator=validator,
                output=output,
                extra=ledger.extra,
            )
            for name, model in models.items()
            if plan.num_to_do[name]
        }
        return _Run(job, plan, ledger, run_file, screen).draw(pipelines)


@contextmanager
def _ray_cluster() -> Iterator[cluster.Cluster]:
    try:
        yield cluster.connect()
    finally:
        ray.shutdown()


def _announce(screen: Screen, plan: Plan) -> None:
    to_do = ", ".join(f"{model} {count}" for model, count in plan.num_to_do.items() if count) or "nothing"
    notes = {
        "finished before": sum(plan.num_finished.values()),
        "failed before": plan.num_failed,
        "rejected": plan.num_rejected,
        "duplicate": plan.num_duplicates,
    }
    screen.line(f"to draw: {to_do}" + "".join(f"; {count} {what}" for what, count in notes.items() if count))


class _Run:
    """The drawing part of a submission: runs the models' Datasets, commits their receipts, counts."""

    def __init__(self, job: Job, plan: Plan, ledger: Ledger, run_file: RunFile, screen: Screen) -> None:
        self._job, self._plan, self._ledger, self._run_file, self._screen = job, plan, ledger, run_file, screen
        self._finished = dict.fromkeys(plan.num_to_do, 0)
        self._failed = dict.fromkeys(plan.num_to_do, 0)
        self._recent_failures: deque[bool] = deque(maxlen=_FAILURE_WINDOW)
        self._errors: dict[str, str] = {}
        self._started = time.monotonic()
        self._last_receipts = dict.fromkeys(plan.num_to_do, self._started)

    def draw(self, pipelines: Mapping[str, ModelPipeline]) -> int:
        """Run the pipelines to their end, commit all they give, print the summary; returns the exit status."""
        state = "failed"
        self._run_file.update("running", **self._counts())
        try:
            with show_progress(self._screen, self._plan.num_to_do) as advance:
                last_flush = last_roll_up = time.monotonic()
                for model, receipts in _receipts(pipelines, self._plan):
                    if isinstance(receipts, Exception):
                        self._errors[model] = _root_cause(receipts)
                    elif receipts is not None:
                        advance(model, *self._commit(model, receipts))
                    now = time.monotonic()
                    if now - last_flush > _SECONDS_BETWEEN_FLUSHES:
                        self._ledger.flush()
                        last_flush = now
                    is_large = self._ledger.num_pending > _NUM_RECEIPTS_BEFORE_ROLL_UP
                    if is_large or now - last_roll_up > _SECONDS_BETWEEN_ROLL_UPS:
                        self._ledger.roll_up()
                        self._run_file.update("running", **self._counts())
                        last_roll_up = now
                    if self._fails_too_often():
                        self._errors["max_failure_rate"] = (
                            f"more than {self._job.max_failure_rate:.0%} of the last {_FAILURE_WINDOW} items failed"
                        )
                        break
            state = "failed" if self._errors else "finished"
        except KeyboardInterrupt:
            state = "interrupted"
        finally:
            self._ledger.roll_up()
            self._run_file.update(state, errors=self._errors, **self._counts())
        return self._summarize(state)

    def _commit(self, model: str, receipts: pa.Table) -> tuple[int, int]:
        new = self._ledger.add(receipts)
        is_failed = [error_type is not None for error_type in new["error_type"].to_pylist()]
        num_failed = sum(is_failed)
        self._recent_failures.extend(is_failed)
        self._last_receipts[model] = time.monotonic()
        self._finished[model] += len(is_failed) - num_failed
        self._failed[model] += num_failed
        return len(is_failed) - num_failed, num_failed

    def _fails_too_often(self) -> bool:
        return sum(self._recent_failures) > self._job.max_failure_rate * _FAILURE_WINDOW

    def _counts(self) -> dict[str, object]:
        seconds = time.monotonic() - self._started
        return {
            "num_to_do": self._plan.num_to_do,
            "num_finished_before": self._plan.num_finished,
            "num_finished": self._finished,
            "num_failed": self._failed,
            "num_failed_before": self._plan.num_failed,
            "num_rejected": self._plan.num_rejected,
            "num_duplicates": self._plan.num_duplicates,
            "seconds": round(seconds, 3),
            "items_per_second": round(sum(self._finished.values()) / seconds, 4),
        }

    def _summarize(self, state: str) -> int:
        line, seconds = self._screen.line, time.monotonic() - self._started
        num_failed = sum(self._failed.values()) + self._plan.num_failed
        for name, error in self._errors.items():
            line(f"stopped: {name}: {error}; details in {self._screen.log}")
        if state == "interrupted":
            line("interrupted; the same command goes on from here")
        num_drawn = sum(self._finished.values())
        for model, count in self._finished.items():
            if count:
                line(f"  {model}: {count} drawn, {count / (self._last_receipts[model] - self._started):.2f}/s")
        all_finished = num_drawn + sum(self._plan.num_finished.values())
        line(f"{all_finished} items finished, {num_failed} failed, {self._plan.num_rejected} rejected")
        if num_drawn:
            line(f"{num_drawn} drawn in {seconds:.0f} s ({num_drawn / seconds:.2f} items/s)")
        line(f"output: {self._job.output}")
        if num_failed:
            line(f"failures: {self._job.output}/failures; run them again with: rendermill retry {self._job.output}")
        if self._plan.num_rejected:
            line(f"rejected rows and why: {self._job.output}/rejected")
        if state != "finished":
            return ERROR
        return DONE_WITH_FAILURES if num_failed or self._plan.num_rejected else DONE


def _receipts(pipelines: Mapping[str, ModelPipeline], plan: Plan) -> Iterator[tuple[str, pa.Table | Exception | None]]:
    """Run every model's Dataset at once; yields its receipts, or the error that ended it.

    Yields (model, None) every second in which nothing came, so that the caller can keep time.
    """
    arrivals: queue.Queue[tuple[str, pa.Table | Exception | None]] = queue.Queue(maxsize=64)

    def consume(model: str, pipeline: ModelPipeline) -> None:
        try:
            dataset = pipeline.dataset(plan.work[model], plan.num_to_do[model])
            for receipts in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                arrivals.put((model, receipts))
            arrivals.put((model, None))
        except Exception as error:
            arrivals.put((model, error))

    for model, pipeline in pipelines.items():
        threading.Thread(target=consume, args=(model, pipeline), name=f"dataset-{model}", daemon=True).start()
    num_running = len(pipelines)
    while num_running:
        try:
            model, receipts = arrivals.get(timeout=1.0)
        except queue.Empty:
            yield "", None
            continue
        if not isinstance(receipts, pa.Table):
            num_running -= 1
        yield model, receipts


def _root_cause(error: Exception) -> str:
    """What went wrong in a worker, without the layers that Ray wraps around it; those go to the log."""
    traceback.print_exception(error)
    original = getattr(error, "cause", None)
    if original is not None:
        return f"{type(original).__name__}: {one_line(original)}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(Exception(lines[-1] if lines else repr(error)))  # Ray quotes the worker's traceback, error last
