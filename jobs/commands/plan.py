"""`rendermill plan`: what a job would do, how long and with how much storage. It writes nothing to the output."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from rendermill.actors.engine.tuning.profile import Profile
from rendermill.actors.services.tuning.profile_store import ProfileStore
from rendermill.actors.spec import profile_key
from rendermill.jobs.cluster.capacity import Cluster, check_resources, max_actors
from rendermill.jobs.cluster.connection import connected
from rendermill.jobs.commands.calibrate import calibrate
from rendermill.jobs.commands.plan_report import JobPlan, ModelPlan, ShapePlan, in_words
from rendermill.jobs.config.job import Job
from rendermill.jobs.console.screen import Screen, json_text
from rendermill.jobs.planning.estimate import ModelWork, ShapeEstimate, estimate_shape, padding, seconds_of_job
from rendermill.jobs.planning.models import ResolvedModel, make_validator, resolve_models
from rendermill.jobs.planning.plan import Plan, ShapeCount, make_plan
from rendermill.jobs.planning.sample_states import StoredHashes
from rendermill.jobs.running.services import open_profiles
from rendermill.manifests.arrow.hash_set import HASH
from rendermill.manifests.output.format import read_format
from rendermill.manifests.output.ledger.keyed_rows import item_keys, request_hashes
from rendermill.manifests.output.records import read_failures, read_records
from rendermill.manifests.reader.manifest import open_manifest
from rendermill.manifests.storage.errors import as_user_errors
from rendermill.manifests.storage.folder import Folder
from rendermill.manifests.storage.urls import absolute, check_can_be_output

_NUM_REASONS = 5
_KEYS = ["id", "sample_index", "request_hash"]


def plan(job: Job, screen: Screen, is_calibrated: bool, as_json: bool) -> int:
    """Print what a job would do.

    Args:
        is_calibrated: draw a few items of every shape whose pace is not known, and drop them.
        as_json: print it as JSON.

    Raises:
        UserError: a mistake that `generate` would tell of, too.
    """
    check_can_be_output(job.output)
    patience_seconds = job.storage_patience.total_seconds()
    manifest = open_manifest(absolute(job.manifest), patience_seconds)
    output = Folder(absolute(job.output), patience_seconds)
    with as_user_errors("cannot be read", ("output",), output.url):
        read_format(output, manifest.extra, job.layout)
    profiles = open_profiles(job)
    with connected() as here:
        num_gpus, models = resolve_models(job, here)
        validator, rejections = make_validator(job, models), _Reasons()
        planned = make_plan(manifest, validator, _stored_hashes(output), rejections, job.limit, retry_failures=False)
        check_resources(job, here, planned.models_to_render)
        if is_calibrated:
            calibrate(job, models, planned, validator, manifest.extra, profiles, num_gpus)
        store = ProfileStore(profiles)
        result = _job_plan(job, models, planned, rejections, store, num_gpus, here)
    if as_json:
        screen.text(json_text(asdict(result) | {"profile_problems": store.problems}))
    else:
        for line in [*in_words(result, job.output), *store.problems]:
            screen.line(line)
    return 0


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
    """What an output holds already; nothing where there is none yet."""
    records, failures = list(read_records(output, columns=_KEYS)), list(read_failures(output, _KEYS))
    keys = pa.chunked_array([item_keys(table) for table in records], HASH)
    return StoredHashes(
        keys=pa.chunked_array([keys.unique()], HASH),
        finished=pa.chunked_array([request_hashes(table) for table in records], HASH),
        failed=pa.chunked_array([request_hashes(table) for table in failures], HASH),
    )


def _job_plan(
    job: Job,
    models: Mapping[str, ResolvedModel],
    planned: Plan,
    rejections: _Reasons,
    profiles: ProfileStore,
    num_gpus: Mapping[str, float],
    here: Cluster,
) -> JobPlan:
    shapes: list[ShapePlan] = []
    by_model: dict[str, ModelPlan] = {}
    work: list[ModelWork | None] = []
    for name, model in models.items():
        device, profile = profiles.newest(profile_key(model.checkpoint, model.settings)) or (None, Profile())
        estimates = [(count, estimate_shape(count.shape, profile)) for count in planned.shapes if count.model == name]
        shapes += [_shape_plan(count, estimate, model) for count, estimate in estimates]
        num_actors = max_actors(job.models[name].pool, num_gpus[name], here)
        model_work = _model_work(
            estimates, profile.start_up_seconds or 0.0, num_actors, num_gpus[name], job.models[name].pool.num_cpus
        )
        work.append(model_work)
        by_model[name] = ModelPlan(
            measured_on=device,
            num_actors=num_actors,
            device="GPU" if num_gpus[name] else "CPU",
            device_hours=None if model_work is None else round(model_work.device_seconds / 3600, 4),
        )
    known = [model_work for model_work in work if model_work is not None]
    seconds = seconds_of_job(known, here.resources) if len(known) == len(work) else None
    stop_after = job.stop_after.total_seconds() if job.stop_after else math.inf
    sizes = [shape.bytes for shape in shapes if shape.num_to_do]
    return JobPlan(
        shapes=shapes,
        models=by_model,
        num_duplicates=planned.num_duplicates,
        num_rejected=planned.num_rejected,
        reasons=dict(rejections.counts.most_common(_NUM_REASONS)),
        num_not_in_manifest=planned.num_not_in_manifest,
        seconds=None if seconds is None else round(seconds, 1),
        ends_at=None if seconds is None else (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat("T", "seconds"),
        num_runs=None if seconds is None else max(1, math.ceil(seconds / stop_after)),
        bytes=None if None in sizes else sum(size or 0 for size in sizes),
    )


def _shape_plan(count: ShapeCount, estimate: ShapeEstimate, model: ResolvedModel) -> ShapePlan:
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
        padding=padding(count.num_to_do, model.settings.reference_batch),
    )


def _model_work(
    estimates: Sequence[tuple[ShapeCount, ShapeEstimate]],
    start_up_seconds: float,
    num_actors: int,
    num_gpus: float,
    num_cpus: float,
) -> ModelWork | None:
    """What a model has before it; None where the pace of something that is to be drawn is not known.

    Args:
        num_gpus: per actor.
        num_cpus: per actor.
    """
    to_do = [(count.num_to_do, estimate.seconds_per_item) for count, estimate in estimates if count.num_to_do]
    known = [num_to_do * seconds for num_to_do, seconds in to_do if seconds is not None]
    if len(known) < len(to_do):
        return None
    num_items = sum(num_to_do for num_to_do, _ in to_do)
    return ModelWork(
        seconds=sum(known),
        start_up_seconds=start_up_seconds if num_items else 0.0,
        num_actors=max(1, min(num_actors, num_items)),
        num_gpus=num_gpus,
        num_cpus=num_cpus,
    )
