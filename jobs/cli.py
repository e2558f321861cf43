"""The command line: `rendermill …`, or `python -m rendermill …`.

Each command imports what it needs when it runs, so that `--help` and mistakes in a job file do not wait for Ray.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

import click

from rendermill.jobs.commands.options import (
    HELP,
    examples,
    job_options,
    output_options,
    printing_option,
    usage_problem,
)
from rendermill.jobs.console.screen import ReaderGone, discard, open_screen, printable, write_out
from rendermill.manifests.errors import LeaseLost, UserError, one_line, traceback_of

if TYPE_CHECKING:
    from rendermill.jobs.config.job_file import JobFile
    from rendermill.manifests.storage.folder import Folder

FAILED = 1
USERS_MISTAKE = 2
READER_GONE = 141
"""The exit status that a shell reports for a program that SIGPIPE ended."""

_COMPLETION_VARIABLE = "_RENDERMILL_COMPLETE"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status.

    Args:
        arguments: The command and its arguments; None: those of this process.
    """
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()  # the interpreter would flush it later, and print a complaint
    except (ReaderGone, BrokenPipeError):
        discard(sys.stdout)
        return READER_GONE


def _run(arguments: list[str]) -> int:
    if instruction := os.environ.get(_COMPLETION_VARIABLE):
        from click.shell_completion import shell_complete

        return shell_complete(rendermill, {}, "rendermill", _COMPLETION_VARIABLE, instruction)
    context: click.Context | None = None
    try:
        context = rendermill.make_context("rendermill", arguments.copy())
        return int(rendermill.invoke(context))
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USERS_MISTAKE
    except click.UsageError as error:
        _complain(usage_problem(error, arguments))
        return USERS_MISTAKE
    except ReaderGone:
        raise
    except UserError as error:
        _complain(one_line(error, max_length=1000))
        return USERS_MISTAKE
    except KeyboardInterrupt:
        is_run = context is not None and context.invoked_subcommand in ("generate", "retry")
        _complain("interrupted before anything was rendered" if is_run else "interrupted")
        return FAILED
    except LeaseLost as error:
        _complain(one_line(error))
        return FAILED
    except Exception as error:
        _explain(error)
        return FAILED


def _complain(text: str) -> None:
    print(f"rendermill: {printable(text)}", file=sys.stderr)


def _explain(error: Exception) -> None:
    """Print one line for an error of a store or the network, which may pass, and the traceback of any other."""
    from rendermill.manifests.storage.retries import is_transient

    if is_transient(error):
        _complain(f"a store does not answer: {one_line(error, max_length=1000)}; try again")
    else:
        print("\n".join(map(printable, traceback_of(error).splitlines())), file=sys.stderr)


@click.group(
    context_settings={"help_option_names": [], "max_content_width": 100},  # `HELP` takes the place of click's own
    epilog=examples(
        "rendermill plan nightly.yaml",
        "rendermill generate nightly.yaml",
        "rendermill status s3://bucket/renders/nightly --watch",
        f'eval "$({_COMPLETION_VARIABLE}=bash_source rendermill)"      # completion; or zsh_source, fish_source',
    ),
)
@printing_option("--version", text=lambda _: f"rendermill {version('rendermill')}", description="Print the version.")
@HELP
def rendermill() -> None:
    """Turn a table of prompts into images and videos."""


@rendermill.command(
    epilog=examples(
        "rendermill generate nightly.yaml",
        "rendermill generate nightly.yaml limit=8 output=out/try       # try eight items first",
        "rendermill generate nightly.yaml --environment prod models.sana.batch=4",
    )
)
@job_options
def generate(job_file: "JobFile") -> int:
    """Run a job, or finish what an earlier run left.

    Exit status: 0 if all was rendered, 3 with failures or rejected rows, 2 for a mistake, 1 if the run could not go on.
    """
    from rendermill.jobs.commands.generate import generate

    with open_screen(is_optional=True) as screen, _at_their_place(job_file):
        return generate(job_file.job, job_file.path, screen).exit_status


