"""How far a run is: items finished and failed, and rates."""

import time
from collections import Counter, deque

from rendermill.jobs.planning.plan import Plan
from rendermill.jobs.running.observers.observer import Commit
from rendermill.manifests.output.runs import Counts
from rendermill.manifests.output.tuning_report import TuningReport

_RATE_WINDOW_SECONDS = 60.0


class Progress:
    """Counts the items of a run and measures its rates, from the moment it is made.

    Attributes:
        num_finished: The number of finished items by model.
        num_failed: The number of failed items by model.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._began = time.monotonic()
        self._last_commit = dict.fromkeys(plan.num_to_do, self._began)
        self._rates = {model: Rate() for model in plan.num_to_do}
        self._error_types: dict[str, Counter[str]] = {model: Counter() for model in plan.num_to_do}
        self.num_finished = dict.fromkeys(plan.num_to_do, 0)
        self.num_failed = dict.fromkeys(plan.num_to_do, 0)

    @property
    def seconds(self) -> float:
        """The time since rendering began."""
        return time.monotonic() - self._began

    def committed(self, commit: Commit) -> None:
        """Count the items of a commit."""
        model = commit.model
        self.num_finished[model] += commit.num_finished
        self.num_failed[model] += commit.num_failed
        self._error_types[model].update(commit.error_types)
        self._rates[model].add(commit.receipts.num_rows)
        self._last_commit[model] = time.monotonic()

    def pace(self, model: str) -> float:
        """Finished items per second until the model's last commit: later models do not make it slower."""
        return self.num_finished[model] / (self._last_commit[model] - self._began)

    def counts(self, num_prompts_cut: dict[str, int], found: TuningReport) -> Counts:
        """Give the counts of this moment, for the run's file."""
        plan, seconds = self._plan, self.seconds
        return Counts(
            num_to_do=dict(plan.num_to_do),
            num_finished_before=dict(plan.num_finished),
            num_finished=dict(self.num_finished),
            num_failed=dict(self.num_failed),
            error_types={model: dict(types) for model, types in self._error_types.items() if types},
            items_per_second_now={model: round(rate.per_second(), 4) for model, rate in self._rates.items()},
            num_prompts_cut=num_prompts_cut,
            num_failed_before=plan.num_failed,
            num_rejected=plan.num_rejected,
            num_duplicates=plan.num_duplicates,
            num_not_in_manifest=plan.num_not_in_manifest,
            seconds=round(seconds, 3),
            items_per_second=round(sum(self.num_finished.values()) / seconds, 4),
            found=found,
        )


class Rate:
    """Items per second over the last minute, or since it was made if that is shorter."""

    def __init__(self) -> None:
        self._arrivals: deque[tuple[float, int]] = deque()
        self._began = time.monotonic()

    def add(self, num_items: int) -> None:
        """Record finished items."""
        self._arrivals.append((time.monotonic(), num_items))

    def per_second(self) -> float:
        """Return the rate of this moment."""
        now = time.monotonic()
        while self._arrivals and self._arrivals[0][0] < now - _RATE_WINDOW_SECONDS:
            self._arrivals.popleft()
        seconds = min(_RATE_WINDOW_SECONDS, now - self._began)
        return sum(num_items for _, num_items in self._arrivals) / seconds if seconds else 0.0
