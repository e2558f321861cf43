"""What is finished: loads it, commits receipts, and keeps `metadata/` and `failures/` free of doubles.

Only the driver writes here, under its lease. Receipts are stored as small files in `_pending/` while they are few, and
rolled up into parts; a crash between any two steps leaves files from which the next run goes on without a lost or
doubled record. A step that an error breaks off leaves this object in doubt: it then reads the parts again before the
next one.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from rendermill.manifests.arrow.hash_set import HASH
from rendermill.manifests.output import layout
from rendermill.manifests.output.fence import FencedFolder
from rendermill.manifests.output.format import settle_format
from rendermill.manifests.output.ledger.keyed_rows import KeyedRows, is_among, one_of_each, request_hashes
from rendermill.manifests.output.ledger.parts import Origin, Origins, Parts
from rendermill.manifests.output.ledger.pending import Pending
from rendermill.manifests.output.ledger.stale import StaleMedia
from rendermill.manifests.output.shards import StaleShards, find_stale_shards
from rendermill.manifests.schema import RECORD_COLUMNS, arrow_schema, conformed, receipt_schema
from rendermill.manifests.storage.errors import as_user_errors

_DELETION_DELAY_SECONDS = 900.0


class Ledger:
    """The finished items of one output folder.

    Args:
        folder: the output, under this run's lease.
        extra: the manifest's own columns.
        media_layout: how media are stored.
        deletion_delay_seconds: how long media stay that no record names any more.

    Raises:
        UserError: the folder cannot be written, was made by a newer rendermill, holds a file that cannot be read, or
            has another layout, or extra columns of other types.
        LeaseLost: another run took over. All methods that write raise it, too.
    """

    def __init__(
        self,
        folder: FencedFolder,
        extra: pa.Schema,
        media_layout: layout.Layout = "files",
        deletion_delay_seconds: float = _DELETION_DELAY_SECONDS,
    ) -> None:
        self._folder = folder
        self._has_shards = media_layout == "webdataset"
        with as_user_errors(f"output {folder.url}: cannot be written"):
            folder.shut_out_others()
            self.extra = settle_format(folder, extra, media_layout)
        origins = Origins()
        self._origins = origins
        self._records = Parts(folder, layout.METADATA, arrow_schema(RECORD_COLUMNS, self.extra), origins)
        self._failures = Parts(folder, layout.FAILURES, receipt_schema(self.extra), origins)
        self._pending = Pending(folder, self._failures.schema)
        self._stale = StaleMedia(folder, deletion_delay_seconds)
        self._noted: list[str] = []
        self._tidied: set[str] = set()
        self._unflushed: list[KeyedRows] = []
        self._is_in_doubt = True
        self._recover()

    @property
    def folder(self) -> FencedFolder:
        """The output."""
        return self._folder

    @property
    def problems(self) -> list[str]:
        """Files of the output that say what cannot be, in words: they are left out of account."""
        return self._stale.problems

    @property
    def keys(self) -> pa.ChunkedArray:
        """Keys (`identity.item_key`) of the items that have a record."""
        return self._records.index["key"]

    @property
    def origins(self) -> list[Origin]:
        """Where the records were made."""
        return self._origins.of(set(self._records.index["origin"].unique().to_pylist()))

    def finished(self, but: Collection[Origin] = ()) -> pa.ChunkedArray:
        """Request hashes of the records, as 16-byte binary, but for those made elsewhere."""
        index = self._records.index
        if but:
            numbers = pa.array([self._origins[origin] for origin in but], pa.int16())
            index = index.filter(pc.invert(pc.is_in(index["origin"], numbers)))
        return index["request_hash"]

    @property
    def failed(self) -> pa.ChunkedArray:
        """Request hashes of the failures, as 16-byte binary."""
        return self._failures.index["request_hash"]

    @property
    def num_pending(self) -> int:
        """Receipts that are not yet in a part."""
        return len(self._pending) + sum(map(len, self._unflushed))

    def add(self, receipts: pa.Table) -> None:
        """Take receipts (`schema.receipt_schema`) from the pipeline. Nothing is stored until `flush`."""
        self._unflushed.append(KeyedRows.of(conformed(receipts, self._failures.schema)))

    def doubt(self, receipts: pa.Table) -> None:
        """Take note, before the next flush, of receipts whose items others have brought: their media may be doubles."""
        self._stale.note(receipts["path"].drop_null().unique().to_pylist())

    def flush(self) -> None:
        """Store what was added since the last flush as one file in `_pending/`."""
        if not self._unflushed:
            return
        self._pending.store(KeyedRows.concat(self._unflushed))
        self._unflushed = []

    def roll_up(self) -> None:
        """Move everything pending into parts: each item's new outcome takes the place of its older one.

        The media of records that give way are noted before, so that a crash leaves none behind; `remove_stale_media`
        removes them when it is time.
        """
        with self._changing():
            arrived = [*self._pending.receipts, *self._unflushed]
            if arrived:
                self._roll_up(one_of_each(KeyedRows.concat(arrived)))
            self._pending.clear()
            self._unflushed = []

    def _roll_up(self, receipts: KeyedRows) -> None:
        is_record = pc.is_null(receipts.table["error_type"])
        records = receipts.filter(is_record).select(self._records.schema.names)
        failures = receipts.filter(pc.invert(is_record))
        is_drawn = is_among(request_hashes(failures.table), self.finished())
        failures = failures.filter(pc.invert(is_drawn))
        held_records, held_failures = self._records.held(records), self._failures.held(receipts)
        if held_records.num_rows or held_failures.num_rows:
            self.flush()  # other rows give way in several steps, and a crash on the way must find these again
        replaced = self._records.media_of(records.keys, held_records)
        self._stale.note(replaced.difference(records.table["path"].to_pylist()))
        self._records.replace(records, held_records, records.keys)
        self._failures.replace(failures, held_failures, receipts.keys)

    def drop(self, keys: pa.Array) -> int:
        """Remove the records of items, so that the next run renders them again.

        Args:
            keys: `keyed_rows.item_keys` of the items, 16-byte binary.

        Returns:
            How many records were removed.
        """
        self.roll_up()
        with self._changing():
            nothing = KeyedRows.of(self._records.schema.empty_table())
            index, among = self._records.index, pa.chunked_array([keys], HASH)
            held = index.filter(is_among(index["key"], among))
            self._stale.note(self._records.media_of(among, held))
            self._records.replace(nothing, held, among)
        return held.num_rows

    def settle(self) -> None:
        """Roll up at the end of a run; from then on its pending receipts are late, whenever they arrive."""
        self.roll_up()
        self._folder.lease.settle(self._folder.lease.number)
        self._folder.leave()

    def remove_stale_media(self) -> None:
        """Remove files that no record has named for long enough; shards are `stale_shards`' part.

        To be called after `roll_up`, while nothing is being rendered: what is stored again would be removed, too.
        """
        if self._has_shards:
            return
        due, notes = self._stale.due, self._stale.notes
        named = set(self._records.rows_of(due)["path"].to_pylist())
        self._folder.delete(sorted(due - named))
        self._stale.forget(due, notes)

    def stale_shards(self) -> StaleShards:
        """What to remove from the shards: to be asked after `roll_up`, while nothing is being stored.

        Takes a listing of the media, and two columns of the parts.
        """
        if not self._has_shards:
            return StaleShards([], {})
        due, waiting = self._stale.due, self._stale.media - self._stale.due
        found = find_stale_shards(self._folder, self._records.names, self._stale.media)
        self._noted, self._tidied = self._stale.notes, due.union(found.doubtful)
        return found._replace(nameless=[shard for shard in found.nameless if shard not in waiting])

    def move(self, shards: Mapping[str, str]) -> None:
        """Let records name other shards, which hold their media as well: by old name, the new one."""
        if not shards:
            return
        rows = self._records.rows_of(shards)
        column = pa.array([shards[path] for path in rows["path"].to_pylist()], pa.string())
        moved = rows.set_column(rows.schema.get_field_index("path"), "path", column)
        self._unflushed.append(KeyedRows.of(conformed(moved, self._failures.schema)))
        self.roll_up()

    def forget_stale_shards(self, but: Collection[str]) -> None:
        """Forget what `stale_shards` gave, as it was removed or written anew, but for some that could not be."""
        self._stale.forget(self._tidied.difference(but), self._noted)

    def _recover(self) -> None:
        """Make the output this run's: shut out earlier holders, and roll up what they left in `_pending/`."""
        lease = self._folder.lease
        if lease.must_seal:
            self._records.seal()
            self._failures.seal()
        self._pending.recover()
        self._stale.recover()
        self.roll_up()
        lease.settle(lease.number - 1)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Within, parts change; after an error nobody knows which did, and they are read again."""
        if self._is_in_doubt:
            for parts in (self._records, self._failures):
                parts.begin()
                parts.load()
        self._is_in_doubt = True
        yield
        self._is_in_doubt = False
