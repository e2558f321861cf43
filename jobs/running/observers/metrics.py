"""What the driver exports to Prometheus while it commits."""

from collections.abc import Mapping

import pyarrow.compute as pc

from rendermill.actors.services import metrics
from rendermill.jobs.running.observers.observer import Commit


class CommitMetrics:
    """Updates the metrics of items and media files with every commit.

    Args:
        num_to_do: The number of items to render, by model.
    """

    def __init__(self, num_to_do: Mapping[str, int]) -> None:
        self._num_left = dict(num_to_do)

    def committed(self, commit: Commit) -> None:
        """Count the items of a commit and the bytes of their media."""
        tags = {"model": commit.model}
        if commit.num_finished:
            metrics.FINISHED.inc(commit.num_finished, tags)
            metrics.WRITTEN.inc(pc.sum(commit.receipts["bytes"]).as_py(), tags)
        for error_type, count in commit.error_types.items():
            metrics.FAILED.inc(count, tags | {"error_type": error_type})
        self._num_left[commit.model] -= commit.receipts.num_rows
        metrics.BACKLOG.set(self._num_left[commit.model], tags)
