"""The Parquet files of records or of failures: listing, reading, adding and replacing them under a lease."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import pyarrow as pa

from rendermill.manifests.errors import LeaseLost, UserError, one_line
from rendermill.manifests.output import layout
from rendermill.manifests.output.fence import FencedFolder
from rendermill.manifests.schema import conformed
from rendermill.manifests.storage.parquet import parquet_bytes
from rendermill.manifests.storage.retries import is_transient

_NUM_IO_THREADS = 8
_LEASE = b"rendermill.lease"
"""Key of a Parquet file's metadata: the number of the lease under which it was written."""


class PartFile(NamedTuple):
    """A file, and the stamp of the content that this run knows (`storage.folder.Entry`)."""

    name: str
    stamp: str


class PartFiles:
    """The files of one kind, in one sequence of numbers.

    Args:
        folder: The output, under this run's lease.
        kind: `layout.METADATA` or `layout.FAILURES`.
        schema: The columns of the rows.
    """

    def __init__(self, folder: FencedFolder, kind: str, schema: pa.Schema) -> None:
        self._folder, self._kind = folder, kind
        self.schema = schema
        self._files: list[PartFile] = []

    def __len__(self) -> int:
        return len(self._files)

    @property
    def names(self) -> list[str]:
        """The files' names, in the order of their numbers."""
        return [file.name for file in self._files]

    def refresh(self) -> None:
        """List the files anew, as earlier holders, or an interrupted change of this run, have left them."""
        self._files = self._listed()

    def add_empty(self) -> None:
        """Store a part without rows if there is none, so that readers find a table from the beginning."""
        if not self._listed():
            self._folder.add(layout.part(self._kind, 0), self._content(self.schema.empty_table()))

    def fence(self) -> None:
        """Make all writes fail that an earlier holder of the lease, who may be cut off, has sent but not finished.

        On S3 each part is replaced by a copy that carries this lease's number, so nobody else knows its stamp, and an
        earlier holder's replacement of it fails. Then the next part's number is taken, so nobody else can create it.
        If that fails, an earlier holder's part came first: it is committed, as its writer would have left it, and is
        fenced in another round. A crash on the way changes no rows, and the next run fences again.

        On a disk `FencedFolder.fence_disk` has done the same.
        """
        if not self._folder.has_conditions:
            return
        fenced: set[str] = set()
        while True:
            files = self._listed()
            with ThreadPoolExecutor(_NUM_IO_THREADS) as threads:
                list(threads.map(self._fence_one, [file for file in files if file.name not in fenced]))
            fenced.update(file.name for file in files)
            name = layout.part(self._kind, _next_number(files))
            if self._folder.add(name, self._content(self.schema.empty_table())) is not None:
                return

    def _fence_one(self, file: PartFile) -> None:
        name, stamp = file
        while True:
            try:
                self._folder.replace(name, self._content(self.read(name)), stamp)
                return
            except LeaseLost:
                self._folder.lease.check()  # still held: an earlier holder's write came in between, so copy that one
                stamp = next(listed.stamp for listed in self._listed() if listed.name == name)

    def add(self, table: pa.Table) -> None:
        """Store rows as the next part.

        Raises:
            LeaseLost: Another run has made a part of this number.
        """
        name = layout.part(self._kind, _next_number(self._files))
        stamp = self._folder.add(name, self._content(table))
        if stamp is None:
            self._folder.lease.check()
            raise LeaseLost(f"output {self._folder.url}: {name} was made by another run")
        self._files.append(PartFile(name, stamp))

    def replace(self, place: int, table: pa.Table) -> None:
        """Replace all rows of a part at once: readers find either the old rows or the new ones.

        Args:
            place: The part's place in `names`.

        Raises:
            LeaseLost: Another run has changed the part.
        """
        name, stamp = self._files[place]
        self._files[place] = PartFile(name, self._folder.replace(name, self._content(table), stamp))

    def read(self, name: str) -> pa.Table:
        """Read a part's rows.

        Raises:
            UserError: The file is damaged.
        """
        with self._explained_damage(name):
            return conformed(self._folder.read_table(name, self.schema.names), self.schema)

    def read_columns(self, name: str, columns: list[str], encoded: Sequence[str] = ()) -> pa.Table:
        """Read some columns of a part, as they are stored.

        Args:
            encoded: The columns to return dictionary-encoded.

        Raises:
            UserError: The file is damaged, or lacks a column.
        """
        with self._explained_damage(name):
            return self._folder.read_table(name, columns, encoded).select(columns).replace_schema_metadata(None)

    @contextmanager
    def _explained_damage(self, name: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, KeyError, OSError) as error:
            if is_transient(error) or isinstance(error, FileNotFoundError | PermissionError):
                raise
            raise UserError(
                f"{name} cannot be read ({one_line(error)}); put it back as it was, or move it away, "
                "and the items that it held are rendered again",
                ("output",),
                self._folder.url,
            ) from error

    def _content(self, table: pa.Table) -> bytes:
        return parquet_bytes(table.replace_schema_metadata({_LEASE: str(self._folder.lease.number)}))

    def _listed(self) -> list[PartFile]:
        """List the files, those named by earlier versions first."""
        found = self._folder.entries(self._kind)
        names = sorted(filter(layout.is_part, found), key=lambda name: (_number(name), name))
        return [PartFile(name, found[name].stamp) for name in names]


def _number(name: str) -> int:
    """Return a part's number in the sequence; -1 if an earlier version named it."""
    match = re.fullmatch(r"part-(\d+)\.parquet", name.rpartition("/")[2])
    return int(match[1]) if match else -1


def _next_number(files: Sequence[PartFile]) -> int:
    return max((_number(file.name) for file in files), default=-1) + 1
