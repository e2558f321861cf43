"""The loop that commits receipts, the reasons to stop, and the summary: without Ray, on a real ledger."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rendermill.actors.services.crash_journal import CrashJournal
from rendermill.actors.services.deaths import WorkerProcess
from rendermill.actors.services.guard import Guard
from rendermill.jobs.config.job import Job
from rendermill.jobs.console.signals import Interruption
from rendermill.jobs.planning.remaining import Outstanding, Work
from rendermill.jobs.running.commit import CommitLoop, Committer
from rendermill.jobs.running.dataset.requests import RequestReader
from rendermill.jobs.running.observers.observer import Commit
from rendermill.jobs.running.observers.stop_reasons import StopReasons
from rendermill.jobs.running.summary import exit_status, summary
from rendermill.manifests.arrow.hash_set import HASH
from rendermill.manifests.output.runs import RunState
from rendermill.manifests.reader.manifest import open_manifest
from rendermill.manifests.rows import RowValidator
from tests.unit.manifests.output.test_ledger import open_ledger, receipt, receipts
from tests.unit.manifests.output.test_runs import FILES

Rows = list[dict[str, Any]]
Render = Callable[[list[str], int], Iterator[Rows]]
"""Gives batches of receipts of some items; the number is that of the call."""


def of_model(model: str, item: str, error_type: str | None = None) -> dict[str, Any]:
    return receipt(item, error_type=error_type) | {"model": model, "error": error_type and "no luck"}


class Recorder:
    """An observer that keeps the commits."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []

    def committed(self, commit: Commit) -> None:
        self.commits.append(commit)

    @property
    def items(self) -> list[str]:
        return [item for commit in self.commits for item in commit.receipts["id"].to_pylist()]


class Pipeline:
    """Stands for a `ModelPipeline`; its Datasets give what a function says."""

    def __init__(self, items: Sequence[str], render: Render) -> None:
        self._items, self._render, self.num_calls = items, render, 0

    def dataset(self, work: list[Work]) -> "Pipeline":
        self._left = [self._items[row] for part in work for row in part.row_numbers.tolist()]
        return self

    def iter_batches(self, **_: Any) -> Iterator[pa.Table]:
        self.num_calls += 1
        for rows in self._render(self._left, self.num_calls):
            yield receipts(*rows)


class Bench:
    """A run over a ledger in a folder, whose models render by functions."""

    def __init__(self, folder: Path, renders: dict[str, Render], num_items: int) -> None:
        items = [f"{model}-{index}" for model in renders for index in range(num_items)]
        models = [model for model in renders for _ in range(num_items)]
        samples = pa.table(
            {
                "row_group": pa.array([0] * len(items), pa.int32()),
                "row_number": np.arange(len(items)),
                "sample_index": pa.array([0] * len(items), pa.int32()),
                "model": pa.array(models).dictionary_encode(),
                "shape": pa.array(["any"] * len(items)).dictionary_encode(),
                "request_hash": pa.array([bytes.fromhex(receipt(item)["request_hash"]) for item in items], HASH),
            }
        )
        self.outstanding = Outstanding(samples, [Mock()])
        self.ledger = open_ledger(folder)
        self.recorder, self.reasons = Recorder(), StopReasons(0.1, may_all_fail=False)
        self.committer = Committer(self.outstanding, self.ledger, [self.recorder, self.reasons])
        self.pipelines = {model: Pipeline(items, render) for model, render in renders.items()}
        self.interruption = Interruption()
        clocks: Any = Mock(is_stopping=False)
        pipelines: Any = self.pipelines
        self.loop = CommitLoop(pipelines, self.committer, self.reasons, clocks, self.interruption)

    def run(self) -> None:
        self.loop.run(lambda *_: None)
        self.ledger.roll_up()


def finishes(items: list[str], _: int) -> Iterator[Rows]:
    yield from ([of_model("good", item)] for item in items)


def fails(items: list[str], _: int) -> Iterator[Rows]:
    yield from ([of_model("bad", item, "ValueError")] for item in items)


def test_an_item_is_committed_once_however_many_receipts_it_brings(tmp_path: Path) -> None:
    def twice(items: list[str], _: int) -> Iterator[Rows]:
        for item in items:
            yield [of_model("good", item), of_model("good", item)]
            yield [of_model("good", items[0])]

    bench = Bench(tmp_path, {"good": twice}, num_items=3)
    bench.run()
    assert bench.recorder.items == ["good-0", "good-1", "good-2"]
    assert len(bench.ledger.keys) == 3
    assert not bench.reasons.run
    assert bench.pipelines["good"].num_calls == 1


def test_what_brought_no_receipt_is_rendered_again_until_a_round_brings_none(tmp_path: Path) -> None:
    def loses_most(items: list[str], num_calls: int) -> Iterator[Rows]:
        if num_calls < 4:
            yield [of_model("good", items[0])]

    bench = Bench(tmp_path, {"good": loses_most}, num_items=5)
    bench.run()
    assert bench.recorder.items == ["good-0", "good-1", "good-2"]
    assert bench.reasons.run == {"receipts": "2 items came back neither rendered nor failed"}


