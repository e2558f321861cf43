"""The Parquet files of records or of failures, what is in which, and how a follower makes late writes fail."""

import math
import re
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rendermill.manifests.arrow.hash_set import HASH
from rendermill.manifests.errors import LeaseLost, UserError, one_line
from rendermill.manifests.output import layout
from rendermill.manifests.output.fence import FencedFolder
from rendermill.manifests.output.ledger.keyed_rows import KeyedRows, is_among, request_hashes
from rendermill.manifests.schema import conformed
from rendermill.manifests.storage.parquet import parquet_bytes
from rendermill.manifests.storage.retries import is_transient

_NUM_IO_THREADS = 8
_NUM_ROWS_PER_PART = 20_000
"""The rows of a part, about; one that holds fewer is filled up before another begins."""
_INDEX = pa.schema([("key", HASH), ("request_hash", HASH), ("part", pa.int32()), ("origin", pa.int16())])
_LEASE = b"rendermill.lease"
"""Key of a Parquet file's metadata: the number of the lease under which it was written."""


class Origin(NamedTuple):
    """The place where a record was made: its columns of these names."""

    model: str
    device: str
    environment: str


class Origins:
    """Numbers for origins, of which there are few."""

    def __init__(self) -> None:
        self._numbers: dict[Origin, int] = {}
        self._settling = threading.Lock()

    def __getitem__(self, origin: Origin) -> int:
        return self._numbers[origin]

    def of(self, numbers: set[int]) -> list[Origin]:
        """The origins with these numbers."""
        return [origin for origin, number in self._numbers.items() if number in numbers]

    def numbers(self, table: pa.Table) -> pa.Array:
        """The number of each row's origin."""
        columns = [table[name].combine_chunks().dictionary_encode() for name in Origin._fields]
        sizes = [max(1, len(column.dictionary)) for column in columns]
        codes = np.ravel_multi_index([column.indices.to_numpy() for column in columns], sizes)
        _, rows, origin_of_row = np.unique(codes, return_index=True, return_inverse=True)
        with self._settling:
            origins = [Origin(*(column[row].as_py() for column in columns)) for row in rows]
            numbers = [self._numbers.setdefault(origin, len(self._numbers)) for origin in origins]
        return pa.array(np.array(numbers, np.int16)[origin_of_row])


