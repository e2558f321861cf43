"""A chunk of requests as an actor gets it: requests, and the inputs that `actors.media.inputs.step` read for them."""

import json
from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

from rendermill.actors.media.inputs.packing import unpacked
from rendermill.manifests.schema import DECODED_PREFIX, INPUT_ERROR
from rendermill.models.inputs import Inputs


class Chunk(NamedTuple):
    """The parts of a chunk.

    Attributes:
        rows: the requests and the manifest's own columns, without what is used within a run only.
        inputs: the decoded inputs of the requests that have any, by request hash.
        errors: the type and the message of the error of each request whose inputs cannot be used, by request hash.
    """

    rows: pa.Table
    inputs: Mapping[str, Inputs]
    errors: Mapping[str, tuple[str, str]]


def taken_apart(chunk: pa.Table) -> Chunk:
    """Return the parts of a chunk. The pixels of inputs are not copied."""
    if INPUT_ERROR not in chunk.column_names:
        return Chunk(chunk, {}, {})
    hashes = chunk["request_hash"].to_pylist()
    inputs: dict[str, dict[str, object]] = {}
    columns = [name for name in chunk.column_names if name.startswith(DECODED_PREFIX)]
    for column in columns:
        for request_hash, media in zip(hashes, chunk[column], strict=True):
            if media.is_valid:
                name = column.removeprefix(DECODED_PREFIX)
                inputs.setdefault(request_hash, {})[name] = unpacked(memoryview(media.as_buffer()))
    errors = {
        request_hash: tuple(json.loads(error))
        for request_hash, error in zip(hashes, chunk[INPUT_ERROR].to_pylist(), strict=True)
        if error is not None
    }
    return Chunk(chunk.drop_columns([*columns, INPUT_ERROR]), inputs, errors)  # type: ignore[arg-type]
