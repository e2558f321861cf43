"""The samples that a run still has to render; receipts remove them, each once."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rendermill.manifests.arrow.hash_set import as_numpy
from rendermill.manifests.output.ledger.keyed_rows import request_hashes
from rendermill.manifests.reader.row_group import RowGroup


@dataclass(frozen=True)
class Work:
    """The samples of one row group that one model is to render, in the manifest's order.

    Attributes:
        row_numbers: shape (samples,); a row's number in its file.
        sample_indices: shape (samples,); which sample of its row.
    """

    row_group: RowGroup
    row_numbers: np.ndarray
    sample_indices: np.ndarray


class Outstanding:
    """The samples that have no receipt yet. Takes about 50 bytes for each sample that had none at the start.

    Args:
        to_do: the columns row_group, row_number, sample_index, model, shape and request_hash (16-byte binary), with a
            row for every sample, in the manifest's order.
        row_groups: the list of which `row_group` is an index.
    """

    def __init__(self, to_do: pa.Table, row_groups: list[RowGroup]) -> None:
        self._to_do = to_do.drop_columns(["request_hash"]).unify_dictionaries()
        self._row_groups = row_groups
        keys = as_numpy(to_do["request_hash"])
        self._order = np.argsort(keys)
        self._keys = keys[self._order]
        self._is_outstanding = np.ones(len(keys), bool)

    def __len__(self) -> int:
        return int(self._is_outstanding.sum())

    def take(self, receipts: pa.Table) -> pa.Table:
        """Remove the samples of receipts; return the receipts of samples that were outstanding, the first of each."""
        keys = as_numpy(request_hashes(receipts))
        places = np.minimum(np.searchsorted(self._keys, keys), max(0, len(self._keys) - 1))
        positions = self._order[places]
        is_first = np.zeros(len(keys), bool)
        is_first[np.unique(keys, return_index=True)[1]] = True
        is_new = is_first & (self._keys[places] == keys) & self._is_outstanding[positions]
        self._is_outstanding[positions[is_new]] = False
        return receipts if is_new.all() else receipts.filter(pa.array(is_new))

    def work(self) -> Mapping[str, list[Work]]:
        """Return what is left, by model."""
        return self._by_model(self._to_do.filter(pa.array(self._is_outstanding)))

    def first_of_each_shape(self, num_samples: int) -> Mapping[str, list[Work]]:
        """Return the work of rendering the first N samples of every model and shape, by model."""
        codes = np.stack([self._to_do[name].combine_chunks().indices.to_numpy() for name in ("model", "shape")])
        order = np.lexsort(codes)
        is_start = np.ones(len(order), bool)
        is_start[1:] = (codes[:, order][:, 1:] != codes[:, order][:, :-1]).any(axis=0)
        places = np.arange(len(order))
        place_in_shape = places - np.maximum.accumulate(np.where(is_start, places, 0))
        return self._by_model(self._to_do.take(pa.array(np.sort(order[place_in_shape < num_samples]))))

    def _by_model(self, samples: pa.Table) -> Mapping[str, list[Work]]:
        models = pc.unique(samples["model"]).to_pylist()
        return {
            model: by_row_group(samples.filter(pc.equal(samples["model"], model)), self._row_groups) for model in models
        }


def by_row_group(samples: pa.Table, row_groups: list[RowGroup]) -> list[Work]:
    """Group samples for the tasks that read them.

    Args:
        samples: with the columns row_group, row_number and sample_index, in the manifest's order.
    """
    row_numbers, sample_indices = samples["row_number"].to_numpy(), samples["sample_index"].to_numpy()
    numbers, starts = np.unique(samples["row_group"].to_numpy(), return_index=True)
    ends = [*starts, samples.num_rows][1:]
    return [
        Work(row_groups[number], row_numbers[start:end], sample_indices[start:end])
        for number, start, end in zip(numbers, starts, ends, strict=True)
    ]
