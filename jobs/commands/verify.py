"""`rendermill verify`: check every file against its record, and render some items again to compare their pixels."""

import io
from contextlib import nullcontext
from dataclasses import asdict

from rendermill.jobs.console.progress import show_progress
from rendermill.jobs.console.screen import Screen, json_text
from rendermill.jobs.verification.check_output import OutputCheck, RecordSample
from rendermill.jobs.verification.repair import opened_for_repair, repair
from rendermill.jobs.verification.report import Report
from rendermill.manifests.errors import UserError
from rendermill.manifests.storage.folder import Folder


def verify(
    output: Folder,
    screen: Screen,
    num_samples: int,
    model: str | None,
    as_json: bool,
    is_repaired: bool = False,
    with_inputs: bool = False,
) -> int:
    """Print what is wrong with an output; returns the exit status: 0, or 3 if anything is wrong.

    Args:
        as_json: Print the report as JSON.

    The other arguments and the errors are those of `find_problems`.
    """
    quiet = Screen(io.StringIO(), screen.log) if as_json else screen
    report = find_problems(output, quiet, num_samples, model, is_repaired, with_inputs)
    if as_json:
        screen.text(json_text(asdict(report) | {"status": report.status}, indent=2))
    else:
        for line in report.lines(output.url):
            screen.line(line)
    return report.status


def find_problems(
    output: Folder, screen: Screen, num_samples: int, model: str | None, is_repaired: bool, with_inputs: bool = False
) -> Report:
    """Check an output's files, and render some of its items again.

    Args:
        screen: Shows the progress.
        num_samples: The number of items to render again, chosen at random; 0: none, and then no cluster is needed.
        model: Only this model's; None: all.
        is_repaired: Drop records whose media are missing or damaged, so that the next run renders their items again.
        with_inputs: Read the images and videos that records were made from again, and compare them.

    Raises:
        UserError: There is no record of this model; or it is to be repaired, and a run writes there.
    """
    check, sample = OutputCheck(output, model), RecordSample(num_samples)
    with opened_for_repair(output, screen.line) if is_repaired else nullcontext() as ledger:
        with show_progress(screen, {"files": check.num_files}) as advance:
            check.run(sample, advance)
        if ledger is not None:
            check.report.repaired = repair(ledger, check.broken)
    if model is not None and not check.report.num_records:
        raise UserError(f"no records of a model {model!r} there", ("output",), output.url)
    if with_inputs:
        _check_inputs(output, model, check.report)
    if sample.records:
        _render_again(output, sample, check.report, screen)
    return check.report


def _check_inputs(output: Folder, model: str | None, report: Report) -> None:
    from rendermill.jobs.verification.inputs import check_inputs  # imports clients of stores and servers

    check_inputs(output, model, report)


def _render_again(output: Folder, sample: RecordSample, report: Report, screen: Screen) -> None:
    from rendermill.jobs.verification.render_again import (
        render_again,  # imports Ray, which checking files does not need
    )

    with show_progress(screen, {"rendered again": len(sample.records)}) as advance:
        for again in render_again(output, sample.records):
            advance("rendered again", int(again.is_good), int(not again.is_good))
            report.again[again.verdict] += 1
            if again.is_different:
                report.different.add(f"{again.item}: {again.details}")
