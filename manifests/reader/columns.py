"""The columns of a manifest file, in the file itself or in its folders' names: which they are, and their types."""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from rendermill.manifests.arrow.types import carried_type, common_type
from rendermill.manifests.errors import UserError
from rendermill.manifests.reader.files import ManifestFile, PartitionValue
from rendermill.manifests.reader.footers import expanding_column
from rendermill.manifests.reader.naming import ColumnNames
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


def extra_types(
    file: ManifestFile, metadata: pq.FileMetaData, schema: pa.Schema, names: ColumnNames
) -> dict[str, pa.DataType]:
    """Check a file's columns, and return the types in which records carry those that are the user's own.

    Args:
        file: The file, with the columns that its folders give, as the job knows them.
        metadata: The file's footer.
        schema: The file's columns.
        names: The names by which the job knows them.

    Raises:
        NotAManifest: The file cannot be read as a manifest.
        UserError: A column is renamed to the name of another one.
    """
    partitions, in_file = dict(file.partitions), names.in_file(schema.names)
    _check_renamed(file, schema, names)
    _check_names(partitions, schema, in_file)
    for name in partitions.keys() & in_file.keys():
        _check_partition(name, in_file[name], partitions[name], metadata)
    expanding = expanding_column(metadata)
    if expanding is not None:
        raise NotAManifest(f"column `{expanding}` holds lists that take over a thousand times their size in the file")
    extra = {name: _partition_type(value) for name, value in partitions.items() if not names.is_own(name)}
    for name, column in in_file.items():
        data_type = schema.field(column).type
        if name in partitions or is_pandas_index(column):
            continue
        if names.is_own(name):  # arguments and inputs of models are the user's own here, as no model is known yet
            _check_own_type(name, data_type)
            continue
        try:
            extra[name] = carried_type(data_type)
        except ValueError as error:
            raise NotAManifest(f"column `{column}`: {error}") from error
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
                    f"column `{name}` is the name of a record's own column; rename it: `columns: {{{name}: new}}`",
                    ("manifest",),
                    file.name,
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


def check_renamed_exist(renamed: Mapping[str, str | None], columns: Collection[str]) -> None:
    """Check that a manifest has the columns which a job file renames.

    Args:
        renamed: As in `ColumnNames`.
        columns: The names of all columns of all files, and of those that folders give.

    Raises:
        UserError: No file has one of them.
    """
    for column in renamed:
        if column not in columns:
            near = difflib.get_close_matches(column, columns, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"they have {', '.join(sorted(columns))}"
            raise UserError(f"no file of the manifest has this column; {hint}", ("columns", column))


def _check_renamed(file: ManifestFile, schema: pa.Schema, names: ColumnNames) -> None:
    """Refuse to give a column the name of another column of its file."""
    given = {name for name, _ in file.partitions}
    for column, name in names.renamed.items():
        if name is None or name == column or column not in schema.names:
            continue
        if name in given or (name in schema.names and names.of(name) == name):
            raise UserError(
                f"{file.name} has a column `{name}`, too; rename that one as well, or leave it out of the file",
                ("columns", column),
            )


def _check_names(partitions: Mapping[str, object], schema: pa.Schema, in_file: Mapping[str, str]) -> None:
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        raise NotAManifest(f"it has two columns `{twice}`; leave one, or rename one")
    if "prompt" not in {*in_file, *partitions}:
        raise NotAManifest(
            f"no column `prompt`, which is the one required; it has {', '.join(schema.names)}; "
            "`columns: {NAME: prompt}` in the job file makes another one the prompt"
        )


def _check_own_type(name: str, data_type: pa.DataType) -> None:
    """Refuse a type in which no value of one of the manifest's own columns can be right."""
    kinds = [kind for kind in _KINDS[name] if _HAS_KIND[kind](carried_type(data_type))]
    if not kinds and not (types.is_null(data_type) and name != "prompt"):
        raise NotAManifest(f"column `{name}` is {data_type}; it has to be {' or '.join(_KINDS[name])}")


def _check_partition(name: str, column: str, value: PartitionValue, metadata: pq.FileMetaData) -> None:
    """Refuse a column that is also in the file, unless all its values there are the folder's."""
    index = metadata.schema.names.index(column)
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
