"""`rendermill status`: how far an output's newest run is, from the output alone, while it goes on and afterwards."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.live import Live
from rich.text import Text

from rendermill.jobs.console.screen import Screen, json_text, printable
from rendermill.jobs.console.units import duration
from rendermill.jobs.running.run_file import DAMAGE, damaged, newest_run, read_run
from rendermill.manifests.output.holder import Holder, looks_alive, read_holder, seconds_of_silence
from rendermill.manifests.output.records import read_failures
from rendermill.manifests.storage.folder import Folder

_SECONDS_BETWEEN_LOOKS = 5.0
_UNDER_WAY = ("planning", "running")


@dataclass(frozen=True)
class ModelProgress:
    """How far one model is.

    Attributes:
        num_to_do: samples that the run set out to draw.
        num_done: of these, those that were drawn or failed.
        num_failed: of these, those that failed.
        num_finished_before: samples that had a record before.
        items_per_second_now: over the last minute that the run told of.
        items_per_second: since the run began to draw.
        seconds_left: at the rate of that minute; None where it cannot be told, as of a run that is over.
        batch_sizes: by shape of item, as they were found.
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
    """What an output says of its newest run; times in UTC.

    Attributes:
        state: of `runs/<run_id>.json`, or `died`: the file says that it is under way, and nobody is.
        ends_at: when it should end, ISO 8601.
        error_types: failures in the output by type of error.
        errors: what ended models, by name.
        run_errors: what ended the run, by its cause.
        holder: of the lease; None if no run goes on.
        seconds_of_silence: since the holder was last heard of, by the store's clock; None if that cannot be told.
    """

    run_id: str
    state: str
    started_at: str
    updated_at: str
    seconds_drawing: float
    ends_at: str | None
    models: Mapping[str, ModelProgress]
    error_types: Mapping[str, int]
    num_rejected: int
    errors: Mapping[str, str]
    run_errors: Mapping[str, str]
    holder: Holder | None
    seconds_of_silence: float | None


_STATUS = TypeAdapter(Status)


def status(output: Folder, screen: Screen, as_json: bool, is_watched: bool) -> int:
    """Print how far an output is.

    Args:
        as_json: print it as JSON, one line a look.
        is_watched: look again every few seconds until the run has ended.

    Raises:
        UserError: no run ever began there.
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
    """A look every few seconds; the last one after the run has ended."""
    while (found := look(output)).state in _UNDER_WAY:
        yield found
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    yield found


def look(output: Folder) -> Status:
    """Read the newest run's file, the lease and the failures.

    Raises:
        UserError: no run ever began there, or one of these files is damaged.
    """
    run_id = newest_run(output)
    told, holder, silence = read_run(output, run_id), read_holder(output), seconds_of_silence(output)
    if holder is not None and not looks_alive(holder, silence):
        holder = None
    error_types = _error_types(output)
    try:
        found = _told(run_id, told, holder, silence, error_types)
        return _STATUS.validate_python(asdict(found))
    except DAMAGE as error:
        raise damaged(output, run_id, error) from error


def _told(
    run_id: str, told: Mapping[str, Any], holder: Holder | None, silence: float | None, error_types: Mapping[str, int]
) -> Status:
    """The state of a run, from its file and the lease."""
    is_under_way = told["state"] in _UNDER_WAY
    is_alive = holder is not None and holder.run_id == run_id
    is_going = is_under_way and is_alive
    models = {name: _progress(told, name, is_going) for name in told.get("num_to_do", {})}
    seconds_left = [model.seconds_left for model in models.values()]
    ends_at = None
    if is_going and seconds_left and None not in seconds_left:
        end = datetime.now(UTC) + timedelta(seconds=max(left or 0.0 for left in seconds_left))
        ends_at = end.isoformat(timespec="seconds")
    return Status(
        run_id=run_id,
        state="died" if is_under_way and not is_alive else told["state"],
        started_at=told["started_at"],
        updated_at=told["updated_at"],
        seconds_drawing=told.get("seconds", 0.0),
        ends_at=ends_at,
        models=models,
        error_types=error_types,
        num_rejected=told.get("num_rejected", 0),
        errors=told.get("errors", {}),
        run_errors=told.get("run_errors", {}),
        holder=holder,
        seconds_of_silence=None if holder is None else silence,
    )


def _progress(told: Mapping[str, Any], model: str, is_going: bool) -> ModelProgress:
    num_to_do, num_failed = told["num_to_do"][model], told["num_failed"][model]
    num_done = told["num_finished"][model] + num_failed
    rate = told["items_per_second_now"][model]
    num_left = num_to_do - num_done
    seconds_left = 0.0 if not num_left else num_left / rate if rate and is_going else None
    return ModelProgress(
        num_to_do=num_to_do,
        num_done=num_done,
        num_failed=num_failed,
        num_finished_before=told["num_finished_before"][model],
        items_per_second_now=rate,
        items_per_second=round(num_done / told["seconds"], 4) if told["seconds"] else 0.0,
        seconds_left=seconds_left,
        batch_sizes=told["found"].get("models", {}).get(model, {}).get("batch_sizes", {}),
    )


def _error_types(output: Folder) -> dict[str, int]:
    """Failures that are in the output, by type of error."""
    counts: Counter[str] = Counter()
    for failures in read_failures(output, ["error_type"]):
        counts.update(failures["error_type"].to_pylist())
    return dict(counts.most_common())


def in_words(found: Status) -> list[str]:
    """A status as lines for people."""
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
