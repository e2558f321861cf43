"""`rendermill plan`: what a job would do, how long it takes and how much storage. It writes nothing to the output."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from rendermill.actors.engine.tuning.profile import Profile
from rendermill.actors.services.tuning.certified import certified_statements
from rendermill.actors.services.tuning.profile_store import ProfileStore
from rendermill.actors.spec import profile_key
from rendermill.jobs.commands.calibrate import calibrate
from rendermill.jobs.commands.plan_report import JobPlan, ModelPlan, ShapePlan, in_words, table_of_shapes
from rendermill.jobs.config.job import Job
from rendermill.jobs.console.screen import Screen, json_text
from rendermill.jobs.console.tables import print_table
from rendermill.jobs.planning.estimate import ModelWork, ShapeEstimate, estimate_shape, padding, seconds_of_job
from rendermill.jobs.planning.plan import Plan, ShapeCount, make_plan
from rendermill.jobs.planning.prepare import PreparedJob, PreparedModel, open_job, prepared
from rendermill.jobs.planning.sample_states import StoredHashes
from rendermill.manifests.arrow.hash_set import HASH
from rendermill.manifests.output.format import read_format, stored_format
from rendermill.manifests.output.ledger.keyed_rows import item_keys, request_hashes
from rendermill.manifests.output.records import read_failures, read_records
from rendermill.manifests.storage.errors import as_user_errors
from rendermill.manifests.storage.folder import Folder

_NUM_REASONS = 5
_KEYS = ["id", "sample_index", "request_hash"]


def plan(job: Job, screen: Screen, is_calibrated: bool, as_json: bool) -> int:
    """Print what a job would do; returns the exit status.

    Args:
        is_calibrated: As for `find_plan`.
        as_json: Print it as JSON.

    Raises:
        UserError: As `find_plan`.
    """
    found = find_plan(job, is_calibrated)
    if as_json:
        screen.text(json_text(asdict(found)))
    else:
        print_table(screen, table_of_shapes(found.shapes))
        for line in in_words(found, job.output):
            screen.line(line)
    return 0


def find_plan(job: Job, is_calibrated: bool) -> JobPlan:
    """Find out what a job would do.

    Args:
        is_calibrated: Render a few items of every shape first, and drop them, to measure how long they take.

    Raises:
        UserError: A mistake that `generate` would report, too.
    """
    opened = open_job(job)
    rejections = _Reasons()
    with as_user_errors("cannot be read", ("output",), opened.output.url):
        stored_format(opened.output)  # before Ray starts; it is compared once the manifest's own columns are known
    with prepared(opened) as prepared_job:
        with as_user_errors("cannot be read", ("output",), opened.output.url):
            read_format(opened.output, prepared_job.manifest.extra, job.layout)
        stored = _stored_hashes(opened.output)
        planned = make_plan(
            prepared_job.manifest, prepared_job.validator, stored, rejections, job.limit, retry_failures=False
        )
        prepared_job.check_resources(planned.models_to_render)
        if is_calibrated:
            calibrate(prepared_job, planned)
        return _job_plan(prepared_job, planned, rejections)


class _Reasons:
    """Counts rejected rows by their reason."""

    def __init__(self) -> None:
        self.num_rows = 0
        self.counts: Counter[str] = Counter()

    def add(self, rows: pa.Table) -> None:
        self.num_rows += rows.num_rows
        self.counts.update(rows["reason"].to_pylist())

    def finish(self) -> None:
        pass


def _stored_hashes(output: Folder) -> StoredHashes:
    """Read what an output holds already, without a lease; nothing if there is no output yet."""
    records, failures = list(read_records(output, columns=_KEYS)), list(read_failures(output, _KEYS))
    keys = pa.chunked_array([item_keys(table) for table in records], HASH)
    return StoredHashes(
        keys=pa.chunked_array([keys.unique()], HASH),
        finished=pa.chunked_array([request_hashes(table) for table in records], HASH),
        failed=pa.chunked_array([request_hashes(table) for table in failures], HASH),
    )


@dataclass(frozen=True)
class _ModelEstimate:
    """The estimate for one model.

    Attributes:
        work: What it has to render; None if the pace of some of it is not known.
    """

    shapes: Sequence[ShapePlan]
    plan: ModelPlan
    work: ModelWork | None


def _job_plan(prepared: PreparedJob, planned: Plan, rejections: _Reasons) -> JobPlan:
    profiles = ProfileStore(prepared.profiles)
    models = {name: _estimate_model(model, planned, profiles) for name, model in prepared.models.items()}
    work = [model.work for model in models.values() if model.work is not None]
    is_known = len(work) == len(models)
    seconds = seconds_of_job(work, prepared.cluster.resources) if is_known else None
    stop_after = prepared.job.stop_after.total_seconds() if prepared.job.stop_after else math.inf
    shapes = [shape for model in models.values() for shape in model.shapes]
    sizes = [shape.bytes for shape in shapes if shape.num_to_do]
    return JobPlan(
        shapes=shapes,
        models={name: model.plan for name, model in models.items()},
        num_duplicates=planned.num_duplicates,
        num_rejected=planned.num_rejected,
        reasons=dict(rejections.counts.most_common(_NUM_REASONS)),
        num_not_in_manifest=planned.num_not_in_manifest,
        inputs=planned.inputs,
        seconds=None if seconds is None else round(seconds, 1),
        ends_at=None if seconds is None else (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat("T", "seconds"),
        num_runs=None if seconds is None else max(1, math.ceil(seconds / stop_after)),
        bytes=None if None in sizes else sum(size or 0 for size in sizes),
        profile_problems=profiles.problems,
    )


def _estimate_model(model: PreparedModel, planned: Plan, profiles: ProfileStore) -> _ModelEstimate:
    resolved = model.resolved
    device, profile = profiles.newest(profile_key(resolved.checkpoint, resolved.settings)) or (None, Profile())
    counts = [count for count in planned.shapes if count.model == resolved.name]
    estimates = [(count, estimate_shape(count.shape, profile)) for count in counts]
    work = _model_work(estimates, profile.start_up_seconds or 0.0, model)
    return _ModelEstimate(
        shapes=[_shape_plan(count, estimate, resolved.settings.reference_batch) for count, estimate in estimates],
        plan=ModelPlan(
            measured_on=device,
            num_actors=model.max_actors,
            device=model.device,
            device_hours=None if work is None else round(work.device_seconds / 3600, 4),
            certificate=[*map(str, certified_statements(profile)), *profile.describe_proofs()],
        ),
        work=work,
    )


def _shape_plan(count: ShapeCount, estimate: ShapeEstimate, reference_batch: int | None) -> ShapePlan:
    bytes_per_item = estimate.bytes_per_item
    return ShapePlan(
        model=count.model,
        shape=str(count.shape),
        num_to_do=count.num_to_do,
        num_changed=count.num_changed,
        num_finished=count.num_finished,
        num_failed=count.num_failed,
        batch_size=estimate.batch_size,
        seconds_per_item=estimate.seconds_per_item,
        is_measured=estimate.is_measured,
        bytes=None if bytes_per_item is None else round(bytes_per_item * count.num_to_do),
        padding=padding(count.num_to_do, reference_batch),
    )


def _model_work(
    estimates: Sequence[tuple[ShapeCount, ShapeEstimate]], start_up_seconds: float, model: PreparedModel
) -> ModelWork | None:
    """Return what a model has to render; None if the pace of some of it is not known."""
    to_do = [(count.num_to_do, estimate.seconds_per_item) for count, estimate in estimates if count.num_to_do]
    known = [num_to_do * seconds for num_to_do, seconds in to_do if seconds is not None]
    if len(known) < len(to_do):
        return None
    num_items = sum(num_to_do for num_to_do, _ in to_do)
    return ModelWork(
        seconds=sum(known),
        start_up_seconds=start_up_seconds if num_items else 0.0,
        num_actors=max(1, min(model.max_actors, num_items)),
        num_gpus=model.num_gpus,
        num_cpus=model.config.pool.num_cpus,
    )
