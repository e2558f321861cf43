"""Receipts on their way into parts: small files, each under the number of the lease that it was written under."""

import pyarrow as pa

from rendermill.manifests.errors import UserError, one_line
from rendermill.manifests.output import layout
from rendermill.manifests.output.fence import FencedFolder
from rendermill.manifests.output.ledger.keyed_rows import KeyedRows
from rendermill.manifests.schema import conformed
from rendermill.manifests.storage.parquet import parquet_bytes
from rendermill.manifests.storage.retries import is_transient


class Pending:
    """The files that a run stores, and those that runs before it left.

    Args:
        folder: the output, under this run's lease.
        schema: of receipts.
    """

    def __init__(self, folder: FencedFolder, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self._num_files = 0
        self._files: list[str] = []
        self.receipts: list[KeyedRows] = []

    def __len__(self) -> int:
        return sum(map(len, self.receipts))

    def store(self, receipts: KeyedRows) -> None:
        """Store receipts as one file."""
        name = layout.pending(self._folder.lease.number, self._num_files)
        self._num_files += 1
        self._files.append(name)  # also if the write fails: it may have had its effect
        self._folder.write(name, parquet_bytes(receipts.table))
        self.receipts.append(receipts)

    def recover(self) -> None:
        """Read what runs that died left, and ignore what they wrote after they were overtaken."""
        lease = self._folder.lease
        for name in [*self._folder.names(layout.FORMER_PENDING), *self._folder.names(layout.PENDING)]:
            number = layout.lease_of(name)
            is_former = name.startswith(f"{layout.FORMER_PENDING}/")
            if not name.endswith(".parquet") or (number is None and not is_former):
                continue
            self._files.append(name)
            if is_former or (number is not None and number > lease.settled):
                self._read(name)

    def _read(self, name: str) -> None:
        try:
            table = conformed(self._folder.read_table(name), self._schema)
        except FileNotFoundError:
            return  # an earlier holder had it in a part already
        except (pa.ArrowException, KeyError, OSError) as error:
            if is_transient(error):
                raise
            raise UserError(
                f"output {self._folder.url}: {name} cannot be read ({one_line(error)}); delete it, and the items "
                "that it held are rendered again"
            ) from error
        self.receipts.append(KeyedRows.of(table))

    def clear(self) -> None:
        """Remove all: everything is in parts."""
        self._folder.delete(self._files)
        self._files, self.receipts = [], []
