"""The URLs of manifests, checkpoints and outputs: which file system they lead to, and what may stand in them."""

import os
from typing import Any, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from rendermill.manifests.errors import UserError, one_line
from rendermill.manifests.secrets import MASK, secrets_in
from rendermill.manifests.storage.retries import is_transient

_SCHEMES_OF_ONE_PROCESS = {"memory", "data"}
_READ_ONLY_SCHEMES = {
    "http", "https", "zip", "tar", "libarchive", "github", "gist", "git", "reference", "jlab", "jupyter"
}  # fmt: skip
_WHERE_SECRETS_BELONG = "give it where the store's client looks, such as AWS_SECRET_ACCESS_KEY"


def open_filesystem(url: str, **options: Any) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system behind a URL or local path, and the path within it.

    Args:
        options: Arguments of the file system, such as `endpoint_url` for S3.

    Raises:
        UserError: The URL's scheme is unknown, or needs a package that is not installed; or the URL has a secret that
            its store does not accept there, or whose value was masked.
    """
    try:
        filesystem, path = cast(
            tuple[fsspec.AbstractFileSystem, str], fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
        )
    except Exception as error:  # each file system raises errors of its own, for example HDFS without Java
        if is_transient(error):
            raise
        is_clear = isinstance(error, ValueError | ImportError | OSError)
        raise UserError(f"{url}: {'' if is_clear else 'cannot be opened: '}{one_line(error)}") from error
    if MASK in secrets_in(url):
        raise UserError(
            f"{url}: {MASK} stands for a secret, which the file of a run leaves out; {_WHERE_SECRETS_BELONG}"
        )
    if "://" in url and "http" not in filesystem.protocol and secrets_in(f"://{path}"):
        raise UserError(f"{url}: this store takes no secret from a URL; {_WHERE_SECRETS_BELONG}")
    return filesystem, path


def is_local(url: str) -> bool:
    """Whether a URL or path lies on this machine's own file system."""
    return isinstance(open_filesystem(url)[0], LocalFileSystem)


def absolute(url: str) -> str:
    """Return a URL unchanged, and a local path made absolute, because workers may run in another folder."""
    chain, _, last = url.rpartition("::")
    if chain and last:
        return f"{chain}::{absolute(last)}"
    return os.path.abspath(open_filesystem(url)[1]) if is_local(url) else url.rstrip("/")


def check_can_be_output(url: str) -> None:
    """Check that files written to a URL are still there when the process has ended.

    Raises:
        UserError: The store cannot be written, or lives in the memory of one process.
    """
    instead = "give a folder on a disk that every node sees, or an object store such as s3://bucket/folder"
    if "::" in url:
        raise UserError(f"{url} is one store within another, which cannot be written safely; {instead}", ("output",))
    schemes = {url.partition("://")[0]} if "://" in url else set()
    if schemes & _SCHEMES_OF_ONE_PROCESS:
        raise UserError(f"{url} lives in the memory of one process, and is lost with it; {instead}", ("output",))
    if schemes & _READ_ONLY_SCHEMES:
        raise UserError(f"{url} can only be read; {instead}", ("output",))
