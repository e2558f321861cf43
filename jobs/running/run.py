"""The drawing part of a submission: runs the models' Datasets, commits their receipts, counts, and ends well."""

import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.exceptions import RayError

from rendermill.actors.services import metrics
from rendermill.actors.services.audit import is_chosen
from rendermill.jobs.cluster.actor_health import ActorHealth
from rendermill.jobs.cluster.health import ClusterHealth, ClusterLost
from rendermill.jobs.config.job import Job
from rendermill.jobs.config.quantities import duration_text
from rendermill.jobs.console.progress import show_progress
from rendermill.jobs.console.screen import Screen
from rendermill.jobs.console.signals import Interruption
from rendermill.jobs.planning.origins import describe_change, made_elsewhere
from rendermill.jobs.planning.plan import Plan
from rendermill.jobs.planning.remaining import Work
from rendermill.jobs.running.arrivals import Arrivals, end_datasets
from rendermill.jobs.running.cut_prompts import CutPrompts
from rendermill.jobs.running.dataset import ModelPipeline
from rendermill.jobs.running.rate import Rate
from rendermill.jobs.running.run_file import RunFile
from rendermill.jobs.running.services import Desk
from rendermill.jobs.running.stored_files import StoredFiles
from rendermill.jobs.running.tidying import tidy
from rendermill.manifests.errors import LeaseLost, one_line, traceback_of
from rendermill.manifests.output.lease import Lease
from rendermill.manifests.output.ledger.ledger import Ledger
from rendermill.manifests.output.ledger.origins import Origin
from rendermill.manifests.output.runs import Counts, State
from rendermill.manifests.storage.retries import is_transient

DONE, ERROR, DONE_WITH_FAILURES = 0, 1, 3

_SECONDS_BETWEEN_FLUSHES = 5.0
_SECONDS_BETWEEN_REPORTS = 10.0
_SECONDS_BETWEEN_ROLL_UPS = 300.0
_NUM_RECEIPTS_BEFORE_ROLL_UP = 20_000
_SECONDS_FOR_FINDINGS = 10.0
_FAILURE_WINDOW = 1000
_NUM_FIRST_ITEMS = 20
"""A model of which so many items all fail in one way, and none has come out, is not tried any further."""

_Advance = Callable[[str, int, int], None]


