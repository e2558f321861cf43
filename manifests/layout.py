"""Every path in an output folder. See docs/output.md for the tree."""

import re
from urllib.parse import quote

FORMAT_FILE = "rendermill.json"
METADATA = "metadata"
PENDING = "metadata/_pending"
FAILURES = "failures"
REJECTED = "rejected"
RUNS = "runs"
LEASE = "lease"

_MAX_ID_BYTES = 80


def media_path(model: str, item_id: str, sample_index: int, request_hash: str, extension: str) -> str:
    """Where a sample's media lies, relative to the output folder.

    The id is percent-encoded and cut at 80 bytes, so that it can neither leave the folder nor be too long for a disk;
    the 12 digits of the request hash keep two ids apart that are cut alike or differ only in case.
    """
    encoded_id = quote(item_id, safe="", errors="surrogatepass")[:_MAX_ID_BYTES]
    encoded_id = re.sub(r"%[0-9A-F]?$", "", encoded_id)  # an escape that the cut went through
    short_hash = request_hash[:12]
    return f"media/{model}/{short_hash[:2]}/{encoded_id}-{sample_index}.{short_hash}.{extension}"


def part(folder: str, run_id: str, number: int) -> str:
    """A Parquet file of finished rows: in `METADATA`, `FAILURES` or `REJECTED`."""
    return f"{folder}/part-{run_id}-{number:05d}.parquet"


def pending(run_id: str, number: int) -> str:
    """A small Parquet file of receipts that are not yet in a part."""
    return f"{PENDING}/{run_id}-{number:05d}.parquet"


def replaced_media(run_id: str, number: int) -> str:
    """A JSON list of media whose records give way to newer ones in the roll-up that follows it."""
    return f"{PENDING}/{run_id}-{number:05d}.replaced.json"


def lease(number: int) -> str:
    """The JSON file that says who holds the output; the highest number counts."""
    return f"{LEASE}/{number:06d}.json"


def run_file(run_id: str) -> str:
    """The JSON file that describes one submission."""
    return f"{RUNS}/{run_id}.json"
