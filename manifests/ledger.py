"""What is finished: loads it, commits receipts, and keeps `metadata/` and `failures/` free of doubles.

Only the driver writes here. Receipts are stored as small files in `_pending/` while they are few, and rolled
up into parts; a crash between any two steps leaves files from which the next run goes on without a lost or doubled
record.
"""

import json
import math
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import layout
from manifests.hash_set import HASH, as_numpy, hashes_of_hex
from manifests.identity import item_key
from manifests.output_format import read_format, write_format
from manifests.schema import RECORD_COLUMNS, arrow_schema, conformed, receipt_schema
from manifests.shards import StaleShards, find_stale_shards
from manifests.storage import Folder, first_contact, parquet_bytes

_NUM_IO_THREADS = 8
_NUM_ROWS_PER_PART = 20_000
"""About so many; one that holds fewer is filled up before another begins."""
_PART_INDEX = pa.schema([("key", HASH), ("request_hash", HASH), ("part", pa.int32()), ("origin", pa.int16())])


@dataclass(frozen=True)
class _Rows:
    """Receipts, records or failures, and their keys, which take long to compute.

    Attributes:
        keys: of the rows (`identity.item_key`), 16-byte binary.
    """

    table: pa.Table
    keys: pa.ChunkedArray

    @classmethod
    def of(cls, table: pa.Table) -> "_Rows":
        """Rows whose keys are not known yet."""
        return cls(table, pa.chunked_array([item_keys(table)]))

    @classmethod
    def concat(cls, parts: "Sequence[_Rows]") -> "_Rows":
        """All of them, in order."""
        keys = pa.chunked_array([chunk for part in parts for chunk in part.keys.chunks], HASH)
        return cls(pa.concat_tables([part.table for part in parts]), keys)

    def __len__(self) -> int:
        return self.table.num_rows

    def filter(self, mask: pa.ChunkedArray) -> "_Rows":
        """Those for which the mask is true; mostly all, and then nothing is copied."""
        if pc.all(mask, min_count=0).as_py():
            return self
        return _Rows(self.table.filter(mask), self.keys.filter(mask))

    def slice(self, start: int, length: int | None = None) -> "_Rows":
        """So many from a place on; None: all that follow."""
        return _Rows(self.table.slice(start, length), self.keys.slice(start, length))

    def take(self, positions: pa.Array) -> "_Rows":
        """Those in these positions."""
        return _Rows(self.table.take(positions), self.keys.take(positions))

    def select(self, names: list[str]) -> "_Rows":
        """With these columns alone."""
        return _Rows(self.table.select(names), self.keys)


class Origin(NamedTuple):
    """Where a record was made: its columns of these names."""

    model: str
    device: str
    environment: str


