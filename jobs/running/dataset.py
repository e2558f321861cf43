"""One model's Ray Dataset: read → chunk → render → store, as files or in shards → receipts."""

import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy

from rendermill.actors.media.encoding import Encoding
from rendermill.actors.spec import RendererSpec
from rendermill.jobs.cluster.capacity import TASK_NUM_CPUS
from rendermill.jobs.config.job import Pool
from rendermill.jobs.planning.remaining import Work
from rendermill.manifests.reader.read_rows import rows_at
from rendermill.manifests.rows import Item, RowValidator, Sample
from rendermill.manifests.schema import REQUEST_COLUMNS, arrow_schema, receipt_schema
from rendermill.manifests.storage.folder import Folder
from rendermill.models import registry

_NUM_CHUNKS_PER_ACTOR = 4
"""A small job is cut so that every actor gets at least so many chunks, and none waits for another's last."""

_NUM_CHUNKS_WITH_ACTOR = 2

_NUM_ROWS_SORTED_TOGETHER = 8192
_NUM_BYTES_SORTED = 64 * 2**20
_NUM_BYTES_PER_CHUNK = 64 * 2**20
"""The size of a chunk, about; one row may have more."""

_NUM_READING_TASKS = 2
"""Enough for thousands of rows a second; more would only take processors from actors that start."""

_MAX_RETRIES = 30
"""The tries of a task whose process died, for which Ray Data sets no limit; `services.guard` finds the item before."""

_SHARD_NUM_CPUS = 0.2
"""Other than `TASK_NUM_CPUS`: Ray Data makes one step of two that ask for the same, and frames would wait for a shard
where their files should."""


