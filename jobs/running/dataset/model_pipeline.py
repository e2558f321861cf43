"""The Ray Dataset of one model: rows → chunks → inputs → frames → media, as files or in shards → receipts."""

import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy

from rendermill.actors.spec import RendererSpec
from rendermill.jobs.cluster.capacity import TASK_NUM_CPUS
from rendermill.jobs.config.job import Pool
from rendermill.jobs.planning.remaining import Work
from rendermill.jobs.running.dataset.input_tasks import InputTasks
from rendermill.jobs.running.dataset.media_tasks import MediaTasks
from rendermill.jobs.running.dataset.ray_internals import in_blocks
from rendermill.jobs.running.dataset.requests import RequestReader
from rendermill.models import registry

_Step = Callable[[pa.Table], pa.Table | Iterator[pa.Table]]

_NUM_CHUNKS_PER_ACTOR = 4
"""A small job is cut so that each actor gets at least this many chunks, and none waits for another one's last."""

_NUM_CHUNKS_WITH_ACTOR = 2

_NUM_BYTES_PER_CHUNK = 64 * 2**20
"""The approximate size of a chunk; one row may have more."""

_NUM_READING_TASKS = 2
"""Enough for thousands of rows a second; more would only take processors from actors that start."""

_MAX_RETRIES = 30
"""The number of times that a task is tried again if its process died. Ray Data sets no limit; the guards
(`actors.services.guard`) find the item at fault before this one is reached."""

_INPUT_NUM_CPUS = 0.3
"""Other than `TASK_NUM_CPUS`, so that Ray Data does not join the step with the one that cuts chunks, which runs in few
tasks."""

_SHARD_NUM_CPUS = 0.2
"""Other than `TASK_NUM_CPUS`: Ray Data joins two steps that ask for the same, and frames would wait for a shard where
their encoded files should."""


@dataclass(frozen=True)
class Workers:
    """The processes that a model may use.

    Attributes:
        num_gpus: The GPUs of each actor.
        num_actors: The largest number of actors that the pool and the cluster allow.
        num_tasks: The number of tasks that encode and store at once; None: as many as Ray finds room for.
    """

    pool: Pool
    num_gpus: float
    num_actors: int
    num_tasks: int | None


