"""The tuning profiles of a run's models while it renders."""

from dataclasses import dataclass
from typing import Any

from rendermill.actors.engine.tuning.profile import Profile
from rendermill.actors.services.tuning.profile_store import ProfileStore


@dataclass(frozen=True)
class FirstBatch:
    """The first batch that a run rendered with a model.

    Attributes:
        shape: of its items, as text.
        seconds: the time from the start of rendering to the end of the batch.
    """

    shape: str
    num_items: int
    seconds: float


class TuningProfiles:
    """Collects what renderers learn, by model, beside what earlier runs stored.

    What is learned of a model before a renderer of it has joined is lost.
    """

    def __init__(self, store: ProfileStore) -> None:
        self._store = store
        self._keys: dict[str, dict[str, Any]] = {}
        self.by_model: dict[str, Profile] = {}

    @property
    def problems(self) -> list[str]:
        """A line for each file or folder that could not be used so far."""
        return self._store.problems

    def join(self, model: str, key: dict[str, Any]) -> Profile:
        """Return the profile of a model, read from the store if the key is new.

        Args:
            key: what is measured: model, settings, device and versions, as JSON values.
        """
        if self._keys.get(model) != key:
            self._keys[model], self.by_model[model] = key, self._store.read(key)
        return self.by_model[model]

    def learn(self, model: str, profile: Profile) -> None:
        """Add what a renderer learned."""
        if model in self.by_model:
            self.by_model[model].merge(profile)

    def learn_from_files(self, model: str, first: FirstBatch, bytes_per_item: dict[str, float]) -> None:
        """Add what the driver saw of a model.

        Args:
            bytes_per_item: by shape of item as text, the mean size of its media files.
        """
        if model in self.by_model:
            profile = self.by_model[model]
            start_up_seconds = first.seconds - first.num_items * profile.seconds_per_item.get(first.shape, 0.0)
            profile.merge(Profile(start_up_seconds=start_up_seconds, bytes_per_item=bytes_per_item))

    def store(self) -> None:
        """Store all profiles for later runs."""
        for model, profile in self.by_model.items():
            self._store.write(self._keys[model], profile)

    def compiled(self, model: str) -> list[bytes]:
        """Return what earlier runs and other renderers compiled for a model."""
        return self._store.read_compiled(self._keys[model]) if model in self._keys else []

    def keep_compiled(self, model: str, name: str, artifacts: bytes, instead_of: str | None) -> None:
        """Store compiled code; see `ProfileStore.write_compiled`."""
        if model in self._keys:
            self._store.write_compiled(self._keys[model], name, artifacts, instead_of)
