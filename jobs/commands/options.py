"""Arguments and options that several commands take, and the mistakes in them, in words."""

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import click

from rendermill.jobs.console.screen import write_out

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_environment = click.option("--environment", metavar="NAME", help="One of the job file's environments, such as prod.")
_date = click.option(
    "--date", metavar="DATE", help="The date that ${date:…} writes, such as 2026-11-24; otherwise now, in UTC."
)


def examples(*lines: str) -> str:
    """Return the end of a help text, whose lines click leaves as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def printing_option(name: str, *more_names: str, text: Callable[[click.Context], str], description: str) -> _Decorator:
    """Return an option that makes a command print a text, and do nothing else."""

    def print_and_exit(context: click.Context, _: click.Parameter, is_given: bool) -> None:
        if is_given and not context.resilient_parsing:
            write_out(sys.stdout, text(context))
            context.exit()

    return click.option(
        name, *more_names, is_flag=True, is_eager=True, expose_value=False, callback=print_and_exit, help=description
    )


HELP = printing_option("-h", "--help", text=lambda context: context.get_help(), description="Print this text.")
"""Prints like every command, so that a reader that goes ends it in silence; click's own `--help` would fail."""


def job_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the arguments of a job, and call it with `job_file`, the `JobFile` that was read."""

    @click.argument("path", metavar="JOB.yaml", type=click.Path())
    @click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
    @_environment
    @_date
    @HELP
    @wraps(command)
    def with_job_file(
        path: str, overrides: tuple[str, ...], environment: str | None, date: str | None, **options: object
    ) -> int:
        from rendermill.jobs.commands.arguments import check_is_job_file
        from rendermill.jobs.config.job_file import read_job_file

        check_is_job_file(path)
        return command(job_file=read_job_file(path, overrides, environment, date), **options)

    return with_job_file


def output_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the arguments of an output, and call it with `output`, the folder."""

    @click.argument("place", metavar="OUTPUT|JOB.yaml", type=click.Path())
    @_environment
    @_date
    @HELP
    @wraps(command)
    def with_output(place: str, environment: str | None, date: str | None, **options: object) -> int:
        from rendermill.jobs.commands.arguments import output_folder

        return command(output=output_folder(place, environment, date), **options)

    return with_output


def usage_problem(error: click.UsageError, arguments: Sequence[str]) -> str:
    """Return in one line what is wrong with the arguments of a command, and what would be right.

    Args:
        arguments: All arguments, the command among them.
    """
    command = error.ctx.command_path.removeprefix("rendermill").strip() if error.ctx else ""
    if isinstance(error, click.NoSuchOption):
        problem = _override_with_dashes(error.option_name, arguments) or error.format_message()
    else:
        problem = error.format_message()
    problem = " ".join(problem.split()).removesuffix(".")
    help_command = " ".join(filter(None, ("rendermill", command, "--help")))
    return f"{command}: {problem}; see {help_command}" if command else f"{problem}; see {help_command}"


def _override_with_dashes(option: str, arguments: Sequence[str]) -> str | None:
    """Return advice for `--limit 8` or `--models.sana.batch=4`; None if that is not a key of a job."""
    from rendermill.jobs.config.job import Job

    index = next(index for index, argument in enumerate(arguments) if argument.startswith(option))
    key, equals, value = arguments[index].lstrip("-").partition("=")
    if key.replace("-", "_").split(".")[0] not in Job.model_fields:
        return None
    following = arguments[index + 1 :]
    if not equals:
        value = following[0] if following and not following[0].startswith("-") else "VALUE"
    return (
        f"no such option: {arguments[index].partition('=')[0]}; write {key.replace('-', '_')}={value}, without dashes"
    )
