"""What is wrong with an output, next to the one of an undisturbed run."""

import hashlib
import io
import json
from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

import pyarrow.parquet as pq

from rendermill.manifests.output import layout
from rendermill.manifests.output.shards import json_of, unpack
from rendermill.manifests.storage.folder import Folder
from rendermill.manifests.storage.urls import open_filesystem

_NOT_COMPARED = {"started_at", "seconds", "attempt", "run_id", "batch_size"}
_NOT_COMPARED_IN_SHARDS = _NOT_COMPARED | {"path"}  # an item may lie in any shard


@dataclass
class Damage:
    """Counts of items; all zero where the promise was kept.

    Attributes:
        lost: items without a record.
        duplicated: items with more than one.
        differing: records that differ in anything but time and run.
        broken: records whose media is missing or is not what they say.
        left_over: files, and members of shards, that no record names, but for those that are noted to be removed later;
            receipts that lie in `_pending/` still.
    """

    lost: int = 0
    duplicated: int = 0
    differing: int = 0
    broken: int = 0
    left_over: int = 0

    def __add__(self, other: "Damage") -> "Damage":
        return Damage(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def records(output: str) -> list[dict[str, Any]]:
    """All records of an output."""
    filesystem, root = open_filesystem(output)
    rows: list[dict[str, Any]] = pq.read_table(f"{root}/{layout.METADATA}", filesystem=filesystem).to_pylist()
    return rows


def compare(undisturbed: list[dict[str, Any]], output: str) -> Damage:
    """Compare an output's records with those of an undisturbed run, and with its own media."""
    found = records(output)
    stored = _stored(Folder(output))
    counts = Counter((row["id"], row["sample_index"]) for row in found)
    by_item = {(row["id"], row["sample_index"]): row for row in found}
    damage = Damage(duplicated=sum(count > 1 for count in counts.values()))
    for expected in undisturbed:
        row = by_item.pop((expected["id"], expected["sample_index"]), None)
        if row is None:
            damage.lost += 1
            continue
        ignored = _NOT_COMPARED if row["member"] is None else _NOT_COMPARED_IN_SHARDS
        damage.differing += any(row[name] != expected[name] for name in expected if name not in ignored)
        damage.broken += stored.get(_name(row)) != row["sha256"]
    damage.differing += len(by_item)
    named = {_name(row) for row in found} | {
        f"{row['path']}/{json_of(row['member'])}" for row in found if row["member"] is not None
    }
    pending, noted = _pending(Folder(output))
    damage.left_over = sum(name not in named and not name.startswith(noted) for name in stored) + len(pending)
    return damage


def _pending(output: Folder) -> tuple[list[str], tuple[str, ...]]:
    """Files of receipts that are in no part yet, and media that are noted to be removed later."""
    names = output.names(layout.PENDING)
    notes = [name for name in names if name.endswith(".json")]
    noted = tuple(path for note in notes for path in json.loads(output.read(note) or b"[]"))
    return [name for name in names if name not in notes], noted


def _name(row: dict[str, Any]) -> str:
    return row["path"] if row["member"] is None else f"{row['path']}/{row['member']}"


def _stored(output: Folder) -> dict[str, str]:
    """The sha256 of every media file and of every member of a shard."""
    digests = {}
    for path in output.all_names(layout.MEDIA):
        data = output.read(path) or b""
        files = unpack(io.BytesIO(data)) if layout.is_shard(path) else [("", data)]
        for member, content in files:
            digests[f"{path}/{member}".rstrip("/")] = hashlib.sha256(content).hexdigest()
    return digests