@dataclass(frozen=True)
class ModelPipeline:
    """What the stages of one model share.

    Attributes:
        num_gpus: per actor.
        num_actors: as many as the pool and the cluster allow.
        num_tasks: that encode and store at once; None: as many as Ray finds room for.
        num_items_per_shard: at most; None: every item is a file of its own.
        extra: the manifest's own columns.
        max_sequence_length: tokens of a prompt that the model takes; None: any number.
    """

    spec: RendererSpec
    pool: Pool
    num_gpus: float
    num_actors: int
    num_tasks: int | None
    num_items_per_chunk: int
    encoding: Encoding
    num_items_per_shard: int | None
    validator: RowValidator
    output: Folder
    extra: pa.Schema
    max_sequence_length: int | None = None

    def dataset(self, work: list[Work]) -> Dataset:
        """The lazy Dataset whose blocks are receipts (`manifests.schema.receipt_schema`) of what is to be drawn."""
        drawn = self.drawn(work)
        if self.num_items_per_shard is None:
            return self._in_tasks(drawn, self._store, None, TASK_NUM_CPUS)
        return self._in_shards(drawn, self.num_items_per_shard)

    def drawn(self, work: list[Work]) -> Dataset:
        """The lazy Dataset whose blocks are what was drawn; see `actors.renderer.Renderer` for the tables."""
        num_items = sum(len(part.row_numbers) for part in work)
        batch = self.spec.batch or self.spec.settings.reference_batch or 1
        fair_share = math.ceil(num_items / (self.num_actors * _NUM_CHUNKS_PER_ACTOR * batch)) * batch
        # whole batches, so that only the last is short
        chunk_size = min(max(self.num_items_per_chunk, batch), fair_share, _num_rows_per_chunk(work, batch))
        reading = TaskPoolStrategy(_NUM_READING_TASKS)
        requests = ray.data.from_items([{"work": part} for part in work], override_num_blocks=len(work)).map_batches(
            self._read,
            batch_size=1,
            batch_format="numpy",
            num_cpus=TASK_NUM_CPUS,
            compute=reading,
            max_retries=_MAX_RETRIES,
        )
        chunks = _in_blocks(requests, chunk_size, TASK_NUM_CPUS, reading)
        return rendered(chunks, self.spec, self.pool, self.num_gpus, chunk_size)

    def encoded(self, drawn: Dataset) -> Dataset:
        """The lazy Dataset of receipts and encoded media (`actors.media.store.encode_all`) of what was drawn."""
        return self._in_tasks(drawn, self._encode, None, TASK_NUM_CPUS)

    def _in_shards(self, drawn: Dataset, num_items: int) -> Dataset:
        """Encode what was drawn as it comes, and store so many items at a time; the last shard may hold fewer."""
        stored = self._in_tasks(self.encoded(drawn), self._store_shard, num_items, _SHARD_NUM_CPUS)
        # becomes one step with the one before, hands that one exactly so many items, and keeps its receipts together
        return _in_blocks(stored, num_items, _SHARD_NUM_CPUS, TaskPoolStrategy(self.num_tasks), strict=True)

    def _in_tasks(
        self, dataset: Dataset, step: Callable[[pa.Table], pa.Table], batch_size: int | None, num_cpus: float
    ) -> Dataset:
        compute = TaskPoolStrategy(self.num_tasks)
        return dataset.map_batches(
            step,
            batch_size=batch_size,
            batch_format="pyarrow",
            num_cpus=num_cpus,
            compute=compute,
            max_retries=_MAX_RETRIES,
        )

    def _read(self, batch: dict[str, Any]) -> Iterator[pa.Table]:
        work: Work = batch["work"][0]
        name = f"row group {work.row_group.index} of {work.row_group.file.name}"
        yield from self.spec.reader.steps(name, self._requests(work))

    def _requests(self, work: Work) -> Iterator[pa.Table]:
        """Requests of a row group, sorted by shape within each few thousand, so that chunks hold few shapes."""
        wanted = _indices_by_row(work)
        schema = arrow_schema(REQUEST_COLUMNS, self.extra)
        samples: list[tuple[Item, Sample]] = []
        extra: list[pa.Table] = []
        for rows, places in rows_at(work.row_group, work.row_numbers):
            here: list[tuple[Item, Sample]] = []
            place_of_sample: list[int] = []
            for place, row in zip(places, rows.identified(places), strict=True):
                item = self.validator.item(row)
                sample_indices = wanted[rows.first_row + place]
                here += [(item, sample) for sample in item.samples if sample.sample_index in sample_indices]
                place_of_sample += [place] * (len(here) - len(place_of_sample))
            for carried in rows.carried(place_of_sample, self.extra):
                extra.append(carried)
                samples += here[: carried.num_rows]
                here = here[carried.num_rows :]
                if len(samples) >= _NUM_ROWS_SORTED_TOGETHER or sum(some.nbytes for some in extra) >= _NUM_BYTES_SORTED:
                    yield _sorted_requests(samples, pa.concat_tables(extra), schema)
                    samples, extra = [], []
        if samples:
            yield _sorted_requests(samples, pa.concat_tables(extra), schema)

    def _store(self, rendered: pa.Table) -> pa.Table:
        from rendermill.actors.media.store import store

        receipts = receipt_schema(self.extra)
        return store(rendered, self.output, self.encoding, receipts, self.spec.encoder, self.spec.writer)

    def _encode(self, rendered: pa.Table) -> pa.Table:
        from rendermill.actors.media.store import encode_all

        receipts, patience_seconds = receipt_schema(self.extra), self.output.patience_seconds
        return encode_all(rendered, self.encoding, receipts, self.spec.encoder, patience_seconds)

    def _store_shard(self, encoded: pa.Table) -> pa.Table:
        from rendermill.actors.media.store import store_shard

        return store_shard(encoded, self.output, self.extra, self.spec.shard_writer)


def rendered(requests: Dataset, spec: RendererSpec, pool: Pool, num_gpus: float, chunk_size: int) -> Dataset:
    """Requests drawn by a pool of actors; see `actors.renderer.Renderer` for the tables.

    Args:
        requests: blocks with `REQUEST_COLUMNS` and others, which are kept.
        num_gpus: per actor.
        chunk_size: how many requests an actor is handed at once.
    """
    return requests.map_batches(
        _Renderer,
        fn_constructor_args=(spec,),
        batch_size=chunk_size,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            min_size=pool.min_actors,
            max_size=pool.max_actors,
            # one chunk is drawn while the next one waits with the actor
            max_concurrent_calls_per_actor=_NUM_CHUNKS_WITH_ACTOR,
            max_tasks_in_flight_per_actor=_NUM_CHUNKS_WITH_ACTOR,
            enable_true_multi_threading=True,
        ),
        num_cpus=pool.num_cpus,
        num_gpus=num_gpus,
        label_selector=pool.label_selector,
    )


