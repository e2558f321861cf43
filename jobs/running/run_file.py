"""`runs/<run_id>.json`: one file a submission, from its start to its end."""

import json
import os
import secrets
from datetime import UTC, datetime
from typing import Any

from rendermill.actors.checkpoints.files import is_on_hub
from rendermill.actors.versions import versions
from rendermill.jobs.cluster.connection import is_submitted_job
from rendermill.jobs.config.job import Job
from rendermill.jobs.config.job_file import parse_job
from rendermill.jobs.config.variables import as_expression, fill_in
from rendermill.manifests.errors import UserError, one_line
from rendermill.manifests.output.holder import read_holder
from rendermill.manifests.output.layout import RUNS, run_file
from rendermill.manifests.secrets import mask_all_secrets
from rendermill.manifests.storage.folder import Folder
from rendermill.manifests.storage.urls import absolute

DAMAGE = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""What reading a file of a submission may raise that somebody changed or cut off."""


def new_run_id() -> str:
    """A name for a submission that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


class RunFile:
    """The file of one submission.

    Args:
        source: the job file's path.
        lease: the number of the lease that the run holds, by which runs are in order.
    """

    def __init__(self, output: Folder, run_id: str, job: Job, source: str, lease: int) -> None:
        found = _from_anywhere(job)
        self._output = output
        self._name = run_file(run_id)
        self._content: dict[str, Any] = {
            "run_id": run_id,
            "lease": lease,
            "state": "planning",
            "started_at": _now(),
            "job_file": source,
            "job": mask_all_secrets(fill_in(found.model_dump(mode="json"), found.templates)),
            "from_variables": [[list(keys), template] for keys, template in found.templates.items()],
            "versions": versions(),
        }

    def update(self, state: str, **content: Any) -> None:
        """Store a new state with what is known by now."""
        self._content |= {"state": state, "updated_at": _now(), **content}
        told = mask_all_secrets(self._content)
        self._output.write(self._name, json.dumps(told, indent=2, ensure_ascii=False).encode())


def newest_run(output: Folder) -> str:
    """The id of an output's newest submission: the one that took the lease last, whatever clocks say.

    Raises:
        UserError: the folder is no output of rendermill.
    """
    runs = [
        name.removeprefix(f"{RUNS}/").removesuffix(".json") for name in output.names(RUNS) if name.endswith(".json")
    ]
    if not runs:
        raise UserError(f"output {output.url}: no runs/*.json there, so it is no output of rendermill")
    holder = read_holder(output)
    if holder is not None and holder.run_id in runs:
        return holder.run_id
    return max(runs, key=lambda run_id: (_lease_of(output, run_id), run_id))


def _lease_of(output: Folder, run_id: str) -> int:
    """The number of a run's lease; -1 where its file does not tell."""
    try:
        return int(read_run(output, run_id).get("lease", -1))
    except (UserError, *DAMAGE):
        return -1


def job_of_run(output: Folder, run_id: str) -> Job:
    """The job of a submission, as it was then.

    Raises:
        UserError: there is no such submission, or this rendermill does not understand its job.
    """
    told = read_run(output, run_id)
    try:
        templates = {tuple(keys): template for keys, template in told.get("from_variables", [])}
        return parse_job(told.get("job"), f"{output.url}/{run_file(run_id)}", templates)
    except DAMAGE as error:
        raise damaged(output, run_id, error) from error


def source_of_run(output: Folder, run_id: str) -> str:
    """The path of a submission's job file; that of the submission's own file where that says none."""
    return str(read_run(output, run_id).get("job_file", run_file(run_id)))


def read_run(output: Folder, run_id: str) -> dict[str, Any]:
    """What a submission's file says.

    Raises:
        UserError: there is no such submission.
    """
    content = output.read(run_file(run_id))
    if content is None:
        raise UserError(f"output {output.url}: no {run_file(run_id)} there")
    try:
        return dict(json.loads(content))
    except DAMAGE as error:
        raise damaged(output, run_id, error) from error


def damaged(output: Folder, run_id: str, error: Exception) -> UserError:
    """The mistake that a submission's file is, as it says nothing sensible.

    Args:
        error: one of `DAMAGE`.
    """
    return UserError(
        f"output {output.url}: {run_file(run_id)} is damaged ({type(error).__name__}: {one_line(error, 100)}); "
        "delete it: it says what one run did, and no record depends on it"
    )


def _from_anywhere(job: Job) -> Job:
    """The job with local paths made absolute, so that `retry` finds them from any folder.

    Those of a submitted job stay as they are: they lie in its packed folder, which is another one every time.
    """
    if is_submitted_job():
        return job
    models = {
        name: model
        if is_on_hub(model.checkpoint)
        else model.model_copy(update={"checkpoint": absolute(model.checkpoint)})
        for name, model in job.models.items()
    }
    found = job.model_copy(
        update={"manifest": absolute(job.manifest), "output": absolute(job.output), "models": models}
    )
    places = [("manifest",), ("output",), *(("models", name, "checkpoint") for name in models)]
    templates = dict(job.templates)
    for keys in places:
        if keys in templates and _at(found, keys) != _at(job, keys):
            templates[keys] = os.path.join(as_expression(os.getcwd()), templates[keys])
    return found.with_templates(templates)


def _at(job: Job, keys: tuple[str, ...]) -> str:
    return str(getattr(job, keys[0]) if len(keys) == 1 else job.models[keys[1]].checkpoint)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
