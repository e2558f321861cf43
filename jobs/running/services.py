"""What every command that draws starts: the two actors beside the driver, and what its renderers are told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rendermill.actors.checkpoints.files import CACHE
from rendermill.actors.services.crash_journal import CrashJournal
from rendermill.actors.services.findings import Findings
from rendermill.actors.spec import RendererSpec
from rendermill.jobs.config.job import Job
from rendermill.jobs.planning.models import ResolvedModel
from rendermill.manifests.errors import UserError
from rendermill.manifests.secrets import mask_secrets
from rendermill.manifests.storage.errors import as_user_errors
from rendermill.manifests.storage.folder import Folder
from rendermill.manifests.storage.urls import absolute, is_local


@dataclass(frozen=True)
class Desk:
    """Where renderers report.

    Attributes:
        journal: handle of an `actors.services.crash_journal.CrashJournal`.
        findings: handle of an `actors.services.findings.Findings`.
    """

    journal: Any
    findings: Any

    def spec(self, job: Job, model: ResolvedModel, run_id: str) -> RendererSpec:
        """What a renderer of a model is started with."""
        config = job.models[model.name]
        num_items_per_swap = model.family.num_items_per_swap if config.offload == "model" else None
        return RendererSpec(
            model_name=model.name,
            checkpoint=model.checkpoint,
            checkpoint_name=mask_secrets(config.checkpoint),
            settings=model.settings,
            batch=config.fixed_batch or num_items_per_swap,
            deadline_seconds=config.deadline,
            patience_seconds=job.storage_patience.total_seconds(),
            audit=job.audit,
            run_id=run_id,
            journal=self.journal,
            findings=self.findings,
        )


def open_profiles(job: Job) -> Folder:
    """The folder of profiles.

    Raises:
        UserError: it cannot be read, or is a file.
    """
    profiles = Folder(absolute(job.profile) if job.profile else str(CACHE / "profiles"))
    if is_local(profiles.url):
        nearest = next(place for place in (Path(profiles.url), *Path(profiles.url).parents) if place.exists())
        if not nearest.is_dir():
            raise UserError(f"{nearest} is a file; give a folder", ("profile",), profiles.url)
    with as_user_errors("cannot be read", ("profile",), profiles.url):
        profiles.names("")
    return profiles


def start_desk(profiles: Folder) -> Desk:
    """Start the two actors."""
    return Desk(_beside_driver(CrashJournal), _beside_driver(Findings, profiles))


def _beside_driver(actor: Any, *arguments: Any) -> Any:
    """Start an actor that lives while the run does, without a CPU, so that it always finds room."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(actor).options(**options).remote(*arguments)
