"""What a renderer is started with. Apart from the renderer, so that the driver needs no torch."""

from dataclasses import dataclass
from typing import Any

from actors.checkpoints import Checkpoint
from models.base import Settings


@dataclass(frozen=True)
class RendererSpec:
    """What an actor needs to know to draw for a model.

    Attributes:
        checkpoint_name: as in the job file.
        batch: items in a batch; None: found by measurement (in strict mode the reference batch).
        deadline_seconds: an item may take so long; None: by what others took.
        patience_seconds: how long to try again where the checkpoint's store fails.
        journal: handle of the run's `actors.journal.Journal`.
    """

    checkpoint: Checkpoint
    checkpoint_name: str
    settings: Settings
    batch: int | None
    deadline_seconds: float | None
    patience_seconds: float
    run_id: str
    journal: Any
