"""`rendermill status`: how far an output's newest run is, read from the output alone, during the run and afterwards."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.live import Live
from rich.text import Text

from rendermill.jobs.console.screen import Screen, json_text, printable
from rendermill.jobs.console.units import duration
from rendermill.manifests.output.holder import Holder, looks_alive, read_holder, seconds_of_silence
from rendermill.manifests.output.records import read_failures
from rendermill.manifests.output.runs import UNDER_WAY, ModelCounts, RunState, newest_run, read_run
from rendermill.manifests.storage.folder import Folder

_SECONDS_BETWEEN_LOOKS = 5.0


@dataclass(frozen=True)
class ModelProgress:
    """The progress of one model.

    Attributes:
        num_to_do: The number of samples that the run set out to render.
        num_done: The number of these that were rendered or failed.
        num_failed: The number of these that failed.
        num_finished_before: The number of samples that had a record before the run.
        items_per_second_now: The rate over the last minute before the run wrote its file.
        items_per_second: The rate since the run began to render.
        seconds_left: The time that the rest takes at that rate; None if it is not known or the run is over.
        batch_sizes: The batch size in use, by shape of item.
    """

    num_to_do: int
    num_done: int
    num_failed: int
    num_finished_before: int
    items_per_second_now: float
    items_per_second: float
    seconds_left: float | None
    batch_sizes: Mapping[str, int]


@dataclass(frozen=True)
class Status:
    """The status of an output's newest run; times in ISO 8601, UTC.

    Attributes:
        state: The state in `runs/<run_id>.json`, or `died` if the file says that the run is under way and the lease
            says that no process is.
        ends_at: When the run should end; None if that is not known.
        error_types: The number of failures in the output by type of error.
        errors: What ended a model, by model.
        run_errors: What ended the run, by its cause.
        holder: The holder of the lease; None if no run is under way.
        seconds_of_silence: The time since the holder's last heartbeat, by the store's clock; None if it is not known.
    """

    run_id: str
    state: str
    started_at: str
    updated_at: str
    seconds_rendering: float
    ends_at: str | None
    models: Mapping[str, ModelProgress]
    error_types: Mapping[str, int]
    num_rejected: int
    errors: Mapping[str, str]
    run_errors: Mapping[str, str]
    holder: Holder | None
    seconds_of_silence: float | None


def status(output: Folder, screen: Screen, as_json: bool, is_watched: bool) -> int:
    """Print how far an output is.

    Args:
        as_json: Whether to print JSON, one line per look.
        is_watched: Whether to look again every few seconds until the run has ended.

    Raises:
        UserError: No run has ever begun there, or a run's file is damaged.
    """
    if is_watched and not as_json:
        with Live(console=Console(file=screen.out), auto_refresh=False) as live:
            for found in _looks(output):
                live.update(Text("\n".join(printable(line) for line in in_words(found))), refresh=True)
        return 0
    for found in _looks(output) if is_watched else [look(output)]:
        if as_json:
            screen.text(json_text(asdict(found)))
        else:
            for line in in_words(found):
                screen.line(line)
    return 0


def _looks(output: Folder) -> Iterator[Status]:
    """Look every few seconds; the last look is after the run has ended."""
    while (found := look(output)).state in UNDER_WAY:
        yield found
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    yield found


def look(output: Folder) -> Status:
    """Read the newest run's file, the lease and the failures.

    Raises:
        UserError: No run has ever begun there, or one of these files is damaged.
    """
    run = read_run(output, newest_run(output))
    holder, silence = read_holder(output), seconds_of_silence(output)
    if holder is not None and not looks_alive(holder, silence):
        holder = None
    is_alive = holder is not None and holder.run_id == run.run_id
    models = {
        name: _progress(run, name, counts, is_going=run.is_under_way and is_alive)
        for name, counts in run.by_model.items()
    }
    return Status(
        run_id=run.run_id,
        state="died" if run.is_under_way and not is_alive else run.state,
        started_at=run.started_at,
        updated_at=run.updated_at,
        seconds_rendering=run.seconds,
        ends_at=_end(models) if run.is_under_way and is_alive else None,
        models=models,
        error_types=_error_types(output),
        num_rejected=run.num_rejected,
        errors=run.errors,
        run_errors=run.run_errors,
        holder=holder,
        seconds_of_silence=None if holder is None else silence,
    )


def _end(models: Mapping[str, ModelProgress]) -> str | None:
    """Return the time at which the slowest model will be done; None if that is not known of each."""
    seconds_left = [model.seconds_left for model in models.values()]
    if not seconds_left or None in seconds_left:
        return None
    end = datetime.now(UTC) + timedelta(seconds=max(left or 0.0 for left in seconds_left))
    return end.isoformat(timespec="seconds")


def _progress(run: RunState, model: str, counts: ModelCounts, is_going: bool) -> ModelProgress:
    rate = counts.items_per_second_now
    report = run.found.models.get(model)
    return ModelProgress(
        num_to_do=counts.num_to_do,
        num_done=counts.num_done,
        num_failed=counts.num_failed,
        num_finished_before=counts.num_finished_before,
        items_per_second_now=rate,
        items_per_second=round(counts.num_done / run.seconds, 4) if run.seconds else 0.0,
        seconds_left=0.0 if not counts.num_left else counts.num_left / rate if rate and is_going else None,
        batch_sizes={} if report is None else report.batch_sizes,
    )


def _error_types(output: Folder) -> dict[str, int]:
    """The number of failures in the output by type of error, the most frequent first."""
    counts: Counter[str] = Counter()
    for failures in read_failures(output, ["error_type"]):
        counts.update(failures["error_type"].to_pylist())
    return dict(counts.most_common())


def in_words(found: Status) -> list[str]:
    """Describe a status in lines for people."""
    lines = [f"run {found.run_id}: {found.state}; began {found.started_at}, last heard of {found.updated_at}"]
    if found.state == "died":
        lines.append("  its process is gone or silent; the same command goes on from what it committed")
    if found.state in ("stopped", "interrupted"):
        lines.append("  the same command goes on from what it committed")
    lines += [_model_in_words(name, model) for name, model in found.models.items()]
    if found.ends_at:
        lines.append(f"ends about {found.ends_at}")
    lines += [f"stopped: {name}: {error}" for name, error in [*found.errors.items(), *found.run_errors.items()]]
    if found.error_types:
        lines.append("failures: " + ", ".join(f"{count} {name}" for name, count in found.error_types.items()))
    if found.num_rejected:
        lines.append(f"rejected rows: {found.num_rejected}")
    if found.holder:
        holder = found.holder
        heard = "" if found.seconds_of_silence is None else f", heard of {found.seconds_of_silence:.0f} s ago"
        lines.append(f"held by run {holder.run_id} on {holder.host}, process {holder.process_id}{heard}")
    return lines


def _model_in_words(name: str, model: ModelProgress) -> str:
    parts = [f"{model.num_done} of {model.num_to_do}"]
    if model.num_to_do:
        parts[0] += f" ({model.num_done / model.num_to_do:.0%})"
    if model.num_failed:
        parts.append(f"{model.num_failed} failed")
    if model.num_finished_before:
        parts.append(f"{model.num_finished_before} finished before")
    if model.num_done:
        parts.append(f"{model.items_per_second:.2f}/s")
    if model.seconds_left:
        parts.append(f"{model.items_per_second_now:.2f}/s now, {duration(model.seconds_left)} left")
    elif model.num_done < model.num_to_do:
        parts.append(f"{model.num_to_do - model.num_done} left")
    parts += [f"batch {size} for {shape}" for shape, size in model.batch_sizes.items()]
    return f"  {name}: " + "; ".join(parts)
