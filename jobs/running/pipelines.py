"""Build the pipeline of a model from a prepared job."""

import pyarrow as pa

from rendermill.jobs.cluster.capacity import max_tasks
from rendermill.jobs.planning.prepare import PreparedJob, PreparedModel
from rendermill.jobs.running.dataset.model_pipeline import ModelPipeline
from rendermill.jobs.running.services import Services


def make_pipeline(
    prepared: PreparedJob, model: PreparedModel, services: Services, run_id: str, extra: pa.Schema
) -> ModelPipeline:
    """Make the pipeline of one model of a job.

    Args:
        model: One of `prepared.models`, or a copy with other bounds.
        extra: The extra columns of the output.
    """
    resolved = model.resolved
    return ModelPipeline(
        spec=services.spec(prepared.job, resolved, run_id),
        pool=model.config.pool,
        num_gpus=model.num_gpus,
        num_actors=model.max_actors,
        num_tasks=max_tasks(prepared.cluster),
        num_items_per_chunk=model.num_items_per_chunk,
        encoding=resolved.encoding,
        num_items_per_shard=resolved.num_items_per_shard,
        validator=prepared.validator,
        output=prepared.output,
        extra=extra,
        max_sequence_length=resolved.max_sequence_length,
    )
