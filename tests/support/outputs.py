"""Outputs for tests of the ledger: receipts, a folder under a lease, and quick reading of parts."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rendermill.manifests.identity import blake2b_128
from rendermill.manifests.output.fence import FencedFolder
from rendermill.manifests.output.holder import newest_number
from rendermill.manifests.output.lease import Lease
from rendermill.manifests.schema import receipt_schema
from rendermill.manifests.storage.folder import Folder

EXTRA = pa.schema([("category", pa.string())])
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A folder in memory, where hundreds of small outputs need not wait for a disk."""
_COLUMNS = ["id", "path", "member", "request_hash", "num_inference_steps"]


def receipt(item_id: str, steps: int = 20, error_type: str | None = None, sample_index: int = 0) -> dict[str, Any]:
    request_hash = blake2b_128([item_id, sample_index, steps]).hex()
    path = None if error_type else f"media/{item_id}.{steps}.png"
    return {
        "id": item_id,
        "sample_index": sample_index,
        "model": "sana",
        "device": "cpu",
        "environment": "{}",
        "num_inference_steps": steps,
        "request_hash": request_hash,
        "path": path,
        "error_type": error_type,
        "started_at": datetime(2026, 1, 1, tzinfo=UTC),
        "category": "c",
    }


def receipts(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), receipt_schema(EXTRA))


def under_lease(folder: Folder, run_id: str = "run") -> FencedFolder:
    """Return the folder under a lease that is taken from whichever run has it."""
    lease = Lease(Folder(folder.url), run_id)
    assert lease.take(newest_number(folder))
    return FencedFolder.of(folder, lease)


def stored_rows(contents: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return the rows of parts: the columns that tests of the ledger look at."""
    return [row for content in contents for row in _rows(content)]


@lru_cache(maxsize=10_000)
def _rows(content: bytes) -> list[dict[str, Any]]:
    """Decode a part once, as tests that look at the output after every step see most parts many times."""
    return pq.read_table(pa.BufferReader(content), columns=_COLUMNS, use_threads=False).to_pylist()
