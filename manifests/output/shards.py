"""Tar shards as the webdataset library reads them: a media file and a JSON file for every sample.

The same files give the same bytes, because a shard has its files in the order of their names, without times and owners.
"""

import hashlib
import io
import math
import tarfile
from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any, NamedTuple

import pyarrow as pa

from rendermill.manifests.errors import one_line
from rendermill.manifests.identity import canonical_json
from rendermill.manifests.output import layout
from rendermill.manifests.schema import REQUEST_COLUMNS
from rendermill.manifests.storage.folder import Folder


def pack(files: Mapping[str, bytes | pa.Buffer]) -> bytes:
    """Return a tar file.

    Args:
        files: The files' contents by name.
    """
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def unpack(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of a tar file's files, one at a time, in their order.

    Raises:
        tarfile.ReadError: The file is no tar file, or a damaged one.
    """
    with tarfile.open(fileobj=file, mode="r|") as tar:
        for info in tar:
            opened = tar.extractfile(info)
            if opened is not None:
                yield info.name, opened.read()


def key_of(member: str) -> str:
    """Return the part of a file's name that all files of a sample have in common."""
    return member.partition(".")[0]


def json_of(member: str) -> str:
    """Return the name of the JSON file of the sample that a media file belongs to."""
    return f"{key_of(member)}.json"


def sample_json(row: Mapping[str, Any], extra: Collection[str]) -> bytes:
    """Return the content of a sample's JSON file: its request, and the manifest's extra columns.

    NaN and infinity become null.

    Args:
        row: The sample's record.
        extra: The names of the manifest's extra columns.
    """
    names = (*(column.name for column in REQUEST_COLUMNS), *extra)
    return canonical_json({name: _finite(row[name]) for name in names})


def _finite(value: Any) -> Any:
    """Return a value, perhaps a nested one, with null for the numbers that JSON lacks."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_member(folder: Folder, shard: str, member: str) -> bytes | None:
    """Return a file in a shard; None if there is no such file or shard."""
    try:
        with folder.opened(shard) as file:
            return next((content for name, content in unpack(file) if name == member), None)
    except FileNotFoundError:
        return None


class Kept(NamedTuple):
    """The result of removing samples from a shard.

    Attributes:
        name: The name of the shard that has the other samples now: the old name if there was nothing to remove.
        problem: The reason why the shard cannot be read, and stays as it is; None if it can.
    """

    name: str
    problem: str | None = None


def keep_members(folder: Folder, shard: str, members: Collection[str]) -> Kept:
    """Store some samples of a shard as another shard, if the shard has more than these.

    The old shard stays, for readers who know its name. Nothing is stored if the old shard does not exist, or is damaged
    before the last of these samples.

    Args:
        folder: The output.
        shard: The shard's name.
        members: The names of the samples' media files in the shard.
    """
    data = folder.read(shard)
    if data is None:
        return Kept(shard)
    files, keys, problem = dict[str, bytes](), {key_of(member) for member in members}, None
    try:
        files.update(unpack(io.BytesIO(data)))
    except tarfile.TarError as error:
        problem = one_line(error)
    if problem and not files.keys() >= {*members, *map(json_of, members)}:
        return Kept(shard, problem)
    kept = {name: content for name, content in files.items() if key_of(name) in keys}
    if len(kept) == len(files) and not problem:
        return Kept(shard)
    packed = pack(kept)
    name = layout.shard_rewritten(shard, hashlib.sha256(packed).hexdigest())
    folder.write(name, packed)
    return Kept(name)
