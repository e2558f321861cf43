"""Every path in an output folder. See docs/output.md for the tree."""

import re
from typing import Literal
from urllib.parse import quote

from rendermill.manifests.identity import blake2b_128
from rendermill.manifests.storage.folder import is_inside

Layout = Literal["files", "webdataset"]
"""How media are stored: as one file an item, or in tar shards of many items."""

FORMAT_FILE = "rendermill.json"
METADATA = "metadata"
PENDING = "_pending"
"""Not in `metadata/`, because polars, DuckDB and `datasets` read all files below that."""
FORMER_PENDING = "metadata/_pending"
"""The folder that earlier versions used; the next run moves its receipts into parts."""
FAILURES = "failures"
REJECTED = "rejected"
RUNS = "runs"
LEASE = "lease"
MEDIA = "media"

_MAX_ID_BYTES = 80
_MAX_ID_BYTES_IN_SHARD = 76
"""The limit that leaves room for the rest of a name in a tar file, which has 100 bytes at most."""


def media_path(model: str, item_id: str, sample_index: int, request_hash: str, sha256: str, extension: str) -> str:
    """Return the name of a sample's media file, relative to the output folder.

    The id is percent-encoded and cut at 80 bytes, so that it can neither leave the folder nor be too long for a disk.
    12 digits of a hash distinguish ids that are equal once cut, or differ only in case. Because the file's own sha256
    is part of that hash, a file that is stored late never changes a file that a record names.
    """
    encoded_id = _cut(_encoded(item_id), _MAX_ID_BYTES)
    short_hash = blake2b_128([request_hash, sha256]).hex()[:12]
    return f"{MEDIA}/{model}/{short_hash[:2]}/{encoded_id}-{sample_index}.{short_hash}.{extension}"


def is_media(name: object) -> bool:
    """Whether a name, read from a file of the output, is that of a media file of the output."""
    return isinstance(name, str) and name.startswith(f"{MEDIA}/") and is_inside(name)


def shard(model: str, run_id: str, digest: str) -> str:
    """Return the name of a tar file: the run's and the content's, so that a shard that is stored twice is one file."""
    return f"{MEDIA}/{model}/{run_id}-{digest[:12]}.tar"


def shard_rewritten(name: str, digest: str) -> str:
    """Return the name of a shard that replaces another: the same run's, and its own content's."""
    return f"{name.removesuffix('.tar').rpartition('-')[0]}-{digest[:12]}.tar"


def is_written_here(name: str) -> bool:
    """Whether a file in `MEDIA` has a name of the form that `media_path` and `shard` return."""
    of_file = r"[0-9a-f]{2}/[^/]*-\d+\.[0-9a-f]{12}\.[a-z0-9]+"
    of_shard = r"\d{8}T\d{6}-[0-9a-f]{6}-[0-9a-f]{12}\.tar"
    return re.fullmatch(rf"{MEDIA}/[^/]+/({of_file}|{of_shard})", name) is not None


def is_shard(name: str) -> bool:
    """Whether a media file is a shard."""
    return name.endswith(".tar")


def key_in_shard(item_id: str, sample_index: int, request_hash: str) -> str:
    """Return the common beginning of the names of a sample's files in a shard; webdataset takes what precedes a dot."""
    encoded_id = _cut(_encoded(item_id).replace(".", "%2E"), _MAX_ID_BYTES_IN_SHARD)
    return f"{encoded_id}-{sample_index}-{request_hash[:12]}"


def _encoded(item_id: str) -> str:
    return quote(item_id, safe="", errors="surrogatepass")


def _cut(encoded_id: str, max_bytes: int) -> str:
    return re.sub(r"%[0-9A-F]?$", "", encoded_id[:max_bytes])  # remove an escape that was cut in two


def part(folder: str, number: int) -> str:
    """Return the name of a Parquet file in `METADATA` or `FAILURES`, which all runs number in one sequence."""
    return f"{folder}/part-{number:06d}.parquet"


def is_part(name: str) -> bool:
    """Whether a file in `METADATA` or `FAILURES` is a part."""
    return name.rpartition("/")[2].startswith("part-") and name.endswith(".parquet")


def rejected_part(run_id: str, number: int) -> str:
    """Return the name of a Parquet file of a run's rejected rows."""
    return f"{REJECTED}/part-{run_id}-{number:05d}.parquet"


def pending(lease_number: int, number: int) -> str:
    """Return the name of a Parquet file of receipts that are not yet in a part, written under a lease."""
    return f"{PENDING}/{lease_number:06d}-{number:05d}.parquet"


def lease_of(name: str) -> int | None:
    """Return the number of the lease under which a file in `PENDING` was written; None if its name has another form."""
    match = re.fullmatch(r"(\d{6,})-\d{5,}(\.parquet|\.stale\.json)", name.rpartition("/")[2])
    return int(match[1]) if match else None


def stale_media(lease_number: int, number: int) -> str:
    """Return the name of a JSON list of media that no record names, or that none will name after the next roll-up."""
    return f"{PENDING}/{lease_number:06d}-{number:05d}.stale.json"


def lease(number: int) -> str:
    """Return the name of the JSON file that describes a lease's holder; the file with the highest number counts."""
    return f"{LEASE}/{number:06d}.json"


def run_file(run_id: str) -> str:
    """Return the name of the JSON file that describes one submission."""
    return f"{RUNS}/{run_id}.json"
