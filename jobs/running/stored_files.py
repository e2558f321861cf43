"""What the driver sees of one model's files, for estimates of later runs: its first batch, and their sizes."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rendermill.actors.services.tuning.profiles import FirstBatch
from rendermill.manifests.schema import Shape

_SHAPE = ("width", "height", "num_frames", "num_inference_steps", "is_guided")
_COLUMNS = (*_SHAPE[:-1], "guidance_scale", "bytes", "batch_size", "started_at", "seconds")


class StoredFiles:
    """Counts the files of a model's receipts.

    Args:
        began: when drawing began.

    Attributes:
        first: the batch that was done first, of those seen; None: no file was stored.
    """

    def __init__(self, began: datetime) -> None:
        self._began = began
        self._num_items: Counter[str] = Counter()
        self._num_bytes: Counter[str] = Counter()
        self.first: FirstBatch | None = None

    @property
    def bytes_per_item(self) -> dict[str, float]:
        """The mean size by shape of item."""
        return {shape: self._num_bytes[shape] / count for shape, count in self._num_items.items()}

    def add(self, receipts: pa.Table) -> None:
        """Take receipts; failures have no file."""
        receipts = receipts.select([*_COLUMNS])  # a manifest's own columns may have any name and type
        files = receipts.filter(pc.is_valid(receipts["bytes"]))
        if not files.num_rows:
            return
        files = files.append_column("is_guided", pc.greater(files["guidance_scale"], 1.0))
        for row in files.group_by(list(_SHAPE)).aggregate([("bytes", "count"), ("bytes", "sum")]).to_pylist():
            shape = _shape(row)
            self._num_items[shape] += row["bytes_count"]
            self._num_bytes[shape] += row["bytes_sum"]
        if self.first is None:  # a model's receipts come as its actors drew, many batches at a time
            self.first = self._first_of(files)

    def _first_of(self, files: pa.Table) -> FirstBatch:
        row = files.sort_by("started_at").slice(0, 1).to_pylist()[0]
        ended = row["started_at"] + timedelta(seconds=row["seconds"] * row["batch_size"])
        return FirstBatch(_shape(row), row["batch_size"], (ended - self._began).total_seconds())


def _shape(row: dict[str, Any]) -> str:
    return str(Shape(*(row[name] for name in _SHAPE)))
