"""The result of `rendermill plan`, as data and as lines of text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rendermill.jobs.console.tables import Table
from rendermill.jobs.console.units import duration, size
from rendermill.jobs.planning.plan import InputCounts


@dataclass(frozen=True)
class ShapePlan:
    """The plan for the items of one model and shape. See `jobs.planning.plan.ShapeCount` for the counts.

    Attributes:
        batch_size: The number of items in a batch, as an earlier run measured; None: not known.
        seconds_per_item: The time of one actor; None: not known.
        is_measured: Whether this very shape was rendered before; if not, the time is estimated from another shape.
        bytes: The size of all files to be written; None: not known.
        padding: The share of the denoiser's work that would be padding, if only the last chunk is short.
    """

    model: str
    shape: str
    num_to_do: int
    num_changed: int
    num_finished: int
    num_failed: int
    batch_size: int | None
    seconds_per_item: float | None
    is_measured: bool
    bytes: int | None
    padding: float


@dataclass(frozen=True)
class ModelPlan:
    """The resources that one model would take.

    Attributes:
        measured_on: The device that its figures were measured on; None: there are none.
        num_actors: The largest number that its pool and the cluster allow.
        device: `GPU` or `CPU`.
        device_hours: The time of all its actors together; None: not known.
        certificate: What is known of its seed, its arguments and its batch sizes, each in one line; empty: nothing.
    """

    measured_on: str | None
    num_actors: int
    device: str
    device_hours: float | None
    certificate: Sequence[str]


@dataclass(frozen=True)
class JobPlan:
    """The plan of a job, as `rendermill plan` prints it.

    Attributes:
        num_duplicates: The number of rows that repeat an earlier row.
        num_rejected: The number of rows and files that cannot be rendered.
        reasons: The most frequent reasons of rejected rows, with the number of rows.
        num_not_in_manifest: The number of samples with a record that no row asks for any more.
        inputs: The images and videos that are to be read.
        seconds: The time that rendering would take; None: not known, and `--calibrate` would measure it.
        ends_at: When it would end if it began now, ISO 8601, UTC.
        num_runs: The number of runs that it would take, as `stop_after` ends each; None: not known.
        bytes: The size of the files to be written; None: not known.
        profile_problems: Files of the tuning profile that were ignored, each in one line.
    """

    shapes: list[ShapePlan]
    models: Mapping[str, ModelPlan]
    num_duplicates: int
    num_rejected: int
    reasons: Mapping[str, int]
    num_not_in_manifest: int
    inputs: InputCounts
    seconds: float | None
    ends_at: str | None
    num_runs: int | None
    bytes: int | None
    profile_problems: Sequence[str]


def in_words(found: JobPlan, output: str) -> list[str]:
    """Return a plan as lines of text, without the table of its shapes."""
    lines = [line for name, model in found.models.items() for line in _model_in_words(name, model)]
    num_to_do = sum(shape.num_to_do for shape in found.shapes)
    if not num_to_do:
        lines.append("to render: nothing")
    elif found.seconds is not None:
        storage = f"; {size(found.bytes)}" if found.bytes is not None else ""
        lines.append(f"to render: {num_to_do} items in about {duration(found.seconds)}, until {found.ends_at}{storage}")
    else:
        lines.append(f"to render: {num_to_do} items; how long it takes is not known yet, --calibrate finds out")
    if found.num_runs is not None and found.num_runs > 1:
        lines.append(f"stop_after ends a run before that: about {found.num_runs} runs")
    if found.inputs.num:
        of_manifest = f", {size(found.inputs.num_inline_bytes)} of them in the manifest itself"
        lines.append(
            f"to read: {found.inputs.num} images and videos, {found.inputs.num_distinct} of them different"
            + (of_manifest if found.inputs.num_inline_bytes else "")
        )
    num_changed = sum(shape.num_changed for shape in found.shapes)
    notes = {
        "items whose row or settings changed would be rendered again and replace their old records": num_changed,
        "records whose rows are gone from the manifest would stay": found.num_not_in_manifest,
        "rows repeat an earlier row": found.num_duplicates,
        "items failed before and would be left; rendermill retry renders them": sum(
            shape.num_failed for shape in found.shapes
        ),
        "rows or files are rejected": found.num_rejected,
    }
    lines += [f"{count} {words}" for words, count in notes.items() if count]
    lines += [f"  {count} × {reason}" for reason, count in found.reasons.items()]
    return [*lines, f"output: {output}", *found.profile_problems]


def table_of_shapes(shapes: Sequence[ShapePlan]) -> Table:
    """Return a table with a row for each model and shape."""
    heads = ("model", "shape", "to render", "finished", "failed", "batch", "seconds each", "padding", "storage")
    rows: list[tuple[str, ...]] = []
    for shape in shapes:
        pace = "?" if shape.seconds_per_item is None else f"{shape.seconds_per_item:.3g}"
        rows.append(
            (
                shape.model,
                shape.shape,
                str(shape.num_to_do),
                str(shape.num_finished),
                str(shape.num_failed),
                str(shape.batch_size or "?"),
                pace if shape.is_measured or shape.seconds_per_item is None else f"~{pace}",
                f"{shape.padding:.1%}",
                "?" if shape.bytes is None else size(shape.bytes),
            )
        )
    return Table(heads, rows, num_text_columns=2)


def _model_in_words(name: str, model: ModelPlan) -> list[str]:
    return [_resources_in_words(name, model), *(f"  {line}" for line in model.certificate)]


def _resources_in_words(name: str, model: ModelPlan) -> str:
    actors = "1 actor" if model.num_actors == 1 else f"up to {model.num_actors} actors"
    if model.device_hours is None:
        return f"{name}: {actors}; its pace is not known yet"
    measured_on = f", as measured on {model.measured_on}" if model.measured_on else ""
    return f"{name}: {actors}, {model.device_hours:.3g} {model.device} hours{measured_on}"
