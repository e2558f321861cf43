"""Writes a submission's own file, `runs/<run_id>.json`, and reads the job of an earlier submission from its file."""

import os
import secrets
from datetime import UTC, datetime
from typing import Any

from rendermill.actors.checkpoints.files import is_on_hub
from rendermill.actors.versions import versions
from rendermill.jobs.cluster.connection import is_submitted_job
from rendermill.jobs.config.environment_values import as_expression, fill_in
from rendermill.jobs.config.job import Job
from rendermill.jobs.config.job_file import parse_job
from rendermill.jobs.running.inputs import absolute_place
from rendermill.manifests.output.layout import run_file
from rendermill.manifests.output.runs import Counts, RunState, State, damaged, now, read_submitted_job
from rendermill.manifests.storage.folder import Folder
from rendermill.manifests.storage.urls import absolute


def new_run_id() -> str:
    """Make a name for a submission; names sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


class RunFile:
    """The file of one submission.

    Args:
        source: The job file's path.
        lease: The number of the lease that the run holds, by which runs are in order.

    Attributes:
        state: The content of the file.
    """

    def __init__(self, output: Folder, run_id: str, job: Job, source: str, lease: int) -> None:
        found = _from_anywhere(job)
        self._output = output
        self.state = RunState(
            run_id=run_id,
            lease=lease,
            state="planning",
            started_at=now(),
            updated_at=now(),
            job_file=source,
            job=fill_in(found.model_dump(mode="json"), found.templates),
            from_variables=[(keys, template) for keys, template in found.templates.items()],
            versions=versions(),
        )

    def update(self, state: State, counts: Counts | None = None, **changes: Any) -> None:
        """Store a new state with the counts of now and other attributes of `RunState`."""
        self.state = self.state.updated(state, counts, **changes)
        self.state.write(self._output)


def job_of_run(output: Folder, run_id: str) -> Job:
    """Parse the job of a submission, as it was then.

    Raises:
        UserError: There is no such submission, its job is damaged, or this version does not understand it.
    """
    run = read_submitted_job(output, run_id)
    try:
        return parse_job(run.job, f"{output.url}/{run_file(run_id)}", dict(run.from_variables))
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # templates of keys that the job has not
        raise damaged(output, run_id, error) from error


def source_of_run(output: Folder, run_id: str) -> str:
    """The path of a submission's job file; that of the submission's own file if it does not say."""
    return read_submitted_job(output, run_id).job_file or run_file(run_id)


def _from_anywhere(job: Job) -> Job:
    """Make local paths of a job absolute, so that `retry` finds them from any folder.

    Paths of a submitted job stay as they are: they lie in its packed folder, which is another one every time.
    """
    if is_submitted_job():
        return job
    models = {
        name: model
        if is_on_hub(model.checkpoint)
        else model.model_copy(update={"checkpoint": absolute(model.checkpoint)})
        for name, model in job.models.items()
    }
    allow = job.inputs.allow and [*map(absolute_place, job.inputs.allow)]
    found = job.model_copy(
        update={
            "manifest": absolute(job.manifest),
            "output": absolute(job.output),
            "models": models,
            "inputs": job.inputs.model_copy(update={"allow": allow}),
        }
    )
    places = [("manifest",), ("output",), *(("models", name, "checkpoint") for name in models)]
    templates = dict(job.templates)
    for keys in places:
        if keys in templates and _at(found, keys) != _at(job, keys):
            templates[keys] = os.path.join(as_expression(os.getcwd()), templates[keys])
    return found.with_templates(templates)


def _at(job: Job, keys: tuple[str, ...]) -> str:
    return str(getattr(job, keys[0]) if len(keys) == 1 else job.models[keys[1]].checkpoint)
