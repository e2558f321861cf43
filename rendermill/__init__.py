"""Turn a table of prompts into images and videos: diffusers pipelines on Ray, every item exactly once.

    import rendermill

    run = rendermill.generate("nightly.yaml", limit=8)
    print(run.state, run.num_finished, run.num_failed)

Each function does what the command of the same name does, returns what that prints, and prints nothing unless
`verbose` is true. A job is the path of a job file, its content as a mapping, or a `Job`. Keyword arguments override
keys of the job: `limit=8`, `models={"sana": {"batch": 4}}`, `**{"models.sana.batch": 4}`.

The four folders of the source tree are subpackages of this package, so that a user may have packages of the same names.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing rendermill takes a few milliseconds; what a function needs is imported when it is called
    from rendermill.jobs.commands.from_python import JobSource
    from rendermill.jobs.commands.generate import Generated
    from rendermill.jobs.commands.plan_report import JobPlan
    from rendermill.jobs.commands.status import Status
    from rendermill.jobs.config.job import Job
    from rendermill.jobs.verification.report import Report
    from rendermill.manifests.errors import UserError

__all__ = ["Job", "UserError", "config", "generate", "plan", "retry", "status", "verify"]


def generate(
    job: "JobSource",
    *,
    environment: str | None = None,
    date: str | None = None,
    verbose: bool = False,
    **overrides: Any,
) -> "Generated":
    """Run a job, or finish what an earlier run left.

    In the main thread, SIGINT and SIGTERM end the run after the current step; then its state is `interrupted`, and the
    same call goes on from there. If `ray.init()` was called before, that cluster is used and stays connected.

    Args:
        environment: One of the job file's `environments`.
        date: The date that the job file's `${date:…}` writes, ISO 8601; None: today in UTC.
        verbose: Print the lines that the command prints.
        overrides: New values of keys of the job.

    Raises:
        UserError: There is a mistake in the job or in what it names, and nothing was rendered.
    """
    from rendermill.jobs.commands.from_python import commanded, read_job
    from rendermill.jobs.commands.generate import generate

    job_file = read_job(job, overrides, environment, date)
    with commanded(verbose, job_file) as screen:
        return generate(job_file.job, job_file.path, screen)


def plan(
    job: "JobSource",
    *,
    environment: str | None = None,
    date: str | None = None,
    calibrate: bool = False,
    **overrides: Any,
) -> "JobPlan":
    """Find out what a job would do, how long it would take, and how much storage; writes nothing to the output.

    Args:
        environment: As for `generate`.
        date: As for `generate`.
        calibrate: Render a few items of every shape first, and drop them, to measure their time.
        overrides: New values of keys of the job.

    Raises:
        UserError: There is a mistake in the job or in what it names.
    """
    from rendermill.jobs.commands.from_python import commanded, read_job
    from rendermill.jobs.commands.plan import find_plan

    job_file = read_job(job, overrides, environment, date)
    with commanded(verbose=False, job_file=job_file):
        return find_plan(job_file.job, calibrate)


def status(output: "JobSource") -> "Status":
    """Find out how far an output is. This needs no cluster.

    Args:
        output: A folder or URL that a job writes, or the job.

    Raises:
        UserError: No run has begun there.
    """
    from rendermill.jobs.commands.from_python import output_of
    from rendermill.jobs.commands.status import look

    return look(output_of(output))


def retry(output: "JobSource", *, verbose: bool = False) -> "Generated":
    """Render the failures of an output again, with the job of its newest run.

    Args:
        output: A folder or URL that a job writes, or the job.
        verbose: Print the lines that the command prints.

    Raises:
        UserError: There is no such output, or as for `generate`.
    """
    from rendermill.jobs.commands.from_python import commanded, output_of
    from rendermill.jobs.commands.generate import retry

    folder = output_of(output)
    with commanded(verbose) as screen:
        return retry(folder, screen)


def verify(
    output: "JobSource",
    *,
    sample: int = 0,
    model: str | None = None,
    repair: bool = False,
    inputs: bool = False,
    verbose: bool = False,
) -> "Report":
    """Check the files of an output, and render some of its items again.

    Args:
        output: A folder or URL that a job writes, or the job.
        sample: The number of items to render again and compare; 0: none, and then no cluster is needed.
        model: Check only the items of this model.
        repair: Drop records whose media are missing or damaged, so that the next run renders them.
        inputs: Read the images and videos that rows named again, and tell which have changed since.
        verbose: Print the progress.

    Raises:
        UserError: There is no such output or model, or it is to be repaired while a run writes there.
    """
    from rendermill.jobs.commands.from_python import commanded, output_of
    from rendermill.jobs.commands.verify import find_problems

    folder = output_of(output)
    with commanded(verbose) as screen:
        return find_problems(folder, screen, sample, model, repair, inputs)


def config(job: "JobSource", *, environment: str | None = None, date: str | None = None, **overrides: Any) -> "Job":
    """Read a job and check it, without a cluster; returns it with all its values.

    The arguments and errors are those of `generate`.
    """
    from rendermill.jobs.commands.from_python import read_job

    return read_job(job, overrides, environment, date).job


def __getattr__(name: str) -> Any:
    """Import a public name when it is used for the first time."""
    if name == "__version__":
        from importlib.metadata import version

        return version("rendermill")
    if name == "UserError":
        from rendermill.manifests.errors import UserError

        return UserError
    if name == "Job":
        from rendermill.jobs.config.job import Job

        return Job
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