class Ledger:
    """The finished items of one output folder.

    Args:
        folder: the output.
        run_id: names the files that this run writes.
        extra: the manifest's own columns.
        media_layout: how media are stored.

    Raises:
        UserError: the folder cannot be written, was made by a newer rendermill, or has another layout, or extra columns
            of other types.
    """

    def __init__(self, folder: Folder, run_id: str, extra: pa.Schema, media_layout: layout.Layout = "files") -> None:
        self._folder = folder
        self._run_id = run_id
        self._has_shards = media_layout == "webdataset"
        self._num_files = {layout.METADATA: 0, layout.FAILURES: 0, layout.PENDING: 0}
        self.extra = self._settle_format(extra, media_layout)
        self._schemas = _schemas(self.extra)
        self._unflushed: list[_Rows] = []
        self._pending: list[_Rows] = []
        self._pending_files: list[str] = []
        self._stale_media: set[str] = set()
        self._stale_media_files: list[str] = []
        self._part_names: dict[str, list[str]] = {}
        self._index: dict[str, pa.Table] = {}
        self._origins: dict[Origin, int] = {}
        self._settling_origins = threading.Lock()
        for kind in (layout.METADATA, layout.FAILURES):
            self._load_index(kind)
        self._recover_pending()

    @property
    def folder(self) -> Folder:
        """The output."""
        return self._folder

    @property
    def keys(self) -> pa.ChunkedArray:
        """Keys (`identity.item_key`) of the items that have a record."""
        return self._index[layout.METADATA]["key"]

    @property
    def origins(self) -> list[Origin]:
        """Where the records were made."""
        present = set(self._index[layout.METADATA]["origin"].unique().to_pylist())
        return [origin for origin, number in self._origins.items() if number in present]

    def finished(self, but: Collection[Origin] = ()) -> pa.ChunkedArray:
        """Request hashes of the records, as 16-byte binary, but for those made elsewhere."""
        index = self._index[layout.METADATA]
        if but:
            numbers = pa.array([self._origins[origin] for origin in but], pa.int16())
            index = index.filter(pc.invert(pc.is_in(index["origin"], numbers)))
        return index["request_hash"]

    @property
    def failed(self) -> pa.ChunkedArray:
        """Request hashes of the failures, as 16-byte binary."""
        return self._index[layout.FAILURES]["request_hash"]

    @property
    def num_pending(self) -> int:
        """Receipts that are not yet in a part."""
        return sum(map(len, (*self._pending, *self._unflushed)))

    def add(self, receipts: pa.Table) -> None:
        """Take receipts (`schema.receipt_schema`) from the pipeline. Nothing is stored until `flush`."""
        schema = self._schemas[layout.FAILURES]
        self._unflushed.append(_Rows.of(receipts.select(schema.names).cast(schema)))

    def doubt(self, receipts: pa.Table) -> None:
        """Take note, before the next flush, of receipts whose items others have brought: their shards hold doubles."""
        if self._has_shards:
            self._note_stale_media(receipts["path"].drop_null().unique().to_pylist())

    def flush(self) -> None:
        """Store what was added since the last flush as one file in `_pending/`."""
        if not self._unflushed:
            return
        receipts = _Rows.concat(self._unflushed)
        name = layout.pending(self._run_id, self._next_number(layout.PENDING))
        self._folder.write(name, parquet_bytes(receipts.table))
        self._pending_files.append(name)
        self._pending.append(receipts)
        self._unflushed = []

    def roll_up(self) -> None:
        """Move everything pending into parts: each item's new outcome takes the place of its older one.

        The media of records that give way are deleted last, and noted first, so that a crash leaves none behind. In
        shards they stay until `stale_shards` is asked for.
        """
        arrived = [*self._pending, *self._unflushed]
        if arrived:
            receipts = _one_of_each(_Rows.concat(arrived))
            is_record = pc.is_null(receipts.table["error_type"])
            records = receipts.filter(is_record).select(self._schemas[layout.METADATA].names)
            failures = receipts.filter(pc.invert(is_record))
            is_drawn = _is_among(request_hashes(failures.table), self.finished())
            failures = failures.filter(pc.invert(is_drawn))
            held_records, held_failures = self._held(layout.METADATA, records), self._held(layout.FAILURES, receipts)
            if held_records.num_rows or held_failures.num_rows:
                self.flush()  # other rows give way in several steps, and a crash on the way must find these again
            self._note_stale_media(self._replaced_media(records, held_records))
            self._replace(layout.METADATA, records, held_records, records.keys)
            self._replace(layout.FAILURES, failures, held_failures, receipts.keys)
        if not self._has_shards:
            self._folder.delete(self._stale_media)
            self.forget_stale_media()
        self._folder.delete(self._pending_files)
        self._pending, self._pending_files, self._unflushed = [], [], []

    def drop(self, keys: pa.Array) -> int:
        """Remove the records of items, so that the next run renders them again.

        Args:
            keys: `item_keys` of the items, 16-byte binary.

        Returns:
            How many records were removed.
        """
        self.roll_up()
        keys = pa.chunked_array([keys], HASH)
        index = self._index[layout.METADATA]
        held = index.filter(_is_among(index["key"], keys))
        nothing = _Rows.of(self._schemas[layout.METADATA].empty_table())
        self._note_stale_media(self._media_of(keys, held))
        self._replace(layout.METADATA, nothing, held, keys)
        self.roll_up()
        return held.num_rows

    def stale_shards(self) -> StaleShards:
        """What to remove from the shards: to be asked after `roll_up`, while nothing is being stored.

        Takes a listing of the media, and two columns of the parts.
        """
        if not self._has_shards:
            return StaleShards([], {})
        return find_stale_shards(self._folder, self._part_names[layout.METADATA], self._stale_media)

    def forget_stale_media(self) -> None:
        """All that is stale was removed."""
        self._folder.delete(self._stale_media_files)
        self._stale_media, self._stale_media_files = set(), []

    def _settle_format(self, extra: pa.Schema, media_layout: layout.Layout) -> pa.Schema:
        """Keep to the output's format, or settle it on its first run; returns the extra columns of the output."""
        with first_contact(f"output {self._folder.url}: cannot be written"):
            settled = read_format(self._folder, extra, media_layout)
            if settled is None:
                # readers of `metadata/` find a table from the first moment on
                for kind, schema in _schemas(extra).items():
                    name = layout.part(kind, self._run_id, self._next_number(kind))
                    self._folder.write(name, parquet_bytes(schema.empty_table()))
                write_format(self._folder, extra, media_layout)
        return extra if settled is None else settled

    def _load_index(self, kind: str) -> None:
        names = [name for name in self._folder.names(kind) if name.endswith(".parquet") and "/part-" in name]

        def read(number: int) -> pa.Table:
            columns = ["id", "sample_index", "request_hash", *Origin._fields]
            return self._index_entries(
                _Rows.of(self._folder.read_table(names[number], columns, Origin._fields)), number
            )

        with ThreadPoolExecutor(_NUM_IO_THREADS) as threads:
            entries = list(threads.map(read, range(len(names))))
        self._part_names[kind] = names
        self._index[kind] = pa.concat_tables([_PART_INDEX.empty_table(), *entries]).combine_chunks()
        del entries
        pa.default_memory_pool().release_unused()  # what reading the parts took, several times the index

    def _recover_pending(self) -> None:
        """Roll up what a run that died left in `_pending/`; what it had rolled up already takes its own place again."""
        for name in [*self._folder.names(layout.FORMER_PENDING), *self._folder.names(layout.PENDING)]:
            if name.endswith(".json"):
                self._stale_media_files.append(name)
                self._stale_media.update(json.loads(self._folder.read(name) or b"[]"))
            else:
                self._pending_files.append(name)
                receipts = conformed(self._folder.read_table(name), self._schemas[layout.FAILURES])
                self._pending.append(_Rows.of(receipts))
        self.roll_up()

    def _held(self, kind: str, rows: _Rows) -> pa.Table:
        """The index entries of the items of these rows that a part holds already."""
        index = self._index[kind]
        return index.filter(_is_among(index["key"], rows.keys))

    def _replaced_media(self, records: _Rows, held: pa.Table) -> set[str]:
        """The media of the records that these ones replace."""
        return self._media_of(records.keys, held).difference(records.table["path"].to_pylist())

    def _media_of(self, keys: pa.ChunkedArray, held: pa.Table) -> set[str]:
        """The media that records of these items name, in the parts that hold some of them."""
        media: set[str] = set()
        for number in held["part"].unique().to_pylist():
            old = self._read_part(layout.METADATA, number)
            media.update(old.filter(_is_among(old.keys, keys)).table["path"].to_pylist())
        return media

    def _note_stale_media(self, media: Collection[str]) -> None:
        """Write down media before a record that makes them stale is written."""
        if not media:
            return
        name = layout.stale_media(self._run_id, self._next_number(layout.PENDING))
        self._folder.write(name, json.dumps(sorted(media)).encode())
        self._stale_media_files.append(name)
        self._stale_media.update(media)

    def _replace(self, kind: str, rows: _Rows, held: pa.Table, settled: pa.ChunkedArray) -> None:
        """Write rows into parts, each in the place of its item's older row, the others where there is room.

        Args:
            held: the index entries of all rows that are to go.
            settled: the keys of the items to which they belong.
        """
        is_held = _is_among(rows.keys, held["key"])
        for number in held["part"].unique().to_pylist():
            old = self._read_part(kind, number)
            stays = old.filter(pc.invert(_is_among(old.keys, settled)))
            arrives = rows.filter(_is_among(rows.keys, old.keys))
            self._write_part(kind, number, _Rows.concat([stays, arrives]))
        self._append(kind, rows.filter(pc.invert(is_held)))

    def _append(self, kind: str, rows: _Rows) -> None:
        """Write new items' rows: fill up the last part, then begin others."""
        last = len(self._part_names[kind]) - 1
        num_in_last = pc.sum(pc.equal(self._index[kind]["part"], last)).as_py() or 0
        room = _NUM_ROWS_PER_PART - num_in_last if last >= 0 else 0
        if len(rows) and room > 0:
            self._write_part(kind, last, _Rows.concat([self._read_part(kind, last), rows.slice(0, room)]))
            rows = rows.slice(room)
        size = math.ceil(len(rows) / max(1, len(rows) // _NUM_ROWS_PER_PART))  # alike, and none with a few rows
        for start in range(0, len(rows), max(1, size)):
            self._part_names[kind].append(layout.part(kind, self._run_id, self._next_number(kind)))
            self._write_part(kind, len(self._part_names[kind]) - 1, rows.slice(start, size))

    def _read_part(self, kind: str, number: int) -> _Rows:
        return _Rows.of(conformed(self._folder.read_table(self._part_names[kind][number]), self._schemas[kind]))

    def _write_part(self, kind: str, number: int, rows: _Rows) -> None:
        self._folder.write(self._part_names[kind][number], parquet_bytes(rows.table))
        others = self._index[kind].filter(pc.not_equal(self._index[kind]["part"], number))
        self._index[kind] = pa.concat_tables([others, self._index_entries(rows, number)]).combine_chunks()

    def _index_entries(self, rows: _Rows, part: int) -> pa.Table:
        part_column = pa.array(np.full(len(rows), part, np.int32))
        hashes, origins = request_hashes(rows.table), self._origin_numbers(rows.table)
        return pa.table([rows.keys, hashes, part_column, origins], _PART_INDEX)

    def _origin_numbers(self, table: pa.Table) -> pa.Array:
        """For every row, the number under which `_origins` has where it was made."""
        columns = [table[name].combine_chunks().dictionary_encode() for name in Origin._fields]
        sizes = [max(1, len(column.dictionary)) for column in columns]
        codes = np.ravel_multi_index([column.indices.to_numpy() for column in columns], sizes)
        _, rows, origin_of_row = np.unique(codes, return_index=True, return_inverse=True)
        with self._settling_origins:
            origins = [Origin(*(column[row].as_py() for column in columns)) for row in rows]
            numbers = [self._origins.setdefault(origin, len(self._origins)) for origin in origins]
        return pa.array(np.array(numbers, np.int16)[origin_of_row])

    def _next_number(self, kind: str) -> int:
        number = self._num_files[kind]
        self._num_files[kind] += 1
        return number


def _schemas(extra: pa.Schema) -> dict[str, pa.Schema]:
    return {layout.METADATA: arrow_schema(RECORD_COLUMNS, extra), layout.FAILURES: receipt_schema(extra)}


def item_keys(table: pa.Table) -> pa.Array:
    """The keys (`identity.item_key`) of records, failures or receipts, 16-byte binary."""
    pairs = zip(table["id"].to_pylist(), table["sample_index"].to_pylist(), strict=True)
    return pa.array([item_key(item_id, sample_index) for item_id, sample_index in pairs], HASH)


def request_hashes(table: pa.Table) -> pa.Array:
    """The column `request_hash` of records or receipts, hex digits there, as 16-byte binary."""
    return hashes_of_hex(table["request_hash"].to_pylist())


def _is_among(hashes: pa.Array | pa.ChunkedArray, others: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Which of the hashes are among others."""
    return pc.is_in(hashes, others.combine_chunks())


def _one_of_each(receipts: _Rows) -> _Rows:
    """One receipt an item, the last, and a record rather than a failure.

    A block that Ray runs again sends its receipts again.
    """
    keys, is_record = as_numpy(receipts.keys), pc.is_null(receipts.table["error_type"]).to_numpy()
    order = np.lexsort([is_record, keys])  # by key, failures first; stable
    is_last = np.ones(len(keys), bool)
    is_last[:-1] = keys[order][1:] != keys[order][:-1]
    return receipts if is_last.all() else receipts.take(pa.array(np.sort(order[is_last])))
