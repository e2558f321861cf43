"""Counts the finished items that the audit chose to render twice."""

import pyarrow.compute as pc

from rendermill.actors.services.audit import is_chosen
from rendermill.jobs.running.observers.observer import Commit


class ChosenItems:
    """The items that renderers should have rendered twice, whether they did or not.

    Args:
        share: The share (0 to 1) of all items that is audited.

    Attributes:
        num_items: The number of finished items so far that the audit chose.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self.num_items = 0

    def committed(self, commit: Commit) -> None:
        """Count the chosen items among the finished ones."""
        if not self._share:
            return
        receipts = commit.receipts
        finished = receipts.filter(pc.is_null(receipts["error_type"]))["request_hash"].to_pylist()
        self.num_items += sum(is_chosen(request_hash, self._share) for request_hash in finished)
