"""Every path in an output folder. See docs/output.md for the tree."""

import re
from typing import Literal
from urllib.parse import quote

Layout = Literal["files", "webdataset"]
"""A file for every item, or tar shards of many."""

FORMAT_FILE = "rendermill.json"
METADATA = "metadata"
PENDING = "_pending"
"""Beside `metadata/`, as polars, DuckDB and `datasets` read all that lies below that."""
FORMER_PENDING = "metadata/_pending"
"""Where earlier versions left it; the next run moves it into parts."""
FAILURES = "failures"
REJECTED = "rejected"
RUNS = "runs"
LEASE = "lease"
MEDIA = "media"

_MAX_ID_BYTES = 80
_MAX_ID_BYTES_IN_SHARD = 76
"""A plain tar's names have 100 bytes at most."""


def media_path(model: str, item_id: str, sample_index: int, request_hash: str, extension: str) -> str:
    """Where a sample's media lies, relative to the output folder.

    The id is percent-encoded and cut at 80 bytes, so that it can neither leave the folder nor be too long for a disk;
    the 12 digits of the request hash keep two ids apart that are cut alike or differ only in case.
    """
    encoded_id, short_hash = _cut(_encoded(item_id), _MAX_ID_BYTES), request_hash[:12]
    return f"{MEDIA}/{model}/{short_hash[:2]}/{encoded_id}-{sample_index}.{short_hash}.{extension}"


def shard(model: str, run_id: str, digest: str) -> str:
    """A tar file of many samples: of one run, and by its content, so that what is stored twice is one shard."""
    return f"{MEDIA}/{model}/{run_id}-{digest[:12]}.tar"


def is_shard(name: str) -> bool:
    """Whether a media file is a shard."""
    return name.endswith(".tar")


def key_in_shard(item_id: str, sample_index: int, request_hash: str) -> str:
    """What the names of a sample's files in a shard share: all before their first dot, as webdataset has it."""
    encoded_id = _cut(_encoded(item_id).replace(".", "%2E"), _MAX_ID_BYTES_IN_SHARD)
    return f"{encoded_id}-{sample_index}-{request_hash[:12]}"


def _encoded(item_id: str) -> str:
    return quote(item_id, safe="", errors="surrogatepass")


def _cut(encoded_id: str, max_bytes: int) -> str:
    return re.sub(r"%[0-9A-F]?$", "", encoded_id[:max_bytes])  # an escape that the cut went through


def part(folder: str, run_id: str, number: int) -> str:
    """A Parquet file of finished rows: in `METADATA`, `FAILURES` or `REJECTED`."""
    return f"{folder}/part-{run_id}-{number:05d}.parquet"


def pending(run_id: str, number: int) -> str:
    """A small Parquet file of receipts that are not yet in a part."""
    return f"{PENDING}/{run_id}-{number:05d}.parquet"


def stale_media(run_id: str, number: int) -> str:
    """A JSON list of media that hold what no record names, or will from the roll-up on that follows."""
    return f"{PENDING}/{run_id}-{number:05d}.stale.json"


def lease(number: int) -> str:
    """The JSON file that says who holds the output; the highest number counts."""
    return f"{LEASE}/{number:06d}.json"


def run_file(run_id: str) -> str:
    """The JSON file that describes one submission."""
    return f"{RUNS}/{run_id}.json"
