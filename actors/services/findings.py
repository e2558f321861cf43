"""The actor to which a run's renderers report: tuning profiles, compiled code, telemetry, and audited items."""

from typing import Any

from rendermill.actors.engine.tuning.profile import Profile
from rendermill.actors.services.audit import Audits
from rendermill.actors.services.deaths import WorkerProcess
from rendermill.actors.services.telemetry import Telemetry
from rendermill.actors.services.tuning.certified import certified_statements
from rendermill.actors.services.tuning.profile_store import ProfileStore
from rendermill.actors.services.tuning.profiles import FirstBatch, TuningProfiles
from rendermill.manifests.output.tuning_report import (
    AuditedRendering,
    AuditReport,
    ModelReport,
    TuningReport,
)
from rendermill.manifests.request import Request
from rendermill.manifests.storage.folder import Folder
from rendermill.models.inputs import Inputs


class Findings:
    """A small actor beside the driver, which outlives the renderers. Its parts do the work.

    If it dies, it starts again without memory: a renderer joins with every chunk, what another one reports of a model
    that has not joined yet is lost, and so is what was known before.

    Args:
        profiles: the folder that keeps profiles between runs.
    """

    def __init__(self, profiles: Folder) -> None:
        self._profiles = TuningProfiles(ProfileStore(profiles))
        self._telemetry = Telemetry()
        self._audits = Audits()

    def process(self) -> WorkerProcess:
        """Return the process of this actor."""
        return WorkerProcess.this()

    def join(self, model: str, renderer: str, key: dict[str, Any]) -> Profile:
        """Record that a renderer starts a chunk; return what is known of the model. See `TuningProfiles.join`."""
        self._audits.join(model, renderer)
        return self._profiles.join(model, key)

    def learned(self, model: str, profile: Profile) -> None:
        """Add what a renderer learned."""
        self._profiles.learn(model, profile)

    def stored(self, model: str, first: FirstBatch, bytes_per_item: dict[str, float]) -> None:
        """Add what the driver saw of a model; see `TuningProfiles.learn_from_files`."""
        self._profiles.learn_from_files(model, first, bytes_per_item)

    def compiled(self, model: str) -> list[bytes]:
        """Return what earlier runs and other renderers compiled for a model."""
        return self._profiles.compiled(model)

    def keep_compiled(self, model: str, name: str, artifacts: bytes, instead_of: str | None) -> None:
        """Store compiled code; see `ProfileStore.write_compiled`."""
        self._profiles.keep_compiled(model, name, artifacts, instead_of)

    def batch_started(self, model: str, num_slots: int, num_padding: int) -> None:
        """Add a batch to the share of padding."""
        self._telemetry.add_batch(model, num_slots, num_padding)

    def busy(self, model: str, renderer: str, busy_seconds: float, seconds: float) -> None:
        """Set for how many of the seconds since its first chunk a renderer has been busy."""
        self._telemetry.set_busy_seconds(model, renderer, busy_seconds, seconds)

    def note(self, model: str, text: str) -> None:
        """Add an event that users should know of, such as memory that ran out."""
        self._telemetry.add_note(model, text)

    def rendered(self, request: Request, rendering: AuditedRendering, inputs: Inputs) -> None:
        """Record the first rendering of an item that is to be audited."""
        self._audits.add_first(request, rendering, inputs)

    def take_audits(self, model: str, renderer: str) -> list[tuple[Request, Inputs]]:
        """Return what a renderer should render again, with the inputs."""
        return [(request, self._audits.take_inputs(request)) for request in self._audits.take(model, renderer)]

    def rendered_again(self, request_hash: str, rendering: AuditedRendering) -> None:
        """Record the second rendering of an item."""
        self._audits.add_second(request_hash, rendering)

    def report(self) -> TuningReport:
        """Return what was found out so far, and store the profiles for later runs."""
        self._profiles.store()
        return TuningReport(
            models={model: self._report_of(model, profile) for model, profile in self._profiles.by_model.items()},
            profile_problems=self._profiles.problems,
            audit=AuditReport(
                num_equal=self._audits.num_equal,
                num_different=len(self._audits.differences),
                different=self._audits.differences,
            ),
        )

    def _report_of(self, model: str, profile: Profile) -> ModelReport:
        return ModelReport(
            batch_sizes={shape: learned.size for shape, learned in profile.shapes.items()},
            same_pixels=profile.describe_proofs(),
            certificate=certified_statements(profile),
            num_actors=self._audits.num_renderers(model),
            actors_at_work=self._telemetry.busy_share(model),
            padding=self._telemetry.padding(model),
            notes=self._telemetry.notes(model),
        )
