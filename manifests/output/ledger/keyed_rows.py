"""Receipts, records and failures with the keys of their items."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rendermill.manifests.arrow.hash_set import HASH, as_numpy, hashes_of_hex
from rendermill.manifests.identity import item_key


@dataclass(frozen=True)
class KeyedRows:
    """Receipts, records or failures, together with their keys, which take long to compute.

    Attributes:
        table: The rows.
        keys: The rows' keys (`identity.item_key`), 16-byte binary, (rows,).
    """

    table: pa.Table
    keys: pa.ChunkedArray

    @classmethod
    def of(cls, table: pa.Table) -> "KeyedRows":
        """Compute the keys of rows."""
        return cls(table, pa.chunked_array([item_keys(table)]))

    @classmethod
    def concat(cls, parts: "Sequence[KeyedRows]") -> "KeyedRows":
        """Return all rows, in their order."""
        keys = pa.chunked_array([chunk for part in parts for chunk in part.keys.chunks], HASH)
        return cls(pa.concat_tables([part.table for part in parts]), keys)

    def __len__(self) -> int:
        return self.table.num_rows

    def filter(self, mask: pa.ChunkedArray) -> "KeyedRows":
        """Return the rows for which the mask is true; nothing is copied if these are all rows."""
        if pc.all(mask, min_count=0).as_py():
            return self
        return KeyedRows(self.table.filter(mask), self.keys.filter(mask))

    def slice(self, start: int, length: int | None = None) -> "KeyedRows":
        """Return `length` rows from a place on, or all that follow if it is None."""
        return KeyedRows(self.table.slice(start, length), self.keys.slice(start, length))

    def take(self, positions: pa.Array) -> "KeyedRows":
        """Return the rows at these positions."""
        return KeyedRows(self.table.take(positions), self.keys.take(positions))

    def select(self, names: list[str]) -> "KeyedRows":
        """Return the rows with these columns only."""
        return KeyedRows(self.table.select(names), self.keys)


def item_keys(table: pa.Table) -> pa.Array:
    """Return the keys (`identity.item_key`) of records, failures or receipts, 16-byte binary, (rows,)."""
    pairs = zip(table["id"].to_pylist(), table["sample_index"].to_pylist(), strict=True)
    return pa.array([item_key(item_id, sample_index) for item_id, sample_index in pairs], HASH)


def request_hashes(table: pa.Table) -> pa.Array:
    """Return the column `request_hash`, which is stored as hex digits, as 16-byte binary, (rows,)."""
    return hashes_of_hex(table["request_hash"].to_pylist())


def is_among(hashes: pa.Array | pa.ChunkedArray, others: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return whether each of the hashes is among others, bool, (hashes,)."""
    return pc.is_in(hashes, others.combine_chunks())


def one_of_each(receipts: KeyedRows) -> KeyedRows:
    """Return one receipt an item: the last record, or the last failure if there is no record.

    An item may have several receipts because Ray may run a task again, which then sends its receipts again.
    """
    keys, is_record = as_numpy(receipts.keys), pc.is_null(receipts.table["error_type"]).to_numpy()
    order = np.lexsort([is_record, keys])  # by key, failures first; stable
    is_last = np.ones(len(keys), bool)
    is_last[:-1] = keys[order][1:] != keys[order][:-1]
    return receipts if is_last.all() else receipts.take(pa.array(np.sort(order[is_last])))
