"""Removal of samples that no record names from shards.

A shard that no record names is removed as a whole. A shard that holds more than records name is written anew under
another name, and its records then name that one; the old shard is noted as stale, and removed after the usual delay.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from rendermill.manifests.output import layout
from rendermill.manifests.output.ledger.ledger import Ledger
from rendermill.manifests.storage.folder import Folder

_NUM_IO_THREADS = 8


class StaleShards(NamedTuple):
    """The shards that need work.

    Attributes:
        nameless: Shards in which no record names anything, to be removed.
        doubtful: Shards that may hold more than records name, each with the media files that records name.
        handled: The shards of which notes can be forgotten once the others have been dealt with.
        notes: The notes that there were when the shards were listed.
    """

    nameless: list[str]
    doubtful: dict[str, list[str]]
    handled: set[str]
    notes: list[str]


class ShardCleanup:
    """The steps of a cleanup, in their order: `find`, remove or rewrite the shards, `rename`, `forget`.

    After a crash between any two steps, the notes are still there, and the next cleanup begins again: a rewritten shard
    that no record names yet is nameless, and is removed.

    Args:
        ledger: The ledger, after a roll-up, while nothing is being stored.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def find(self) -> StaleShards:
        """Find the shards that need work, by a listing of the media and two columns of the records."""
        if not self._ledger.has_shards:
            return StaleShards([], {}, set(), [])
        stale = self._ledger.stale_media
        due, notes = stale.due, stale.notes
        waiting = stale.media - due
        folder = self._ledger.folder
        named, doubtful = _named_shards(folder, self._ledger.records.files.names, stale.media)
        stored = filter(layout.is_shard, folder.all_names(layout.MEDIA))
        nameless = [shard for shard in stored if shard not in named and shard not in waiting]
        return StaleShards(nameless, doubtful, due.union(doubtful), notes)

    def rename(self, shards: Mapping[str, str]) -> None:
        """Let records name other shards, which hold their media as well.

        Args:
            shards: The new names by the old ones.
        """
        if not shards:
            return
        rows = self._ledger.records.rows_of(shards)
        column = pa.array([shards[path] for path in rows["path"].to_pylist()], pa.string())
        self._ledger.add(rows.set_column(rows.schema.get_field_index("path"), "path", column))
        self._ledger.roll_up()  # notes the old shards, as any media that records name no more

    def forget(self, stale: StaleShards, but: Collection[str]) -> None:
        """Remove the notes of shards that have been dealt with.

        Args:
            stale: The result of `find`.
            but: The shards that could not be read, and stay as they are.
        """
        self._ledger.stale_media.forget(stale.handled.difference(but), stale.notes)


def _named_shards(
    folder: Folder, parts: Sequence[str], doubtful: Collection[str]
) -> tuple[set[str], dict[str, list[str]]]:
    """Return all shards that records name, and the media files that they name in each of the doubtful shards."""

    def read(part: str) -> pa.Table:
        return folder.read_table(part, ["path", "member"])

    named: set[str] = set()
    members: dict[str, list[str]] = defaultdict(list)
    with ThreadPoolExecutor(_NUM_IO_THREADS) as threads:
        for table in threads.map(read, parts):
            named.update(table["path"].unique().to_pylist())
            for row in table.filter(pc.is_in(table["path"], pa.array(list(doubtful), pa.string()))).to_pylist():
                members[row["path"]].append(row["member"])
    return named, dict(members)
