"""Runs the models' Datasets, reads the receipts that arrive, and commits them to the ledger."""

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from rendermill.jobs.console.signals import Interruption
from rendermill.jobs.planning.remaining import Outstanding, Work
from rendermill.jobs.running.clocks import Clocks
from rendermill.jobs.running.dataset.arrivals import Arrivals, root_cause
from rendermill.jobs.running.dataset.model_pipeline import ModelPipeline
from rendermill.jobs.running.observers.observer import Commit, CommitObserver
from rendermill.jobs.running.observers.stop_reasons import StopReasons
from rendermill.manifests.output.ledger.ledger import Ledger


class Committer:
    """Adds the first receipt of every outstanding item to the ledger.

    Args:
        observers: Those who hear of every commit, in this order.
    """

    def __init__(self, outstanding: Outstanding, ledger: Ledger, observers: Sequence[CommitObserver]) -> None:
        self._ledger, self._observers = ledger, observers
        self.outstanding = outstanding

    def commit(self, model: str, receipts: pa.Table) -> Commit:
        """Add the receipts of items that are still outstanding; the ledger stores them with its next flush."""
        # Ray Data runs a task again if its process or node dies, so an item may bring several receipts. The first one
        # counts. The item is off the list from here on, and no later round renders it again.
        new = self.outstanding.take(receipts)
        # The media of the other receipts may belong to no record. They are noted before the next flush stores the
        # receipts that came with them, so a crash in between leaves no media that nobody knows.
        if new.num_rows < receipts.num_rows:
            self._ledger.note_duplicates(receipts)
        commit = Commit.of(model, new)
        if new.num_rows:
            self._ledger.add(new)
            for observer in self._observers:
                observer.committed(commit)
        return commit


class CommitLoop:
    """Renders all outstanding items, in rounds, and commits what arrives.

    Args:
        pipelines: By model.
        reasons: Where reasons to stop a model or the run appear, also those that this class finds.
        interruption: May be asked for at any moment.
    """

    def __init__(
        self,
        pipelines: Mapping[str, ModelPipeline],
        committer: Committer,
        reasons: StopReasons,
        clocks: Clocks,
        interruption: Interruption,
    ) -> None:
        self._pipelines, self._committer, self._reasons = pipelines, committer, reasons
        self._clocks, self._interruption = clocks, interruption
        self._arrivals: Arrivals | None = None

    def run(self, advance: Callable[[str, int, int], None]) -> None:
        """Run the Datasets until no item is outstanding or there is a reason to stop.

        A Dataset may end without a receipt for each of its items, as when Ray loses blocks. The next round renders
        these items again, as long as the last round has brought at least one receipt.

        Args:
            advance: Is called with a model and the numbers of items newly finished and newly failed.

        Raises:
            ClusterLost: Ray does not answer any more.
            LeaseLost: Another run holds the output now.
        """
        outstanding = self._committer.outstanding
        work = self._work()
        while work:
            num_before = len(outstanding)
            self._arrivals = Arrivals({model: self._pipelines[model].dataset(parts) for model, parts in work.items()})
            self._run_round(self._arrivals, advance)
            if self._must_stop:
                return
            work = self._work()
            if work and len(outstanding) == num_before:
                self._reasons.run["receipts"] = f"{num_before} items came back neither rendered nor failed"
                return

    def commit_rest(self) -> None:
        """Commit the receipts that have arrived already, without waiting for more."""
        for model, receipts in self._arrivals.at_hand() if self._arrivals else ():
            self._committer.commit(model, receipts)

    @property
    def _must_stop(self) -> bool:
        return self._interruption.is_asked_for or self._clocks.is_stopping or bool(self._reasons.run)

    def _work(self) -> dict[str, list[Work]]:
        """Return the outstanding work by model; models that have stopped are left out."""
        if self._interruption.is_asked_for:
            return {}
        work = self._committer.outstanding.work()
        return {model: parts for model, parts in work.items() if model not in self._reasons.models}

    def _run_round(self, arrivals: Arrivals, advance: Callable[[str, int, int], None]) -> None:
        for model, arrival in arrivals:
            if isinstance(arrival, Exception):
                self._reasons.models.setdefault(model, root_cause(arrival))
            elif arrival is not None:
                commit = self._committer.commit(model, arrival)
                advance(model, commit.num_finished, commit.num_failed)
                if model in self._reasons.models:
                    arrivals.stop(model)
            if self._interruption.is_asked_for:
                return  # at once: whoever asks may not wait for a flush
            self._clocks.check()
            if self._reasons.run:
                return  # stop_after, in contrast, lets the chunks under way end
