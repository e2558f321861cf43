"""Reads the rows that are to be rendered from a manifest and makes tables of requests, in tasks of Ray Data."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from rendermill.actors.services.guard import Guard
from rendermill.jobs.planning.remaining import Work
from rendermill.manifests.reader.read_rows import Rows, rows_at
from rendermill.manifests.rows import Item, RowValidator, Sample
from rendermill.manifests.schema import REQUEST_COLUMNS, InputColumn, arrow_schema, inline_column

_NUM_ROWS_SORTED_TOGETHER = 8192
_NUM_BYTES_SORTED_TOGETHER = 64 * 2**20


@dataclass(frozen=True)
class RequestReader:
    """Makes the tables of requests of one model.

    Attributes:
        model: The model's name in the job file.
        validator: Turns rows into items.
        guard: Finds the row group over which a reading process dies.
        extra: The manifest's own columns, which requests carry along.
    """

    model: str
    validator: RowValidator
    guard: Guard
    extra: pa.Schema

    def read(self, batch: dict[str, Any]) -> Iterator[pa.Table]:
        """Read one part of the work: `batch["work"]` holds one `Work`. This is a step of a Dataset."""
        work: Work = batch["work"][0]
        # With the model, as the readers of several models may have one row group in hand at the same time.
        name = f"row group {work.row_group.index} of {work.row_group.file.name} for {self.model}"
        yield from self.guard.steps(name, self.tables(work))

    def tables(self, work: Work) -> Iterator[pa.Table]:
        """Make tables of `REQUEST_COLUMNS`, the own columns and `inline_column`s, one row per sample.

        Within each table requests are sorted by shape, so that a chunk of them holds few shapes.
        """
        wanted = _wanted_samples(work)
        inputs = self.validator.models[self.model].inputs
        schema = arrow_schema(REQUEST_COLUMNS, pa.schema([*self.extra, *map(_inline_field, inputs, inputs.values())]))
        buffer = _Buffer()
        for rows, places in rows_at(work.row_group, work.row_numbers):
            for samples, extra in self._samples(rows, places, wanted):
                buffer.add(samples, extra)
                if buffer.is_full:
                    yield buffer.take(schema)
        if buffer.samples:
            yield buffer.take(schema)

    def _samples(
        self, rows: Rows, places: list[int], wanted: dict[int, set[int]]
    ) -> Iterator[tuple[list[tuple[Item, Sample]], pa.Table]]:
        """Yield the wanted samples with their own columns, in parts whose own columns take a bounded size."""
        samples: list[tuple[Item, Sample]] = []
        place_of_sample: list[int] = []
        for place, row in zip(places, rows.identified(places), strict=True):
            item = self.validator.item(row)
            sample_indices = wanted[rows.first_row + place]
            samples += [(item, sample) for sample in item.samples if sample.sample_index in sample_indices]
            place_of_sample += [place] * (len(samples) - len(place_of_sample))
        begin = 0
        for some in rows.bounded(place_of_sample):
            for extra in rows.carried(some, self.extra):
                end = begin + extra.num_rows
                yield samples[begin:end], self._with_inline(extra, rows, place_of_sample[begin:end])
                begin = end

    def _with_inline(self, extra: pa.Table, rows: Rows, places: list[int]) -> pa.Table:
        """Append the bytes of images and videos that the manifest itself holds."""
        inputs = self.validator.models[self.model].inputs
        if not inputs:
            return extra
        columns = dict(zip(extra.column_names, extra.columns, strict=True))
        for (name, column), inline in zip(inputs.items(), rows.inline(places, [*inputs]), strict=True):
            columns[inline_column(name)] = _as_declared(inline, _inline_field(name, column).type)
        return pa.table(columns)


@dataclass
class _Buffer:
    """Samples that are to be sorted together, and a table of own columns for each part of them."""

    samples: list[tuple[Item, Sample]] = field(default_factory=list)
    extra: list[pa.Table] = field(default_factory=list)

    def add(self, samples: list[tuple[Item, Sample]], extra: pa.Table) -> None:
        self.samples += samples
        self.extra.append(extra)

    @property
    def is_full(self) -> bool:
        num_bytes = sum(table.nbytes for table in self.extra)
        return len(self.samples) >= _NUM_ROWS_SORTED_TOGETHER or num_bytes >= _NUM_BYTES_SORTED_TOGETHER

    def take(self, schema: pa.Schema) -> pa.Table:
        """Make the table of all samples, and become empty."""
        table = _sorted_requests(self.samples, pa.concat_tables(self.extra), schema)
        self.samples, self.extra = [], []
        return table


def _inline_field(name: str, column: InputColumn) -> pa.Field:
    data_type = pa.list_(pa.large_binary()) if column.is_list else pa.large_binary()
    return pa.field(inline_column(name), data_type)


def _as_declared(inline: pa.Array, data_type: pa.DataType) -> pa.Array:
    """Return bytes of inputs as an input of its kind has them: one picture as a list of one, and the reverse."""
    if inline.type == data_type:
        return inline
    if pa.types.is_list(data_type):
        return pa.array([None if value is None else [value] for value in inline.to_pylist()], data_type)
    return pa.array([value[0] if value else None for value in inline.to_pylist()], data_type)


def _wanted_samples(work: Work) -> dict[int, set[int]]:
    """Return the indices of the samples that are wanted of each row, by row number."""
    wanted: dict[int, set[int]] = {}
    for row_number, sample_index in zip(work.row_numbers.tolist(), work.sample_indices.tolist(), strict=True):
        wanted.setdefault(row_number, set()).add(sample_index)
    return wanted


def _sorted_requests(samples: list[tuple[Item, Sample]], extra: pa.Table, schema: pa.Schema) -> pa.Table:
    """Make the table of some samples, sorted by shape.

    Args:
        extra: The manifest's own columns, one row per sample.
        schema: The schema of the result.
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
        "inputs": [item.inputs for item, _ in in_order],
    }
    # most samples share the other fields, so each set of values is converted once and then taken by number
    settled = {id(item.settled): item.settled for item, _ in in_order}
    numbers = {key: number for number, key in enumerate(settled)}
    number_of_sample = pa.array([numbers[id(item.settled)] for item, _ in in_order])

    def column(field: pa.Field) -> pa.Array | pa.ChunkedArray:
        if field.name in own:
            return pa.array(own[field.name], field.type)
        if field.name in extra.schema.names:
            return extra[field.name]
        return pa.array([some.fields.get(field.name) for some in settled.values()], field.type).take(number_of_sample)

    return pa.table([column(field) for field in schema], schema)
