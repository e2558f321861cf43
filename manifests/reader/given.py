"""The further arguments and inputs that a row gives, checked against what its model takes."""

import re
from collections.abc import Mapping
from typing import Any

from rendermill.manifests.arrow.values import Unreadable
from rendermill.manifests.errors import RowProblem
from rendermill.manifests.identity import canonical_json
from rendermill.manifests.inputs import InputValue, inputs_text
from rendermill.manifests.schema import InputColumn, ModelContract, sha256_column

_SHA256 = re.compile("[0-9a-f]{64}")


def arguments_of(contract: ModelContract, asked: Mapping[str, Any]) -> str | None:
    """Return the further arguments of a row, as `Request.arguments` holds them; None if all are the pipeline's own.

    Args:
        asked: the values by name that the row gives for what any of the job's models takes.

    Raises:
        RowProblem: a value does not suit its argument, or the model takes none of its name.
    """
    if not asked and not contract.argument_defaults:
        return None
    given = {}
    for name in sorted(asked.keys() - _names_of_inputs(contract)):
        if name not in contract.arguments:
            raise RowProblem(f"{name}: this model takes none; leave it empty")
        value = asked[name]
        if isinstance(value, Unreadable):
            raise RowProblem(f"{name}: {value.problem}")
        given[name] = contract.arguments[name](name, value)
    found = {name: value for name, value in {**contract.argument_defaults, **given}.items() if value is not None}
    return canonical_json(found).decode() if found else None


def inputs_of(contract: ModelContract, asked: Mapping[str, Any]) -> str | None:
    """Return the inputs of a row, as `Request.inputs` holds them; None if there are none.

    Args:
        asked: as for `arguments_of`.

    Raises:
        RowProblem: an input is missing, or is none; or a sha256 does not belong to it.
    """
    found = {}
    for name, column in contract.inputs.items():
        sha256 = asked.get(sha256_column(name))
        value = asked.get(name)
        if value is None or value == []:
            if column.is_required:
                raise RowProblem(f"{name}: missing; this model needs a URL, a path or the bytes of one in every row")
            if sha256 is not None:
                raise RowProblem(f"{sha256_column(name)}: the row has no {name}; leave it empty")
            continue
        found[name] = _entries(name, column, value, sha256)
    return inputs_text(found) if found else None


def input_values_of(row: Mapping[str, Any]) -> list[InputValue]:
    """Return all images and videos of a row whose model takes them."""
    values = (value if isinstance(value, list) else [value] for value in row.values())
    return [value for inner in values for value in inner if isinstance(value, InputValue)]


def _names_of_inputs(contract: ModelContract) -> set[str]:
    return {*contract.inputs, *map(sha256_column, contract.inputs)}


def _entries(name: str, column: InputColumn, value: Any, sha256: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    hashes = sha256 if isinstance(sha256, list) else [sha256] * len(values) if sha256 is None else [sha256]
    if len(values) > 1 and not column.is_list:
        raise RowProblem(f"{name}: expected one, got a list of {len(values)}")
    if len(hashes) != len(values):
        raise RowProblem(f"{sha256_column(name)}: {len(hashes)} for {len(values)} of {name}; give one for each")
    entries = [_with_sha256(name, one, given).entry for one, given in zip(values, hashes, strict=True)]
    return entries if column.is_list else entries[0]


def _with_sha256(name: str, value: Any, sha256: Any) -> InputValue:
    if isinstance(value, str):  # a folder's name gives it
        raise RowProblem(f"{name}: the name of a folder gives it; write it into the file")
    if not isinstance(value, InputValue):
        problem = value.problem if isinstance(value, Unreadable) else "expected a URL, a path or bytes, got null"
        raise RowProblem(f"{name}: {problem}")
    if sha256 is None:
        return value
    given = sha256.lower() if isinstance(sha256, str) else ""
    if not _SHA256.fullmatch(given):
        raise RowProblem(f"{sha256_column(name)}: expected 64 hex digits, got {sha256!r:.80}")
    if value.url is None and given != value.sha256:
        raise RowProblem(f"{sha256_column(name)}: {given}, but that of the bytes is {value.sha256}")
    return value if value.url is None else InputValue(value.url, value.place, given)
