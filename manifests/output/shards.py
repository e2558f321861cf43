"""Tar shards as the webdataset library reads them: a media file and a JSON file for every sample, side by side.

The same files give the same bytes: names in order, no times, no owners.
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
    """A tar of files, by name."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def unpack(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a tar's files, read from its beginning to its end, one at a time.

    Raises:
        tarfile.ReadError: it is no tar, or a broken one.
    """
    with tarfile.open(fileobj=file, mode="r|") as tar:
        for info in tar:
            opened = tar.extractfile(info)
            if opened is not None:
                yield info.name, opened.read()


def key_of(member: str) -> str:
    """What the names of a sample's files share."""
    return member.partition(".")[0]


def json_of(member: str) -> str:
    """The name of the JSON file beside a media file."""
    return f"{key_of(member)}.json"


def sample_json(row: Mapping[str, Any], extra: Collection[str]) -> bytes:
    """What a sample's JSON file says: what was asked for, and the manifest's own columns; null for NaN and infinity.

    Args:
        row: a record.
        extra: names of the manifest's own columns.
    """
    names = (*(column.name for column in REQUEST_COLUMNS), *extra)
    return canonical_json({name: _finite(row[name]) for name in names})


def _finite(value: Any) -> Any:
    """A column's value, perhaps a nested one, with null for the numbers that JSON lacks."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_member(folder: Folder, shard: str, member: str) -> bytes | None:
    """A file in a shard; None where there is no such file or shard."""
    try:
        with folder.opened(shard) as file:
            return next((content for name, content in unpack(file) if name == member), None)
    except FileNotFoundError:
        return None


class Kept(NamedTuple):
    """The result of taking samples out of a shard.

    Attributes:
        name: of the shard that holds the others now; the old one's if there was nothing to take out.
        problem: why the shard cannot be read, and so was left as it is.
    """

    name: str
    problem: str | None = None


def keep_members(folder: Folder, shard: str, members: Collection[str]) -> Kept:
    """Store all samples of a shard that these media files belong to as another shard, if it holds more than these.

    The old shard stays, for readers who know its name. One that is gone stays so, and one that breaks off before the
    last of these files stays as it is.
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
