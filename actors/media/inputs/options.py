"""What a job says of its inputs, and the error of an input that cannot be used. Imports none of the decoders."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Fit: TypeAlias = Literal["error", "crop", "pad", "stretch"]
"""What is done with an input that must have the size of the output and has another one."""


class BadInput(Exception):
    """The reason why an input cannot be used, in words. It fails the row, and nothing else."""


@dataclass(frozen=True)
class InputOptions:
    """The rules for the inputs of a job.

    Attributes:
        place: the folder of the manifest, as an absolute path or a URL; relative paths of inputs begin there, and
            inputs may always lie in it.
        allow: other places of inputs: folders and URL prefixes, or `https://` for every https URL; None: every https
            URL.
        private_networks: whether inputs may come from private, link-local and loopback addresses.
        max_bytes: the largest size of an input's file.
        timeout_seconds: the time that one attempt to fetch an input may take.
        patience_seconds: how long to try again if a store or a server fails.
        s3_endpoint: the URL of the S3 server of inputs outside the manifest's folder; None: the job's own.
        s3_profile: the profile in AWS's files whose credentials read these; None: the job's own.
        fit: what is done with an input of another size than the output's.
        num_cache_bytes: the size of each node's disk cache; 0: no cache.
    """

    place: str
    allow: tuple[str, ...] | None = None
    private_networks: bool = False
    max_bytes: int = 64 * 2**20
    timeout_seconds: float = 30.0
    patience_seconds: float = 0.0
    s3_endpoint: str | None = None
    s3_profile: str | None = None
    fit: Fit = "error"
    num_cache_bytes: int = 10 * 2**30
