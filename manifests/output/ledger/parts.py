"""The rows of all parts of one kind: an index of them in memory, and where new rows go."""

import math
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rendermill.manifests.arrow.hash_set import HASH
from rendermill.manifests.output.ledger.keyed_rows import KeyedRows, is_among, request_hashes
from rendermill.manifests.output.ledger.origins import Origin, Origins
from rendermill.manifests.output.ledger.part_files import PartFiles

_NUM_IO_THREADS = 8
_NUM_ROWS_PER_PART = 20_000
"""The approximate number of rows of a part; one that holds fewer is filled up before another begins."""
_INDEX = pa.schema([("key", HASH), ("request_hash", HASH), ("part", pa.int32()), ("origin", pa.int16())])


class Parts:
    """The rows of one kind.

    Args:
        files: The files that hold the rows.
        origins: Numbers the rows' origins.

    Attributes:
        index: The columns key, request_hash, part (a place in `files.names`) and origin of every row.
    """

    def __init__(self, files: PartFiles, origins: Origins) -> None:
        self.files = files
        self._origins = origins
        self.index = _INDEX.empty_table()

    def load(self) -> None:
        """Read the index of every part; store an empty part if there is none."""
        self.files.add_empty()
        self.files.refresh()
        columns = ["id", "sample_index", "request_hash", *Origin._fields]

        def read(place: int, name: str) -> pa.Table:
            rows = KeyedRows.of(self.files.read_columns(name, columns, encoded=Origin._fields))
            return self._index_of(rows, place)

        names = self.files.names
        with ThreadPoolExecutor(_NUM_IO_THREADS) as threads:
            entries = list(threads.map(read, range(len(names)), names))
        self.index = pa.concat_tables([_INDEX.empty_table(), *entries]).combine_chunks()
        del entries
        pa.default_memory_pool().release_unused()  # reading the parts took several times the index's size

    def held(self, keys: pa.ChunkedArray) -> pa.Table:
        """Return the index entries of the items with these keys."""
        return self.index.filter(is_among(self.index["key"], keys))

    def media_of(self, keys: pa.ChunkedArray, held: pa.Table) -> set[str]:
        """Return the media that the rows of some items name.

        Args:
            keys: The items' keys.
            held: The index entries of the items, which tell the parts to read.
        """
        media: set[str] = set()
        for place in held["part"].unique().to_pylist():
            rows = self._read(place)
            media.update(rows.filter(is_among(rows.keys, keys)).table["path"].to_pylist())
        return media

    def rows_of(self, media: Collection[str]) -> pa.Table:
        """Return the rows that name some of these media."""
        wanted = pa.array(sorted(media), pa.string())

        def read(name: str) -> pa.Table:
            paths = self.files.read_columns(name, ["path"])["path"]
            if not pc.any(pc.is_in(paths, wanted), min_count=0).as_py():
                return self.files.schema.empty_table()
            table = self.files.read(name)
            return table.filter(pc.is_in(table["path"], wanted))

        with ThreadPoolExecutor(_NUM_IO_THREADS) as threads:
            found = threads.map(read, self.files.names if media else [])
            return pa.concat_tables([self.files.schema.empty_table(), *found])

    def replace(self, rows: KeyedRows, held: pa.Table, keys: pa.ChunkedArray) -> None:
        """Remove the rows of some items, and write new rows: each in its item's place, others in parts with room.

        Every part is replaced at once, and an item's new row is written to the part that holds its old one. So at any
        moment, also after a crash between two parts, an item has its old row or its new one, never both or none. Call
        it again after a crash with the same rows, and the items already written are found in the index and replaced by
        themselves.

        Args:
            rows: The new rows, one an item.
            held: The index entries of all rows to remove.
            keys: The keys of the items whose rows are removed; those of `rows` are among them.
        """
        is_held = is_among(rows.keys, held["key"])
        for place in held["part"].unique().to_pylist():
            old = self._read(place)
            stays = old.filter(pc.invert(is_among(old.keys, keys)))
            arrives = rows.filter(is_among(rows.keys, old.keys))
            self._write(place, KeyedRows.concat([stays, arrives]))
        self._append(rows.filter(pc.invert(is_held)))

    def _append(self, rows: KeyedRows) -> None:
        """Write the rows of new items: fill up the last part, then begin others."""
        last = len(self.files) - 1
        num_in_last = pc.sum(pc.equal(self.index["part"], last)).as_py() or 0
        room = _NUM_ROWS_PER_PART - num_in_last if last >= 0 else 0
        if len(rows) and room > 0:
            self._write(last, KeyedRows.concat([self._read(last), rows.slice(0, room)]))
            rows = rows.slice(room)
        size = math.ceil(len(rows) / max(1, len(rows) // _NUM_ROWS_PER_PART))  # equal sizes, no part with a few rows
        for start in range(0, len(rows), max(1, size)):
            part = rows.slice(start, size)
            self.files.add(part.table)
            self._update_index(len(self.files) - 1, part)

    def _write(self, place: int, rows: KeyedRows) -> None:
        self.files.replace(place, rows.table)
        self._update_index(place, rows)

    def _update_index(self, place: int, rows: KeyedRows) -> None:
        others = self.index.filter(pc.not_equal(self.index["part"], place))
        self.index = pa.concat_tables([others, self._index_of(rows, place)]).combine_chunks()

    def _read(self, place: int) -> KeyedRows:
        return KeyedRows.of(self.files.read(self.files.names[place]))

    def _index_of(self, rows: KeyedRows, place: int) -> pa.Table:
        part = pa.array(np.full(len(rows), place, np.int32))
        return pa.table([rows.keys, request_hashes(rows.table), part, self._origins.numbers(rows.table)], _INDEX)
