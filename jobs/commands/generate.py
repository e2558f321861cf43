"""`rendermill generate`: runs a job, or finishes what an earlier run of it left."""

from collections.abc import Mapping

from rendermill.jobs.cluster.capacity import check_resources, max_actors, max_tasks
from rendermill.jobs.cluster.connection import connected
from rendermill.jobs.config.job import Job
from rendermill.jobs.console.screen import Screen
from rendermill.jobs.console.signals import interrupt_between_steps
from rendermill.jobs.planning.models import ResolvedModel, make_validator, resolve_models
from rendermill.jobs.planning.origins import current_origins, describe_change, made_elsewhere
from rendermill.jobs.planning.plan import Plan, make_plan
from rendermill.jobs.planning.sample_states import StoredHashes
from rendermill.jobs.running.dataset import ModelPipeline
from rendermill.jobs.running.run import Run
from rendermill.jobs.running.run_file import RunFile, new_run_id
from rendermill.jobs.running.services import open_profiles, start_services
from rendermill.jobs.running.tidying import tidy
from rendermill.jobs.verification.stored_media import gaps
from rendermill.manifests.errors import UserError
from rendermill.manifests.output.fence import FencedFolder
from rendermill.manifests.output.lease import Lease
from rendermill.manifests.output.ledger.ledger import Ledger
from rendermill.manifests.output.ledger.origins import Origin
from rendermill.manifests.output.records import read_records
from rendermill.manifests.output.rejected import RejectedRows
from rendermill.manifests.reader.manifest import open_manifest
from rendermill.manifests.storage.folder import Folder
from rendermill.manifests.storage.urls import absolute, check_can_be_output

_MAX_RECORDS_COMPARED = 50_000
"""Up to as many, a run compares the records with a listing of their media: a store lists a thousand files at a time."""


def generate(job: Job, source: str, screen: Screen, retry_failures: bool = False) -> int:
    """Draw everything that the manifest asks for and the output does not have.

    Args:
        source: the job file's path, for the run's file.
        retry_failures: draw what failed in earlier runs once more.

    Returns:
        The exit status: 0, or 3 with failures or rejected rows, or 1 where the run could not go on.

    Raises:
        UserError: before anything is drawn.
    """
    check_can_be_output(job.output)
    patience_seconds = job.storage_patience.total_seconds()
    output = Folder(absolute(job.output), patience_seconds)
    manifest = open_manifest(absolute(job.manifest), patience_seconds)
    profiles = open_profiles(job)
    with connected() as here:
        num_gpus, models = resolve_models(job, here)
        run_id = new_run_id()
        with Lease(output, run_id, say=screen.line) as lease:
            run_file = RunFile(output, run_id, job, source, lease.number)
            run_file.update("planning")
            fenced = FencedFolder.of(output, lease)
            ledger = Ledger(fenced, manifest.extra, job.layout, job.deletion_delay.total_seconds())
            damaged = tidy(ledger)
            services = start_services(profiles)  # its two processes start while the manifest is read
            outdated = _outdated(job, ledger, models, num_gpus)
            validator = make_validator(job, models)
            stored = StoredHashes(ledger.keys, ledger.finished(outdated), ledger.failed)
            plan = make_plan(manifest, validator, stored, RejectedRows(fenced, run_id), job.limit, retry_failures)
            check_resources(job, here, plan.models_to_render)
            _announce(screen, plan)
            if fenced.is_s3 and not fenced.has_conditions:
                screen.line(f"output {output.url}: this store has no conditional writes; see docs/reliability.md")
            _tell_of_gaps(screen, output, len(ledger.keys))
            for problem in ledger.problems:
                screen.line(f"output {output.url}: {problem}")
            for shard, problem in damaged.items():
                screen.line(f"{shard} is damaged and stays as it is: {problem}; rendermill verify names its items")
            pipelines = {
                name: ModelPipeline(
                    spec=services.spec(job, model, run_id),
                    pool=job.models[name].pool,
                    num_gpus=num_gpus[name],
                    num_actors=max_actors(job.models[name].pool, num_gpus[name], here),
                    num_tasks=max_tasks(here),
                    num_items_per_chunk=model.family.num_items_per_chunk,
                    encoding=model.encoding,
                    num_items_per_shard=model.num_items_per_shard,
                    validator=validator,
                    output=output,
                    extra=ledger.extra,
                    max_sequence_length=model.max_sequence_length,
                )
                for name, model in models.items()
            }
            run = Run(job, plan, pipelines, services, ledger, run_file, screen, may_all_fail=retry_failures)
            return run.render(lease, interrupt_between_steps())


def _tell_of_gaps(screen: Screen, output: Folder, num_records: int) -> None:
    """Say how many records have no media any more: they count as finished until they are dropped."""
    if num_records > _MAX_RECORDS_COMPARED:
        return
    found = gaps(output, read_records(output, columns=["path", "member", "bytes"]))
    if found.num_missing or found.num_of_other_size:
        screen.line(
            f"{found.num_missing} records have lost their media, and {found.num_of_other_size} have files of another "
            f"size; to render these items again: rendermill verify {output.url} --repair, and then this command"
        )


def _outdated(
    job: Job, ledger: Ledger, models: Mapping[str, ResolvedModel], num_gpus: Mapping[str, float]
) -> list[Origin]:
    """Where records were made that are to be drawn again.

    Raises:
        UserError: there are such records, and the job file would rather stop.
    """
    if job.on_environment_change == "keep" or not ledger.origins:
        return []  # `jobs.running.run` tells of the change with the first receipts
    current = current_origins(models, {name: model.pool for name, model in job.models.items()}, num_gpus)
    elsewhere = made_elsewhere(ledger.origins, current)
    if elsewhere and job.on_environment_change == "stop":
        changes = "; ".join(describe_change(origin, current[origin.model]) for origin in elsewhere)
        raise UserError(
            f"the environment changed since its records were made ({changes}); "
            "on_environment_change: keep draws the rest all the same, rerender draws those records again",
            ("output",),
            job.output,
        )
    return elsewhere


def _announce(screen: Screen, plan: Plan) -> None:
    to_do = ", ".join(f"{model} {count}" for model, count in plan.num_to_do.items() if count) or "nothing"
    notes = {
        "finished before": sum(plan.num_finished.values()),
        "failed before": plan.num_failed,
        "rejected": plan.num_rejected,
        "duplicate": plan.num_duplicates,
        "finished but no longer in the manifest": plan.num_not_in_manifest,
    }
    screen.line(f"to draw: {to_do}" + "".join(f"; {count} {what}" for what, count in notes.items() if count))
