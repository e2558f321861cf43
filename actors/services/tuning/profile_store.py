"""Keeps tuning profiles between runs, as files that can be lost without harm."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rendermill.actors.engine.tuning.profile import Profile
from rendermill.manifests.errors import one_line
from rendermill.manifests.identity import blake2b_128
from rendermill.manifests.secrets import mask_secrets
from rendermill.manifests.storage.folder import Folder

_FORMAT_VERSION = 4
_DIGEST_SIZE = 16


@dataclass
class _Stored:
    """The content of a file, without its format version.

    Attributes:
        of: what was measured: model, settings, device and versions, as JSON values.
        updated_at: ISO 8601, UTC.
    """

    of: dict[str, Any]
    updated_at: str
    profile: Profile


_STORED = TypeAdapter(_Stored)


class ProfileStore:
    """A folder with a JSON file for each profile, and beside it a folder with the code that `torch.compile` made.

    All of it can be measured again, so no file stops a run: those that cannot be read or written are in `problems`.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._problems: dict[str, str] = {}

    @property
    def problems(self) -> list[str]:
        """A line for each file or folder that could not be used so far."""
        return [f"profile {mask_secrets(place)}: {problem}" for place, problem in self._problems.items()]

    def read(self, key: dict[str, Any]) -> Profile:
        """Return the profile of a model, settings, device and versions; an empty one if there is none."""
        stored = self._stored(_name(key))
        return Profile() if stored is None else stored.profile

    def newest(self, key: dict[str, Any]) -> tuple[str, Profile] | None:
        """Return the device's name and the profile that was written last for a model and its settings on any device."""
        matching = [
            stored
            for name in self._names("")
            if (stored := self._stored(name)) and stored.of | key == stored.of and "device" in stored.of
        ]
        if not matching:
            return None
        newest = max(matching, key=lambda stored: stored.updated_at)
        return str(newest.of["device"]), newest.profile

    def write(self, key: dict[str, Any], profile: Profile) -> None:
        """Store a profile with its key, which tells readers of the file what was measured."""
        stored = _Stored(key, datetime.now(UTC).isoformat(), profile)
        content = {"format_version": _FORMAT_VERSION} | asdict(stored)
        self._write(_name(key), json.dumps(content, indent=2).encode())

    def read_compiled(self, key: dict[str, Any]) -> list[bytes]:
        """Return the stored artifacts of `torch.compiler.save_cache_artifacts`."""
        artifacts = []
        for name in self._names(_compiled(key)):
            content = self._read(name)
            if content is None:
                continue
            if content[:_DIGEST_SIZE] == _digest(content[_DIGEST_SIZE:]):
                artifacts.append(content[_DIGEST_SIZE:])
            else:
                self._ignore(name, "it is damaged")
        return artifacts

    def write_compiled(self, key: dict[str, Any], name: str, artifacts: bytes, instead_of: str | None) -> None:
        """Store compiled code for `torch.compiler.load_cache_artifacts`.

        Args:
            name: of these artifacts.
            instead_of: the name of older artifacts, which these contain; None: there are none.
        """
        is_written = self._write(f"{_compiled(key)}/{name}", _digest(artifacts) + artifacts)
        if is_written and instead_of is not None:
            self._folder.delete([f"{_compiled(key)}/{instead_of}"])

    def _stored(self, name: str) -> _Stored | None:
        """Return a file's content; None if there is none or it cannot be used."""
        if not re.fullmatch(r"/?[0-9a-f]{32}\.json", name):
            self._ignore(name, "it is no profile")
            return None
        content = self._read(name)
        if content is None:
            return None
        try:
            stored = json.loads(content)
            version = stored["format_version"]
            if version > _FORMAT_VERSION:
                self._ignore(name, "a newer rendermill wrote it")
            return _STORED.validate_python(stored) if version == _FORMAT_VERSION else None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            self._ignore(name, f"it is damaged: {place}: {first['msg']}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self._ignore(name, f"it is damaged: {one_line(error)}")
        return None

    def _names(self, subfolder: str) -> list[str]:
        try:
            return self._folder.names(subfolder)
        except Exception as error:  # each store's client has errors of its own
            self._ignore(subfolder, f"it cannot be read: {one_line(error)}")
            return []

    def _read(self, name: str) -> bytes | None:
        try:
            return self._folder.read(name)
        except Exception as error:
            self._ignore(name, f"it cannot be read: {one_line(error)}")
            return None

    def _write(self, name: str, content: bytes) -> bool:
        try:
            self._folder.write(name, content)
        except Exception as error:
            self._problems[self._folder.url] = f"cannot be written, so later runs learn anew: {one_line(error)}"
            return False
        return True

    def _ignore(self, name: str, reason: str) -> None:
        self._problems[f"{self._folder.url}/{name.lstrip('/')}"] = f"ignored, as {reason}"


def _compiled(key: dict[str, Any]) -> str:
    return f"{_name(key).removesuffix('.json')}.compiled"


def _name(key: dict[str, Any]) -> str:
    return f"{blake2b_128([_FORMAT_VERSION, key]).hex()}.json"


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_SIZE).digest()
