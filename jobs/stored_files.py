"""What the driver sees of one model's files, for estimates of later runs: when the first came, and their sizes."""

import time
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import Shape

_SHAPE = ("width", "height", "num_frames", "num_inference_steps", "is_guided")


class StoredFiles:
    """Counts the files of a model's receipts.

    Args:
        began: when drawing began, by `time.monotonic`.

    Attributes:
        seconds_to_first: from then to the first receipts.
    """

    def __init__(self, began: float) -> None:
        self._began = began
        self._num_items: Counter[str] = Counter()
        self._num_bytes: Counter[str] = Counter()
        self.seconds_to_first = 0.0

    @property
    def bytes_per_item(self) -> dict[str, float]:
        """The mean size by shape of item."""
        return {shape: self._num_bytes[shape] / count for shape, count in self._num_items.items()}

    def add(self, receipts: pa.Table) -> None:
        """Take receipts; failures have no file."""
        if not self._num_items:
            self.seconds_to_first = time.monotonic() - self._began
        receipts = receipts.append_column("is_guided", pc.greater(receipts["guidance_scale"], 1.0))
        sums = receipts.group_by(list(_SHAPE)).aggregate([("bytes", "count"), ("bytes", "sum")])
        for row in sums.to_pylist():
            if row["bytes_count"]:
                shape = str(Shape(*(row[name] for name in _SHAPE)))
                self._num_items[shape] += row["bytes_count"]
                self._num_bytes[shape] += row["bytes_sum"]
