"""What a renderer is started with. A module of its own, because the driver must not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rendermill.actors.checkpoints.checkpoint import Checkpoint
from rendermill.actors.services.guard import Guard
from rendermill.models.settings import Settings

_SECONDS_TO_LOAD = 7200.0


@dataclass(frozen=True)
class RendererSpec:
    """The configuration of an actor that renders with a model.

    Attributes:
        model_name: as in the job file.
        checkpoint_name: as in the job file, without secrets.
        batch: the number of items in a batch; None: found by measurement (in strict mode, from the reference batch).
        deadline_seconds: the time an item may take; None: derived from the times of other items.
        patience_seconds: how long to try again if the checkpoint's store fails.
        audit: the share of the items to render twice, 0 … 1.
        run_id: of the submission.
        journal: handle of the run's `actors.services.crash_journal.CrashJournal`.
        findings: handle of the run's `actors.services.findings.Findings`.
        planned: the number of items that each actor is to render, by shape as text; empty: unknown.
    """

    model_name: str
    checkpoint: Checkpoint
    checkpoint_name: str
    settings: Settings
    batch: int | None
    deadline_seconds: float | None
    patience_seconds: float
    audit: float
    run_id: str
    journal: Any
    findings: Any
    planned: Mapping[str, float] = field(default_factory=dict)

    @property
    def profile_key(self) -> dict[str, Any]:
        """The key of the tuning profile, without the device and its library versions; JSON values."""
        return profile_key(self.checkpoint, self.settings)

    @property
    def loader(self) -> Guard:
        """The guard of actors that load the model. Loading may take longer than the patience with a store."""
        return Guard(self.journal, "loaded", _SECONDS_TO_LOAD, self.patience_seconds)

    @property
    def reader(self) -> Guard:
        """The guard of tasks that read the manifest."""
        return Guard(self.journal, "read", patience_seconds=self.patience_seconds)

    @property
    def input_reader(self) -> Guard:
        """The guard of tasks that read the inputs of requests."""
        return Guard(self.journal, "read the inputs of", patience_seconds=self.patience_seconds)

    @property
    def encoder(self) -> Guard:
        """The guard of tasks that encode."""
        return Guard(self.journal, "encoded", self.deadline_seconds)

    @property
    def writer(self) -> Guard:
        """The guard of tasks that store each item as a file."""
        return Guard(self.journal, "stored", self.deadline_seconds, self.patience_seconds)

    @property
    def shard_writer(self) -> Guard:
        """The guard of tasks that store shards. It splits them into items only after a second death."""
        return Guard(self.journal, "stored", self.deadline_seconds, self.patience_seconds, num_deaths_together=1)


def profile_key(checkpoint: Checkpoint, settings: Settings) -> dict[str, Any]:
    """Return what batch sizes of a model depend on, except the device and its library versions; JSON values."""
    return {"checkpoint": checkpoint.identity, "pipeline": checkpoint.pipeline_class} | settings.model_dump()
