"""The actors beside the driver, which every command that renders starts, and what it starts its renderers with."""

from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rendermill.actors.services.crash_journal import CrashJournal
from rendermill.actors.services.findings import Findings
from rendermill.actors.spec import RendererSpec
from rendermill.jobs.config.job import Job
from rendermill.jobs.planning.models import ResolvedModel
from rendermill.jobs.running.dataset.arrivals import log
from rendermill.jobs.running.observers.audit import ChosenItems
from rendermill.jobs.running.observers.stored_files import StoredFilesByModel
from rendermill.manifests.output.tuning_report import TuningReport
from rendermill.manifests.secrets import mask_secrets
from rendermill.manifests.storage.folder import Folder

_SECONDS_FOR_ANSWERS = 10.0


@dataclass(frozen=True)
class Services:
    """Handles of the two actors to which renderers and tasks report.

    Attributes:
        journal: Knows which items each worker process has in hand.
        findings: Collects what renderers find out: batch sizes, events, second renderings of audited items.
    """

    journal: ActorHandle[CrashJournal]
    findings: ActorHandle[Findings]

    def collect(self, files: StoredFilesByModel, chosen: ChosenItems) -> TuningReport | None:
        """Tell what the driver knows of stored files, and ask for everything that was found out so far.

        Returns:
            The report; None if there is no answer, for which no run should fail.
        """
        for model, stored in files.of_model.items():
            if stored.first is not None:
                self.findings.stored.remote(model, stored.first, stored.bytes_per_item)
        try:
            answers = [self.findings.report.remote(), self.journal.deaths.remote()]
            report, deaths = ray.get(answers, timeout=_SECONDS_FOR_ANSWERS)
        except (RayError, OSError) as error:
            log(error)
            return None
        report.audit.num_chosen, report.deaths = chosen.num_items, deaths
        return report

    def spec(self, job: Job, model: ResolvedModel, run_id: str) -> RendererSpec:
        """Describe the renderers of a model, for the actors that start with it."""
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


def start_services(profiles: Folder) -> Services:
    """Start the two actors.

    Args:
        profiles: The folder that keeps tuning profiles between runs.
    """
    return Services(_beside_driver(CrashJournal), _beside_driver(Findings, profiles))


def _beside_driver(actor: Any, *arguments: Any) -> Any:
    """Start an actor on the driver's node that lives as long as the run; without a CPU it always finds room."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(actor).options(**options).remote(*arguments)
