"""The actor to which renderers tell what they found out: sizes that pay, memory that ran out, items drawn twice."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from rendermill.actors.services.audit import Audits, Drawn
from rendermill.actors.services.deaths import WorkerProcess
from rendermill.actors.services.tuning_profile import FirstBatch, Profile, ProfileStore
from rendermill.manifests.schema import Request
from rendermill.manifests.storage.folder import Folder


class Findings:
    """A small actor beside the driver, which outlives the renderers.

    Should it die, it starts again without memory: a renderer joins with every chunk, and what another tells of a model
    that has not joined yet is lost, as is what was known before.

    Args:
        profiles: the folder that keeps profiles between runs.
    """

    def __init__(self, profiles: Folder) -> None:
        self._store = ProfileStore(profiles)
        self._keys: dict[str, dict[str, Any]] = {}
        self._profiles: dict[str, Profile] = {}
        self._num_slots: Counter[str] = Counter()
        self._num_padding: Counter[str] = Counter()
        self._at_work: dict[str, dict[str, tuple[float, float]]] = {}
        self._notes: dict[str, Counter[str]] = {}
        self._audits = Audits()

    def process(self) -> WorkerProcess:
        """The process of this actor."""
        return WorkerProcess.this()

    def join(self, model: str, renderer: str, key: dict[str, Any]) -> Profile:
        """A renderer of a model starts; returns what is known already.

        Args:
            key: what a profile is of: model, settings, device and versions, as JSON values.
        """
        self._audits.join(model, renderer)
        if self._keys.get(model) != key:
            self._keys[model], self._profiles[model] = key, self._store.read(key)
        return self._profiles[model]

    def compiled(self, model: str) -> list[bytes]:
        """What earlier runs and other renderers compiled for a model."""
        return self._store.read_compiled(self._keys[model]) if model in self._keys else []

    def keep_compiled(self, model: str, name: str, artifacts: bytes, instead_of: str | None) -> None:
        """A renderer compiled more; see `ProfileStore.write_compiled`."""
        if model in self._keys:
            self._store.write_compiled(self._keys[model], name, artifacts, instead_of)

    def learned(self, model: str, profile: Profile) -> None:
        """A renderer found out more."""
        if model in self._profiles:
            self._profiles[model].merge(profile)

    def worked(self, model: str, num_slots: int, num_padding: int) -> None:
        """The denoiser ran on so many slots, of which so many were padding."""
        self._num_slots[model] += num_slots
        self._num_padding[model] += num_padding

    def at_work(self, model: str, renderer: str, seconds_at_work: float, seconds: float) -> None:
        """Take note of how many of the seconds since its first chunk a renderer worked."""
        self._at_work.setdefault(model, {})[renderer] = (seconds_at_work, seconds)

    def stored(self, model: str, first: FirstBatch, bytes_per_item: dict[str, float]) -> None:
        """What the driver saw of a model: its first batch, and the size of its files by shape."""
        if model in self._profiles:
            profile = self._profiles[model]
            start_up_seconds = first.seconds - first.num_items * profile.seconds_per_item.get(first.shape, 0.0)
            profile.merge(Profile(start_up_seconds=start_up_seconds, bytes_per_item=bytes_per_item))

    def note(self, model: str, words: str) -> None:
        """Something worth telling happened, such as memory that ran out."""
        self._notes.setdefault(model, Counter())[words] += 1

    def drawn(self, request: Request, drawn: Drawn) -> None:
        """An item that is to be audited was drawn."""
        self._audits.add(request, drawn)

    def take_audits(self, model: str, renderer: str) -> list[Request]:
        """What a renderer should draw again."""
        return self._audits.take(model, renderer)

    def drawn_again(self, request_hash: str, drawn: Drawn) -> None:
        """An item was drawn for the second time."""
        self._audits.second(request_hash, drawn)

    def report(self) -> dict[str, Any]:
        """What the run's file says of all this, as JSON values; keeps the profiles for later runs."""
        for model, profile in self._profiles.items():
            self._store.write(self._keys[model], profile)
        return {
            "models": {model: self._describe(model) for model in self._profiles},
            "profile_problems": self._store.problems,
            "audit": {
                "num_equal": self._audits.num_equal,
                "num_different": len(self._audits.differences),
                "different": [
                    asdict(difference) | {"request": difference.request._asdict()}
                    for difference in self._audits.differences
                ],
            },
        }

    def _describe(self, model: str) -> dict[str, Any]:
        profile, num_slots = self._profiles[model], self._num_slots[model]
        return {
            "batch_sizes": {shape: learned.size for shape, learned in profile.shapes.items()},
            "same_pixels": _in_words(profile),
            "num_actors": self._audits.num_renderers(model),
            "actors_at_work": self._share_at_work(model),
            "padding": round(self._num_padding[model] / num_slots, 4) if num_slots else 0.0,
            "notes": dict(self._notes.get(model, {})),
        }

    def _share_at_work(self, model: str) -> float | None:
        """The share of all renderers' time since their first chunks; None: no chunk is done yet."""
        times = self._at_work.get(model, {}).values()
        return round(sum(at_work for at_work, _ in times) / sum(seconds for _, seconds in times), 4) if times else None


def _in_words(profile: Profile) -> list[str]:
    """The sizes that give the reference's bits, such as "denoiser (32x32x32): 1, 2 give the same bits; 4 may not: "."""
    lines = []
    for stage, shapes in profile.proven.items():
        for shape, sizes in shapes.items():
            where = f"{stage} ({shape.strip()})" if shape.strip() else stage
            refuted = profile.refuted.get(stage, {}).get(shape)
            reason = profile.reasons.get(stage, {}).get(shape, "")
            same = (
                f"{sizes[0]} is the reference"
                if len(sizes) == 1
                else f"{', '.join(map(str, sizes))} give the same bits"
            )
            lines.append(f"{where}: {same}" + (f"; {refuted} may not: {reason}" if refuted else ""))
    return lines
