"""Files behind fsspec URLs, where one PUT stores a whole file."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from fsspec import AbstractFileSystem


@dataclass(frozen=True)
class ObjectStore:
    """A store such as S3.

    Args:
        filesystem: The store's client.
        before_effect: Called at every try of a write, just before it is sent; an error stops the write.
    """

    filesystem: AbstractFileSystem
    before_effect: Callable[[], None]

    @property
    def is_s3(self) -> bool:
        """Whether the store speaks S3's protocol, which has conditional writes."""
        return "s3" in self.filesystem.protocol

    def write(self, path: str, data: bytes) -> None:
        """Store a file, or replace one."""
        self.before_effect()
        self.filesystem.pipe_file(path, data)

    def create(self, path: str, data: bytes) -> None:
        """Store a file that must not exist yet, by a conditional PUT.

        Raises:
            OSError: There is one, as most stores say.
        """
        self.before_effect()
        self.filesystem.pipe_file(path, data, mode="create")

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Store files, by path, several at a time."""
        self.filesystem.pipe(dict(files))

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""
        self.before_effect()
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.rm_file(path)

    def seconds_since_modified(self, path: str) -> float | None:
        """Return the age of a file by the store's own clock; None for stores other than S3."""
        if not self.is_s3:
            return None
        bucket, key, _ = self.filesystem.split_path(path)
        answer = self.filesystem.call_s3("head_object", Bucket=bucket, Key=key)
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return max(0.0, (now - answer["LastModified"]).total_seconds())
