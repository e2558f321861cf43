"""Reads the inputs of a table of requests, ahead of the actors that render. A bad input costs its row."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from rendermill.actors.media.inputs.decode import OutputSize, decoded
from rendermill.actors.media.inputs.options import BadInput, InputOptions
from rendermill.actors.media.inputs.packing import packed
from rendermill.actors.media.inputs.sources.fetch import Fetcher, Wanted
from rendermill.actors.services.guard import Guard, costs_its_item
from rendermill.manifests.errors import one_line
from rendermill.manifests.schema import DECODED_PREFIX, INPUT_ERROR, INPUT_PREFIX
from rendermill.models.inputs import InputSpec

_MAX_ERROR_LENGTH = 2000
_NUM_FETCHES_AT_ONCE = 16
_NUM_ROWS_TOGETHER = 64
"""The number of rows that are guarded at once, and taken one by one after the process died with them."""
_NUM_BYTES_TOGETHER = 64 * 2**20
"""The approximate size of the decoded inputs of a table; one row may have more."""
_NUM_CHANNELS = 3


class _Read(NamedTuple):
    """The inputs of one request: packed media by name and the record's `inputs`, or the error."""

    media: Mapping[str, bytes]
    inputs: str | None
    error_type: str | None = None
    error: str | None = None


class _Packed(NamedTuple):
    """A decoded input as bytes, and what records say of its files."""

    media: bytes
    entries: list[dict[str, Any]]


_File = bytes | Wanted
"""A file of an input: its content, if the manifest holds that, or where it is."""


