"""The ledger: the finished items of an output, and the steps in which receipts become records.

Only the driver writes here, under its lease. Receipts are first stored as small files in `_pending/`, and from time to
time rolled up into the parts of `metadata/` and `failures/`. Beside each step stands what a crash between it and the
next leaves behind, and why no record is lost or doubled. A write of a run that was overtaken is stopped by
`manifests.output.fence`.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from rendermill.manifests.arrow.hash_set import HASH
from rendermill.manifests.output import layout
from rendermill.manifests.output.fence import FencedFolder
from rendermill.manifests.output.format import ensure_format
from rendermill.manifests.output.ledger.keyed_rows import KeyedRows, is_among, one_of_each, request_hashes
from rendermill.manifests.output.ledger.origins import Origin, Origins
from rendermill.manifests.output.ledger.part_files import PartFiles
from rendermill.manifests.output.ledger.parts import Parts
from rendermill.manifests.output.ledger.pending import Pending
from rendermill.manifests.output.ledger.stale_media import StaleMedia
from rendermill.manifests.schema import RECORD_COLUMNS, arrow_schema, receipt_schema
from rendermill.manifests.storage.errors import as_user_errors

_DELETION_DELAY_SECONDS = 900.0


class Ledger:
    """The finished items of one output folder.

    Args:
        folder: The output, under this run's lease.
        extra: The manifest's own columns.
        media_layout: How media are stored.
        deletion_delay_seconds: The time that media stay after no record names them any more.

    Attributes:
        folder: The output.
        extra: The extra columns of the output, with the types that its first run gave them.
        records: The rows in `metadata/`.
        stale_media: The media that no record names any more.
        has_shards: Whether media are stored in shards.

    Raises:
        UserError: The folder cannot be written, was made by a newer rendermill, holds a file that cannot be read, or
            has another layout, or extra columns of other types.
        LeaseLost: Another run took over. All methods that write raise it, too.
    """

    def __init__(
        self,
        folder: FencedFolder,
        extra: pa.Schema,
        media_layout: layout.Layout = "files",
        deletion_delay_seconds: float = _DELETION_DELAY_SECONDS,
    ) -> None:
        self.folder = folder
        self.has_shards = media_layout == "webdataset"
        with as_user_errors("cannot be written", ("output",), folder.url):
            folder.fence_disk()  # before anything is read: what is read from here on changes by this run's writes alone
            self.extra = ensure_format(folder, extra, media_layout)
        self._origins = Origins()
        record_schema, failure_schema = arrow_schema(RECORD_COLUMNS, self.extra), receipt_schema(self.extra)
        self.records = Parts(PartFiles(folder, layout.METADATA, record_schema), self._origins)
        self._failures = Parts(PartFiles(folder, layout.FAILURES, failure_schema), self._origins)
        self._pending = Pending(folder, failure_schema)
        self.stale_media = StaleMedia(folder, deletion_delay_seconds)
        self._must_reload = True
        self._recover()

    @property
    def problems(self) -> list[str]:
        """Files of the output whose content makes no sense and is ignored, in words."""
        return self.stale_media.problems

    @property
    def keys(self) -> pa.ChunkedArray:
        """The keys (`identity.item_key`) of the items that have a record."""
        return self.records.index["key"]

    @property
    def origins(self) -> list[Origin]:
        """The origins of all records."""
        return self._origins.of(set(self.records.index["origin"].unique().to_pylist()))

    def finished(self, but: Collection[Origin] = ()) -> pa.ChunkedArray:
        """Return the request hashes of the records, 16-byte binary.

        Args:
            but: The origins whose records are left out.
        """
        index = self.records.index
        if but:
            numbers = pa.array([self._origins[origin] for origin in but], pa.int16())
            index = index.filter(pc.invert(pc.is_in(index["origin"], numbers)))
        return index["request_hash"]

    @property
    def failed(self) -> pa.ChunkedArray:
        """The request hashes of the failures, 16-byte binary."""
        return self._failures.index["request_hash"]

    @property
    def num_pending(self) -> int:
        """The number of receipts that are not yet in a part."""
        return len(self._pending)

    def add(self, receipts: pa.Table) -> None:
        """Take receipts (`schema.receipt_schema`). Nothing is stored until `flush`."""
        self._pending.add(receipts)

    def note_duplicates(self, receipts: pa.Table) -> None:
        """Note media that may belong to no record, because another receipt of the same item counts.

        Call it before the next flush, so that a crash leaves no such media behind. Media that a record names when they
        are due stay.

        Args:
            receipts: A table with a column `path`.
        """
        self.stale_media.note(receipts["path"].drop_null().unique().to_pylist())

    def flush(self) -> None:
        """Store the receipts added since the last flush as one file in `_pending/`."""
        self._pending.flush()

    def roll_up(self) -> None:
        """Move all receipts into parts: each item's new outcome replaces its older one.

        A crash anywhere leaves the pending files, so the next run does all of it again, with the same result. Receipts
        that no flush had stored are lost then, unless they are in a part already, and their items are rendered again.
        """
        with self._changing():
            arrived = self._pending.receipts
            if arrived:
                self._move_into_parts(one_of_each(KeyedRows.concat(arrived)))
            # Last, when all receipts are in parts: a crash before it leaves items both in a part and in a pending file,
            # and the next roll-up writes them over themselves.
            self._pending.clear()

    def _move_into_parts(self, receipts: KeyedRows) -> None:
        """Write one receipt an item into the parts, in an order that a crash may interrupt anywhere."""
        is_record = pc.is_null(receipts.table["error_type"])
        records = receipts.filter(is_record).select(self.records.files.schema.names)
        failures = receipts.filter(pc.invert(is_record))
        is_rendered = is_among(request_hashes(failures.table), self.finished())
        failures = failures.filter(pc.invert(is_rendered))
        held_records, held_failures = self.records.held(records.keys), self._failures.held(receipts.keys)
        # 1. If rows are to be replaced, all receipts are stored first. The steps below change several files; after a
        # crash between two of them, the next run needs the receipts to complete the others. New items alone need no
        # such file: one that is not in a part when the process dies was in no file before, and is rendered again.
        if held_records.num_rows or held_failures.num_rows:
            self.flush()
        # 2. Replaced media are noted before the records that name them change, so that none is left behind. A crash
        # here leaves a note of media that records still name, which are not removed.
        replaced = self.records.media_of(records.keys, held_records)
        self.stale_media.note(replaced.difference(records.table["path"].to_pylist()))
        # 3. Records first: a crash before step 4 leaves an item with a record and an old failure. The receipts are
        # still pending, so the next run removes the failure. In the other order, readers would find neither meanwhile.
        self.records.replace(records, held_records, records.keys)
        # 4. Failures: the older ones of all these items give way, also those of items that have a record now.
        self._failures.replace(failures, held_failures, receipts.keys)

    def drop(self, keys: pa.Array) -> int:
        """Remove the records of items, so that the next run renders them again.

        Args:
            keys: The items' keys (`keyed_rows.item_keys`), 16-byte binary.

        Returns:
            The number of records that were removed.
        """
        self.roll_up()  # else a pending receipt would bring a record back
        with self._changing():
            nothing = KeyedRows.of(self.records.files.schema.empty_table())
            dropped = pa.chunked_array([keys], HASH)
            held = self.records.held(dropped)
            self.stale_media.note(self.records.media_of(dropped, held))  # before the records go, as in a roll-up
            self.records.replace(nothing, held, dropped)  # after a crash on the way, some records are dropped
        return held.num_rows

    def remove_stale_media(self) -> None:
        """Remove the files that no record has named for long enough; of shards, `ShardCleanup` takes care.

        Call it after `roll_up`, while nothing is being rendered: a file that is stored again meanwhile would be
        removed, too.
        """
        if self.has_shards:
            return
        due, notes = self.stale_media.due, self.stale_media.notes
        in_use = set(self.records.rows_of(due)["path"].to_pylist())
        # A crash between the two leaves notes of files that are gone; removing them again does nothing.
        self.folder.delete(sorted(due - in_use))
        self.stale_media.forget(due, notes)

    def close(self) -> None:
        """Roll up at the end of a run; from then on its pending receipts are ignored, whenever they arrive."""
        self.roll_up()
        self.folder.lease.settle(self.folder.lease.number)
        self.folder.remove_temporary_folder()

    def _recover(self) -> None:
        """Make the output this run's own, and finish what earlier runs left in `_pending/`."""
        lease = self.folder.lease
        # 1. On S3, writes of earlier holders to parts fail from here on; what has arrived before is read below.
        if lease.must_fence_parts:
            self.records.files.fence()
            self._failures.files.fence()
        # 2. Pending files are listed before parts are read, in the roll-up. An earlier holder removes a pending file
        # only when its receipts are in parts, so each receipt is found in one of them; one found in both counts once.
        self._pending.recover()
        self.stale_media.recover()
        self.roll_up()
        # 3. Last, when all pending receipts are in parts. A crash before leaves the lease unsettled, and the next run
        # recovers again. Receipts of earlier leases that arrive after step 2 are ignored from now on.
        lease.settle(lease.number - 1)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change parts within the block.

        After an error nobody knows which parts have changed, so the next change begins by reading them all again.
        """
        if self._must_reload:
            self.records.load()
            self._failures.load()
        self._must_reload = True
        yield
        self._must_reload = False