def test_a_model_whose_first_items_all_fail_stops_and_the_others_go_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"bad": fails, "good": finishes}, num_items=60)
    bench.run()
    assert bench.reasons.models == {"bad": "its first 20 items all failed, with ValueError: no luck"}
    assert not bench.reasons.run
    assert {item for item in bench.recorder.items if "good" in item} == {f"good-{index}" for index in range(60)}
    assert bench.pipelines["bad"].num_calls == 1


def test_a_dataset_that_ends_with_an_error_ends_its_model_alone(tmp_path: Path) -> None:
    def breaks(items: list[str], _: int) -> Iterator[Rows]:
        yield [of_model("bad", items[0])]
        raise OSError("no route to the store")

    bench = Bench(tmp_path, {"bad": breaks, "good": finishes}, num_items=3)
    bench.run()
    assert bench.reasons.models == {"bad": "no route to the store"}
    assert sorted(bench.recorder.items) == ["bad-0", "good-0", "good-1", "good-2"]


def test_too_many_failures_among_the_last_thousand_stop_the_run() -> None:
    reasons = StopReasons(0.1, may_all_fail=True)
    for num_failed in (100, 1):
        rows = [of_model("bad", str(index), "ValueError") for index in range(num_failed)]
        reasons.committed(Commit.of("bad", receipts(*rows)))
        assert bool(reasons.run) == (num_failed == 1)
    assert reasons.run == {"max_failure_rate": "more than 10% of the last 1000 items failed"}
    assert not reasons.models, "failures were expected"


def test_after_an_interruption_what_has_arrived_is_committed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"good": finishes}, num_items=9)
    bench.interruption.is_asked_for = True
    bench.loop.run(lambda *_: None)
    assert bench.recorder.items == [], "nothing began"
    bench.interruption.is_asked_for = False
    bench.recorder.committed = lambda commit: interrupt(bench, commit)  # type: ignore[method-assign]
    bench.loop.run(lambda *_: None)
    assert len(bench.recorder.items) == 1
    bench.loop.commit_rest()
    assert set(bench.recorder.items) <= {f"good-{index}" for index in range(9)}


def interrupt(bench: Bench, commit: Commit) -> None:
    bench.recorder.commits.append(commit)
    bench.interruption.is_asked_for = True


class NamesOnly:
    """Stands for a `Guard`: keeps the names of the steps that it should guard."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def steps(self, name: str, _: Iterator[pa.Table]) -> Iterator[pa.Table]:
        self.names.append(name)
        return iter(())


def test_models_that_read_one_row_group_at_the_same_time_suspect_one_another_of_nothing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a cat"]}), tmp_path / "prompts.parquet")
    (row_group,) = open_manifest(str(tmp_path / "prompts.parquet")).row_groups
    work = Work(row_group, np.array([0]), np.array([0]))
    journal, guard = CrashJournal(), NamesOnly()
    for model in ("sana", "wan"):
        reader = RequestReader(model, RowValidator({}, None, 0), cast(Guard, guard), pa.schema([]))
        assert not list(reader.read({"work": [work]}))
        process = WorkerProcess("node", f"worker of {model}", 1, 0.0, "")
        assert journal.suspicions(guard.names[-1:]) == {}
        journal.began(process, model, guard.names[-1:])
    assert journal.deaths() == {}


def test_a_summary_says_what_was_done_why_it_stopped_and_what_to_do_next() -> None:
    content = FILES["run.json"]
    run, job = RunState.model_validate(content), Job.model_validate(content["job"] | {"limit": 5})
    lines = summary(run, job, {"sana": 0.5}, ["1 prompt of sana was cut"], Path("the.log"))
    assert lines == [
        f"stopped: broken: {content['errors']['broken']}; details in the.log",
        f"stopped: receipts: {content['run_errors']['receipts']}; details in the.log",
        "  sana: 6 rendered, 0.50/s, 2 actors at work 90% of their time",
        "  1 prompt of sana was cut",
        "9 items finished, 3 failed, 1 rejected",
        "6 rendered in 115 s (0.05 items/s)",
        f"output: {job.output}",
        "  sana: out of memory at batch 8 (2 times)",
        "  processes that died at work, 4: WorkerDied: signal SIGSEGV",
        "audit: 2 of 2 chosen items were rendered twice, 1 came out different, see found.audit in the run's file",
        f"failures: {job.output}/failures; run them again with: rendermill retry {job.output}",
        f"rejected rows and why: {job.output}/rejected",
    ]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"state": "failed"}, 1),
        ({"state": "interrupted"}, 1),
        ({"state": "finished"}, 3),
        ({"state": "stopped", "num_failed": {"sana": 0, "broken": 0}, "num_failed_before": 0}, 3),
        ({"state": "finished", "num_failed": {"sana": 0, "broken": 0}, "num_failed_before": 0, "num_rejected": 0}, 3),
        (
            {"state": "finished", "num_failed": {"sana": 0, "broken": 0}, "num_failed_before": 0, "num_rejected": 0}
            | {"found": {}},
            0,
        ),
    ],
)
def test_the_exit_status_tells_an_early_end_from_failures(change: dict[str, Any], status: int) -> None:
    assert exit_status(RunState.model_validate(json.loads(json.dumps(FILES["run.json"] | change)))) == status
