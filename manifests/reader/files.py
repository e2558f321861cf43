"""Finds the files of a manifest: one file, all files of a folder, or those that a glob matches."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from rendermill.manifests.errors import UserError
from rendermill.manifests.output import layout
from rendermill.manifests.storage.urls import open_filesystem

_MAGIC = re.compile(r"[*?\[]")
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_TABLES = {"_delta_log": "Delta", ".hoodie": "Hudi"}
"""The names that mark a folder as a table of a format, whose files may hold rows that were removed from the table."""
_ICEBERG = re.compile(r"(.*/)?metadata/[^/]*\.metadata\.json$")
_WRITTEN_TO_OUTPUTS = (layout.METADATA, layout.PENDING, layout.FAILURES, layout.REJECTED)


PartitionValue = str | int | float | None
"""A value that the name of a folder gives to a column."""


@dataclass(frozen=True)
class ManifestFile:
    """A file of a manifest.

    Attributes:
        name: The file's URL or path, for messages.
        url: The manifest's URL, which leads to the file system.
        path: The file's path within the file system.
        num_bytes: The file's size; None if its store does not tell.
        partitions: The columns that the file's folders give, such as `model=wan/`, and their values.
        content: The file's content if it is small and not on this machine, so that it is read once; else None.
        root: The path of the manifest's folder within the file system: above the file, or one further up.
    """

    name: str
    url: str
    path: str
    num_bytes: int | None = None
    partitions: tuple[tuple[str, PartitionValue], ...] = ()
    content: bytes | None = None
    root: str = ""

    @property
    def root_name(self) -> str:
        """The URL or path of the manifest's folder."""
        return self.name.removesuffix(self.path[len(self.root) :])

    @property
    def folder_below_root(self) -> str:
        """The file's folder as a path below the manifest's folder, without folders such as `model=wan`."""
        folders = self.path[len(self.root) :].strip("/").split("/")[:-1]
        return "/".join(folder for folder in folders if "=" not in folder)


def find_files(url: str) -> list[ManifestFile]:
    """Find the files of a manifest, in the order of their names.

    A path that exists is taken literally, even if it has the characters of a glob. Hidden names (`.x`, `_x`) are left
    out unless a glob names them, and so are the files that rendermill wrote to an output below the path.

    Raises:
        UserError: There is no such file; or a folder is a table of Delta, Iceberg or Hudi, or has a link to one of the
            folders above it.
    """
    filesystem, path = open_filesystem(url)
    path = path.rstrip("/") or path
    is_folder = filesystem.isdir(path)
    if is_folder:
        found = _in_folder(filesystem, path, url)
        root = path
    elif not _MAGIC.search(path) or filesystem.exists(path):
        found = {path: _size(filesystem, path)} if filesystem.exists(path) else {}
        root = path.rpartition("/")[0]
    else:
        root = _without_magic(path)
        found = _matches(filesystem, path, root, url)
    paths = _without_outputs(filesystem, root, sorted(found))
    if not paths:
        raise UserError("no such file, folder with *.parquet files, or glob with a match", ("manifest",), url)
    return [
        ManifestFile(_name(filesystem, url, path), url, path, found[path], _partitions(path[len(root) :]), root=root)
        for path in paths
    ]


def manifest_folder(url: str) -> str:
    """Return the folder of a manifest, where relative paths of images and videos begin, also if its files are gone."""
    try:
        return find_files(url)[0].root_name
    except UserError:
        return url.rpartition("/")[0]


def _in_folder(filesystem: fsspec.AbstractFileSystem, folder: str, url: str) -> dict[str, int | None]:
    """Return the sizes of the Parquet files of a folder, at any depth, by path."""
    found, sizes = {}, dict(_walk(filesystem, folder, url))
    for path, size in sizes.items():
        below = path[len(folder) :].lstrip("/")
        parts = below.split("/")
        kind = next((name for mark, name in _TABLES.items() if mark in parts), None)
        kind = "Iceberg" if _ICEBERG.match(below) else kind
        if kind:
            raise UserError(
                f"{path.partition('/metadata/')[0] if kind == 'Iceberg' else folder} is a table of "
                f"{kind}, whose files also hold rows that it no longer has; write its rows to Parquet files, or give a "
                f"glob such as {url.rstrip('/')}/*.parquet to read every file",
                ("manifest",),
                url,
            )
        if below.lower().endswith(".parquet") and not any(map(_is_hidden, parts)):
            found[path] = size
    return found


