"""What runs learned of a model on a device: which batch sizes pay, fit, and give the reference's bits, and the pace."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from rendermill.actors.engine.batching import Learned
from rendermill.manifests.errors import one_line
from rendermill.manifests.identity import blake2b_128
from rendermill.manifests.schema import Shape
from rendermill.manifests.secrets import mask_secrets
from rendermill.manifests.storage.folder import Folder

_FORMAT_VERSION = 4
_DIGEST_SIZE = 16


def _shape_in_words(text: str) -> str:
    if str(Shape.parse(text)) != text or Shape.parse(text).work <= 0:
        raise ValueError(f"{text!r} is no shape")
    return text


def _usable(learned: Learned) -> Learned:
    if learned.size < 1:
        raise ValueError(f"{learned.size} is no batch size")
    return learned


_ShapeInWords = Annotated[str, AfterValidator(_shape_in_words)]
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass
class Profile:
    """The profile of one model with its settings, on one kind of device with its library versions.

    Shapes of items are in words (`manifests.schema.Shape`).

    Attributes:
        shapes: by shape of item.
        proven: by stage and the shape of its inputs, sizes that give the reference's bits.
        refuted: the same, the smallest size that may give other bits.
        reasons: the same, why that size may, in words.
        seconds_per_item: by shape of item, the time of its actor that an item took at last, everything included
            (`actors.engine.launching.pace_clock`).
        bytes_per_item: by shape of item, of the media file.
        start_up_seconds: from the beginning of drawing to the end of a model's first batch, without what its items take
            at their pace; None: not known.
    """

    shapes: dict[_ShapeInWords, Annotated[Learned, AfterValidator(_usable)]] = field(default_factory=dict)
    proven: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    refuted: dict[str, dict[str, int]] = field(default_factory=dict)
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)
    seconds_per_item: dict[_ShapeInWords, _Amount] = field(default_factory=dict)
    bytes_per_item: dict[_ShapeInWords, _Amount] = field(default_factory=dict)
    start_up_seconds: Annotated[float, Field(allow_inf_nan=False)] | None = None

    def merge(self, other: "Profile") -> None:
        """Take in what another actor learned."""
        for shape, learned in other.shapes.items():
            if shape not in self.shapes or learned.is_settled or not self.shapes[shape].is_settled:
                self.shapes[shape] = learned
        for stage, sizes in other.proven.items():
            self.proven.setdefault(stage, {}).update(sizes)
        for stage, size in other.refuted.items():
            self.refuted.setdefault(stage, {}).update(size)
        for stage, reasons in other.reasons.items():
            self.reasons.setdefault(stage, {}).update(reasons)
        self.seconds_per_item |= other.seconds_per_item
        self.bytes_per_item |= other.bytes_per_item
        self.start_up_seconds = other.start_up_seconds or self.start_up_seconds


@dataclass(frozen=True)
class FirstBatch:
    """The first that was drawn of a model.

    Attributes:
        seconds: from the beginning of drawing to its end.
    """

    shape: str
    num_items: int
    seconds: float


@dataclass
class _Stored:
    """The content of a file beside its format's version.

    Attributes:
        of: the model, settings, device and versions of the profile, as JSON values.
        updated_at: ISO 8601, UTC.
    """

    of: dict[str, Any]
    updated_at: str
    profile: Profile


_STORED = TypeAdapter(_Stored)


class ProfileStore:
    """Profiles in a folder, one JSON file each, and beside it in a folder what `torch.compile` made.

    All of it can be learned again, so no file stops a run: those that cannot be read or written are told in `problems`.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._problems: dict[str, str] = {}

    @property
    def problems(self) -> list[str]:
        """Files and folders that could not be used so far, each in a line."""
        return [f"profile {mask_secrets(place)}: {problem}" for place, problem in self._problems.items()]

    def read(self, key: dict[str, Any]) -> Profile:
        """The profile of a model, settings, device and versions; an empty one if there is none."""
        stored = self._stored(_name(key))
        return Profile() if stored is None else stored.profile

    def newest(self, key: dict[str, Any]) -> tuple[str, Profile] | None:
        """The last written profile of a model and its settings on any device: the device's name, and the profile."""
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
        """Store a profile, with its key, so that people see what it is of."""
        stored = _Stored(key, datetime.now(UTC).isoformat(), profile)
        content = {"format_version": _FORMAT_VERSION} | asdict(stored)
        self._write(_name(key), json.dumps(content, indent=2).encode())

    def read_compiled(self, key: dict[str, Any]) -> list[bytes]:
        """All that `torch.compiler.save_cache_artifacts` gave."""
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
        """Keep what was compiled, for `torch.compiler.load_cache_artifacts`.

        Args:
            name: of these artifacts.
            instead_of: of those that they hold, too.
        """
        is_written = self._write(f"{_compiled(key)}/{name}", _digest(artifacts) + artifacts)
        if is_written and instead_of is not None:
            self._folder.delete([f"{_compiled(key)}/{instead_of}"])

    def _stored(self, name: str) -> _Stored | None:
        """A file's content; None if there is none, or none that is of use."""
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
