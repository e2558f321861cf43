"""A reader of an output that is being written: lists the records, and then reads the media that they name."""

import contextlib
import errno
import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from s3fs.utils import FileExpired

from benchmarks.chaos.compare import records
from rendermill.manifests.output.shards import read_member
from rendermill.manifests.storage.folder import Folder

_NUM_MEDIA_PER_READ = 40
_SECONDS_BETWEEN_READS = 0.2


@dataclass
class Reads:
    """The findings of a reader.

    Attributes:
        num_reads: of the table of records.
        num_media: files or members of shards that were read.
        num_doubled: items that a read of the table showed twice.
        num_broken: media that were missing, or not what their record says.
    """

    num_reads: int = 0
    num_media: int = 0
    num_doubled: int = 0
    num_broken: int = 0


@contextlib.contextmanager
def reading(output: str, reads: Reads, generator: random.Random) -> Iterator[None]:
    """Within, a thread reads the output again and again."""
    is_over = threading.Event()

    def read() -> None:
        while not is_over.wait(_SECONDS_BETWEEN_READS):
            try:
                _read_once(output, reads, generator)
            except Exception as error:
                if not _has_given_way(error):
                    raise

    thread = threading.Thread(target=read, name="reader", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _has_given_way(error: Exception) -> bool:
    """Return whether there is no output yet, or a part was replaced while the table was read."""
    if isinstance(error, FileNotFoundError | FileExpired):
        return True
    # s3fs would raise FileExpired, but cannot read the empty message with which Ceph refuses another version's bytes
    cause = error.__context__
    return isinstance(error, TypeError) and isinstance(cause, OSError) and cause.errno == errno.EINVAL


def _read_once(output: str, reads: Reads, generator: random.Random) -> None:
    rows = records(output)
    counts = Counter((row["id"], row["sample_index"]) for row in rows)
    reads.num_reads += 1
    reads.num_doubled += sum(count > 1 for count in counts.values())
    time.sleep(_SECONDS_BETWEEN_READS)  # as a reader does who trains on one batch after the other
    for row in generator.sample(rows, min(len(rows), _NUM_MEDIA_PER_READ)):
        reads.num_media += 1
        reads.num_broken += not _is_whole(Folder(output), row)


def _is_whole(output: Folder, row: dict[str, Any]) -> bool:
    try:
        member, path = row["member"], row["path"]
        data = output.read(path) if member is None else read_member(output, path, member)
    except FileNotFoundError:
        return False
    return data is not None and hashlib.sha256(data).hexdigest() == row["sha256"]