@dataclass(frozen=True)
class ModelPipeline:
    """The Dataset of one model, with what its steps share.

    Attributes:
        inputs: Reads the images and videos of requests; None: the model takes none.
        num_items_per_chunk: The largest number of requests that an actor is handed at once.
        num_items_per_shard: The largest number of items in a shard; None: every item is a file of its own.
        max_sequence_length: The number of tokens of a prompt that the model takes; None: any number.
    """

    spec: RendererSpec
    workers: Workers
    requests: RequestReader
    inputs: InputTasks | None
    media: MediaTasks
    num_items_per_chunk: int
    num_items_per_shard: int | None
    max_sequence_length: int | None

    def dataset(self, work: list[Work]) -> Dataset:
        """Return the lazy Dataset of receipts (`manifests.schema.receipt_schema`) of the work."""
        rendered = self.rendered(work)
        if self.num_items_per_shard is None:
            receipts = self._in_tasks(rendered, self.media.store, None, TASK_NUM_CPUS)
        else:
            receipts = self._in_shards(rendered, self.num_items_per_shard)
        receipts.set_name(self.spec.run_id)  # by which its run ends it
        return receipts

    def rendered(self, work: list[Work]) -> Dataset:
        """Return the lazy Dataset of rendered frames of the work; see `actors.renderer.Renderer` for the tables."""
        reading = TaskPoolStrategy(_NUM_READING_TASKS)
        requests = ray.data.from_items([{"work": part} for part in work], override_num_blocks=len(work)).map_batches(
            self.requests.read,
            batch_size=1,
            batch_format="numpy",
            num_cpus=TASK_NUM_CPUS,
            compute=reading,
            max_retries=_MAX_RETRIES,
        )
        chunk_size = self._chunk_size(work)
        chunks = in_blocks(requests, chunk_size, TASK_NUM_CPUS, reading, _MAX_RETRIES)
        pool, num_gpus = self.workers.pool, self.workers.num_gpus
        if self.inputs is None:
            return render(chunks, self.spec, pool, num_gpus, chunk_size)
        with_inputs = self._in_tasks(chunks, self.inputs.read, None, _INPUT_NUM_CPUS)
        return render(with_inputs, self.spec, pool, num_gpus, None)  # Ray bounds the size of these tables

    def encoded(self, rendered: Dataset) -> Dataset:
        """Return the lazy Dataset of receipts and encoded media (`actors.media.store.encode_all`) of frames."""
        return self._in_tasks(rendered, self.media.encode, None, TASK_NUM_CPUS)

    def _chunk_size(self, work: list[Work]) -> int:
        """The number of requests per chunk: whole batches, so that only the last batch of the work is short."""
        num_items = sum(len(part.row_numbers) for part in work)
        batch = self.spec.batch or self.spec.settings.reference_batch or 1
        fair_share = math.ceil(num_items / (self.workers.num_actors * _NUM_CHUNKS_PER_ACTOR * batch)) * batch
        return min(max(self.num_items_per_chunk, batch), fair_share, _num_rows_per_chunk(work, batch))

    def _in_shards(self, rendered: Dataset, num_items: int) -> Dataset:
        """Encode frames as they come, and store `num_items` at a time; the last shard may hold fewer."""
        stored = self._in_tasks(self.encoded(rendered), self.media.store_shard, num_items, _SHARD_NUM_CPUS)
        # Ray joins this step with the one before. That one gets exactly `num_items` at a time for it, and its receipts
        # stay together.
        compute = TaskPoolStrategy(self.workers.num_tasks)
        return in_blocks(stored, num_items, _SHARD_NUM_CPUS, compute, _MAX_RETRIES, is_exact=True)

    def _in_tasks(
        self,
        dataset: Dataset,
        step: Callable[[pa.Table], pa.Table | Iterator[pa.Table]],
        batch_size: int | None,
        num_cpus: float,
    ) -> Dataset:
        return dataset.map_batches(
            step,
            batch_size=batch_size,
            batch_format="pyarrow",
            num_cpus=num_cpus,
            compute=TaskPoolStrategy(self.workers.num_tasks),
            max_retries=_MAX_RETRIES,
        )


def render(requests: Dataset, spec: RendererSpec, pool: Pool, num_gpus: float, chunk_size: int | None) -> Dataset:
    """Render requests in a pool of actors; see `actors.renderer.Renderer` for the tables.

    Args:
        requests: A Dataset with the columns `REQUEST_COLUMNS` and others, which are kept.
        num_gpus: The GPUs of each actor.
        chunk_size: The number of requests that an actor is handed at once; None: the Dataset's tables as they are.
    """
    return requests.map_batches(
        _Renderer,
        fn_constructor_args=(spec,),
        batch_size=chunk_size,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            min_size=pool.min_actors,
            max_size=pool.max_actors,
            # one chunk is rendered while the next one waits with the actor
            max_concurrent_calls_per_actor=_NUM_CHUNKS_WITH_ACTOR,
            max_tasks_in_flight_per_actor=_NUM_CHUNKS_WITH_ACTOR,
            enable_true_multi_threading=True,
        ),
        num_cpus=pool.num_cpus,
        num_gpus=num_gpus,
        label_selector=pool.label_selector,
    )


class _Renderer:
    """`actors.renderer.Renderer`, imported when the actor starts, so that the driver needs no torch."""

    def __init__(self, spec: RendererSpec) -> None:
        # Imports make objects that stay; the garbage collector would take a fifth of the time to look through them.
        gc.disable()
        try:
            from rendermill.actors.renderer import Renderer

            registry.implementation(spec.checkpoint.pipeline_class)
        finally:
            gc.enable()
        self._renderer = Renderer(spec)

    def __call__(self, chunk: pa.Table) -> Iterator[pa.Table]:
        return self._renderer(chunk)


def _num_rows_per_chunk(work: list[Work], batch: int) -> int:
    """The number of rows that a chunk may hold by the sizes in the files' footers: whole batches, if one has room."""
    groups = [part.row_group for part in work]
    heaviest = max((group.num_bytes / group.num_rows for group in groups if group.num_rows), default=0)
    num_rows = max(1, int(_NUM_BYTES_PER_CHUNK / max(1, heaviest)))
    return num_rows if num_rows < batch else num_rows // batch * batch
