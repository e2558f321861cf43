"""All accounts that a run keeps of its commits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rendermill.jobs.config.job import Job
from rendermill.jobs.planning.plan import Plan
from rendermill.jobs.running.observers.audit import ChosenItems
from rendermill.jobs.running.observers.cut_prompts import CutPrompts
from rendermill.jobs.running.observers.metrics import CommitMetrics
from rendermill.jobs.running.observers.observer import CommitObserver
from rendermill.jobs.running.observers.origins import OriginNotes
from rendermill.jobs.running.observers.progress import Progress
from rendermill.jobs.running.observers.stop_reasons import StopReasons
from rendermill.jobs.running.observers.stored_files import StoredFilesByModel
from rendermill.manifests.output.ledger.origins import Origin
from rendermill.manifests.output.runs import Counts
from rendermill.manifests.output.tuning_report import TuningReport


@dataclass(frozen=True)
class Accounts:
    """The observers that a run asks for what they have seen; `observers` are these and others, in order."""

    progress: Progress
    reasons: StopReasons
    files: StoredFilesByModel
    chosen: ChosenItems
    cut_prompts: CutPrompts
    observers: Sequence[CommitObserver]

    @classmethod
    def begin(
        cls,
        job: Job,
        plan: Plan,
        prompt_limits: Mapping[str, int | None],
        origins: Sequence[Origin],
        say: Callable[[str], None],
        may_all_fail: bool,
    ) -> "Accounts":
        """Begin all accounts at the moment when rendering begins.

        Args:
            prompt_limits: The number of tokens that each model's text encoder takes; None: any number.
            origins: The origins of the output's records.
            say: Prints a line.
            may_all_fail: See `StopReasons`.
        """
        progress = Progress(plan)
        reasons = StopReasons(job.max_failure_rate, may_all_fail)
        files, chosen = StoredFilesByModel(plan.num_to_do), ChosenItems(job.audit)
        cut_prompts = CutPrompts(prompt_limits)
        others: list[CommitObserver] = [OriginNotes(origins, say), CommitMetrics(plan.num_to_do)]
        observers: list[CommitObserver] = [progress, reasons, files, chosen, cut_prompts, *others]
        return cls(progress, reasons, files, chosen, cut_prompts, observers)

    def counts(self, found: TuningReport) -> Counts:
        """Give the counts of this moment, for the run's file."""
        return self.progress.counts(dict(self.cut_prompts.num_items), found)
