"""What a run's renderers found out: the document under `found` in the run's file."""

from typing import Any

from pydantic import BaseModel

from rendermill.actors.services.audit import Rendering


class ModelReport(BaseModel):
    """What was found out of one model.

    Attributes:
        batch_sizes: by shape of item as text.
        same_pixels: a line for each stage and shape: the batch sizes that give the reference's bits.
        num_actors: the number of actors that have rendered.
        actors_at_work: the share of the actors' time since their first chunks in which they were busy; None if no chunk
            has been finished.
        padding: the share of the denoiser's slots that were filled with copies.
        notes: events, and how often each happened.
    """

    batch_sizes: dict[str, int]
    same_pixels: list[str]
    num_actors: int
    actors_at_work: float | None
    padding: float
    notes: dict[str, int]


class DifferenceReport(BaseModel):
    """An item that was rendered twice, with different pixels.

    Attributes:
        request: the item's request, by field.
    """

    request: dict[str, Any]
    first: Rendering
    second: Rendering


class AuditReport(BaseModel):
    """What came of the audit.

    Attributes:
        num_equal: the number of items that were rendered twice with equal pixels.
        num_different: the number of items that were rendered twice with different pixels.
        different: these items.
        num_chosen: the number of items of this run that were to be audited; only the driver knows it.
    """

    num_equal: int
    num_different: int
    different: list[DifferenceReport]
    num_chosen: int = 0


class Report(BaseModel):
    """What a run's renderers found out.

    Attributes:
        models: by name.
        profile_problems: a line for each profile that could not be read or written.
        audit: of items that were rendered twice.
        deaths: the number of processes that died with items in hand, by cause; from the crash journal.
    """

    models: dict[str, ModelReport]
    profile_problems: list[str]
    audit: AuditReport
    deaths: dict[str, int] = {}
