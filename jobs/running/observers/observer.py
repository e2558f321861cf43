"""What one commit added to the ledger, and the interface of those who keep account of it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True)
class Commit:
    """Receipts of one model that were added to the ledger.

    Attributes:
        receipts: One row per item (`manifests.schema.receipt_schema`), none of which was added before; may be empty.
        num_finished: The number of items that were rendered and stored.
        error_types: The number of failed items by type of error.
    """

    model: str
    receipts: pa.Table
    num_finished: int
    error_types: Mapping[str, int]

    @classmethod
    def of(cls, model: str, receipts: pa.Table) -> "Commit":
        """Count the finished and the failed items among receipts."""
        error_types = Counter(receipts["error_type"].drop_null().to_pylist())
        return cls(model, receipts, receipts.num_rows - error_types.total(), error_types)

    @property
    def num_failed(self) -> int:
        """The number of items that failed."""
        return sum(self.error_types.values())


class CommitObserver(Protocol):
    """Keeps account of what a run commits. It changes nothing in the output."""

    def committed(self, commit: Commit) -> None:
        """Take note of a commit that is not empty."""