def _in_blocks(
    dataset: Dataset, num_rows: int, num_cpus: float, compute: TaskPoolStrategy, strict: bool = False
) -> Dataset:
    """The rows in blocks of so many at most, or of exactly so many but for the last.

    Args:
        num_cpus: that a task of this step takes; Ray's own choice is one, which a small machine may never have free.
        compute: as the step before has it, which this one becomes a part of.
    """
    blocks = dataset.repartition(target_num_rows_per_block=num_rows, strict=strict)
    step: Any = blocks._logical_plan.dag
    # there is no public way
    step.ray_remote_args.update(num_cpus=num_cpus, max_retries=_MAX_RETRIES)
    object.__setattr__(step, "compute", compute)
    return blocks


class _Renderer:
    """`actors.renderer.Renderer`, imported when the actor starts: the driver needs no torch."""

    def __init__(self, spec: RendererSpec) -> None:
        gc.disable()  # imports make objects that stay; to look through them again and again takes a fifth of the time
        try:
            from rendermill.actors.renderer import Renderer

            registry.implementation(spec.checkpoint.pipeline_class)
        finally:
            gc.enable()
        self._renderer = Renderer(spec)

    def __call__(self, chunk: pa.Table) -> Iterator[pa.Table]:
        return self._renderer(chunk)


def _num_rows_per_chunk(work: list[Work], batch: int) -> int:
    """How many of the heaviest rows a chunk may hold, by the files' footers: whole batches, where one has room."""
    groups = [part.row_group for part in work]
    heaviest = max((group.num_bytes / group.num_rows for group in groups if group.num_rows), default=0)
    num_rows = max(1, int(_NUM_BYTES_PER_CHUNK / max(1, heaviest)))
    return num_rows if num_rows < batch else num_rows // batch * batch


def _indices_by_row(work: Work) -> dict[int, set[int]]:
    """The sample indices that are wanted of every row, by row number."""
    wanted: dict[int, set[int]] = {}
    for row_number, sample_index in zip(work.row_numbers.tolist(), work.sample_indices.tolist(), strict=True):
        wanted.setdefault(row_number, set()).add(sample_index)
    return wanted


def _sorted_requests(samples: list[tuple[Item, Sample]], extra: pa.Table, schema: pa.Schema) -> pa.Table:
    """Requests by shape.

    Args:
        extra: the manifest's own columns, a row a sample.
        schema: to return.
    """
    order = sorted(range(len(samples)), key=lambda place: samples[place][0].settled.shape)
    in_order = [samples[place] for place in order]
    if extra.num_columns and order != list(range(len(order))):
        extra = extra.take(pa.array(order, pa.int64()))
    own: dict[str, list[Any]] = {
        "id": [item.id for item, _ in in_order],
        "sample_index": [sample.sample_index for _, sample in in_order],
        "prompt": [item.prompt for item, _ in in_order],
        "seed": [sample.seed for _, sample in in_order],
        "request_hash": [sample.request_hash for _, sample in in_order],
    }
    # most samples share the rest: it is written out once and looked up
    settled = {id(item.settled): item.settled for item, _ in in_order}
    numbers = {key: number for number, key in enumerate(settled)}
    number_of_sample = pa.array([numbers[id(item.settled)] for item, _ in in_order])

    def column(field: pa.Field) -> pa.Array | pa.ChunkedArray:
        if field.name in own:
            return pa.array(own[field.name], field.type)
        if field.name in extra.schema.names:
            return extra[field.name]
        return pa.array([some.fields[field.name] for some in settled.values()], field.type).take(number_of_sample)

    return pa.table([column(field) for field in schema], schema)
