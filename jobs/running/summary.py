"""What a person reads when a run has ended, and the exit status of its command."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rendermill.jobs.config.job import Job
from rendermill.jobs.config.quantities import duration_text
from rendermill.manifests.output.runs import RunState
from rendermill.manifests.output.tuning_report import AuditReport, ModelReport, TuningReport

DONE, ERROR, DONE_WITH_FAILURES = 0, 1, 3


def exit_status(run: RunState) -> int:
    """Return 0 if everything is finished, 3 if there are failures, rejected rows or differences, 1 after an early end.

    The time limit `stop_after` is no early end in this sense.
    """
    if run.state not in ("finished", "stopped"):
        return ERROR
    has_failures = _num_failed(run) or run.num_rejected or run.found.audit.num_different
    return DONE_WITH_FAILURES if has_failures else DONE


def summary(run: RunState, job: Job, paces: Mapping[str, float], cut_prompts: Iterable[str], log: Path) -> list[str]:
    """Describe what a run did, in lines.

    Args:
        paces: The finished items per second of each model.
        cut_prompts: Lines about prompts that were cut.
        log: The file with the details of errors.
    """
    return [
        *_why_it_stopped(run, job, log),
        *_models(run, paces),
        *(f"  {line}" for line in cut_prompts),
        *_totals(run, job),
        *_what_was_found(run.found),
        *_what_to_do_next(run, job),
    ]


def _num_failed(run: RunState) -> int:
    return sum(run.num_failed.values()) + run.num_failed_before


def _why_it_stopped(run: RunState, job: Job, log: Path) -> Iterator[str]:
    for name, error in [*run.errors.items(), *run.run_errors.items()]:
        yield f"stopped: {name}: {error}; details in {log}"
    if run.state == "interrupted":
        yield "interrupted; the same command goes on from here"
    if run.state == "stopped" and job.stop_after:
        after = duration_text(job.stop_after)
        yield f"stopped after {after}, as stop_after says; the same command goes on from here"


def _models(run: RunState, paces: Mapping[str, float]) -> Iterator[str]:
    for model, count in run.num_finished.items():
        if count:
            yield f"  {model}: {count} rendered, {paces[model]:.2f}/s{_at_work(run.found.models.get(model))}"


def _at_work(report: ModelReport | None) -> str:
    if report is None or report.actors_at_work is None:
        return ""
    actors = "1 actor" if report.num_actors == 1 else f"{report.num_actors} actors"
    return f", {actors} at work {report.actors_at_work:.0%} of their time"


def _totals(run: RunState, job: Job) -> Iterator[str]:
    num_rendered = sum(run.num_finished.values())
    num_finished = num_rendered + sum(run.num_finished_before.values())
    yield f"{num_finished} items finished, {_num_failed(run)} failed, {run.num_rejected} rejected"
    if num_rendered:
        yield f"{num_rendered} rendered in {run.seconds:.0f} s ({num_rendered / run.seconds:.2f} items/s)"
    yield f"output: {job.output}"


def _what_was_found(found: TuningReport) -> Iterator[str]:
    yield from found.profile_problems
    for model, report in found.models.items():
        yield from (f"  {model}: {statement}" for statement in report.certificate if statement.verdict == "refuted")
        for note, count in report.notes.items():
            yield f"  {model}: {note}" + (f" ({count} times)" if count > 1 else "")
    for cause, count in found.deaths.items():
        yield f"  processes that died at work, {count}: {cause}"
    if found.audit.num_chosen:
        yield _audit(found.audit)


def _audit(audit: AuditReport) -> str:
    num_audited = audit.num_equal + audit.num_different
    result = (
        f"{audit.num_different} came out different, see found.audit in the run's file"
        if audit.num_different
        else "all came out the same"
    )
    return f"audit: {num_audited} of {audit.num_chosen} chosen items were rendered twice, {result}"


def _what_to_do_next(run: RunState, job: Job) -> Iterator[str]:
    if _num_failed(run):
        yield f"failures: {job.output}/failures; run them again with: rendermill retry {job.output}"
    if run.num_rejected:
        yield f"rejected rows and why: {job.output}/rejected"
