"""The rendering part of a submission: from its plan to its last commit, the summary and the exit status."""

from collections.abc import Mapping

from rendermill.jobs.cluster.health import ClusterLost
from rendermill.jobs.config.job import Job
from rendermill.jobs.console.progress import show_progress
from rendermill.jobs.console.screen import Screen
from rendermill.jobs.console.signals import Interruption
from rendermill.jobs.planning.plan import Plan
from rendermill.jobs.running.clocks import Clocks
from rendermill.jobs.running.commit import CommitLoop, Committer
from rendermill.jobs.running.dataset.arrivals import log
from rendermill.jobs.running.dataset.model_pipeline import ModelPipeline
from rendermill.jobs.running.dataset.ray_internals import end_datasets
from rendermill.jobs.running.observers.accounts import Accounts
from rendermill.jobs.running.run_file import RunFile
from rendermill.jobs.running.services import Services
from rendermill.jobs.running.summary import ERROR, exit_status, summary
from rendermill.jobs.running.tidying import tidy
from rendermill.manifests.errors import LeaseLost, one_line
from rendermill.manifests.output.lease import Lease
from rendermill.manifests.output.ledger.ledger import Ledger
from rendermill.manifests.output.runs import RunState, State
from rendermill.manifests.output.tuning_report import TuningReport
from rendermill.manifests.storage.retries import is_transient


class Run:
    """One submission, from the plan on.

    Args:
        pipelines: By model.
        services: The actors to which the run's renderers report.
        may_all_fail: Whether it is expected that a model's first items all fail, as when failures are tried again.
    """

    def __init__(
        self,
        job: Job,
        plan: Plan,
        pipelines: Mapping[str, ModelPipeline],
        services: Services,
        ledger: Ledger,
        run_file: RunFile,
        screen: Screen,
        may_all_fail: bool,
    ) -> None:
        self._job, self._plan, self._pipelines, self._services = job, plan, pipelines, services
        self._ledger, self._run_file, self._screen = ledger, run_file, screen
        limits = {model: pipeline.max_sequence_length for model, pipeline in pipelines.items()}
        self._accounts = Accounts.begin(job, plan, limits, ledger.origins, screen.line, may_all_fail)
        self._found = TuningReport()

    def render(self, lease: Lease, interruption: Interruption) -> int:
        """Render what is outstanding, commit it and print the summary; return the exit status.

        Args:
            interruption: May be asked for at any moment. Then the receipts at hand are committed and the run ends.
        """
        reasons = self._accounts.reasons
        self._report()
        try:
            state = self._render_and_commit(lease, interruption)
            if "cluster" not in reasons.run:
                self._collect()
            self._report(state, errors=reasons.models, run_errors=reasons.run)
        except LeaseLost as error:
            self._screen.line(f"stopped: {one_line(error)}")
            self._screen.line(f"what is in the output, that run knows: rendermill status {self._job.output}")
            return ERROR
        except Exception as error:
            if not is_transient(error) and not isinstance(error, OSError):
                raise
            log(error)
            reasons.run["output"] = f"cannot be written: {one_line(error)}; what was committed before is safe"
            state = "failed"
        return self._tell(state)

    def _render_and_commit(self, lease: Lease, interruption: Interruption) -> State:
        """Bring the output to the state in which the run leaves it, and return the run's state."""
        committer = Committer(self._plan.outstanding, self._ledger, self._accounts.observers)
        clocks = Clocks(self._ledger, lease, self._services, self._job.stop_after, self._collect, self._report)
        reasons = self._accounts.reasons
        loop = CommitLoop(self._pipelines, committer, reasons, clocks, interruption)
        try:
            with show_progress(self._screen, self._plan.num_to_do) as advance:
                loop.run(advance)
        except ClusterLost as error:
            reasons.run["cluster"] = f"{one_line(error)}; the same command goes on from here, once there is a cluster"
            loop.commit_rest()
            self._ledger.roll_up()
            return "failed"  # without Ray nobody can end the tasks; the next run removes what they still store
        # 1. After an interruption, what has arrived is committed. The flush takes a moment and is enough if whoever
        # asked for the end kills this process before the roll-up is done.
        if interruption.is_asked_for:
            loop.commit_rest()
            self._ledger.flush()
        # 2. All receipts go into parts before anything is removed, so that records name the media that stay.
        self._ledger.roll_up()
        # 3. Tasks end before media are removed: a task that stores a file again after its removal is too late to give a
        # receipt, and a file that it stores while it is removed would be missing.
        end_datasets(self._run_file.state.run_id)
        tidy(self._ledger)
        # 4. Last, pending receipts under this lease are declared late.
        self._ledger.close()
        if interruption.is_asked_for and len(self._plan.outstanding):
            return "interrupted"
        if reasons.models or reasons.run:
            return "failed"
        return "stopped" if clocks.is_stopping else "finished"

    def _collect(self) -> None:
        """Ask for what renderers have found out so far; without an answer the last one stays."""
        found = self._services.collect(self._accounts.files, self._accounts.chosen)
        if found is not None:
            self._found = found

    def _report(self, state: State = "running", **errors: Mapping[str, str]) -> None:
        """Write the run's file."""
        self._run_file.update(state, self._accounts.counts(self._found), **errors)

    def _tell(self, state: State) -> int:
        """Print the summary and return the exit status. It needs no output, which may not be writable."""
        reasons, progress = self._accounts.reasons, self._accounts.progress
        run: RunState = self._run_file.state.updated(
            state, self._accounts.counts(self._found), errors=reasons.models, run_errors=reasons.run
        )
        paces = {model: progress.pace(model) for model, count in run.num_finished.items() if count}
        for line in summary(run, self._job, paces, self._accounts.cut_prompts.in_words(), self._screen.log):
            self._screen.line(line)
        return exit_status(run)
