"""Tells people when a run's environment differs from the one that made an output's earlier records."""

from collections.abc import Callable, Sequence

from rendermill.jobs.planning.origins import describe_change, made_elsewhere
from rendermill.jobs.running.observers.observer import Commit
from rendermill.manifests.output.ledger.origins import Origin


class OriginNotes:
    """Compares the origin of each model's first receipt with the origins of the output's records.

    Args:
        before: The origins of all records at the start of the run.
        say: Prints a line.
    """

    def __init__(self, before: Sequence[Origin], say: Callable[[str], None]) -> None:
        self._before, self._say = before, say
        self._seen: set[str] = set()

    def committed(self, commit: Commit) -> None:
        """Print a line per earlier origin that differs, with a model's first commit."""
        if commit.model in self._seen:
            return
        self._seen.add(commit.model)
        device, environment = (commit.receipts[name][0].as_py() for name in ("device", "environment"))
        now = Origin(commit.model, device, environment)
        for before in made_elsewhere(self._before, {commit.model: now}):
            self._say(f"the environment changed since earlier records were made: {describe_change(before, now)}")
