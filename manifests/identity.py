"""Ids, seeds and hashes: the identity of an item, independent of the batch, actor or run that renders it.

Every function here is pure, and its results are part of the output format: after a change, all items of an existing
output would be rendered again.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Return JSON that is the same for equal values: sorted keys, no spaces, UTF-8; other types become text."""
    return _utf8(_ENCODER.encode(value))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogatepass")


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_as_text)


def blake2b_128(value: Any) -> bytes:
    """Return the 16-byte BLAKE2b digest (RFC 7693) of a value's canonical JSON, in hex what `b2sum -l 128` prints."""
    return hashlib.blake2b(canonical_json(value), digest_size=16).digest()


def content_hash(row: Mapping[str, Any]) -> bytes:
    """Return the 16-byte hash of a manifest row's content: every column except `id`, without nulls.

    Args:
        row: the manifest's own columns in normal form (whole numbers as int), the user's without changes.
    """
    return blake2b_128({name: value for name, value in row.items() if value is not None and name != "id"})


def sample_seed(job_seed: int, item_id: str, sample_index: int, row_seed: int | None) -> int:
    """Return the seed of one sample, in 0 … 2^63-1.

    It is the row's seed plus the sample's index. If the row has none, it is the first 63 bits of the 64-byte BLAKE2b
    digest of the canonical JSON of `[job_seed, item_id, sample_index]`.
    """
    if row_seed is not None:
        return row_seed + sample_index
    # formatted here, because an encoder would take as long as everything else
    text = f"[{job_seed},{_ENCODER.encode(item_id)},{sample_index}]"
    digest = hashlib.blake2b(_utf8(text)).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def item_key(item_id: str, sample_index: int) -> bytes:
    """Return the 16-byte key of one sample in the ledger: the hash of the item's id, a NUL and the index."""
    text = f"{item_id}\0{sample_index}"
    return hashlib.blake2b(_utf8(text), digest_size=16).digest()


def request_hash(request: Mapping[str, Any], settings_hash: str) -> str:
    """Return the hash of everything the user asked for, 32 hex digits.

    A finished item is rendered again if its hash has changed.

    Args:
        request: the request's fields, from `manifests.request.hashed_fields`.
        settings_hash: from `settings_hash`, the same for every item of a model.
    """
    return blake2b_128({"request": request, "settings": settings_hash}).hex()


class RequestHasher:
    """`request_hash` for many requests that differ only in id, prompt, sample, seed and inputs, several times as fast.

    Args:
        shared: the other fields, from `manifests.request.hashed_fields`.
        settings_hash: as for `request_hash`.
    """

    def __init__(self, shared: Mapping[str, Any], settings_hash: str) -> None:
        fields = {name: _ENCODER.encode(value).replace("%", "%%") for name, value in shared.items()}
        fields |= dict.fromkeys(("id", "prompt", "sample_index", "seed"), "%s")
        self._template = _template(fields, settings_hash)
        self._template_with_inputs = _template(fields | {"inputs": "%s"}, settings_hash)

    def __call__(self, item_id: str, prompt: str, sample_index: int, seed: int, inputs: str | None = None) -> str:
        """Return the hash of one of them, 32 hex digits.

        Args:
            inputs: the identities of its inputs, from `manifests.inputs.identities`.
        """
        own = (_ENCODER.encode(item_id), _ENCODER.encode(prompt), sample_index, seed)
        if inputs is None:
            text = self._template % own
        else:
            text = self._template_with_inputs % (own[0], _ENCODER.encode(inputs), *own[1:])
        return hashlib.blake2b(_utf8(text), digest_size=16).hexdigest()


def _template(fields: Mapping[str, str], settings_hash: str) -> str:
    members = ",".join(f'"{name}":{fields[name]}' for name in sorted(fields))
    return f'{{"request":{{{members}}},"settings":{_ENCODER.encode(settings_hash)}}}'


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return the hash of those settings of a model that its pixels or files depend on, 32 hex digits.

    Args:
        settings: dtype, scheduler, compile, reference batch, tiling, pipeline arguments, reproducibility, format,
            quality, and the identity of the checkpoint's files.
    """
    return blake2b_128(settings).hex()
