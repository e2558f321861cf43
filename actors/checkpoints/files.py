"""The files of a checkpoint: in a local folder, behind an fsspec URL, or in a repository of the Hugging Face Hub."""

import fnmatch
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock
from huggingface_hub import HfApi, hf_hub_download

from rendermill.actors.checkpoints.safetensors_header import Tensor, read_header
from rendermill.manifests.errors import UserError
from rendermill.manifests.storage.errors import as_user_errors
from rendermill.manifests.storage.urls import is_local, open_filesystem

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rendermill"
"""The folder in which this machine keeps files between runs."""

_MAX_BYTES_WITHOUT_LFS = 100_000_000
_SIGNS_OF_CONTENT = (
    *("ETag", "etag", "md5Hash", "content_md5", "LastModified", "mtime"),
    *("Content-MD5", "Digest", "Last-Modified"),  # of HTTP servers without ETag
)
_NOT_PART_OF_THE_MODEL = ("*.md", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.webp", "*.mp4", "LICENSE*", ".*", "*/.*")


class CheckpointFiles(Protocol):
    """The files of a checkpoint, by their paths relative to it, without those that are not part of the model."""

    @property
    def names(self) -> list[str]:
        """The paths of all files, sorted."""

    def read(self, name: str) -> bytes:
        """Return the content of a small file."""

    def header(self, name: str) -> Mapping[str, Tensor]:
        """Return the tensors of a safetensors file.

        Raises:
            DamagedFile: it is no whole safetensors file.
        """

    def fingerprints(self) -> dict[str, Any]:
        """Return for each file a JSON value that changes if the file's content does."""


def open_files(source: str, revision: str | None) -> tuple[CheckpointFiles, str | None]:
    """Return the files of a checkpoint, and the commit of the Hub that they belong to; None for a folder or URL.

    Raises:
        UserError: there is no such checkpoint.
    """
    if is_on_hub(source):
        files = HubFiles(source, revision)
        return files, files.commit
    if revision is not None:
        raise UserError("only a checkpoint on the Hub has a revision; remove it", ("checkpoint",), source)
    return (LocalFiles(open_filesystem(source)[1], source) if is_local(source) else StoredFiles(source)), None


def is_on_hub(source: str) -> bool:
    """Return whether a source names a repository of the Hub: it is `owner/name`, and no local folder has that name."""
    return "://" not in source and source.count("/") == 1 and source[0] not in "./~" and not Path(source).exists()


class LocalFiles:
    """The files below a local folder. Links to files and folders are followed.

    Args:
        source: how messages name the folder.
    """

    def __init__(self, folder: str, source: str) -> None:
        self._folder, self._source = Path(folder), source

    @cached_property
    def names(self) -> list[str]:
        with as_user_errors("cannot be read", ("checkpoint",), self._source):
            names = sorted(_belonging(self._walk(self._folder, ())))
        if not names:
            raise UserError("no such folder", ("checkpoint",), self._source)
        for name in names:
            if not (self._folder / name).exists():
                target = os.readlink(self._folder / name)
                raise UserError(f"{name} links to {target}, which is not there", ("checkpoint",), self._source)
        return names

    def _walk(self, folder: Path, above: tuple[str, ...]) -> Iterator[str]:
        above = (*above, os.path.realpath(folder))
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name) if folder.is_dir() else ():
            path = Path(entry.path)
            if not entry.is_dir():
                yield str(path.relative_to(self._folder))
            elif os.path.realpath(path) not in above:  # a link to a folder that holds it would never end
                yield from self._walk(path, above)

    def read(self, name: str) -> bytes:
        with as_user_errors(f"{name} cannot be read", ("checkpoint",), self._source):
            return (self._folder / name).read_bytes()

    def header(self, name: str) -> Mapping[str, Tensor]:
        with open(self._folder / name, "rb") as file:

            def read(start: int, end: int) -> bytes:
                file.seek(start)
                return file.read(end - start)

            return read_header(read, os.fstat(file.fileno()).st_size)

    def fingerprints(self) -> dict[str, Any]:
        """Return the sha256 of every file, cached by the file's metadata, because weights are large."""
        remembered_file = CACHE / "fingerprints.json"
        remembered_file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{remembered_file}.lock"):  # of several actors that start, one reads the files
            remembered = _read_json(remembered_file)
            known = {name: _state_of_file(self._folder / name) for name in self.names}
            new = {state: _sha256(self._folder / name) for name, state in known.items() if state not in remembered}
            if new:
                remembered |= new
                temporary = remembered_file.with_suffix(f".{os.getpid()}.tmp")
                temporary.write_text(json.dumps(remembered))
                temporary.replace(remembered_file)
        return {name: remembered[state] for name, state in known.items()}


