"""The command line: `rendermill …`, or `python -m rendermill …`."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from rendermill.jobs.commands.arguments import check_is_job_file, output_folder
from rendermill.jobs.config.job_file import JobFile, read_job_file
from rendermill.jobs.console.screen import ReaderGone, discard, open_screen, printable, write_out
from rendermill.manifests.errors import LeaseLost, UserError, one_line, traceback_of
from rendermill.manifests.storage.folder import Folder
from rendermill.manifests.storage.retries import is_transient

USERS_MISTAKE = 2
READER_GONE = 141
"""The exit status of a program that SIGPIPE ended, as a shell reports it."""

_PATIENCE_SECONDS = 60.0
"""The patience with the store of an output that is looked at."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # the interpreter would do it, and complain
    except (ReaderGone, BrokenPipeError):
        discard(sys.stdout)
        return READER_GONE


def _run(arguments: Sequence[str] | None) -> int:
    parser = _Parser(prog="rendermill", description="Turns a table of prompts into images and videos.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("generate", help="run a job, or finish what an earlier run left")
    _add_job_arguments(run)
    preview = commands.add_parser("plan", help="say what a job would do, how long and with how much storage")
    _add_job_arguments(preview)
    preview.add_argument("--calibrate", action="store_true", help="draw a few items first, to learn how long they take")
    preview.add_argument("--json", action="store_true", help="print it as JSON")
    look = commands.add_parser("status", help="how far an output is; needs no cluster")
    _add_output_arguments(look)
    look.add_argument("--watch", action="store_true", help="look again every few seconds until the run has ended")
    look.add_argument("--json", action="store_true", help="print it as JSON, a line a look")
    config = commands.add_parser("config", help="print a job with all values, and where each comes from")
    _add_job_arguments(config)
    config.add_argument("--json", action="store_true", help="print it as JSON")
    config.add_argument("--schema", action=_PrintSchema, help="print the JSON Schema of job files, and nothing else")
    retry = commands.add_parser("retry", help="run the failures of an output again")
    _add_output_arguments(retry)
    check = commands.add_parser("verify", help="check an output's files, and draw some of its items again")
    _add_output_arguments(check)
    check.add_argument("--sample", metavar="N", type=int, default=0, help="items to draw again and compare; 0: none")
    check.add_argument("--model", metavar="M", help="only this model's")
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    check.add_argument(
        "--repair", action="store_true", help="drop records whose media are missing or damaged, for the next generate"
    )
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
            return _status(_output(options), options.json, options.watch)
        if options.command == "config":
            return _config(_read(options), options.json)
        if options.command == "retry":
            return _retry(_output(options))
        return _verify(_output(options), options.sample, options.model, options.json, options.repair)
    except ReaderGone:
        raise
    except UserError as error:
        _complain(one_line(error, max_length=1000))
        return USERS_MISTAKE
    except KeyboardInterrupt:
        _complain(
            "interrupted before anything was drawn" if options.command in ("generate", "retry") else "interrupted"
        )
        return 1
    except LeaseLost as error:
        _complain(one_line(error))
        return 1
    except Exception as error:
        if is_transient(error):
            _complain(f"a store does not answer: {one_line(error, max_length=1000)}; try again")
        else:
            print("\n".join(map(printable, traceback_of(error).splitlines())), file=sys.stderr)
        return 1


def _complain(text: str) -> None:
    print(f"rendermill: {printable(text)}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _add_job_arguments(command: argparse.ArgumentParser) -> None:
    """What every command takes that reads a job file; `_read` reads it."""
    command.add_argument("job_file", metavar="JOB.yaml")
    command.add_argument("overrides", metavar="key=value", nargs="*", help="such as models.sana.batch=4 or limit=8")
    command.add_argument("--environment", metavar="NAME", help="one of the job file's environments, such as prod")
    command.add_argument("--date", help="what ${date:%%Y-%%m-%%d} writes, such as 2026-11-24; else now, in UTC")


def _add_output_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of commands that work on an output; `_output` reads them."""
    command.add_argument("output", metavar="OUTPUT", help="a folder or URL that a job writes, or its job file")
    command.add_argument("--environment", metavar="NAME", help="one of the job file's environments")
    command.add_argument("--date", help="what the job file's ${date:…} writes; else now, in UTC")


def _output(options: argparse.Namespace) -> Folder:
    return output_folder(options.output, options.environment, options.date, _PATIENCE_SECONDS)


def _read(options: argparse.Namespace) -> JobFile:
    check_is_job_file(options.job_file)
    return read_job_file(options.job_file, options.overrides, options.environment, options.date)


class _PrintSchema(argparse.Action):
    def __init__(self, **given: Any) -> None:
        super().__init__(nargs=0, **given)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from rendermill.jobs.config.json_schema import schema_text

        print(schema_text(), end="")
        parser.exit()


def _config(job_file: JobFile, as_json: bool) -> int:
    from rendermill.jobs.commands.show_config import config_as_json, config_as_yaml

    write_out(sys.stdout, config_as_json(job_file) if as_json else config_as_yaml(job_file))
    return 0


def _generate(job_file: JobFile) -> int:
    from rendermill.jobs.commands.generate import (
        generate,  # imports Ray, which a mistake in the job file need not wait for
    )

    with open_screen(is_optional=True) as screen, _at_their_place(job_file):
        return generate(job_file.job, job_file.path, screen)


def _plan(job_file: JobFile, is_calibrated: bool, as_json: bool) -> int:
    from rendermill.jobs.commands.plan import plan

    with open_screen() as screen, _at_their_place(job_file):
        return plan(job_file.job, screen, is_calibrated, as_json)


@contextmanager
def _at_their_place(job_file: JobFile) -> Iterator[None]:
    """Mistakes that are found within name the line of the job file where their key stands."""
    try:
        yield
    except UserError as error:
        raise job_file.at_its_place(error) from error


def _retry(output: Folder) -> int:
    from rendermill.jobs.commands.generate import generate
    from rendermill.jobs.running.run_file import job_of_run, source_of_run
    from rendermill.manifests.output.runs import newest_run

    run_id = newest_run(output)
    job = job_of_run(output, run_id).model_copy(update={"output": output.url})  # the run's may be masked, or moved
    with open_screen(is_optional=True) as screen:
        return generate(job, source_of_run(output, run_id), screen, retry_failures=True)


def _status(output: Folder, as_json: bool, is_watched: bool) -> int:
    from rendermill.jobs.commands.status import status

    with open_screen() as screen:
        return status(output, screen, as_json, is_watched)


def _verify(output: Folder, num_samples: int, model: str | None, as_json: bool, is_repaired: bool) -> int:
    if num_samples < 0:
        raise UserError(f"--sample: {num_samples} is less than 0; 0 draws nothing again")
    from rendermill.jobs.commands.verify import verify

    with open_screen() as screen:
        return verify(output, screen, num_samples, model, as_json, is_repaired)


if __name__ == "__main__":
    sys.exit(main())
