"""The files `runs/<run_id>.json`: one per submission, written from its start to its end by the run itself."""

import json
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, Field, JsonValue, model_validator

from rendermill.manifests.errors import UserError, one_line
from rendermill.manifests.output.holder import read_holder
from rendermill.manifests.output.layout import RUNS, run_file
from rendermill.manifests.output.tuning_report import TuningReport
from rendermill.manifests.secrets import mask_all_secrets
from rendermill.manifests.storage.folder import Folder

State = Literal["planning", "running", "finished", "failed", "interrupted", "stopped"]
UNDER_WAY: tuple[State, ...] = ("planning", "running")
"""The states of a run that has not ended, unless its process died."""

_UNREADABLE = (ValueError, RecursionError)
"""What reading a changed or truncated file raises: bad UTF-8, bad JSON, wrong keys, deep nesting."""


class ModelCounts(NamedTuple):
    """The progress of one model, in samples.

    Attributes:
        num_to_do: The number of samples that the run set out to render.
        num_finished_before: The number of samples that had a record before the run.
        num_finished: The number of samples rendered and committed in this run.
        num_failed: The number of samples that failed in this run.
        items_per_second_now: The rate over the last minute before the file was written.
    """

    num_to_do: int
    num_finished_before: int
    num_finished: int
    num_failed: int
    items_per_second_now: float

    @property
    def num_done(self) -> int:
        """The number of samples that were rendered or failed in this run."""
        return self.num_finished + self.num_failed

    @property
    def num_left(self) -> int:
        """The number of samples that this run has still to render."""
        return self.num_to_do - self.num_done


class Counts(BaseModel):
    """The counts of a run so far; absent from its file while it plans. Dictionaries are by model.

    Attributes:
        num_to_do: As in `ModelCounts`, like the next three and `items_per_second_now`.
        error_types: The number of failures by type of error; models without failures are left out.
        num_prompts_cut: The number of items whose prompt was too long for the text encoder.
        num_failed_before: The number of samples that failed in earlier runs and are left as they are.
        num_rejected: The number of rows, and of unreadable files, that were rejected.
        num_duplicates: The number of rows that repeat an earlier row.
        num_not_in_manifest: The number of samples with a record that no row asks for any more.
        seconds: The time since rendering began.
        items_per_second: The rate over all of that time.
        found: What the renderers reported last.
    """

    num_to_do: dict[str, int] = {}
    num_finished_before: dict[str, int] = {}
    num_finished: dict[str, int] = {}
    num_failed: dict[str, int] = {}
    error_types: dict[str, dict[str, int]] = {}
    items_per_second_now: dict[str, float] = {}
    num_prompts_cut: dict[str, int] = {}
    num_failed_before: int = 0
    num_rejected: int = 0
    num_duplicates: int = 0
    num_not_in_manifest: int = 0
    seconds: float = 0.0
    items_per_second: float = 0.0
    found: TuningReport = Field(default_factory=TuningReport)

    @model_validator(mode="after")
    def _name_all_models(self) -> "Counts":
        for name in ModelCounts._fields:
            missing = self.num_to_do.keys() - getattr(self, name).keys()
            if missing:
                raise ValueError(f"{name} lacks {', '.join(sorted(missing))}")
        return self

    @property
    def by_model(self) -> dict[str, ModelCounts]:
        """The counts of each model."""
        return {
            model: ModelCounts(*(getattr(self, name)[model] for name in ModelCounts._fields))
            for model in self.num_to_do
        }


class SubmittedJob(BaseModel):
    """The part of a run's file that says what was submitted. It can be read if the rest of the file is damaged.

    Attributes:
        lease: The number of the lease that the run held, by which runs are in order; -1 in files of earlier versions.
        job_file: The path of the job file that was submitted; None if the file does not say.
        job: The job as `jobs.config` parses it, with defaults, and with variables in place of secrets.
        from_variables: The key path and the template of each value of the job that comes from environment variables.
    """

    run_id: str
    lease: int = -1
    job_file: str | None = None
    job: JsonValue = None
    from_variables: list[tuple[tuple[str, ...], str]] = []


class RunState(Counts, SubmittedJob):
    """The content of one run's file. Times are ISO 8601, UTC.

    Attributes:
        versions: The installed version of each library that matters.
        errors: What ended a model, by model.
        run_errors: What ended the run, by its cause.
    """

    state: State
    started_at: str
    updated_at: str
    versions: dict[str, str] = {}
    errors: dict[str, str] = {}
    run_errors: dict[str, str] = {}

    @property
    def is_under_way(self) -> bool:
        """Whether the run had not ended when it wrote this; its process may have died since."""
        return self.state in UNDER_WAY

    def updated(self, state: State, counts: Counts | None = None, **changes: Any) -> "RunState":
        """A copy with a new state, the counts of now, and other changed attributes, at the present time."""
        known = {} if counts is None else {name: getattr(counts, name) for name in Counts.model_fields}
        return self.model_copy(update={**known, **changes, "state": state, "updated_at": now()})

    def write(self, output: Folder) -> None:
        """Store the file, in place of what it said before; secrets of URLs are masked."""
        content = mask_all_secrets(self.model_dump(mode="json", exclude_unset=True))
        output.write(run_file(self.run_id), json.dumps(content, indent=2, ensure_ascii=False).encode())


_Part = TypeVar("_Part", RunState, SubmittedJob)


def now() -> str:
    """The present time as a run's file gives it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_run(output: Folder, run_id: str) -> RunState:
    """Read a submission's file, of this version or an earlier one.

    Raises:
        UserError: There is no such submission, or its file is damaged.
    """
    return _read(RunState, output, run_id)


def read_submitted_job(output: Folder, run_id: str) -> SubmittedJob:
    """Read the part of a submission's file that says what was submitted.

    Raises:
        UserError: There is no such submission, or this part of its file is damaged.
    """
    return _read(SubmittedJob, output, run_id)


def _read(part: type[_Part], output: Folder, run_id: str) -> _Part:
    content = output.read(run_file(run_id))
    if content is None:
        raise UserError(f"no {run_file(run_id)} there", ("output",), output.url)
    try:
        return part.model_validate({"run_id": run_id, **json.loads(content)})
    except (*_UNREADABLE, TypeError) as error:
        raise damaged(output, run_id, error) from error


def newest_run(output: Folder) -> str:
    """The id of an output's newest submission: the one that took the lease last, whatever clocks say.

    Raises:
        UserError: The folder is no output of rendermill.
    """
    runs = [
        name.removeprefix(f"{RUNS}/").removesuffix(".json") for name in output.names(RUNS) if name.endswith(".json")
    ]
    if not runs:
        raise UserError("no runs/*.json there, so it is no output of rendermill", ("output",), output.url)
    holder = read_holder(output)
    if holder is not None and holder.run_id in runs:
        return holder.run_id
    return max(runs, key=lambda run_id: (_lease_of(output, run_id), run_id))


def damaged(output: Folder, run_id: str, error: Exception) -> UserError:
    """The error that a submission's file has no usable content.

    Args:
        error: What reading or using the content raised.
    """
    return UserError(
        f"{run_file(run_id)} is damaged ({type(error).__name__}: {one_line(error, 100)}); "
        "delete it: it says what one run did, and no record depends on it",
        ("output",),
        output.url,
    )


def _lease_of(output: Folder, run_id: str) -> int:
    """The number of a run's lease; -1 if its file does not tell."""
    try:
        return read_submitted_job(output, run_id).lease
    except UserError:
        return -1