class StoredFiles:
    """The files behind an fsspec URL."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.filesystem, self._root = open_filesystem(source)

    @cached_property
    def _paths(self) -> dict[str, str]:
        with as_user_errors("cannot be read", ("checkpoint",), self._source):
            paths = {path[len(self._root) :].lstrip("/"): path for path in self.filesystem.find(self._root)}
        if not paths:
            raise UserError("no such folder", ("checkpoint",), self._source)
        return {name: paths[name] for name in sorted(_belonging(paths))}

    @property
    def names(self) -> list[str]:
        return list(self._paths)

    def path(self, name: str) -> str:
        """Return a file's path in the form that its file system uses."""
        return self._paths[name]

    def read(self, name: str) -> bytes:
        with as_user_errors(f"{name} cannot be read", ("checkpoint",), self._source):
            return bytes(self.filesystem.cat_file(self._paths[name]))

    def header(self, name: str) -> Mapping[str, Tensor]:
        path = self._paths[name]
        info = self.filesystem.info(path)
        if "http" not in self.filesystem.protocol:
            return read_header(lambda start, end: self.filesystem.cat_file(path, start=start, end=end), info["size"])
        with self.filesystem.open(path, block_size=0) as file:  # many servers know no ranges
            begun = b""

            def read(start: int, end: int) -> bytes:
                nonlocal begun
                while len(begun) < end and (part := file.read(end - len(begun))):
                    begun += part
                return begun[start:end]

            return read_header(read, info["size"])

    def fingerprints(self) -> dict[str, Any]:
        with as_user_errors("cannot be read", ("checkpoint",), self._source):
            return {name: self.fingerprint(path) for name, path in self._paths.items()}

    def fingerprint(self, path: str) -> list[Any]:
        """Return what the store says of a file's content: its ETag or checksum, or else its time of modification."""
        info = self.filesystem.info(path)
        for key in _SIGNS_OF_CONTENT:
            if info.get(key):
                return [info["size"], str(info[key])]
        return [info["size"]]


class HubFiles:
    """The files of a commit of the Hub.

    Attributes:
        commit: that the revision names.
    """

    def __init__(self, source: str, revision: str | None) -> None:
        self._source = source
        with as_user_errors(
            "no such folder, and the Hub has no such model or cannot be reached", ("checkpoint",), source
        ):
            info = HfApi().model_info(source, revision=revision, files_metadata=True)
        self.commit = info.sha
        siblings = {file.rfilename: file for file in info.siblings or []}
        self._files = {name: siblings[name] for name in sorted(_belonging(siblings))}

    @property
    def names(self) -> list[str]:
        return list(self._files)

    def read(self, name: str) -> bytes:
        with as_user_errors(f"{name} cannot be read", ("checkpoint",), self._source):
            return Path(hf_hub_download(self._source, name, revision=self.commit)).read_bytes()

    def header(self, name: str) -> Mapping[str, Tensor]:
        with as_user_errors(f"{name} cannot be read", ("checkpoint",), self._source):
            metadata = HfApi().parse_safetensors_file_metadata(self._source, name, revision=self.commit)
        return {name: Tensor(str(tensor.dtype), tuple(tensor.shape)) for name, tensor in metadata.tensors.items()}

    def fingerprints(self) -> dict[str, Any]:
        """Return the sha256 of each file in LFS, and the id of the git blob of each other file."""
        return {name: file.lfs.sha256 if file.lfs else file.blob_id for name, file in self._files.items()}


def git_blob_id(path: Path) -> str | None:
    """Return the id of a small file's git blob, 40 hex digits; None for a large file, which lies in LFS."""
    if path.stat().st_size > _MAX_BYTES_WITHOUT_LFS:
        return None
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _belonging(names: Iterable[str]) -> list[str]:
    """Return the names of files that are part of the model."""
    return [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in _NOT_PART_OF_THE_MODEL)]


def _state_of_file(path: Path) -> str:
    """Return a value that changes if a file does. It has the time of change, which `touch` and `cp -p` cannot set."""
    status = os.stat(path)
    state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return "|".join([os.path.realpath(path), *map(str, state)])


def _read_json(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