class Run:
    """One submission, from the plan on.

    Args:
        pipelines: by model.
        desk: where the run's renderers report.
        may_all_fail: whether it is no surprise if a model's first items all fail, as when failures are tried again.
    """

    def __init__(
        self,
        job: Job,
        plan: Plan,
        pipelines: Mapping[str, ModelPipeline],
        desk: Desk,
        ledger: Ledger,
        run_file: RunFile,
        screen: Screen,
        may_all_fail: bool,
    ) -> None:
        self._job, self._plan, self._pipelines, self._desk = job, plan, pipelines, desk
        self._found: dict[str, Any] = {}
        self._ledger, self._run_file, self._screen, self._may_all_fail = ledger, run_file, screen, may_all_fail
        self._finished = dict.fromkeys(plan.num_to_do, 0)
        self._failed = dict.fromkeys(plan.num_to_do, 0)
        self._error_types: dict[str, Counter[str]] = {model: Counter() for model in plan.num_to_do}
        self._last_error: dict[str, str] = {}
        self._recent_failures: deque[bool] = deque(maxlen=_FAILURE_WINDOW)
        self._errors: dict[str, str] = {}  # by model
        self._run_errors: dict[str, str] = {}
        self._cut_prompts = CutPrompts({model: made.max_sequence_length for model, made in pipelines.items()})
        self._origins_before = ledger.origins
        self._is_stopping = False
        self._cluster_health = ClusterHealth()
        self._desk_health = ActorHealth(desk.journal), ActorHealth(desk.findings)
        self._num_chosen = 0
        self._started = time.monotonic()
        self._last_flush = self._last_roll_up = self._last_report = self._started
        self._last_receipts = dict.fromkeys(plan.num_to_do, self._started)
        self._rates = {model: Rate() for model in plan.num_to_do}
        self._stored = {model: StoredFiles(datetime.now(UTC)) for model in plan.num_to_do}

    def draw(self, lease: Lease, interruption: Interruption) -> int:
        """Draw what is outstanding, commit it, print the summary; returns the exit status.

        Args:
            interruption: may be asked for at any moment; then what is at hand is committed, and no more is waited for.
        """
        self._interruption = interruption
        self._run_file.update("running", self._counts())
        try:
            state = self._draw_and_commit(lease)
            if "cluster" not in self._run_errors:
                self._ask_what_was_found()
            self._run_file.update(state, self._counts(), errors=self._errors, run_errors=self._run_errors)
        except LeaseLost as error:
            self._screen.line(f"stopped: {one_line(error)}")
            self._screen.line(f"what is in the output, that run knows: rendermill status {self._job.output}")
            return ERROR
        except Exception as error:
            if not is_transient(error) and not isinstance(error, OSError):
                raise
            _log(error)
            self._run_errors["output"] = f"cannot be written: {one_line(error)}; what was committed before is safe"
            state = "failed"
        return self._summarize(state)

    def _draw_and_commit(self, lease: Lease) -> State:
        """Returns the state that the run ends in, as its file says."""
        rounds: list[Arrivals] = []
        try:
            with show_progress(self._screen, self._plan.num_to_do) as advance:
                self._draw_all(lease, rounds, advance)
        except ClusterLost as error:
            told = f"{one_line(error)}; the same command goes on from here, once there is a cluster"
            self._run_errors["cluster"] = told
            self._commit_what_came(rounds)
            self._ledger.roll_up()
            return "failed"  # what tasks still store is tidied up by the next run
        if self._interruption.is_asked_for:
            self._commit_what_came(rounds)
            self._ledger.flush()  # in a moment, and enough if whoever asked for an end waits no longer
        self._ledger.roll_up()
        end_datasets()
        tidy(self._ledger)
        self._ledger.close()
        if self._interruption.is_asked_for and len(self._plan.outstanding):
            return "interrupted"
        return "failed" if self._errors or self._run_errors else "stopped" if self._is_stopping else "finished"

    def _commit_what_came(self, rounds: list[Arrivals]) -> None:
        for model, receipts in rounds[-1].at_hand() if rounds else ():
            self._commit(model, receipts)

    def _draw_all(self, lease: Lease, rounds: list[Arrivals], advance: _Advance) -> None:
        """Run the Datasets; again for what gave no receipt, as long as that brings some."""
        work = self._work()
        while work and not self._interruption.is_asked_for:
            datasets = {model: self._pipelines[model].dataset(parts) for model, parts in work.items()}
            rounds.append(Arrivals(datasets))
            num_before = len(self._plan.outstanding)
            self._draw_once(lease, rounds[-1], advance)
            if self._interruption.is_asked_for:
                return
            work = {} if self._is_stopping or "max_failure_rate" in self._run_errors else self._work()
            if work and len(self._plan.outstanding) == num_before:
                self._run_errors["receipts"] = f"{num_before} items came back neither drawn nor failed"
                return

    def _work(self) -> dict[str, list[Work]]:
        return {model: parts for model, parts in self._plan.outstanding.work().items() if model not in self._errors}

    def _draw_once(self, lease: Lease, arrivals: Arrivals, advance: _Advance) -> None:
        for model, arrival in arrivals:
            if isinstance(arrival, Exception):
                self._errors.setdefault(model, _root_cause(arrival))
            elif arrival is not None:
                advance(model, *self._commit(model, arrival))
                if model not in self._errors and self._only_fails(model):
                    arrivals.stop(model)
            if self._interruption.is_asked_for:
                return
            self._keep_time(lease)
            if sum(self._recent_failures) > self._job.max_failure_rate * _FAILURE_WINDOW:
                self._run_errors["max_failure_rate"] = (
                    f"more than {self._job.max_failure_rate:.0%} of the last {_FAILURE_WINDOW} items failed"
                )
                return

    def _commit(self, model: str, receipts: pa.Table) -> tuple[int, int]:
        if not (self._finished[model] or self._failed[model]):
            self._tell_of_other_origins(model, receipts)
        new = self._plan.outstanding.take(receipts)
        if new.num_rows < receipts.num_rows:
            self._ledger.note_duplicates(receipts)
        if new.num_rows:
            self._ledger.add(new)
            self._rates[model].add(new.num_rows)
            self._stored[model].add(new)
            self._cut_prompts.add(model, new)
        error_types = [error_type for error_type in new["error_type"].to_pylist() if error_type is not None]
        num_failed, num_finished = len(error_types), new.num_rows - len(error_types)
        self._recent_failures.extend([True] * num_failed + [False] * num_finished)
        self._last_receipts[model] = time.monotonic()
        self._finished[model] += num_finished
        self._failed[model] += num_failed
        self._error_types[model].update(error_types)
        if self._job.audit:
            drawn = new.filter(pc.is_null(new["error_type"]))["request_hash"].to_pylist()
            self._num_chosen += sum(is_chosen(request_hash, self._job.audit) for request_hash in drawn)
        self._tell_metrics(model, new, num_finished, Counter(error_types))
        if num_failed:
            self._last_error[model] = new["error"].drop_null()[-1].as_py()
        return num_finished, num_failed

    def _tell_metrics(self, model: str, new: pa.Table, num_finished: int, error_types: Counter[str]) -> None:
        tags = {"model": model}
        if num_finished:
            metrics.FINISHED.inc(num_finished, tags)
            metrics.WRITTEN.inc(pc.sum(new["bytes"]).as_py(), tags)
        for error_type, count in error_types.items():
            metrics.FAILED.inc(count, tags | {"error_type": error_type})
        num_left = self._plan.num_to_do[model] - self._finished[model] - self._failed[model]
        metrics.BACKLOG.set(num_left, tags)

    def _tell_of_other_origins(self, model: str, receipts: pa.Table) -> None:
        """Say where the model's earlier records were made, if the run's first one was made elsewhere."""
        if not receipts.num_rows:
            return
        now = Origin(model, receipts["device"][0].as_py(), receipts["environment"][0].as_py())
        for before in made_elsewhere(self._origins_before, {model: now}):
            self._screen.line(
                f"the environment changed since earlier records were made: {describe_change(before, now)}"
            )

    def _only_fails(self, model: str) -> bool:
        """Whether a model's first items all failed in one way; notes it as the model's error."""
        types = self._error_types[model]
        if self._may_all_fail or self._finished[model] or len(types) != 1 or types.total() < _NUM_FIRST_ITEMS:
            return False
        what = f"{next(iter(types))}: {self._last_error[model]}"
        self._errors[model] = f"its first {types.total()} items all failed, with {what}"
        return True

    def _keep_time(self, lease: Lease) -> None:
        """Commit every few seconds, roll up every few minutes, and stop when it is time to.

        Raises:
            ClusterLost: Ray does not answer any more.
        """
        now = time.monotonic()
        self._cluster_health.check()
        for actor in self._desk_health:
            actor.check()
        is_large = self._ledger.num_pending > _NUM_RECEIPTS_BEFORE_ROLL_UP
        if is_large or now - self._last_roll_up > _SECONDS_BETWEEN_ROLL_UPS:
            self._ledger.roll_up()
            self._ask_what_was_found()
            self._last_roll_up = self._last_flush = now
        if now - self._last_flush > _SECONDS_BETWEEN_FLUSHES:
            lease.confirm()
            self._ledger.flush()
            self._last_flush = now
        if now - self._last_report > _SECONDS_BETWEEN_REPORTS:
            self._run_file.update("running", self._counts())
            self._last_report = now
        stop_after = self._job.stop_after
        if stop_after and now - self._started > stop_after.total_seconds():
            self._is_stopping = True
            self._desk.journal.stop.remote()  # again and again, as it forgets when it dies

    def _ask_what_was_found(self) -> None:
        """Take what the renderers found out so far, if it can be had: no run should end ill for it."""
        for model, stored in self._stored.items():
            if stored.first is not None:
                self._desk.findings.stored.remote(model, stored.first, stored.bytes_per_item)
        try:
            asked = [self._desk.findings.report.remote(), self._desk.journal.deaths.remote()]
            report, deaths = ray.get(asked, timeout=_SECONDS_FOR_FINDINGS)
            report.audit.num_chosen, report.deaths = self._num_chosen, deaths
            self._found = report.model_dump()
        except (RayError, OSError) as error:
            _log(error)

    def _counts(self) -> Counts:
        seconds = time.monotonic() - self._started
        return Counts.model_validate(
            {
                "num_to_do": self._plan.num_to_do,
                "num_finished_before": self._plan.num_finished,
                "num_finished": self._finished,
                "num_failed": self._failed,
                "error_types": {model: dict(types) for model, types in self._error_types.items() if types},
                "items_per_second_now": {model: round(rate.per_second(), 4) for model, rate in self._rates.items()},
                "num_prompts_cut": dict(self._cut_prompts.num_items),
                "num_failed_before": self._plan.num_failed,
                "num_rejected": self._plan.num_rejected,
                "num_duplicates": self._plan.num_duplicates,
                "num_not_in_manifest": self._plan.num_not_in_manifest,
                "seconds": round(seconds, 3),
                "items_per_second": round(sum(self._finished.values()) / seconds, 4),
                "found": self._found,
            }
        )

    def _summarize(self, state: State) -> int:
        line, seconds = self._screen.line, time.monotonic() - self._started
        num_failed = sum(self._failed.values()) + self._plan.num_failed
        for name, error in [*self._errors.items(), *self._run_errors.items()]:
            line(f"stopped: {name}: {error}; details in {self._screen.log}")
        if state == "interrupted":
            line("interrupted; the same command goes on from here")
        if state == "stopped" and self._job.stop_after:
            after = duration_text(self._job.stop_after)
            line(f"stopped after {after}, as stop_after says; the same command goes on from here")
        num_drawn = sum(self._finished.values())
        for model, count in self._finished.items():
            if count:
                found = self._found.get("models", {}).get(model, {})
                share, num_actors = found.get("actors_at_work"), found.get("num_actors")
                actors = "1 actor" if num_actors == 1 else f"{num_actors} actors"
                at_work = "" if share is None else f", {actors} at work {share:.0%} of their time"
                pace = count / (self._last_receipts[model] - self._started)
                line(f"  {model}: {count} drawn, {pace:.2f}/s{at_work}")
        for words in self._cut_prompts.in_words():
            line(f"  {words}")
        all_finished = num_drawn + sum(self._plan.num_finished.values())
        line(f"{all_finished} items finished, {num_failed} failed, {self._plan.num_rejected} rejected")
        if num_drawn:
            line(f"{num_drawn} drawn in {seconds:.0f} s ({num_drawn / seconds:.2f} items/s)")
        line(f"output: {self._job.output}")
        is_doubtful = self._tell_what_was_found()
        if num_failed:
            line(f"failures: {self._job.output}/failures; run them again with: rendermill retry {self._job.output}")
        if self._plan.num_rejected:
            line(f"rejected rows and why: {self._job.output}/rejected")
        if state not in ("finished", "stopped"):
            return ERROR
        return DONE_WITH_FAILURES if num_failed or self._plan.num_rejected or is_doubtful else DONE

    def _tell_what_was_found(self) -> bool:
        """Say what renderers met and what the audit says; returns whether an item came out different."""
        for problem in self._found.get("profile_problems", ()):
            self._screen.line(problem)
        for model, found in self._found.get("models", {}).items():
            for note, count in found["notes"].items():
                self._screen.line(f"  {model}: {note}" + (f" ({count} times)" if count > 1 else ""))
        for cause, count in self._found.get("deaths", {}).items():
            self._screen.line(f"  processes that died at work, {count}: {cause}")
        audit = self._found.get("audit", {"num_chosen": 0})
        if not audit["num_chosen"]:
            return False
        num_audited = audit["num_equal"] + audit["num_different"]
        self._screen.line(
            f"audit: {num_audited} of {audit['num_chosen']} chosen items were drawn twice, "
            + (
                f"{audit['num_different']} came out different, see found.audit in the run's file"
                if audit["num_different"]
                else "all came out the same"
            )
        )
        return audit["num_different"] > 0


def _log(error: Exception) -> None:
    """Keep the whole of an error in the log, which standard error goes to."""
    print(traceback_of(error), file=sys.stderr, flush=True)  # noqa: T201


def _root_cause(error: Exception) -> str:
    """What went wrong in a worker, without the layers that Ray wraps around it; those go to the log."""
    _log(error)
    original = getattr(error, "cause", None)
    if original is not None:
        own_words = str(original).partition("Failed to apply UDF")[0].rstrip(": '\n")  # Ray appends advice of its own
        return f"{type(original).__name__}: {one_line(Exception(own_words))}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
    without_module = re.sub(r"^(\w+\.)+(?=\w+: )", "", lines[-1])  # Ray quotes the worker's traceback, error last
    return one_line(Exception(without_module))