class Parts:
    """All parts of one kind, in one sequence of numbers.

    Args:
        folder: the output, under this run's lease.
        kind: `layout.METADATA` or `layout.FAILURES`.

    Attributes:
        names: of the files, in their order.
        index: key, request_hash, part (a place in `names`) and origin of every row.
    """

    def __init__(self, folder: FencedFolder, kind: str, schema: pa.Schema, origins: Origins) -> None:
        self._folder, self._kind, self._schema, self._origins = folder, kind, schema, origins
        self.names: list[str] = []
        self._stamps: dict[str, str] = {}
        self.index = _INDEX.empty_table()

    @property
    def schema(self) -> pa.Schema:
        """The schema of the rows."""
        return self._schema

    def seal(self) -> None:
        """Make all writes fail that an earlier holder of the lease, who may be cut off, has not finished.

        On S3 every part is replaced by a copy of its own, so that nobody else knows its stamp; and the next number is
        taken, so that nobody else can create it. On a disk `FencedFolder.shut_out_others` has done it.
        """
        if not self._folder.has_conditions:
            return
        sealed: set[str] = set()
        while True:
            stamps = self._list()
            with ThreadPoolExecutor(_NUM_IO_THREADS) as threads:
                list(threads.map(self._seal_one, [item for item in stamps.items() if item[0] not in sealed]))
            sealed.update(stamps)
            name = layout.part(self._kind, _next_number(list(stamps)))
            if self._folder.add(name, self._content(self._schema.empty_table())) is not None:
                return

    def _seal_one(self, part: tuple[str, str]) -> None:
        name, stamp = part
        while True:
            try:
                self._folder.replace(name, self._content(self._table(name)), stamp)
                return
            except LeaseLost:
                self._folder.lease.check()  # else an earlier holder's write came in between
                stamp = self._list()[name]

    def load(self) -> None:
        """Read what every part holds."""
        self._stamps = self._list()
        self.names = list(self._stamps)

        def read(number: int) -> pa.Table:
            return self._entries(KeyedRows.of(self._table(self.names[number], is_index=True)), number)

        with ThreadPoolExecutor(_NUM_IO_THREADS) as threads:
            entries = list(threads.map(read, range(len(self.names))))
        self.index = pa.concat_tables([_INDEX.empty_table(), *entries]).combine_chunks()
        del entries
        pa.default_memory_pool().release_unused()  # what reading the parts took, several times the index

    def begin(self) -> None:
        """Store a part without rows, so that readers of the folder find a table from the first moment on."""
        if not self._list():
            self._folder.add(layout.part(self._kind, 0), self._content(self._schema.empty_table()))

    def held(self, rows: KeyedRows) -> pa.Table:
        """The index entries of the items of these rows."""
        return self.index.filter(is_among(self.index["key"], rows.keys))

    def media_of(self, keys: pa.ChunkedArray, held: pa.Table) -> set[str]:
        """The media that rows of these items name, in the parts that hold some of them."""
        media: set[str] = set()
        for number in held["part"].unique().to_pylist():
            old = self._read(number)
            media.update(old.filter(is_among(old.keys, keys)).table["path"].to_pylist())
        return media

    def rows_of(self, media: Collection[str]) -> pa.Table:
        """The rows that name some of these media."""
        wanted = pa.array(sorted(media), pa.string())

        def read(name: str) -> pa.Table:
            if not pc.any(pc.is_in(self._folder.read_table(name, ["path"])["path"], wanted), min_count=0).as_py():
                return self._schema.empty_table()
            table = self._table(name)
            return table.filter(pc.is_in(table["path"], wanted))

        with ThreadPoolExecutor(_NUM_IO_THREADS) as threads:
            return pa.concat_tables([self._schema.empty_table(), *threads.map(read, self.names if media else [])])

    def replace(self, rows: KeyedRows, held: pa.Table, settled: pa.ChunkedArray) -> None:
        """Write rows into parts, each in the place of its item's older row, the others where there is room.

        Args:
            held: the index entries of all rows that are to go.
            settled: the keys of the items to which they belong.
        """
        is_held = is_among(rows.keys, held["key"])
        for number in held["part"].unique().to_pylist():
            old = self._read(number)
            stays = old.filter(pc.invert(is_among(old.keys, settled)))
            arrives = rows.filter(is_among(rows.keys, old.keys))
            self._write(number, KeyedRows.concat([stays, arrives]))
        self._append(rows.filter(pc.invert(is_held)))

    def _append(self, rows: KeyedRows) -> None:
        """Write new items' rows: fill up the last part, then begin others."""
        last = len(self.names) - 1
        num_in_last = pc.sum(pc.equal(self.index["part"], last)).as_py() or 0
        room = _NUM_ROWS_PER_PART - num_in_last if last >= 0 else 0
        if len(rows) and room > 0:
            self._write(last, KeyedRows.concat([self._read(last), rows.slice(0, room)]))
            rows = rows.slice(room)
        size = math.ceil(len(rows) / max(1, len(rows) // _NUM_ROWS_PER_PART))  # alike, and none with a few rows
        for start in range(0, len(rows), max(1, size)):
            self._begin_another(rows.slice(start, size))

    def _begin_another(self, rows: KeyedRows) -> None:
        name = layout.part(self._kind, _next_number(self.names))
        stamp = self._folder.add(name, self._content(rows.table))
        if stamp is None:
            self._folder.lease.check()
            raise LeaseLost(f"output {self._folder.url}: {name} was made by another run")
        self.names.append(name)
        self._stamps[name] = stamp
        self._note(len(self.names) - 1, rows)

    def _write(self, number: int, rows: KeyedRows) -> None:
        name = self.names[number]
        self._stamps[name] = self._folder.replace(name, self._content(rows.table), self._stamps[name])
        self._note(number, rows)

    def _note(self, number: int, rows: KeyedRows) -> None:
        others = self.index.filter(pc.not_equal(self.index["part"], number))
        self.index = pa.concat_tables([others, self._entries(rows, number)]).combine_chunks()

    def _read(self, number: int) -> KeyedRows:
        return KeyedRows.of(self._table(self.names[number]))

    def _table(self, name: str, is_index: bool = False) -> pa.Table:
        """A part's rows, or their columns that the index is made of."""
        columns = ["id", "sample_index", "request_hash", *Origin._fields] if is_index else self._schema.names
        encoded = Origin._fields if is_index else ()
        try:
            table = self._folder.read_table(name, columns, encoded)
            return table.select(columns).replace_schema_metadata(None) if is_index else conformed(table, self._schema)
        except (pa.ArrowException, KeyError, OSError) as error:
            if is_transient(error) or isinstance(error, FileNotFoundError | PermissionError):
                raise
            raise UserError(
                f"output {self._folder.url}: {name} cannot be read ({one_line(error)}); put it back as it was, or "
                "move it away, and the items that it held are rendered again"
            ) from error

    def _content(self, table: pa.Table) -> bytes:
        return parquet_bytes(table.replace_schema_metadata({_LEASE: str(self._folder.lease.number)}))

    def _entries(self, rows: KeyedRows, part: int) -> pa.Table:
        part_column = pa.array(np.full(len(rows), part, np.int32))
        hashes, origins = request_hashes(rows.table), self._origins.numbers(rows.table)
        return pa.table([rows.keys, hashes, part_column, origins], _INDEX)

    def _list(self) -> dict[str, str]:
        """The stamps of all parts, those named by earlier versions first."""
        found = self._folder.entries(self._kind)
        names = sorted(filter(layout.is_part, found), key=lambda name: (_number(name), name))
        return {name: found[name].stamp for name in names}


def _number(name: str) -> int:
    """A part's place in the sequence; -1 if an earlier version named it."""
    match = re.fullmatch(r"part-(\d+)\.parquet", name.rpartition("/")[2])
    return int(match[1]) if match else -1


def _next_number(names: list[str]) -> int:
    return max(map(_number, names), default=-1) + 1