@dataclass(frozen=True)
class InputStep:
    """Fetches, checks, decodes and fits the inputs of requests.

    Attributes:
        specs: the inputs that the model takes, by name.
        guard: finds the row over whose inputs a process dies.
    """

    specs: Mapping[str, InputSpec]
    options: InputOptions
    fetcher: Fetcher
    guard: Guard

    def read(self, requests: pa.Table) -> Iterator[pa.Table]:
        """Read the inputs of all rows.

        Args:
            requests: request columns and others. `inputs` says by name where an input is: `{"url": …}`, with `place`
                if the URL to read has secrets, and with `sha256` if the content must have that; or `{"sha256": …}` if
                a column `INPUT_PREFIX` with its name holds the content; a list for several pictures.

        Yields:
            Parts of the table, without the columns of content. `inputs` holds what records say; a column
            `DECODED_PREFIX` with the name of each input holds its packed media; `INPUT_ERROR` says why a row cannot be
            rendered.
        """
        if requests["inputs"].null_count == requests.num_rows:
            yield self._with(requests, requests["inputs"], [_Read({}, None)] * requests.num_rows)
            return
        size = max(1, min(_NUM_ROWS_TOGETHER, _NUM_BYTES_TOGETHER // max(1, self._largest(requests))))
        for start in range(0, requests.num_rows, size):
            yield self._part(requests.slice(start, size))

    def _largest(self, requests: pa.Table) -> int:
        """Return the approximate size of the largest row's decoded inputs."""
        columns = [requests[name].to_pylist() for name in ("width", "height", "num_frames")]
        pixels = max((width * height * frames for width, height, frames in zip(*columns, strict=True)), default=0)
        return pixels * _NUM_CHANNELS * len(self.specs)

    def _part(self, requests: pa.Table) -> pa.Table:
        rows = _Rows(requests, self.specs)
        found = self.guard.each(
            requests["request_hash"].to_pylist(),
            lambda indices: self._read_all(rows, indices),
            lambda _, error_type, error, attempts: _Read({}, None, error_type, f"{error} ({attempts} attempts)"),
        )
        texts = [read.inputs or rows.not_read(index) for index, read in enumerate(found)]
        return self._with(requests, pa.array(texts, pa.string()), found)

    def _with(self, requests: pa.Table, inputs: pa.Array | pa.ChunkedArray, found: Sequence[_Read]) -> pa.Table:
        """Return a table of requests with what was read of its inputs.

        Args:
            inputs: what records say of them.
        """
        table = requests.select([name for name in requests.column_names if not name.startswith(INPUT_PREFIX)])
        place = table.column_names.index("inputs")
        table = table.set_column(place, requests.schema.field("inputs"), inputs)
        for name in self.specs:
            media = pa.array([read.media.get(name) for read in found], pa.large_binary())
            table = table.append_column(DECODED_PREFIX + name, media)
        errors = [json.dumps([read.error_type, read.error]) if read.error_type else None for read in found]
        return table.append_column(INPUT_ERROR, pa.array(errors, pa.string()))

    def _read_all(self, rows: "_Rows", indices: Sequence[int]) -> list[_Read]:
        """Read the inputs of some rows, and fetch those of the next rows meanwhile."""
        results: list[_Read] = []
        with ThreadPoolExecutor(_NUM_FETCHES_AT_ONCE) as pool:
            fetching: dict[Wanted, Future[bytes]] = {}
            known: dict[Any, _Packed] = {}
            for place, index in enumerate(indices):
                for ahead in indices[place : place + _NUM_FETCHES_AT_ONCE]:
                    for wanted in rows.wanted(ahead):
                        if wanted not in fetching:
                            fetching[wanted] = pool.submit(self.fetcher.fetch, wanted)
                results.append(self._read_row(rows, index, fetching, known))
                still_wanted = {wanted for ahead in indices[place + 1 :] for wanted in rows.wanted(ahead)}
                fetching = {wanted: data for wanted, data in fetching.items() if wanted in still_wanted}
        return results

    def _read_row(
        self, rows: "_Rows", index: int, fetching: Mapping[Wanted, "Future[bytes]"], known: dict[Any, "_Packed"]
    ) -> _Read:
        """Read the inputs of a row.

        Args:
            known: what was decoded already, for another sample of the row for example; what this row has is added.
        """
        media, entries = {}, {}
        for name, files in rows.files(index).items():
            try:
                contents = [fetching[file].result() if isinstance(file, Wanted) else file for file in files]
            except BadInput as error:
                return _failed(error, f"{name}: {one_line(error, _MAX_ERROR_LENGTH)}")
            key = (name, *files, rows.size(index))
            try:
                if key not in known:
                    found = decoded(contents, self.specs[name], rows.size(index), self.options.fit)
                    known[key] = _Packed(packed(found.media), found.entries)
            except BaseException as error:  # libraries of decoders may raise anything
                if not costs_its_item(error):
                    raise
                return _failed(error, f"{name}: {rows.place(index, name)}: {one_line(error, _MAX_ERROR_LENGTH)}")
            media[name] = known[key].media
            entries[name] = rows.recorded(index, name, known[key].entries)
        return _Read(media, _json(entries) if entries else None)


class _Rows:
    """The rows of a table of requests, as far as their inputs are concerned."""

    def __init__(self, requests: pa.Table, specs: Mapping[str, InputSpec]) -> None:
        self._given = [json.loads(text) if text else {} for text in requests["inputs"].to_pylist()]
        self._contents = {
            name: requests[INPUT_PREFIX + name] for name in specs if INPUT_PREFIX + name in requests.column_names
        }
        self._sizes = [requests[name].to_pylist() for name in OutputSize._fields]
        self._wanted = [
            [file for files in self.files(index).values() for file in files if isinstance(file, Wanted)]
            for index in range(requests.num_rows)
        ]

    def size(self, index: int) -> OutputSize:
        """Return the size that a request asks for."""
        return OutputSize(*(column[index] for column in self._sizes))

    def wanted(self, index: int) -> list[Wanted]:
        """Return the files of a row that have to be fetched."""
        return self._wanted[index]

    def files(self, index: int) -> dict[str, list[_File]]:
        """Return the files of each input of a row."""
        return {name: self._files_of(index, name, given) for name, given in self._given[index].items()}

    def _files_of(self, index: int, name: str, given: Any) -> list[_File]:
        entries = given if isinstance(given, list) else [given]
        if all("url" in entry for entry in entries):
            return [_wanted(entry) for entry in entries]
        content = self._contents[name][index].as_py()
        contents = content if isinstance(content, list) else [content]
        return [
            _wanted(entry) if "url" in entry else bytes(data) for entry, data in zip(entries, contents, strict=True)
        ]

    def place(self, index: int, name: str) -> str:
        """Return in words where an input of a row is."""
        given = self._given[index][name]
        entries = given if isinstance(given, list) else [given]
        return ", ".join(entry.get("url") or entry.get("path") or "its content" for entry in entries)

    def recorded(self, index: int, name: str, entries: Sequence[Mapping[str, Any]]) -> Any:
        """Return what the record says of an input: what was given, and what was found."""
        given = self._given[index][name]
        if isinstance(given, list):
            return [_without_secrets(one) | dict(entry) for one, entry in zip(given, entries, strict=True)]
        return _without_secrets(given) | dict(entries[0])

    def not_read(self, index: int) -> str | None:
        """Return what the record of a failure says of a row's inputs: what was given."""
        given = {
            name: [*map(_without_secrets, one)] if isinstance(one, list) else _without_secrets(one)
            for name, one in self._given[index].items()
        }
        return _json(given) if given else None


def _wanted(entry: Mapping[str, Any]) -> Wanted:
    return Wanted(entry.get("place", entry["url"]), entry.get("sha256"))


def _without_secrets(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row gives without `place`, which is the URL to read if that has secrets."""
    return {key: value for key, value in entry.items() if key != "place"}


def _json(inputs: Mapping[str, Any]) -> str:
    return json.dumps(inputs, sort_keys=True, ensure_ascii=False)


def _failed(error: BaseException, words: str) -> _Read:
    return _Read({}, None, type(error).__name__, words)
