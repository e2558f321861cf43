"""What the Python API (`rendermill.generate` and its neighbours) does around a command: read its job, keep it quiet."""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from rendermill.jobs.commands.arguments import check_is_job_file, output_folder
from rendermill.jobs.config.environment_values import fill_in
from rendermill.jobs.config.job import Job
from rendermill.jobs.config.job_file import PYTHON, JobFile, read_job_content, read_job_file
from rendermill.jobs.console.screen import Screen, masked_logs
from rendermill.jobs.console.signals import signals_restored
from rendermill.manifests.errors import UserError
from rendermill.manifests.storage.folder import Folder

JobSource = str | PathLike[str] | Mapping[str, Any] | Job
"""The path of a job file, its content, or a job that was read already."""


def read_job(job: JobSource, overrides: Mapping[str, Any], environment: str | None, date: str | None) -> JobFile:
    """Read a job from whatever the caller has.

    Args:
        overrides: New values by key; keys may have dots, and values may be mappings, whose keys are merged.
        environment: As the option of the command line; only for job files.
        date: As the option of the command line; only for job files.

    Raises:
        UserError: There is a mistake in the job.
    """
    texts = [f"{key}={json.dumps(value, default=os.fspath)}" for key, value in overrides.items()]
    if isinstance(job, str | PathLike):
        path = os.fspath(job)
        check_is_job_file(path)
        return read_job_file(path, texts, environment, date, overrides_from=PYTHON)
    if environment or date:
        raise UserError("environment and date are for a job file, and this job is from Python")
    content = fill_in(job.model_dump(mode="json"), job.templates) if isinstance(job, Job) else job
    return read_job_content(content, texts)


def output_of(place: JobSource) -> Folder:
    """Return the output that a caller names, or that a job writes.

    Raises:
        UserError: There is none.
    """
    if not isinstance(place, str | PathLike):
        place = read_job(place, {}, None, None).job.output
    return output_folder(os.fspath(place), None, None)


@contextmanager
def commanded(verbose: bool, job_file: JobFile | None = None) -> Iterator[Screen]:
    """Run a command within a Python program: signals are restored afterwards, and mistakes name their places.

    Args:
        verbose: Print the lines that the command prints; otherwise nothing.
        job_file: Where the keys of mistakes were set.
    """
    with _log_file() as log, open(os.devnull, "w") as nowhere, signals_restored():
        try:
            yield Screen(sys.stdout if verbose else nowhere, log, is_optional=True)
        except UserError as error:
            if job_file is None:
                raise
            raise job_file.at_its_place(error) from error


@contextmanager
def _log_file() -> Iterator[Path]:
    """Keep in a file what Ray writes to standard error, and the errors of workers, as the command line does.

    Python's `sys.stderr` stays as it is: whoever prints to it while a notebook's cell runs still sees the lines there.
    """
    descriptor, name = tempfile.mkstemp(prefix="rendermill-", suffix=".log")
    os.close(descriptor)
    handler, logger = logging.FileHandler(name), logging.getLogger("rendermill")
    appending, kept = os.open(name, os.O_WRONLY | os.O_APPEND), os.dup(2)
    os.dup2(appending, 2)
    os.close(appending)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        with masked_logs():
            yield Path(name)
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
        handler.close()
        os.dup2(kept, 2)
        os.close(kept)
