"""The rules of a job for the images and videos that its rows name, as the tasks that read them take them."""

from rendermill.actors.media.inputs.options import InputOptions
from rendermill.jobs.config.job import Job
from rendermill.manifests.storage.urls import absolute


def input_options(job: Job, folder: str) -> InputOptions:
    """Return the rules for the inputs of a job.

    Args:
        folder: The URL or path of the manifest's folder, where relative paths begin.
    """
    given = job.inputs
    return InputOptions(
        place=absolute(folder),
        allow=None if given.allow is None else tuple(map(absolute_place, given.allow)),
        private_networks=given.private_networks,
        max_bytes=given.max_bytes,
        timeout_seconds=given.timeout.total_seconds(),
        patience_seconds=job.storage_patience.total_seconds(),
        s3_endpoint=given.s3_endpoint,
        s3_profile=given.s3_profile,
        fit=given.fit,
    )


def absolute_place(place: str) -> str:
    """Return a URL unchanged, such as `https://`, which no store has to know, and a local path made absolute."""
    return place if "://" in place else absolute(place)
