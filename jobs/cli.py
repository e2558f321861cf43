"""The command line: `rendermill …`, or `python -m jobs.cli …` without an install."""

import argparse
import sys
from collections.abc import Sequence

from jobs.config import load_job
from jobs.console import open_screen
from manifests.errors import UserError, one_line
from manifests.storage import is_passing

USERS_MISTAKE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="rendermill", description="Turns a table of prompts into images and videos.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("generate", help="run a job, or finish what an earlier run left")
    run.add_argument("job_file", metavar="JOB.yaml")
    run.add_argument("overrides", metavar="key=value", nargs="*", help="such as models.sana.batch=4 or output=out/x")
    retry = commands.add_parser("retry", help="run the failures of an output again")
    retry.add_argument("output", metavar="OUTPUT", help="a folder or URL that a job wrote")
    options = parser.parse_args(arguments)
    try:
        return (
            _generate(options.job_file, options.overrides) if options.command == "generate" else _retry(options.output)
        )
    except UserError as error:
        print(f"rendermill: {one_line(error, max_length=1000)}", file=sys.stderr)
        return USERS_MISTAKE
    except KeyboardInterrupt:
        print("rendermill: interrupted before anything was drawn", file=sys.stderr)
        return 1
    except Exception as error:
        if not is_passing(error):
            raise
        print(f"rendermill: a store does not answer: {one_line(error, max_length=1000)}; try again", file=sys.stderr)
        return 1


def _generate(job_file: str, overrides: Sequence[str]) -> int:
    job = load_job(job_file, overrides)
    from jobs.generate import generate  # imports Ray, which a mistake in the job file need not wait for

    with open_screen() as screen:
        return generate(job, job_file, screen)


def _retry(output: str) -> int:
    from jobs.generate import generate
    from jobs.run_file import newest_job
    from manifests.storage import Folder, absolute

    job, source = newest_job(Folder(absolute(output)))
    with open_screen() as screen:
        return generate(job, source, screen, retry_failures=True)


if __name__ == "__main__":
    sys.exit(main())
