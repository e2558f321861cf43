"""Draws a few items of every shape and drops them; what is left is a profile, for `plan` and for runs."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pyarrow as pa
import ray

from rendermill.jobs.config.job import Job
from rendermill.jobs.planning.models import ResolvedModel
from rendermill.jobs.planning.plan import Plan
from rendermill.jobs.running.dataset import ModelPipeline
from rendermill.jobs.running.observers.stored_files import StoredFiles
from rendermill.jobs.running.run_file import new_run_id
from rendermill.jobs.running.services import start_services
from rendermill.manifests.rows import RowValidator
from rendermill.manifests.schema import MEDIA
from rendermill.manifests.storage.folder import Folder

_NUM_BATCHES = 4
"""The batches of a shape: the first pays for warming up."""


def calibrate(
    job: Job,
    models: Mapping[str, ResolvedModel],
    plan: Plan,
    validator: RowValidator,
    extra: pa.Schema,
    profiles: Folder,
    num_gpus: Mapping[str, float],
) -> None:
    """Draw four batches of every shape that is to be drawn, a model after the other, and store what was learned.

    Args:
        extra: the manifest's own columns.
        num_gpus: per actor, by model.
    """
    services = start_services(profiles)
    for name, model in models.items():
        if not plan.num_to_do[name]:
            continue
        config, began = job.models[name], datetime.now(UTC)
        num_samples = _NUM_BATCHES * (config.fixed_batch or model.settings.reference_batch or 1)
        pipeline = ModelPipeline(
            spec=services.spec(job.model_copy(update={"audit": 0.0}), model, new_run_id()),
            pool=config.pool.model_copy(update={"min_actors": 1, "max_actors": 1}),
            num_gpus=num_gpus[name],
            num_actors=1,
            num_tasks=None,
            num_items_per_chunk=max(num_samples, model.family.num_items_per_chunk),
            encoding=model.encoding,
            num_items_per_shard=None,
            validator=validator,
            output=Folder(job.output),
            extra=extra,
        )
        files = StoredFiles(began)
        drawn = pipeline.drawn(plan.outstanding.first_of_each_shape(num_samples)[name])
        for encoded in (
            pipeline.encoded(drawn).drop_columns([MEDIA]).iter_batches(batch_size=None, batch_format="pyarrow")
        ):
            files.add(encoded)
        if files.first is not None:
            services.findings.stored.remote(name, files.first, files.bytes_per_item)
    ray.get(services.findings.report.remote())
