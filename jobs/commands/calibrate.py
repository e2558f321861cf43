"""Render a few items of every shape and drop them; what remains is a tuning profile, for `plan` and for runs."""

from dataclasses import replace
from datetime import UTC, datetime

import ray

from rendermill.jobs.planning.plan import Plan
from rendermill.jobs.planning.prepare import PreparedJob, PreparedModel
from rendermill.jobs.running.observers.stored_files import StoredFiles
from rendermill.jobs.running.pipelines import make_pipeline
from rendermill.jobs.running.run_file import new_run_id
from rendermill.jobs.running.services import Services, start_services
from rendermill.manifests.schema import MEDIA

_NUM_BATCHES = 4
"""The number of batches of each shape: the first one includes compiling and warming up."""


def calibrate(prepared: PreparedJob, plan: Plan) -> None:
    """Render four batches of every shape that is to be rendered, model after model, and store what was measured."""
    # An audit would render items a second time, and those batches would be measured, too.
    unaudited = replace(prepared, job=prepared.job.model_copy(update={"audit": 0.0}))
    services = start_services(prepared.profiles)
    for name in plan.models_to_render:
        _calibrate_model(unaudited, prepared.models[name], plan, services)
    ray.get(services.findings.report.remote())


def _calibrate_model(prepared: PreparedJob, model: PreparedModel, plan: Plan, services: Services) -> None:
    name = model.resolved.name
    num_samples = _NUM_BATCHES * (model.config.fixed_batch or model.resolved.settings.reference_batch or 1)
    files = StoredFiles(began=datetime.now(UTC))
    one_actor = replace(
        model,
        config=model.config.model_copy(
            update={"pool": model.config.pool.model_copy(update={"min_actors": 1, "max_actors": 1})}
        ),
        max_actors=1,
        num_items_per_chunk=max(num_samples, model.num_items_per_chunk),
    )
    pipeline = make_pipeline(prepared, one_actor, plan, services, new_run_id(), prepared.manifest.extra)
    rendered = pipeline.rendered(plan.outstanding.first_of_each_shape(num_samples)[name])
    receipts = pipeline.encoded(rendered).drop_columns([MEDIA])
    for table in receipts.iter_batches(batch_size=None, batch_format="pyarrow"):
        files.add(table)
    if files.first is not None:
        services.findings.stored.remote(name, files.first, files.bytes_per_item)
