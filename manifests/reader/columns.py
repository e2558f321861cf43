"""The columns of a manifest file, in the file itself or in its folders' names: which they are, and their types."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from rendermill.manifests.arrow.types import carried_type, common_type
from rendermill.manifests.errors import UserError
from rendermill.manifests.reader.files import ManifestFile, PartitionValue
from rendermill.manifests.reader.footers import expanding_column
from rendermill.manifests.reader.row_group import is_pandas_index
from rendermill.manifests.schema import INTERNAL_PREFIX, MANIFEST_COLUMNS, MANIFEST_NAMES, RESERVED_NAMES

_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")


class NotAManifest(Exception):
    """A file cannot be read as a manifest. The message is the reason, in words."""


def _is_text(data_type: pa.DataType) -> bool:
    return types.is_string(data_type) or types.is_large_string(data_type)


def _is_number(data_type: pa.DataType) -> bool:
    return types.is_integer(data_type) or types.is_floating(data_type) or types.is_decimal(data_type)


def _is_uuid(data_type: pa.DataType) -> bool:
    return data_type == pa.binary(16)


_HAS_KIND = {"text": _is_text, "a number": _is_number, "a UUID": _is_uuid}
_KINDS = {column.name: ["text"] if types.is_string(column.type) else ["a number"] for column in MANIFEST_COLUMNS} | {
    "id": ["text", "a number", "a UUID"]
}
"""The kinds of values that each of the manifest's own columns may have."""


def extra_types(file: ManifestFile, metadata: pq.FileMetaData, schema: pa.Schema) -> dict[str, pa.DataType]:
    """Check a file's columns, and return the types in which records carry those that are the user's own.

    Args:
        file: The file, with the columns that its folders give.
        metadata: The file's footer.
        schema: The file's columns.

    Raises:
        NotAManifest: The file cannot be read as a manifest.
    """
    partitions = dict(file.partitions)
    _check_names(partitions, schema)
    for name in partitions.keys() & {*schema.names}:
        _check_partition(name, partitions[name], metadata)
    expanding = expanding_column(metadata)
    if expanding is not None:
        raise NotAManifest(f"column `{expanding}` holds lists that take over a thousand times their size in the file")
    extra = {name: _partition_type(partitions[name]) for name in partitions.keys() - MANIFEST_NAMES}
    for field in schema:
        if field.name in partitions or is_pandas_index(field.name):
            continue
        if field.name in MANIFEST_NAMES:
            _check_own_type(field)
            continue
        try:
            extra[field.name] = carried_type(field.type)
        except ValueError as error:
            raise NotAManifest(f"column `{field.name}`: {error}") from error
    return extra


def common_extra(extra_of_file: Sequence[tuple[ManifestFile, Mapping[str, pa.DataType]]]) -> pa.Schema:
    """Return the user's own columns of all files, in name order, each in the type that holds every file's values.

    Args:
        extra_of_file: The result of `extra_types` for each file.

    Raises:
        UserError: A column has a name that rendermill uses, or types that no common type holds.
    """
    found: dict[str, pa.DataType] = {}
    for file, extra in extra_of_file:
        for name, data_type in extra.items():
            if name in RESERVED_NAMES or name.startswith(INTERNAL_PREFIX):
                raise UserError(
                    f"column `{name}` is the name of a record's own column; rename it", ("manifest",), file.name
                )
            common = common_type(found.get(name, data_type), data_type)
            if common is None:
                raise UserError(
                    f"column `{name}` is {data_type}, but {found[name]} in another file of it", ("manifest",), file.name
                )
            found[name] = common
    return pa.schema([(name, found[name]) for name in sorted(found)])


def with_typed_partitions(files: Sequence[ManifestFile]) -> list[ManifestFile]:
    """Return the files with numbers instead of texts in the columns that folders give, where these are numbers.

    A column of whole numbers alone, in all files, becomes int64. One of the manifest's own columns that has to be a
    number becomes a float, if it can.
    """
    values: dict[str, set[PartitionValue]] = {}
    for file in files:
        for name, value in file.partitions:
            values.setdefault(name, set()).add(value)
    are_whole = {name for name, found in values.items() if all(v is None or _WHOLE.fullmatch(str(v)) for v in found)}

    def typed(name: str, value: PartitionValue) -> PartitionValue:
        if value is None or (_KINDS.get(name, ["text"])[0] == "text" and name in MANIFEST_NAMES):
            return value
        if name in are_whole:
            return int(value)
        try:
            return float(value) if name in MANIFEST_NAMES else value
        except ValueError:
            return value  # it is rejected with its rows

    return [replace(file, partitions=tuple((name, typed(name, v)) for name, v in file.partitions)) for file in files]


def _check_names(partitions: Mapping[str, object], schema: pa.Schema) -> None:
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        raise NotAManifest(f"it has two columns `{twice}`; leave one, or rename one")
    if "prompt" not in {*schema.names, *partitions}:
        raise NotAManifest(f"no column `prompt`, which is the one required; it has {', '.join(schema.names)}")


def _check_own_type(field: pa.Field) -> None:
    """Refuse a type in which no value of one of the manifest's own columns can be right."""
    data_type = field.type
    kinds = [kind for kind in _KINDS[field.name] if _HAS_KIND[kind](carried_type(data_type))]
    if not kinds and not (types.is_null(data_type) and field.name != "prompt"):
        raise NotAManifest(f"column `{field.name}` is {data_type}; it has to be {' or '.join(_KINDS[field.name])}")


def _check_partition(name: str, value: PartitionValue, metadata: pq.FileMetaData) -> None:
    """Refuse a column that is also in the file, unless all its values there are the folder's."""
    index = metadata.schema.names.index(name)
    for number in range(metadata.num_row_groups):
        chunk = metadata.row_group(number).column(index)
        found = chunk.statistics
        is_same = found is not None and found.has_min_max and not found.null_count and found.min == found.max
        if not is_same or str(found.min) != str(value):
            raise NotAManifest(
                f"column `{name}` stands in the file and in its folder's name, {name}={value}; leave one"
            )


def _partition_type(value: PartitionValue) -> pa.DataType:
    return pa.null() if value is None else pa.string() if isinstance(value, str) else pa.int64()