@rendermill.command(
    short_help="Say what a job would do, and how long that takes.",
    epilog=examples(
        "rendermill plan nightly.yaml",
        "rendermill plan nightly.yaml --calibrate       # render a few items, and drop them",
        "rendermill plan nightly.yaml --json limit=1000",
    ),
)
@job_options
@click.option("--calibrate", "is_calibrated", is_flag=True, help="Render a few items first, to measure their time.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(job_file: "JobFile", is_calibrated: bool, as_json: bool) -> int:
    """Say what a job would do, how long it would take, and how much storage."""
    from rendermill.jobs.commands.plan import plan

    with open_screen() as screen, _at_their_place(job_file):
        return plan(job_file.job, screen, is_calibrated, as_json)


@rendermill.command(
    epilog=examples(
        "rendermill status s3://bucket/renders/nightly",
        "rendermill status nightly.yaml --watch",
        "rendermill status out/demo --json | jq .state",
    )
)
@output_options
@click.option("--watch", "is_watched", is_flag=True, help="Look again every few seconds until the run has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line for each look.")
def status(output: "Folder", is_watched: bool, as_json: bool) -> int:
    """Say how far an output is. This needs no cluster."""
    from rendermill.jobs.commands.status import status

    with open_screen() as screen:
        return status(output, screen, as_json, is_watched)


def _schema(_: click.Context) -> str:
    from rendermill.jobs.config.json_schema import schema_text

    return schema_text().removesuffix("\n")


@rendermill.command(
    epilog=examples(
        "rendermill config nightly.yaml",
        "rendermill config nightly.yaml --environment prod --json",
        "rendermill config --schema > job.schema.json",
    )
)
@job_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@printing_option("--schema", text=_schema, description="Print the JSON Schema of job files, and nothing else.")
def config(job_file: "JobFile", as_json: bool) -> int:
    """Print a job with all its values, and where each of them was set."""
    from rendermill.jobs.commands.show_config import config_as_json, config_as_yaml

    write_out(sys.stdout, config_as_json(job_file) if as_json else config_as_yaml(job_file))
    return 0


@rendermill.command(epilog=examples("rendermill retry s3://bucket/renders/nightly", "rendermill retry nightly.yaml"))
@output_options
def retry(output: "Folder") -> int:
    """Render the failures of an output again."""
    from rendermill.jobs.commands.generate import retry

    with open_screen(is_optional=True) as screen:
        return retry(output, screen).exit_status


@rendermill.command(
    short_help="Check the files of an output.",
    epilog=examples(
        "rendermill verify s3://bucket/renders/nightly",
        "rendermill verify nightly.yaml --sample 20 --model sana",
        "rendermill verify out/demo --repair && rendermill generate examples/demo.yaml",
    ),
)
@output_options
@click.option(
    "--sample", "num_samples", metavar="N", type=int, default=0, help="Render N items again, and compare them."
)
@click.option("--model", metavar="NAME", help="Check only the items of this model.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--repair",
    "is_repaired",
    is_flag=True,
    help="Drop records whose media are missing or damaged, so that the next run renders them.",
)
@click.option(
    "--inputs", "with_inputs", is_flag=True, help="Read the images and videos of rows again: have they changed since?"
)
def verify(
    output: "Folder", num_samples: int, model: str | None, as_json: bool, is_repaired: bool, with_inputs: bool
) -> int:
    """Check the files of an output, and render some of its items again."""
    if num_samples < 0:
        raise UserError(f"{num_samples} is less than 0; 0 renders nothing again", place="--sample")
    from rendermill.jobs.commands.verify import verify

    with open_screen() as screen:
        return verify(output, screen, num_samples, model, as_json, is_repaired, with_inputs)


@contextmanager
def _at_their_place(job_file: "JobFile") -> Iterator[None]:
    """Add the line of the job file to mistakes at one of its keys."""
    try:
        yield
    except UserError as error:
        raise job_file.at_its_place(error) from error


if __name__ == "__main__":
    sys.exit(main())
