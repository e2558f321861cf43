"""Receipts that are not yet in a part: in memory, then in small files that carry the number of their lease."""

import pyarrow as pa

from rendermill.manifests.errors import UserError, one_line
from rendermill.manifests.output import layout
from rendermill.manifests.output.fence import FencedFolder
from rendermill.manifests.output.ledger.keyed_rows import KeyedRows
from rendermill.manifests.schema import conformed
from rendermill.manifests.storage.parquet import parquet_bytes
from rendermill.manifests.storage.retries import is_transient


class Pending:
    """The receipts that a run was given, and those that earlier runs left in files.

    Args:
        folder: The output, under this run's lease.
        schema: The columns of receipts.
    """

    def __init__(self, folder: FencedFolder, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self._num_files = 0
        self._files: list[str] = []
        self._stored: list[KeyedRows] = []
        self._unstored: list[KeyedRows] = []

    def __len__(self) -> int:
        return sum(map(len, self.receipts))

    @property
    def receipts(self) -> list[KeyedRows]:
        """All receipts, in the order in which they came."""
        return [*self._stored, *self._unstored]

    def add(self, receipts: pa.Table) -> None:
        """Take receipts, which are lost in a crash before the next `flush`."""
        self._unstored.append(KeyedRows.of(conformed(receipts, self._schema)))

    def flush(self) -> None:
        """Store the receipts that are only in memory as one file."""
        if not self._unstored:
            return
        receipts = KeyedRows.concat(self._unstored)
        name = layout.pending(self._folder.lease.number, self._num_files)
        # Both before the write, which may take effect even if it raises: no other receipts are written under this name,
        # and the file is removed with the others. If the run flushes again, the same receipts are in two files, which a
        # roll-up, also that of a next run, counts once.
        self._num_files += 1
        self._files.append(name)
        self._folder.write(name, parquet_bytes(receipts.table))
        self._stored.append(receipts)
        self._unstored = []

    def recover(self) -> None:
        """Read the files that earlier runs left, except those of leases that were settled before they arrived."""
        settled = self._folder.lease.settled
        for name in [*self._folder.names(layout.FORMER_PENDING), *self._folder.names(layout.PENDING)]:
            number = layout.lease_of(name)
            is_former = name.startswith(f"{layout.FORMER_PENDING}/")
            if not name.endswith(".parquet") or (number is None and not is_former):
                continue
            self._files.append(name)
            if is_former or (number is not None and number > settled):
                self._read(name)

    def _read(self, name: str) -> None:
        try:
            table = conformed(self._folder.read_table(name), self._schema)
        except FileNotFoundError:
            return  # an earlier holder, who was still removing it, had moved it into a part
        except (pa.ArrowException, KeyError, OSError) as error:
            if is_transient(error):
                raise
            raise UserError(
                f"{name} cannot be read ({one_line(error)}); delete it, and the items that it held are rendered again",
                ("output",),
                self._folder.url,
            ) from error
        self._stored.append(KeyedRows.of(table))

    def clear(self) -> None:
        """Remove all receipts and their files, because they are in parts.

        A crash on the way leaves some files. The next run rolls them up again, and finds their items in the parts.
        """
        self._folder.delete(self._files)
        self._files, self._stored, self._unstored = [], [], []
