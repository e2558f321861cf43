"""Find rows that share an id: repetitions of an earlier row, and conflicts, which differ in their content."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rendermill.jobs.planning.remaining import by_row_group
from rendermill.jobs.planning.scan.rejections import REJECTED_SCHEMA, rejected_rows
from rendermill.jobs.planning.scan.row_group_tasks import map_row_groups
from rendermill.manifests.arrow.hash_set import HASH, as_numpy
from rendermill.manifests.reader.manifest import Manifest
from rendermill.manifests.reader.read_rows import rows_at
from rendermill.manifests.reader.row_group import RowGroup
from rendermill.manifests.rows import content_hash

_CONFLICT = "id: {!r} stands in several rows with different content; give each its own"


@dataclass(frozen=True)
class Duplicates:
    """The duplicates and conflicts among scanned samples; boolean arrays of shape (samples,).

    Attributes:
        is_first: whether the sample's row is the first with its id.
        is_conflict: whether rows with its id differ in their content. Then none of them is rendered, because nothing
            tells which of them is meant.
    """

    is_first: np.ndarray
    is_conflict: np.ndarray

    @property
    def is_valid(self) -> np.ndarray:
        """Whether the sample counts."""
        return self.is_first & ~self.is_conflict

    def num_repeated_rows(self, samples: pa.Table) -> int:
        """Return the number of rows that repeat an earlier row."""
        is_start = samples["sample_index"].to_numpy() == 0
        return int((is_start & ~self.is_first & ~self.is_conflict).sum())


def find_duplicates(manifest: Manifest, samples: pa.Table) -> Duplicates:
    """Compare the rows that share an id with one another; only they are read a second time.

    Args:
        samples: of `scan.rows.SAMPLE_SCHEMA`, in the manifest's order.
    """
    is_start = samples["sample_index"].to_numpy() == 0
    row_of_sample = np.cumsum(is_start) - 1
    groups = _GroupedRows(as_numpy(samples["key"])[is_start])
    if not groups.is_shared.any():
        return Duplicates(np.ones(len(is_start), bool), np.zeros(len(is_start), bool))
    contents = np.zeros(len(groups.first_row), "S16")
    rows = samples.filter(pa.array(is_start)).filter(pa.array(groups.is_shared))
    contents[groups.is_shared] = _content_hashes(manifest, rows)
    is_other = contents != contents[groups.first_row]
    is_first = groups.first_row == np.arange(len(groups.first_row))
    return Duplicates(is_first[row_of_sample], groups.any_of_group(is_other)[row_of_sample])


class _GroupedRows:
    """Rows grouped by their id.

    Args:
        ids: shape (rows,), dtype S16.

    Attributes:
        first_row: shape (rows,); for each row the number of the first one with its id.
        is_shared: shape (rows,); whether another row has the same id.
    """

    def __init__(self, ids: np.ndarray) -> None:
        order = np.argsort(ids, kind="stable")  # stable, so that the first of a group is the first in the manifest
        is_start = np.ones(len(ids), bool)
        is_start[1:] = ids[order][1:] != ids[order][:-1]
        self._group_of_row = np.empty(len(ids), np.int64)
        self._group_of_row[order] = np.cumsum(is_start) - 1
        self.first_row = order[is_start][self._group_of_row]
        self.is_shared = np.bincount(self._group_of_row)[self._group_of_row] > 1

    def any_of_group(self, is_chosen: np.ndarray) -> np.ndarray:
        """Return for each row whether any row with its id is chosen; shape (rows,)."""
        is_chosen_group = np.zeros(len(is_chosen), bool)
        is_chosen_group[self._group_of_row[is_chosen]] = True
        return is_chosen_group[self._group_of_row]


def rejected_conflicts(manifest: Manifest, samples: pa.Table) -> Iterator[pa.Table]:
    """Read rows with conflicts once more, and yield them as tables of rejected rows.

    Args:
        samples: the samples with conflicts.
    """
    return map_row_groups(_rejected_conflicts_of, _places(manifest, samples))


def _rejected_conflicts_of(row_group: RowGroup, row_numbers: np.ndarray) -> pa.Table:
    found = [REJECTED_SCHEMA.empty_table()]
    for rows, places in rows_at(row_group, row_numbers):
        problems = {place: _CONFLICT.format(rows.own[place].get("id")) for place in places}
        found.append(rejected_rows(row_group, rows, problems))
    return pa.concat_tables(found)


def _content_hashes(manifest: Manifest, rows: pa.Table) -> np.ndarray:
    """Read rows once more for the hashes of their contents; shape (rows,), dtype S16."""
    hashes = map_row_groups(_content_hashes_of, _places(manifest, rows))
    return as_numpy(pa.chunked_array(hashes, HASH))


def _content_hashes_of(row_group: RowGroup, row_numbers: np.ndarray) -> pa.Array:
    wanted = rows_at(row_group, row_numbers)
    return pa.array([content_hash(row) for rows, places in wanted for row in rows.whole(places)], HASH)


def _places(manifest: Manifest, rows: pa.Table) -> list[tuple[RowGroup, np.ndarray]]:
    """Return where rows are to be read again."""
    return [(work.row_group, work.row_numbers) for work in by_row_group(rows, manifest.row_groups)]
