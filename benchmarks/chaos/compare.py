"""What is wrong with an output, next to the one of an undisturbed run."""

import hashlib
from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

import pyarrow.parquet as pq

from manifests import layout
from manifests.storage import open_filesystem

_NOT_COMPARED = {"started_at", "seconds", "attempt", "run_id", "batch_size"}


@dataclass
class Damage:
    """Counts of items; all zero where the promise was kept.

    Attributes:
        lost: items without a record.
        duplicated: items with more than one.
        differing: records that differ in anything but time and run.
        broken: records whose media is missing or is not what they say.
        left_over: files that no record names, or that lie in `_pending/` still.
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
    filesystem, root = open_filesystem(output)
    found = records(output)
    counts = Counter((row["id"], row["sample_index"]) for row in found)
    by_item = {(row["id"], row["sample_index"]): row for row in found}
    damage = Damage(duplicated=sum(count > 1 for count in counts.values()))
    for expected in undisturbed:
        row = by_item.pop((expected["id"], expected["sample_index"]), None)
        if row is None:
            damage.lost += 1
            continue
        damage.differing += any(row[name] != expected[name] for name in expected if name not in _NOT_COMPARED)
        path = f"{root}/{row['path']}"
        is_there = filesystem.exists(path)
        damage.broken += not is_there or hashlib.sha256(filesystem.cat_file(path)).hexdigest() != row["sha256"]
    damage.differing += len(by_item)
    media = {path[len(root) + 1 :] for path in filesystem.find(f"{root}/media")}
    damage.left_over = len(media - {row["path"] for row in found}) + len(
        filesystem.find(f"{root}/{layout.PENDING}") if filesystem.exists(f"{root}/{layout.PENDING}") else []
    )
    return damage
