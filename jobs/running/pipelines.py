"""Build the pipeline of a model from a prepared job."""

from dataclasses import replace

import pyarrow as pa

from rendermill.actors.spec import RendererSpec
from rendermill.jobs.cluster.capacity import max_tasks
from rendermill.jobs.planning.models import ResolvedModel
from rendermill.jobs.planning.plan import Plan
from rendermill.jobs.planning.prepare import PreparedJob, PreparedModel
from rendermill.jobs.running.dataset.input_tasks import InputTasks
from rendermill.jobs.running.dataset.media_tasks import MediaTasks
from rendermill.jobs.running.dataset.model_pipeline import ModelPipeline, Workers
from rendermill.jobs.running.dataset.requests import RequestReader
from rendermill.jobs.running.inputs import input_options
from rendermill.jobs.running.services import Services


def make_pipeline(
    prepared: PreparedJob, model: PreparedModel, plan: Plan, services: Services, run_id: str, extra: pa.Schema
) -> ModelPipeline:
    """Make the pipeline of one model of a job.

    Args:
        model: One of `prepared.models`, or a copy with other bounds.
        extra: The extra columns of the output.
    """
    resolved = model.resolved
    spec = services.spec(prepared.job, resolved, run_id)
    counts = [count for count in plan.shapes if count.model == resolved.name]
    spec = replace(spec, planned={str(count.shape): count.num_to_do / max(1, model.max_actors) for count in counts})
    return ModelPipeline(
        spec=spec,
        workers=Workers(model.config.pool, model.num_gpus, model.max_actors, max_tasks(prepared.cluster)),
        requests=RequestReader(resolved.name, prepared.validator, spec.reader, extra),
        inputs=_input_tasks(prepared, resolved, spec),
        media=MediaTasks(spec, resolved.encoding, prepared.output, extra),
        num_items_per_chunk=model.num_items_per_chunk,
        num_items_per_shard=resolved.num_items_per_shard,
        max_sequence_length=resolved.max_sequence_length,
    )


def _input_tasks(prepared: PreparedJob, model: ResolvedModel, spec: RendererSpec) -> InputTasks | None:
    """Return the step that reads the inputs of a model; None if it takes none."""
    if not model.inputs:
        return None
    options = input_options(prepared.job, prepared.manifest.folder)
    return InputTasks(model.inputs, options, spec.run_id, spec.input_reader)
