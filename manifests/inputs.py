"""Inputs of a request, as `Request.inputs` and records hold them: images and videos by name, each with its identity.

`Request.inputs` is canonical JSON, `{"image": {"url": "cats/1.png"}}`; an input of several pictures has a list. A
picture has these keys:

- `url`: where it is. A path is relative to the manifest's folder if it lies in there. No secrets. Absent for bytes that
  the manifest itself holds.
- `place`: the URL to read, if it has secrets; never in records.
- `sha256`: of bytes in the manifest; of a URL's content if the manifest gives it; in records, of what was read.
- `sha256_is_given`: true if the manifest gives the sha256 of a URL's content.
- `width`, `height`, `num_frames`: in records, of what was read.

The identity, which is part of the request hash, is the sha256 of bytes in the manifest, or else the URL, with its
sha256 if that is given.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rendermill.manifests.identity import canonical_json
from rendermill.manifests.secrets import MASK, mask_secrets

Entry = Mapping[str, Any]
"""One picture or video, with the keys that this module's text names."""


@dataclass(frozen=True, slots=True)
class InputValue:
    """One picture or video, as a row gives it.

    Attributes:
        url: where it is, as its identity has it; None for bytes in the manifest.
        place: the same with its secrets; None for bytes in the manifest.
        sha256: in hex, of bytes in the manifest, or as the row gives it; None if it is not known.
        num_bytes: the number of bytes in the manifest.
    """

    url: str | None = None
    place: str | None = None
    sha256: str | None = None
    num_bytes: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return canonical_json(identity_of(self.entry)).decode()

    @property
    def entry(self) -> Entry:
        """The value as `Request.inputs` holds it."""
        if self.url is None:
            return {"sha256": self.sha256}
        place = {} if self.place == self.url else {"place": self.place}
        return {"url": self.url, **place, **({"sha256": self.sha256, "sha256_is_given": True} if self.sha256 else {})}


def places_of(inputs: str) -> list[str] | None:
    """Return the URLs and paths of a record's inputs; None if one cannot be read again, as the manifest held it."""
    found = json.loads(inputs).values()
    entries = [entry for given in found for entry in (given if isinstance(given, list) else [given])]
    places = [entry.get("url", MASK) for entry in entries]
    return None if any(MASK in place for place in places) else places


def identity_of(entry: Entry) -> Entry:
    """Return the part of an input that is its identity, from a request or a record."""
    if "url" not in entry:
        return {"sha256": entry["sha256"]}
    sha256 = {"sha256": entry["sha256"]} if entry.get("sha256_is_given") else {}
    return {"url": mask_secrets(entry["url"]), **sha256}


def identities(inputs: str) -> str:
    """Return the identities of all inputs of a request or record as canonical JSON."""
    return inputs_text(changed(json.loads(inputs), identity_of))


def changed(inputs: Mapping[str, Any], change: Callable[[Entry], Entry]) -> dict[str, Any]:
    """Return the inputs of a request with each picture or video changed, also those in lists."""
    return {
        name: [change(entry) for entry in given] if isinstance(given, list) else change(given)
        for name, given in inputs.items()
    }


def inputs_text(inputs: Mapping[str, Any]) -> str:
    """Return the inputs of a request as `Request.inputs` holds them."""
    return canonical_json(inputs).decode()


def input_names(inputs: str | None) -> str | None:
    """Return the names of a request's inputs as the batch key has them, `image,mask_image`; None if it has none.

    Args:
        inputs: as in `Request.inputs`, or a list of names as JSON.
    """
    return ",".join(sorted(json.loads(inputs))) or None if inputs else None
