"""Scan row groups: validate every row, hash its samples, and say why rows are rejected."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from rendermill.jobs.planning.scan.rejections import REJECTED_SCHEMA, rejected_file, rejected_rows
from rendermill.jobs.planning.scan.row_group_tasks import MAX_ROWS_IN_DRIVER, map_row_groups
from rendermill.manifests.arrow.hash_set import HASH, hashes_of_hex
from rendermill.manifests.errors import RowProblem, one_line
from rendermill.manifests.identity import blake2b_128, item_key
from rendermill.manifests.reader.given import input_values_of
from rendermill.manifests.reader.manifest import Manifest
from rendermill.manifests.reader.read_rows import MAX_ROW_BYTES, Rows, read_rows
from rendermill.manifests.reader.row_group import RowGroup
from rendermill.manifests.request import Shape
from rendermill.manifests.rows import RowValidator
from rendermill.manifests.storage.retries import is_transient

SAMPLE_SCHEMA = pa.schema(
    [
        ("row_group", pa.int32()),
        ("row_number", pa.int64()),
        ("sample_index", pa.int32()),
        ("model", pa.int16()),
        ("shape", pa.dictionary(pa.int32(), pa.string())),
        ("key", HASH),
        ("request_hash", HASH),
        ("inputs", pa.list_(HASH)),
        ("inline_bytes", pa.int64()),
    ]
)
"""One row per sample. `model` is an index into the job's models, and the `key` of a row's first sample identifies its
id. `inputs` are hashes of the images and videos that it names, null if there are none, and `inline_bytes` the size of
those that the manifest itself holds."""

_Scanned: TypeAlias = tuple[int, int, int, Shape, bytes, str, list[bytes] | None, int | None]
"""The columns of `SAMPLE_SCHEMA` of one sample, without the row group."""

_MIN_ROWS_OF_A_LIMIT = 16
"""The number of rows that are read first if there is a limit, as a few rows may be enough."""
_TOO_LARGE = f"its own columns take {{:,}} bytes; a record carries up to {MAX_ROW_BYTES:,}"


def scan_row_groups(
    manifest: Manifest, validator: RowValidator, limit: int | None
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the samples (`SAMPLE_SCHEMA`) and the rejected rows of part after part, in the manifest's order.

    Args:
        limit: the number of samples that are asked for. If it is small, no row group is read further than the caller
            iterates. None: all are asked for.
    """
    scan = _RowGroupScan(validator)
    if limit is not None and limit <= MAX_ROWS_IN_DRIVER:
        for number, row_group in enumerate(manifest.row_groups):
            yield from scan.parts(row_group, number, max(_MIN_ROWS_OF_A_LIMIT, limit))
        return
    yield from map_row_groups(scan, [(row_group, number) for number, row_group in enumerate(manifest.row_groups)])


class _RowGroupScan:
    """The function of a task: scans a whole row group."""

    def __init__(self, validator: RowValidator) -> None:
        self._validator = validator
        self._model_numbers = {model: number for number, model in enumerate(validator.models)}

    def __call__(self, row_group: RowGroup, number: int) -> tuple[pa.Table, pa.Table]:
        samples, rejected = zip(*self.parts(row_group, number), strict=True)
        return pa.concat_tables(samples), pa.concat_tables(rejected)

    def parts(
        self, row_group: RowGroup, number: int, num_rows: int | None = None
    ) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Yield the samples and the rejected rows of some rows after another.

        Args:
            number: the row group's place in the manifest.
            num_rows: the size of the first part, which doubles with every part; None: parts as they are read.
        """
        yield SAMPLE_SCHEMA.empty_table(), REJECTED_SCHEMA.empty_table()
        row_number = row_group.first_row
        try:
            for rows in read_rows(row_group):
                start, end = 0, len(rows.own)
                while start < end:
                    stop = min(end, start + (num_rows or end))
                    yield self._scan_rows(row_group, number, rows, range(start, stop))
                    start, num_rows = stop, num_rows and 2 * num_rows
                row_number += end
        except Exception as error:
            # Arrow has many errors for damaged files; a store that does not answer now is no reason to reject rows.
            if is_transient(error):
                raise
            where = f"row group {row_group.index} cannot be read from row {row_number} on"
            yield SAMPLE_SCHEMA.empty_table(), rejected_file(row_group.file.name, f"{where}: {one_line(error)}")

    def _scan_rows(
        self, row_group: RowGroup, number: int, rows: Rows, places: Sequence[int]
    ) -> tuple[pa.Table, pa.Table]:
        samples: list[_Scanned] = []
        too_large = rows.too_large() if row_group.may_have_large_rows else {}
        problems = {place: _TOO_LARGE.format(size) for place, size in too_large.items() if place in places}
        readable = [place for place in places if place not in too_large]
        for place, row in zip(readable, rows.identified(readable), strict=True):
            try:
                item = self._validator.item(row)
            except RowProblem as problem:
                problems[place] = str(problem)
                continue
            model, shape = self._model_numbers[item.settled.fields["model"]], item.settled.shape
            inputs = _inputs_of(row) if item.inputs else (None, None)
            for sample_index, _, request_hash in item.samples:
                key = item_key(item.id, sample_index)
                samples.append((rows.first_row + place, sample_index, model, shape, key, request_hash, *inputs))
        return _sample_table(number, samples), rejected_rows(row_group, rows, problems, too_large)


def _inputs_of(row: Mapping[str, Any]) -> tuple[list[bytes], int]:
    values = input_values_of(row)
    return [blake2b_128(str(value)) for value in values], sum(value.num_bytes for value in values)


def _sample_table(row_group: int, samples: "list[_Scanned]") -> pa.Table:
    if not samples:
        return SAMPLE_SCHEMA.empty_table()
    row_numbers, sample_indices, models, shapes, keys, request_hashes, inputs, inline_bytes = zip(*samples, strict=True)
    shape_names = {shape: str(shape) for shape in set(shapes)}
    columns = {
        "row_group": np.full(len(samples), row_group, np.int32),
        "row_number": row_numbers,
        "sample_index": sample_indices,
        "model": models,
        "shape": [shape_names[shape] for shape in shapes],
        "key": keys,
        "request_hash": hashes_of_hex(request_hashes),
        "inputs": pa.array(inputs, pa.list_(HASH)),
        "inline_bytes": pa.array(inline_bytes, pa.int64()),
    }
    return pa.table(columns, SAMPLE_SCHEMA)
