"""Read the media of an output, files and shards, and compare them with its records."""

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from rendermill.manifests.errors import one_line
from rendermill.manifests.output.layout import MEDIA
from rendermill.manifests.output.shards import json_of, unpack
from rendermill.manifests.storage.folder import Folder

_COLUMNS = ["id", "sample_index", "path", "member", "bytes", "sha256", "request_hash"]
_NUM_THREADS = 16
_NUM_FILES_AT_ONCE = 256
_BYTES_READ_AT_ONCE = 2**22


class Finding(NamedTuple):
    """The result of checking the media of one record.

    Attributes:
        name: The media file; with its shard before it if it is in one.
        problem: `missing`, `damaged`, `unreadable`, or empty if there is none.
        details: The problem in words.
        num_bytes: The number of bytes that were read.
        item: The record's id and sample index.
    """

    name: str
    problem: str = ""
    details: str = ""
    num_bytes: int = 0
    item: tuple[str, int] = ("", 0)


class Checked(NamedTuple):
    """The result of checking a file: a finding for each of its records, and members of a shard that no record names."""

    path: str
    findings: list[Finding]
    without_record: list[str]


def check_media(output: Folder, tables: Iterable[pa.Table]) -> Iterator[Checked]:
    """Read every file that records name once, several at the same time.

    Args:
        tables: All records of the files to read.
    """
    left = _by_file(tables)
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        waiting: list[Future[Checked]] = []
        while True:
            batch = list(islice(left, _NUM_FILES_AT_ONCE))
            started = [threads.submit(_check, output, records) for records in batch]
            yield from (future.result() for future in waiting)
            if not batch:
                return
            waiting = started


def _by_file(tables: Iterable[pa.Table]) -> Iterator[list[dict[str, Any]]]:
    """Yield the records of each file; those of shards last, because they may be in several tables."""
    in_shards = []
    for table in tables:
        records = table.select(_COLUMNS)
        is_member = pc.is_valid(records["member"])
        yield from ([record] for record in records.filter(pc.invert(is_member)).to_pylist())
        in_shards.append(records.filter(is_member))
    if not in_shards:
        return
    members = pa.concat_tables(in_shards).sort_by("path")
    start = 0
    for end in pc.run_end_encode(members["path"].combine_chunks()).run_ends.to_pylist():
        yield members.slice(start, end - start).to_pylist()
        start = end


def _check(output: Folder, records: list[dict[str, Any]]) -> Checked:
    path = records[0]["path"]
    if records[0]["member"] is None:
        return Checked(path, [_check_file(output, records[0])._replace(item=_item(records[0]))], [])
    return _check_shard(output, path, {record["member"]: record for record in records})


def _item(record: dict[str, Any]) -> tuple[str, int]:
    return record["id"], record["sample_index"]


def _check_file(output: Folder, record: dict[str, Any]) -> Finding:
    path, digest, size = record["path"], hashlib.sha256(), 0
    try:
        for part in output.stream(path, _BYTES_READ_AT_ONCE):
            digest.update(part)
            size += len(part)
    except FileNotFoundError:
        return Finding(path, "missing")
    except Exception as error:  # each store's client has errors of its own
        return Finding(path, "unreadable", one_line(error), size)
    return _compared(path, record, size, digest.hexdigest())


def _check_shard(output: Folder, shard: str, records: dict[str, dict[str, Any]]) -> Checked:
    """Read a shard once.

    Args:
        records: By member.
    """
    by_json = {json_of(member): record for member, record in records.items()}
    found: dict[str, Finding] = {}
    fits: dict[str, bool] = {}
    without_record: list[str] = []
    otherwise = Finding("", "missing")
    try:
        with output.opened(shard) as file:
            for name, content in unpack(file):
                if name in records:
                    digest = hashlib.sha256(content).hexdigest()
                    found[name] = _compared(f"{shard}/{name}", records[name], len(content), digest)
                elif name in by_json:
                    fits[name] = _is_of(content, by_json[name])
                else:
                    without_record.append(f"{shard}/{name}")
    except FileNotFoundError:
        pass
    except tarfile.TarError as error:
        otherwise = Finding("", "damaged", f"the shard is cut off: {one_line(error)}")
        if found.keys() == records.keys():
            without_record.append(f"{shard}: all behind the last record's files, where it is cut off")
    except Exception as error:
        otherwise = Finding("", "unreadable", one_line(error))
    findings = []
    for member in records:
        finding = found.get(member, otherwise._replace(name=f"{shard}/{member}"))
        if not finding.problem and not fits.get(json_of(member)):
            finding = finding._replace(problem="damaged", details="its JSON file is missing or belongs to another item")
        findings.append(finding._replace(item=_item(records[member])))
    return Checked(shard, findings, without_record)


def _compared(name: str, record: dict[str, Any], size: int, digest: str) -> Finding:
    if size != record["bytes"]:
        return Finding(name, "damaged", f"it has {size} bytes, and its record says {record['bytes']}", size)
    if digest != record["sha256"]:
        return Finding(name, "damaged", "its sha256 differs from that of its record", size)
    return Finding(name, num_bytes=size)


def _is_of(content: bytes, record: dict[str, Any]) -> bool:
    """Return whether a JSON file belongs to a record."""
    try:
        return bool(json.loads(content)["request_hash"] == record["request_hash"])
    except (ValueError, KeyError, TypeError):
        return False


class Gaps(NamedTuple):
    """The numbers of records whose media are missing in a listing, or have another size there."""

    num_missing: int
    num_of_other_size: int


def gaps(output: Folder, tables: Iterable[pa.Table]) -> Gaps:
    """Compare records with a listing of the media, without reading any.

    Args:
        tables: Of records, with the columns path, member and bytes.
    """
    sizes, num_missing, num_of_other_size = output.all_sizes(MEDIA), 0, 0
    records = pa.concat_tables(tables).group_by(["path", "member"]).aggregate([("bytes", "max")])  # some come twice
    files = records.group_by(["path"]).aggregate([("bytes_max", "sum"), ("member", "count"), ([], "count_all")])
    for file in files.to_pylist():
        size, expected = sizes.get(file["path"]), file["bytes_max_sum"]
        if size is None:
            num_missing += file["count_all"]
        elif size < expected or (size != expected and not file["member_count"]):  # a shard holds more than media
            num_of_other_size += file["count_all"]
    return Gaps(num_missing, num_of_other_size)
