"""`rendermill generate`: run a job, or finish what an earlier run of it left."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rendermill.jobs.config.job import Job
from rendermill.jobs.console.screen import Screen
from rendermill.jobs.console.signals import interrupt_between_steps
from rendermill.jobs.planning.origins import current_origins, describe_change, made_elsewhere
from rendermill.jobs.planning.plan import Plan, make_plan
from rendermill.jobs.planning.prepare import PreparedJob, open_job, prepared
from rendermill.jobs.planning.sample_states import StoredHashes
from rendermill.jobs.running.pipelines import make_pipeline
from rendermill.jobs.running.run import Run
from rendermill.jobs.running.run_file import RunFile, job_of_run, new_run_id, source_of_run
from rendermill.jobs.running.services import start_services
from rendermill.jobs.running.tidying import tidy
from rendermill.jobs.verification.stored_media import gaps
from rendermill.manifests.errors import UserError
from rendermill.manifests.output.fence import FencedFolder
from rendermill.manifests.output.lease import Lease
from rendermill.manifests.output.ledger.ledger import Ledger
from rendermill.manifests.output.ledger.origins import Origin
from rendermill.manifests.output.records import read_records
from rendermill.manifests.output.rejected import RejectedRows
from rendermill.manifests.output.runs import RunState, newest_run
from rendermill.manifests.storage.folder import Folder

_MAX_RECORDS_COMPARED = 50_000
"""The largest number of records that a run compares with a listing of their media: a store lists 1,000 files a call."""


@dataclass(frozen=True)
class Generated:
    """The result of one run.

    Attributes:
        output: The URL of the output.
        exit_status: 0, or 3 with failures or rejected rows, or 1 if the run could not go on.
        state: `finished`, `failed`, `interrupted`, `stopped` if `stop_after` ended it, or `running` if it lost its
            lease, and another run follows.
        num_finished: The number of items that were rendered, by model.
        num_finished_before: The number of items that had a record before, by model.
        num_failed: The number of items that failed, by model.
        num_rejected: The number of manifest rows and files that were rejected.
        errors: What ended models, by model, and what ended the run, by its cause.
        log: The file with the tracebacks of these errors.
    """

    run_id: str
    output: str
    exit_status: int
    state: str
    num_finished: Mapping[str, int]
    num_finished_before: Mapping[str, int]
    num_failed: Mapping[str, int]
    num_rejected: int
    errors: Mapping[str, str]
    log: Path


def retry(output: Folder, screen: Screen) -> Generated:
    """Render the failures of an output again, with the job of its newest run.

    Raises:
        UserError: There is no such job, or as `generate`.
    """
    run_id = newest_run(output)
    job = job_of_run(output, run_id).model_copy(update={"output": output.url})  # the run's URL may be masked or old
    return generate(job, source_of_run(output, run_id), screen, retry_failures=True)


def generate(job: Job, source: str, screen: Screen, retry_failures: bool = False) -> Generated:
    """Render everything that the manifest asks for and the output does not have.

    Args:
        source: The job file's path, for the run's file.
        retry_failures: Render what failed in earlier runs once more.

    Raises:
        UserError: There is a mistake in the job or in what it names, and nothing was rendered.
    """
    opened = open_job(job)
    with prepared(opened) as prepared_job:
        run_id = new_run_id()
        with Lease(opened.output, run_id, say=screen.line) as lease:
            run_file = RunFile(opened.output, run_id, job, source, lease.number)
            run_file.update("planning")
            submission = _Submission(prepared_job, run_id, lease, run_file, screen, retry_failures)
            return _result(opened.output, submission.run(), run_file.state, screen.log)


def _result(output: Folder, exit_status: int, run: RunState, log: Path) -> Generated:
    return Generated(
        run_id=run.run_id,
        output=output.url,
        exit_status=exit_status,
        state=run.state,
        num_finished=run.num_finished,
        num_finished_before=run.num_finished_before,
        num_failed=run.num_failed,
        num_rejected=run.num_rejected,
        errors={**run.errors, **run.run_errors},
        log=log,
    )


class _Submission:
    """One run of `generate`, from the lease on."""

    def __init__(
        self,
        prepared: PreparedJob,
        run_id: str,
        lease: Lease,
        run_file: RunFile,
        screen: Screen,
        retry_failures: bool,
    ) -> None:
        self._prepared, self._run_id, self._lease, self._run_file = prepared, run_id, lease, run_file
        self._screen, self._retry_failures = screen, retry_failures
        self._folder = FencedFolder.of(prepared.output, lease)

    def run(self) -> int:
        """Plan and render; return the exit status."""
        job = self._prepared.job
        ledger = Ledger(self._folder, self._prepared.manifest.extra, job.layout, job.deletion_delay.total_seconds())
        damaged = tidy(ledger)
        services = start_services(self._prepared.profiles)  # its two processes start while the manifest is read
        plan = self._plan(ledger)
        self._prepared.check_resources(plan.models_to_render)
        _announce(self._screen, plan)
        self._warn(ledger, damaged)
        pipelines = {
            name: make_pipeline(self._prepared, model, plan, services, self._run_id, ledger.extra)
            for name, model in self._prepared.models.items()
        }
        run = Run(
            job, plan, pipelines, services, ledger, self._run_file, self._screen, may_all_fail=self._retry_failures
        )
        return run.render(self._lease, interrupt_between_steps())

    def _plan(self, ledger: Ledger) -> Plan:
        stored = StoredHashes(ledger.keys, ledger.finished(_outdated(self._prepared, ledger)), ledger.failed)
        return make_plan(
            self._prepared.manifest,
            self._prepared.validator,
            stored,
            RejectedRows(self._folder, self._run_id),
            self._prepared.job.limit,
            self._retry_failures,
        )

    def _warn(self, ledger: Ledger, damaged: Mapping[str, str]) -> None:
        """Print what is wrong with the output as it is.

        Args:
            damaged: Why shards cannot be read, by name.
        """
        line, output = self._screen.line, self._prepared.output
        if self._folder.is_s3 and not self._folder.has_conditions:
            line(f"output {output.url}: this store has no conditional writes; see docs/reliability.md")
        _warn_of_lost_media(self._screen, output, len(ledger.keys))
        for problem in ledger.problems:
            line(f"output {output.url}: {problem}")
        for shard, problem in damaged.items():
            line(f"{shard} is damaged and stays as it is: {problem}; rendermill verify names its items")


def _warn_of_lost_media(screen: Screen, output: Folder, num_records: int) -> None:
    """Print how many records have no media any more: they count as finished until they are dropped."""
    if num_records > _MAX_RECORDS_COMPARED:
        return
    found = gaps(output, read_records(output, columns=["path", "member", "bytes"]))
    if found.num_missing or found.num_of_other_size:
        screen.line(
            f"{found.num_missing} records have lost their media, and {found.num_of_other_size} have files of another "
            f"size; to render these items again: rendermill verify {output.url} --repair, and then this command"
        )


def _outdated(prepared: PreparedJob, ledger: Ledger) -> list[Origin]:
    """Return the origins of records that are to be rendered again.

    Raises:
        UserError: There are such records, and the job file asks to stop then.
    """
    job = prepared.job
    if job.on_environment_change == "keep" or not ledger.origins:
        return []  # `jobs.running` says what changed when the first receipts come
    current = current_origins(prepared.models)
    elsewhere = made_elsewhere(ledger.origins, current)
    if elsewhere and job.on_environment_change == "stop":
        changes = "; ".join(describe_change(origin, current[origin.model]) for origin in elsewhere)
        raise UserError(
            f"the environment changed since its records were made ({changes}); "
            "on_environment_change: keep renders the rest all the same, rerender renders those records again",
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
    screen.line(f"to render: {to_do}" + "".join(f"; {count} {what}" for what, count in notes.items() if count))
