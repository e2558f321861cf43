"""What runs learned of a model on a device: which batch sizes pay, fit, and give the reference's bits, and the pace."""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from actors.batching import Learned
from manifests.identity import blake2b_128
from manifests.storage import Folder

_FORMAT_VERSION = 2


@dataclass
class Profile:
    """Of one model with its settings, on one kind of device with its library versions.

    Shapes of items are in words (`manifests.schema.Shape`).

    Attributes:
        shapes: by shape of item.
        proven: by stage and the shape of its inputs, sizes that give the reference's bits.
        refuted: the same, sizes that do not.
        seconds_per_item: by shape of item, the time of its actor that an item took at last, everything included
            (`actors.flight.pace_clock`).
        bytes_per_item: by shape of item, of the media file.
        start_up_seconds: from the beginning of drawing to the end of a model's first batch, without what its items take
            at their pace; None: not known.
    """

    shapes: dict[str, Learned] = field(default_factory=dict)
    proven: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    refuted: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds_per_item: dict[str, float] = field(default_factory=dict)
    bytes_per_item: dict[str, float] = field(default_factory=dict)
    start_up_seconds: float | None = None

    def merge(self, other: "Profile") -> None:
        """Take in what another actor learned."""
        for shape, learned in other.shapes.items():
            if shape not in self.shapes or learned.is_settled or not self.shapes[shape].is_settled:
                self.shapes[shape] = learned
        for stage, sizes in other.proven.items():
            self.proven.setdefault(stage, {}).update(sizes)
        for stage, size in other.refuted.items():
            self.refuted.setdefault(stage, {}).update(size)
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


class ProfileStore:
    """Profiles in a folder, one JSON file each, and beside it in a folder what `torch.compile` made."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def read(self, key: dict[str, Any]) -> Profile:
        """The profile of a model, settings, device and versions; an empty one if there is none."""
        content = self._folder.read(_name(key))
        return Profile() if content is None else _profile_from_json(json.loads(content)["profile"])

    def newest(self, key: dict[str, Any]) -> tuple[str, Profile] | None:
        """The last written profile of a model and its settings on any device: the device's name, and the profile."""
        stored = [json.loads(self._folder.read(name) or b"{}") for name in self._folder.names("")]
        matching = [
            content
            for content in stored
            if content.get("format_version") == _FORMAT_VERSION and content["of"] | key == content["of"]
        ]
        if not matching:
            return None
        newest = max(matching, key=lambda content: content["updated_at"])
        return newest["of"]["device"], _profile_from_json(newest["profile"])

    def write(self, key: dict[str, Any], profile: Profile) -> None:
        """Store a profile, with its key, so that people see what it is of."""
        content = {
            "format_version": _FORMAT_VERSION,
            "of": key,
            "updated_at": datetime.now(UTC).isoformat(),
            "profile": asdict(profile),
        }
        self._folder.write(_name(key), json.dumps(content, indent=2).encode())

    def read_compiled(self, key: dict[str, Any]) -> list[bytes]:
        """All that `torch.compiler.save_cache_artifacts` gave."""
        folder = _compiled(key)
        return [content for name in self._folder.names(folder) if (content := self._folder.read(name)) is not None]

    def write_compiled(self, key: dict[str, Any], name: str, artifacts: bytes, instead_of: str | None) -> None:
        """Keep what was compiled, for `torch.compiler.load_cache_artifacts`.

        Args:
            name: of these artifacts.
            instead_of: of those that they hold, too.
        """
        self._folder.write(f"{_compiled(key)}/{name}", artifacts)
        if instead_of is not None:
            self._folder.delete([f"{_compiled(key)}/{instead_of}"])


def _compiled(key: dict[str, Any]) -> str:
    return f"{_name(key).removesuffix('.json')}.compiled"


def _name(key: dict[str, Any]) -> str:
    return f"{blake2b_128([_FORMAT_VERSION, key]).hex()}.json"


def _profile_from_json(stored: dict[str, Any]) -> Profile:
    shapes = {shape: _learned_from_json(learned) for shape, learned in stored["shapes"].items()}
    return Profile(**stored | {"shapes": shapes})


def _learned_from_json(stored: dict[str, Any]) -> Learned:
    numbers = {
        name: {int(size): value for size, value in stored[name].items()}  # JSON's keys are strings
        for name in ("seconds_per_item", "peak_bytes")
    }
    return Learned(**stored | numbers)
