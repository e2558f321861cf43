"""The command line: `rendermill …`, or `python -m jobs.cli …` without an install."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jobs.console import open_screen
from jobs.job_file import JobFile, read_job_file
from manifests.errors import UserError, one_line, traceback_of
from manifests.storage import is_passing

USERS_MISTAKE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="rendermill", description="Turns a table of prompts into images and videos.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("generate", help="run a job, or finish what an earlier run left")
    _add_job_arguments(run)
    preview = commands.add_parser("plan", help="say what a job would do, how long and with how much storage")
    _add_job_arguments(preview)
    preview.add_argument("--calibrate", action="store_true", help="draw a few items first, to learn how long they take")
    preview.add_argument("--json", action="store_true", help="print it as JSON")
    look = commands.add_parser("status", help="how far an output is; needs no cluster")
    look.add_argument("output", metavar="OUTPUT", help="a folder or URL that a job writes")
    look.add_argument("--watch", action="store_true", help="look again every few seconds until the run has ended")
    look.add_argument("--json", action="store_true", help="print it as JSON, a line a look")
    config = commands.add_parser("config", help="print a job with all values, and where each comes from")
    _add_job_arguments(config)
    config.add_argument("--json", action="store_true", help="print it as JSON")
    config.add_argument("--schema", action=_PrintSchema, help="print the JSON Schema of job files, and nothing else")
    retry = commands.add_parser("retry", help="run the failures of an output again")
    retry.add_argument("output", metavar="OUTPUT", help="a folder or URL that a job wrote")
    check = commands.add_parser("verify", help="check an output's files, and draw some of its items again")
    check.add_argument("output", metavar="OUTPUT", help="a folder or URL that a job wrote")
    check.add_argument("--sample", metavar="N", type=int, default=0, help="items to draw again and compare; 0: none")
    check.add_argument("--model", metavar="M", help="only this model's")
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    options, rest = parser.parse_known_args(arguments)
    if rest:  # overrides that follow an option: argparse has ended their list by then
        if "overrides" not in options or any(argument.startswith("-") for argument in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        options.overrides += rest
    try:
        if options.command == "generate":
            return _generate(_read(options))
        if options.command == "plan":
            return _plan(_read(options), options.calibrate, options.json)
        if options.command == "status":
            return _status(options.output, options.json, options.watch)
        if options.command == "config":
            return _config(_read(options), options.json)
        if options.command == "retry":
            return _retry(options.output)
        return _verify(options.output, options.sample, options.model, options.json)
    except UserError as error:
        print(f"rendermill: {one_line(error, max_length=1000)}", file=sys.stderr)
        return USERS_MISTAKE
    except KeyboardInterrupt:
        print("rendermill: interrupted before anything was drawn", file=sys.stderr)
        return 1
    except Exception as error:
        if not is_passing(error):
            print(traceback_of(error), end="", file=sys.stderr)
            return 1
        print(f"rendermill: a store does not answer: {one_line(error, max_length=1000)}; try again", file=sys.stderr)
        return 1


def _add_job_arguments(command: argparse.ArgumentParser) -> None:
    """What every command takes that reads a job file; `_read` reads it."""
    command.add_argument("job_file", metavar="JOB.yaml")
    command.add_argument("overrides", metavar="key=value", nargs="*", help="such as models.sana.batch=4 or limit=8")
    command.add_argument("--environment", metavar="NAME", help="one of the job file's environments, such as prod")
    command.add_argument("--date", help="what ${date:%%Y-%%m-%%d} writes, such as 2026-11-24; else now, in UTC")


def _read(options: argparse.Namespace) -> JobFile:
    return read_job_file(options.job_file, options.overrides, options.environment, options.date)


class _PrintSchema(argparse.Action):
    def __init__(self, **given: Any) -> None:
        super().__init__(nargs=0, **given)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from jobs.job_schema import schema_text

        print(schema_text(), end="")
        parser.exit()


def _config(job_file: JobFile, as_json: bool) -> int:
    from jobs.print_config import config_as_json, config_as_yaml

    print(config_as_json(job_file) if as_json else config_as_yaml(job_file))
    return 0


def _generate(job_file: JobFile) -> int:
    from jobs.generate import generate  # imports Ray, which a mistake in the job file need not wait for

    with open_screen() as screen, _at_their_place(job_file):
        return generate(job_file.job, job_file.path, screen)


def _plan(job_file: JobFile, is_calibrated: bool, as_json: bool) -> int:
    from jobs.plan import plan

    with open_screen() as screen, _at_their_place(job_file):
        return plan(job_file.job, screen, is_calibrated, as_json)


@contextmanager
def _at_their_place(job_file: JobFile) -> Iterator[None]:
    """Mistakes that are found within name the line of the job file where their key stands."""
    try:
        yield
    except UserError as error:
        raise job_file.at_its_place(error) from error


def _retry(output: str) -> int:
    from jobs.generate import generate
    from jobs.run_file import job_of_run, newest_run, source_of_run
    from manifests.storage import Folder, absolute

    folder = Folder(absolute(output))
    run_id = newest_run(folder)
    job = job_of_run(folder, run_id).model_copy(update={"output": folder.url})  # the run's may be masked, or moved
    with open_screen() as screen:
        return generate(job, source_of_run(folder, run_id), screen, retry_failures=True)


def _status(output: str, as_json: bool, is_watched: bool) -> int:
    from jobs.status import status

    with open_screen() as screen:
        return status(output, screen, as_json, is_watched)


def _verify(output: str, num_samples: int, model: str | None, as_json: bool) -> int:
    from jobs.verify import verify

    with open_screen() as screen:
        return verify(output, screen, num_samples, model, as_json)


if __name__ == "__main__":
    sys.exit(main())
