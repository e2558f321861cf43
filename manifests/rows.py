"""Validate manifest rows, and turn them into items: requests with every default filled in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from rendermill.manifests import identity
from rendermill.manifests.errors import RowProblem
from rendermill.manifests.inputs import identities, input_names
from rendermill.manifests.reader.given import arguments_of, inputs_of
from rendermill.manifests.reader.kinds import MAX_SEED
from rendermill.manifests.request import MANIFEST_FIELDS, OPTIONAL_FIELDS, Shape, hashed_fields
from rendermill.manifests.schema import ModelContract

_READERS = {name: described.kind.read for name, described in MANIFEST_FIELDS.items()}


class Sample(NamedTuple):
    """The fields in which the requests of one item differ."""

    sample_index: int
    seed: int
    request_hash: str


@dataclass(frozen=True)
class Settled:
    """The fields that most rows of a manifest share, with every default filled in.

    Attributes:
        fields: the model, and the fields that rows may leave to the job file, by name.
        shape: of requests with these fields.
        hasher: makes the hashes of requests with these fields.
    """

    fields: Mapping[str, Any]
    shape: Shape
    hasher: identity.RequestHasher = field(compare=False, repr=False)


class Item(NamedTuple):
    """The request of a valid row.

    Attributes:
        inputs: as `Request.inputs` holds them; None if there are none.
    """

    id: str
    prompt: str
    settled: Settled
    samples: list[Sample]
    inputs: str | None = None


@dataclass(frozen=True)
class RowValidator:
    """Turns manifest rows into items.

    Args:
        models: the job's models by name.
        default_model: of rows that name none.
        job_seed: the seed from which the seeds of samples derive if their row has none.
        own: names of columns that are the user's own, even if a model takes an argument of that name.
    """

    models: Mapping[str, ModelContract]
    default_model: str | None
    job_seed: int
    own: frozenset[str] = frozenset()

    @cached_property
    def _asked(self) -> frozenset[str]:
        """The names of columns that are further arguments or inputs of a model."""
        contracts = self.models.values()
        return frozenset(name for contract in contracts for name in contract.further_columns) - self.own

    def item(self, row: Mapping[str, Any]) -> Item:
        """Return the item of a row.

        Args:
            row: values by column. If it has no id, with the user's own columns too, from which its id is made.

        Raises:
            RowProblem: the row cannot be rendered; the message says why and what would be right.
        """
        given, extra = _read(row)
        item_id = given.get("id") or identity.content_hash(given | extra).hex()
        prompt, seed, num_samples = given.get("prompt", ""), given.get("seed"), given.get("num_samples", 1)
        if not prompt.strip():
            raise RowProblem("prompt: empty; every row needs a text to render")
        if seed is not None and seed + num_samples - 1 > MAX_SEED:
            raise RowProblem(f"seed: {seed} with {num_samples} samples would pass 2^63-1, the largest seed")
        model = self._model(given.get("model"))
        shared = tuple([pair for pair in given.items() if pair[0] in OPTIONAL_FIELDS])
        contract = self.models[model]
        asked = {name: extra[name] for name in self._asked if extra.get(name) is not None}
        inputs = inputs_of(contract, asked)
        settled = _settle(contract, model, shared, arguments_of(contract, asked), inputs and input_names(inputs))
        identity_of_inputs = inputs and identities(inputs)
        samples = []
        for sample_index in range(num_samples):
            sample_seed = identity.sample_seed(self.job_seed, item_id, sample_index, seed)
            request_hash = settled.hasher(item_id, prompt, sample_index, sample_seed, identity_of_inputs)
            samples.append(Sample(sample_index, sample_seed, request_hash))
        return Item(item_id, prompt, settled, samples, inputs)

    def _model(self, name: str | None) -> str:
        name = name or self.default_model
        if name is None:
            raise RowProblem("model: none named, and the job file has no default_model")
        if name not in self.models:
            raise RowProblem(f"model: {name!r} is not in the job file, which has {', '.join(sorted(self.models))}")
        return name


def content_hash(row: Mapping[str, Any]) -> bytes:
    """Return the hash by which rows of the same id are compared; see `manifests.identity.content_hash`."""
    given, extra = _read(row)
    return identity.content_hash(given | extra)


def _read(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a row gives: the manifest's own columns in normal form, and the user's without changes."""
    given, extra = {}, {}
    for name, value in row.items():
        read = _READERS.get(name)
        if read is None:
            extra[name] = value
        elif value is not None:
            given[name] = read(name, value)
    return given, extra


@lru_cache(maxsize=1024)
def _settle(
    contract: ModelContract,
    model: str,
    given: tuple[tuple[str, Any], ...],
    arguments: str | None,
    names_of_inputs: str | None,
) -> Settled:
    """Fill in what a row leaves to the job file.

    Args:
        given: the optional fields that the row gives, in normal form, so that equal rows share a result.
        arguments: the further arguments, as `Request.arguments` holds them.
        names_of_inputs: as the batch key holds them.
    """
    # fields that neither the row nor the job file gives, such as the frame rate of an image, stay null
    fields: dict[str, Any] = {**dict.fromkeys(OPTIONAL_FIELDS), **contract.defaults, **dict(given)}
    fields["negative_prompt"] = fields["negative_prompt"] or None
    problem = contract.problem(fields)
    if problem:
        raise RowProblem(str(problem))
    fields |= {"model": model, "arguments": arguments}
    names = json.dumps(names_of_inputs.split(",")) if names_of_inputs else None
    hasher = identity.RequestHasher(hashed_fields(fields), contract.settings_hash)
    return Settled(fields, Shape.of({**fields, "inputs": names}), hasher)
