"""What an engine reports while it works, and to whom: an interface, and an implementation that collects in memory.

In a job `actors.services.reporter` implements the interface with Ray actors.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rendermill.manifests.request import Request


class CrashReporter(Protocol):
    """Receives which items a process has in hand, so that they are known outside if the process dies."""

    def items_begun(self, attempt: str, items: Sequence[str]) -> None:
        """Record that the process takes items in hand together; return only after it has been recorded.

        Args:
            attempt: a unique name for this attempt.
            items: their names, such as request hashes.
        """

    def items_ended(self, attempt: str) -> None:
        """Record that the items of an attempt are done, or failed without harm to the process."""

    def process_dying(self, attempt: str, error_type: str, error: str) -> None:
        """Record why the process has to end; return only after it has been recorded."""

    def process_alive(self, max_seconds_of_silence: float) -> None:
        """Record a sign of life, and for how long there may be no other."""


class Reporter(CrashReporter, Protocol):
    """Receives the progress of rendering, too."""

    def batch_started(self, num_slots: int, num_padding: int) -> None:
        """Record a batch that was put into the device's queue; for the arguments see `models.interface.Rendered`."""

    def batch_rendered(self, num_items: int) -> None:
        """Record a batch that was rendered without an error."""

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Record the device's time for a stage, `encode` or `render`."""

    def item_failed(self, request: Request, attempt: int, error: BaseException | None) -> None:
        """Record a failed attempt; the error is None if the item was rendered as NaN or infinity."""

    def note(self, text: str) -> None:
        """Record an event that users should know of, such as memory that ran out."""


@dataclass
class PlainReporter:
    """Collects in memory what an engine reports.

    Attributes:
        notes: events that users should know of, in order.
        failures: the requests that failed, with the number of the attempt and the error.
        num_slots: the number of items that calls of the denoiser had room for.
        num_padding: the number of these slots that were filled with copies.
        num_batches: the number of batches rendered, by their size.
        seconds: the device's time, by stage.
    """

    notes: list[str] = field(default_factory=list)
    failures: list[tuple[Request, int, BaseException | None]] = field(default_factory=list)
    num_slots: int = 0
    num_padding: int = 0
    num_batches: Counter[int] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)

    def items_begun(self, attempt: str, items: Sequence[str]) -> None:
        """Do nothing: nobody outside asks."""

    def items_ended(self, attempt: str) -> None:
        """Do nothing: nobody outside asks."""

    def process_dying(self, attempt: str, error_type: str, error: str) -> None:
        """Do nothing: nobody outside asks."""

    def process_alive(self, max_seconds_of_silence: float) -> None:
        """Do nothing: nobody outside asks."""

    def batch_started(self, num_slots: int, num_padding: int) -> None:
        """Add to `num_slots` and `num_padding`."""
        self.num_slots += num_slots
        self.num_padding += num_padding

    def batch_rendered(self, num_items: int) -> None:
        """Add to `num_batches`."""
        self.num_batches[num_items] += 1

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Add to `seconds`."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def item_failed(self, request: Request, attempt: int, error: BaseException | None) -> None:
        """Add to `failures`."""
        self.failures.append((request, attempt, error))

    def note(self, text: str) -> None:
        """Add to `notes`."""
        self.notes.append(text)
