"""`rendermill verify`: every file against its record, and some items drawn again to see the same pixels come out."""

import hashlib
import heapq
import io
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from rendermill.jobs.console.progress import show_progress
from rendermill.jobs.console.screen import Screen, json_text
from rendermill.jobs.verification.repair import Broken, Repaired, opened_for_repair, repair
from rendermill.jobs.verification.stored_media import check_media
from rendermill.manifests.arrow.hash_set import HashSet
from rendermill.manifests.errors import UserError
from rendermill.manifests.output.layout import MEDIA
from rendermill.manifests.output.records import read_records, read_stale_media
from rendermill.manifests.storage.folder import Folder

_NUM_EXAMPLES = 20

OK, DAMAGED = 0, 3


@dataclass
class Problems:
    """What is wrong in one way.

    Attributes:
        num: how often.
        examples: the first few, in words.
    """

    num: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Count one more."""
        self.num += 1
        if len(self.examples) < _NUM_EXAMPLES:
            self.examples.append(example)


@dataclass
class Report:
    """What `verify` found.

    Attributes:
        num_records: records read.
        num_bytes: of the media files that were read.
        missing: records whose media file is not there.
        damaged: media files that are not as their record says.
        unreadable: media files that could not be read.
        without_record: media that no record names.
        num_waiting: media that no record names any more and that a run will remove.
        again: by result in words, items that were drawn again.
        different: items that came out other than before.
        is_repairable: whether `--repair` would do something.
        repaired: what `--repair` did about missing and damaged media and those without a record; None: it was not
            asked for.
    """

    num_records: int = 0
    num_bytes: int = 0
    missing: Problems = field(default_factory=Problems)
    damaged: Problems = field(default_factory=Problems)
    unreadable: Problems = field(default_factory=Problems)
    without_record: Problems = field(default_factory=Problems)
    num_waiting: int = 0
    again: Counter[str] = field(default_factory=Counter)
    different: Problems = field(default_factory=Problems)
    is_repairable: bool = False
    repaired: Repaired | None = None

    @property
    def status(self) -> int:
        """The exit status."""
        problems = [self.unreadable, self.different]
        if self.repaired is None:
            problems += [self.missing, self.damaged, self.without_record]
        elif self.repaired.num_left:
            return DAMAGED
        return DAMAGED if any(problem.num for problem in problems) else OK


def verify(
    output: Folder, screen: Screen, num_samples: int, model: str | None, as_json: bool, is_repaired: bool = False
) -> int:
    """Check an output's files, and draw some of its items again.

    Args:
        num_samples: items to draw again, chosen at random; 0: none, and then no cluster is needed.
        model: only this model's.
        as_json: print the report as JSON.
        is_repaired: drop records whose media are missing or damaged, so that the next run renders their items again.

    Returns:
        The exit status: 0, or 3 where anything is not as it should be.

    Raises:
        UserError: there is no record of this model; or it is to be repaired, and a run writes there.
    """
    report, sample = Report(), _Sample(num_samples)
    quiet = Screen(io.StringIO(), screen.log) if as_json else screen
    with opened_for_repair(output, quiet.line) if is_repaired else nullcontext() as ledger:
        broken = _check_files(output, model, report, sample, quiet)
        report.is_repairable = bool(broken.items or broken.written_here)
        if ledger is not None:
            report.repaired = repair(ledger, broken)
    if model is not None and not report.num_records:
        raise UserError(f"no records of a model {model!r} there", ("output",), output.url)
    if sample.records:
        from rendermill.jobs.verification.render_again import draw_again  # needs a cluster, which the files do not

        for drawn in draw_again(output, sample.records, quiet):
            report.again[drawn.verdict] += 1
            if drawn.is_different:
                report.different.add(f"{drawn.item}: {drawn.details}")
    if as_json:
        screen.text(json_text(asdict(report) | {"status": report.status}, indent=2))
    else:
        _print(report, output, screen)
    return report.status


class _Sample:
    """So many records of all, each with the same chance, whatever their number."""

    def __init__(self, num_samples: int) -> None:
        self._num_samples = num_samples
        self._chosen: list[tuple[float, int, dict[str, Any]]] = []
        self._num_seen = 0

    def offer(self, record: dict[str, Any]) -> None:
        self._num_seen += 1
        entry = (random.random(), self._num_seen, record)
        if len(self._chosen) < self._num_samples:
            heapq.heappush(self._chosen, entry)
        elif self._num_samples:
            heapq.heappushpop(self._chosen, entry)

    @property
    def records(self) -> list[dict[str, Any]]:
        return [record for _, _, record in self._chosen]


def _check_files(output: Folder, model: str | None, report: Report, sample: _Sample, screen: Screen) -> Broken:
    present = set(output.all_names(f"{MEDIA}/{model}" if model else MEDIA))
    paths: list[bytes] = []
    broken, waiting = Broken(), read_stale_media(output)

    def tables() -> Iterator[pa.Table]:
        for table in read_records(output, model):
            for record in table.to_pylist():
                sample.offer(record)
            yield table

    with show_progress(screen, {"files": len(present)}) as advance:
        for path, findings, without_record in check_media(output, tables()):
            paths.append(_path_hash(path))
            for finding in findings:
                report.num_records += 1
                report.num_bytes += finding.num_bytes
                if finding.problem:
                    problems: Problems = getattr(report, finding.problem)
                    problems.add(f"{finding.name}: {finding.details}" if finding.details else finding.name)
                if finding.problem in ("missing", "damaged"):
                    broken.items.append(finding.item)
            if without_record:
                broken.nameless.append(path)
                for name in without_record:
                    report.without_record.add(name)
            if path in present:
                is_bad = any(finding.problem for finding in findings)
                advance("files", int(not is_bad), int(is_bad))
    known = HashSet(np.array(paths, "S16"))
    names = sorted(present)
    for name, is_known in zip(
        names, known.contains(np.array([_path_hash(name) for name in names], "S16")), strict=True
    ):
        if not is_known and name in waiting:
            report.num_waiting += 1
        elif not is_known:
            broken.nameless.append(name)
            report.without_record.add(name)
    return broken


def _path_hash(path: str) -> bytes:
    return hashlib.blake2b(path.encode(), digest_size=16).digest()


def _print(report: Report, output: Folder, screen: Screen) -> None:
    line = screen.line
    num_bad = report.missing.num + report.damaged.num + report.unreadable.num
    line(f"files: {report.num_records - num_bad} of {report.num_records} are as recorded ({report.num_bytes:,} bytes)")
    for words, problems in (
        ("records without media", report.missing),
        ("damaged files", report.damaged),
        ("files that cannot be read", report.unreadable),
        ("media without a record", report.without_record),
    ):
        _print_problems(words, problems, screen)
    if report.num_waiting:
        line(f"media that gave way to newer ones, and that a later run removes: {report.num_waiting}")
    for verdict, count in report.again.items():
        line(f"drawn again: {count} {verdict}")
    _print_problems("items that came out different", report.different, screen)
    if report.repaired is not None:
        for text in report.repaired.in_words(output.url):
            line(text)
    elif report.is_repairable:
        line(f"to mend it: rendermill verify {output.url} --repair")
    line("all is well" if report.status == OK else "not all is well")


def _print_problems(words: str, problems: Problems, screen: Screen) -> None:
    if problems.num:
        screen.line(f"{words}: {problems.num}")
        for example in problems.examples:
            screen.line(f"  {example}")
        if problems.num > len(problems.examples):
            screen.line(f"  … and {problems.num - len(problems.examples)} more")
