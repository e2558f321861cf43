"""What receipts tell about media files, for estimates of later runs: the first batch, and the mean size by shape."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from rendermill.actors.services.tuning.profiles import FirstBatch
from rendermill.jobs.running.observers.observer import Commit
from rendermill.manifests.request import Shape, batch_keys

_MEASURED = ("bytes", "batch_size", "started_at", "seconds")


class StoredFiles:
    """The media files of one model.

    Args:
        began: When rendering began.

    Attributes:
        first: The batch that was done first, of those seen; None if no file was stored.
    """

    def __init__(self, began: datetime) -> None:
        self._began = began
        self._num_items: Counter[str] = Counter()
        self._num_bytes: Counter[str] = Counter()
        self.first: FirstBatch | None = None

    @property
    def bytes_per_item(self) -> dict[str, float]:
        """The mean size of a file, by shape of item."""
        return {shape: self._num_bytes[shape] / count for shape, count in self._num_items.items()}

    def add(self, receipts: pa.Table) -> None:
        """Count the files of receipts; failures have none."""
        keys = batch_keys(receipts)
        files = keys
        for name in _MEASURED:  # the user's own columns may have any name and type
            files = files.append_column(name, receipts[name])
        files = files.filter(pc.is_valid(files["bytes"]))
        if not files.num_rows:
            return
        for row in files.group_by(keys.column_names).aggregate([("bytes", "count"), ("bytes", "sum")]).to_pylist():
            shape = str(Shape.of_key(row))
            self._num_items[shape] += row["bytes_count"]
            self._num_bytes[shape] += row["bytes_sum"]
        if self.first is None:  # the first receipts hold the first batches
            self.first = self._first_of(files)

    def _first_of(self, files: pa.Table) -> FirstBatch:
        row = files.sort_by("started_at").slice(0, 1).to_pylist()[0]
        ended = row["started_at"] + timedelta(seconds=row["seconds"] * row["batch_size"])
        return FirstBatch(str(Shape.of_key(row)), row["batch_size"], (ended - self._began).total_seconds())


class StoredFilesByModel:
    """The media files of a run, whose rendering begins when this is made.

    Attributes:
        of_model: The files by model.
    """

    def __init__(self, models: Iterable[str]) -> None:
        began = datetime.now(UTC)
        self.of_model = {model: StoredFiles(began) for model in models}

    def committed(self, commit: Commit) -> None:
        """Count the files of a commit."""
        self.of_model[commit.model].add(commit.receipts)
