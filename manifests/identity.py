"""Ids, seeds and hashes: what an item is, whatever batch, actor or run draws it.

Every function here is pure and its results are part of the output format: a change to one renders everything again.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> bytes:
    """JSON that two equal values always share: sorted keys, no spaces, UTF-8; what JSON lacks is written as text."""
    return _utf8(_ENCODER.encode(value))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogatepass")


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_as_text)


def blake2b_128(value: Any) -> bytes:
    """The 16-byte BLAKE2b digest (RFC 7693) of a value's canonical JSON; `b2sum -l 128` prints the same in hex."""
    return hashlib.blake2b(canonical_json(value), digest_size=16).digest()


def content_hash(row: Mapping[str, Any]) -> bytes:
    """The 16-byte hash of a manifest row's content: every column but `id`, nulls left out.

    Args:
        row: the row with its own columns normalized (whole numbers as int), extra columns as they are.
    """
    return blake2b_128({name: value for name, value in row.items() if value is not None and name != "id"})


def sample_seed(job_seed: int, item_id: str, sample_index: int, row_seed: int | None) -> int:
    """The seed of one sample, in 0 … 2^63-1.

    The row's seed plus the sample's index; without one, the first 63 bits of the 64-byte BLAKE2b digest of the
    canonical JSON of `[job_seed, item_id, sample_index]`.
    """
    if row_seed is not None:
        return row_seed + sample_index
    # written out, because an encoder takes as long as all the rest
    text = f"[{job_seed},{_ENCODER.encode(item_id)},{sample_index}]"
    digest = hashlib.blake2b(_utf8(text)).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def item_key(item_id: str, sample_index: int) -> bytes:
    """The 16-byte key of one sample of one item, under which the ledger knows it: of the id, a NUL and the index."""
    text = f"{item_id}\0{sample_index}"
    return hashlib.blake2b(_utf8(text), digest_size=16).digest()


def request_hash(request: Mapping[str, Any], settings_hash: str) -> str:
    """The hash of all that the user asked for, 32 hex digits. A finished item with another hash is rendered again.

    Args:
        request: the request's fields (`schema.REQUEST_COLUMNS` but `request_hash`).
        settings_hash: from `settings_hash`, the same for every item of a model.
    """
    return blake2b_128({"request": request, "settings": settings_hash}).hex()


class RequestHasher:
    """`request_hash` for many requests that differ in their id, prompt, sample and seed alone, several times as fast.

    Args:
        shared: the fields that they share.
        settings_hash: as for `request_hash`.
    """

    def __init__(self, shared: Mapping[str, Any], settings_hash: str) -> None:
        fields = {name: _ENCODER.encode(value).replace("%", "%%") for name, value in shared.items()}
        fields |= dict.fromkeys(("id", "prompt", "sample_index", "seed"), "%s")
        members = ",".join(f'"{name}":{fields[name]}' for name in sorted(fields))
        self._template = f'{{"request":{{{members}}},"settings":{_ENCODER.encode(settings_hash)}}}'

    def __call__(self, item_id: str, prompt: str, sample_index: int, seed: int) -> str:
        """The hash of one of them, 32 hex digits."""
        text = self._template % (_ENCODER.encode(item_id), _ENCODER.encode(prompt), sample_index, seed)
        return hashlib.blake2b(_utf8(text), digest_size=16).hexdigest()


def settings_hash(settings: Mapping[str, Any]) -> str:
    """The hash of a model's settings that reach its pixels or files, 32 hex digits.

    Args:
        settings: dtype, scheduler, compile, reference batch, tiling, pipeline arguments, reproducibility, format,
            quality, and the identity of the checkpoint's files.
    """
    return blake2b_128(settings).hex()
