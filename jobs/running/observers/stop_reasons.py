"""Why a run or one of its models stops early."""

from collections import Counter, deque

from rendermill.jobs.running.observers.observer import Commit

_FAILURE_WINDOW = 1000
_NUM_FIRST_ITEMS = 20
"""If this many of a model's first items all fail in one way and none is finished, the model stops: each further item
would most likely fail, too."""


class StopReasons:
    """Finds reasons to stop in what is committed, and keeps them together with those that others find.

    Args:
        max_failure_rate: The share (0 to 1) of the last thousand items that may fail.
        may_all_fail: Whether it is expected that a model's first items all fail, as when failures are tried again.

    Attributes:
        models: Why a model stops, by model.
        run: Why the whole run stops, by the cause's name.
    """

    def __init__(self, max_failure_rate: float, may_all_fail: bool) -> None:
        self._max_failure_rate, self._may_all_fail = max_failure_rate, may_all_fail
        self._recent: deque[bool] = deque(maxlen=_FAILURE_WINDOW)  # whether an item failed
        self._num_finished: Counter[str] = Counter()
        self._error_types: dict[str, Counter[str]] = {}
        self.models: dict[str, str] = {}
        self.run: dict[str, str] = {}

    def committed(self, commit: Commit) -> None:
        """Look for too many failures."""
        self._num_finished[commit.model] += commit.num_finished
        self._error_types.setdefault(commit.model, Counter()).update(commit.error_types)
        self._recent.extend([True] * commit.num_failed + [False] * commit.num_finished)
        if sum(self._recent) > self._max_failure_rate * _FAILURE_WINDOW:
            self.run["max_failure_rate"] = (
                f"more than {self._max_failure_rate:.0%} of the last {_FAILURE_WINDOW} items failed"
            )
        if commit.num_failed and self._only_fails(commit.model):
            types = self._error_types[commit.model]
            last_error = commit.receipts["error"].drop_null()[-1].as_py()
            reason = f"its first {types.total()} items all failed, with {next(iter(types))}: {last_error}"
            self.models.setdefault(commit.model, reason)

    def _only_fails(self, model: str) -> bool:
        types = self._error_types[model]
        return (
            not self._may_all_fail
            and not self._num_finished[model]
            and len(types) == 1
            and types.total() >= _NUM_FIRST_ITEMS
        )
