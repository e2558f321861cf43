"""What runs learned of a model on a device: which batch sizes pay, fit, and give the reference's bits."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from actors.batching import Learned
from manifests.identity import blake2b_128
from manifests.storage import Folder


@dataclass
class Profile:
    """Of one model with its settings, on one kind of device with its library versions.

    Attributes:
        shapes: by shape of item (`manifests.schema.Request.shape_name`).
        proven: by stage and the shape of its inputs, sizes that give the reference's bits.
        refuted: the same, sizes that do not.
    """

    shapes: dict[str, Learned] = field(default_factory=dict)
    proven: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    refuted: dict[str, dict[str, int]] = field(default_factory=dict)

    def merge(self, other: "Profile") -> None:
        """Take in what another actor learned."""
        for shape, learned in other.shapes.items():
            if shape not in self.shapes or learned.is_settled or not self.shapes[shape].is_settled:
                self.shapes[shape] = learned
        for stage, sizes in other.proven.items():
            self.proven.setdefault(stage, {}).update(sizes)
        for stage, size in other.refuted.items():
            self.refuted.setdefault(stage, {}).update(size)


class ProfileStore:
    """Profiles in a folder, one JSON file each."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def read(self, key: dict[str, Any]) -> Profile:
        """The profile of a model, settings, device and versions; an empty one if there is none."""
        content = self._folder.read(_name(key))
        if content is None:
            return Profile()
        stored = json.loads(content)
        shapes = {shape: _learned_from_json(learned) for shape, learned in stored["shapes"].items()}
        return Profile(shapes, stored["proven"], stored["refuted"])

    def write(self, key: dict[str, Any], profile: Profile) -> None:
        """Store a profile, with its key, so that people see what it is of."""
        self._folder.write(_name(key), json.dumps({"of": key} | asdict(profile), indent=2).encode())


def _name(key: dict[str, Any]) -> str:
    return f"{blake2b_128(key).hex()}.json"


def _learned_from_json(stored: dict[str, Any]) -> Learned:
    numbers = {
        name: {int(size): value for size, value in stored[name].items()}  # JSON's keys are strings
        for name in ("seconds_per_item", "peak_bytes")
    }
    return Learned(**stored | numbers)