def _matches(filesystem: fsspec.AbstractFileSystem, path: str, root: str, url: str) -> dict[str, int | None]:
    """Return the sizes of the files that a glob matches, and of those in the folders that it matches, by path."""
    pattern = path[len(root) :].strip("/").split("/")
    has_hidden = any(map(_is_hidden, pattern))
    if isinstance(filesystem, LocalFileSystem):
        if not filesystem.isdir(root or "/"):
            return {}
        depth = None if "**" in path else len(pattern)
        matches = re.compile(glob_translate(path)).match
        entries = [entry for entry, _ in _walk_local(root or "/", url, depth, with_folders=True) if matches(entry)]
    else:
        entries = filesystem.glob(path)
    found: dict[str, int | None] = {}
    for entry in entries:
        if not has_hidden and any(map(_is_hidden, entry[len(root) :].strip("/").split("/"))):
            continue
        found |= _in_folder(filesystem, entry, url) if filesystem.isdir(entry) else {entry: _size(filesystem, entry)}
    return found


def _walk(filesystem: fsspec.AbstractFileSystem, folder: str, url: str) -> Iterator[tuple[str, int | None]]:
    """Yield all files below a folder, with their sizes."""
    if isinstance(filesystem, LocalFileSystem):
        yield from _walk_local(folder, url)
        return
    for path, entry in filesystem.find(folder, detail=True).items():
        yield path, entry.get("size")


def _walk_local(
    folder: str, url: str, depth: int | None = None, with_folders: bool = False, above: Sequence[str] = ()
) -> Iterator[tuple[str, int | None]]:
    """Yield all files below a folder of a disk, also behind symbolic links, with their sizes.

    Args:
        folder: The folder.
        url: The manifest, for messages.
        depth: The number of levels to descend; None descends to all.
        with_folders: Whether to yield folders, too.
        above: The folders above this one, with links resolved.
    """
    above = (*above, os.path.realpath(folder))
    with os.scandir(folder) as entries:
        in_order = sorted(entries, key=lambda entry: entry.name)
    for entry in in_order:
        if not entry.is_dir():
            yield entry.path, entry.stat().st_size if entry.is_file() else None
            continue
        if with_folders:
            yield entry.path, None
        if entry.is_symlink() and os.path.realpath(entry.path) in above:
            raise UserError(f"{entry.path} links to a folder that it lies in; remove the link", ("manifest",), url)
        if depth is None or depth > 1:
            yield from _walk_local(entry.path, url, None if depth is None else depth - 1, with_folders, above)


def _size(filesystem: fsspec.AbstractFileSystem, path: str) -> int | None:
    return filesystem.info(path).get("size")


def _is_hidden(name: str) -> bool:
    """Whether Spark and Arrow would leave out a file or folder of this name."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _without_magic(path: str) -> str:
    """Return the folder above the first component of a path that has a wildcard."""
    return path[: _MAGIC.search(path).start()].rpartition("/")[0]  # type: ignore[union-attr]


def _without_outputs(filesystem: fsspec.AbstractFileSystem, root: str, paths: Sequence[str]) -> list[str]:
    """Return the paths that are not in an output of rendermill below the root."""
    is_output: dict[str, bool] = {}

    def is_written(path: str) -> bool:
        folder, _, kind = path.rpartition("/")[0].rpartition("/")
        if kind not in _WRITTEN_TO_OUTPUTS or len(folder) < len(root):
            return False
        if folder not in is_output:
            is_output[folder] = filesystem.exists(f"{folder}/{layout.FORMAT_FILE}")
        return is_output[folder]

    return [path for path in paths if not is_written(path)]


def _name(filesystem: fsspec.AbstractFileSystem, url: str, path: str) -> str:
    """Return a path of a file system as a user would write it, with every part of the manifest's URL."""
    if "://" not in url:
        return path
    head, chain, rest = url.partition("::")
    if not chain:
        return str(filesystem.unstrip_protocol(path))
    scheme, has_path, _ = head.partition("://")
    return f"{scheme}://{path}::{rest}" if has_path else f"{head}::{rest.partition('://')[0]}://{path}"


def _partitions(below: str) -> tuple[tuple[str, str | None], ...]:
    """Return the columns that folders of the form `name=value` give, as in Hive."""
    pairs = [part.partition("=") for part in below.split("/")[:-1] if "=" in part]
    return tuple((unquote(name), None if value == _NO_PARTITION else unquote(value)) for name, _, value in pairs)
