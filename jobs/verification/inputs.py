"""Whether the images and videos that records were made from have still the content that was read."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

from rendermill.actors.media.inputs.options import BadInput
from rendermill.actors.media.inputs.sources.fetch import Fetcher, Wanted
from rendermill.jobs.config.job import Job
from rendermill.jobs.running.inputs import input_options
from rendermill.jobs.running.run_file import job_of_run
from rendermill.jobs.verification.report import Report
from rendermill.manifests.errors import UserError, one_line
from rendermill.manifests.output.records import read_records
from rendermill.manifests.reader.files import manifest_folder
from rendermill.manifests.secrets import MASK, secrets_in
from rendermill.manifests.storage.folder import Folder
from rendermill.manifests.storage.urls import absolute

_COLUMNS = ("id", "sample_index", "inputs", "run_id")
_NUM_FETCHES_AT_ONCE = 16
_NOT_TOLD = "its URL had a secret, which records leave out"


class _Places:
    """The inputs of one run's records; each is read once."""

    def __init__(self, job: Job, run_id: str) -> None:
        self._job, self._run_id = job, run_id
        self._found: dict[str, str] = {}

    @cached_property
    def _fetcher(self) -> Fetcher:
        return Fetcher(input_options(self._job, manifest_folder(absolute(self._job.manifest))), self._run_id)

    def read(self, urls: set[str]) -> None:
        """Read those that were not read before."""
        new = sorted(urls - self._found.keys())
        with ThreadPoolExecutor(_NUM_FETCHES_AT_ONCE) as pool:
            self._found |= zip(new, pool.map(self._sha256, new), strict=True)

    def sha256(self, url: str) -> str:
        """Return the sha256 of an input in hex, or why it is not known."""
        return self._found[url]

    def _sha256(self, url: str) -> str:
        if MASK in secrets_in(url):
            return _NOT_TOLD
        try:
            return hashlib.sha256(self._fetcher.fetch(Wanted(url))).hexdigest()
        except (BadInput, UserError, OSError) as error:
            return one_line(error)


def check_inputs(output: Folder, model: str | None, report: Report) -> None:
    """Read the inputs of all records again, except those that the manifest itself held, and note what differs.

    Args:
        model: Only this model's; None: all.
    """
    places: dict[str, _Places | None] = {}
    for table in read_records(output, model, _COLUMNS):
        records = [record for record in table.to_pylist() if record["inputs"]]
        by_run: dict[str, list[Mapping[str, Any]]] = {}
        for record in records:
            by_run.setdefault(record["run_id"], []).append(record)
        for run_id, some in by_run.items():
            if run_id not in places:
                places[run_id] = _places_of(output, run_id)
            _check(some, places[run_id], report)


def _places_of(output: Folder, run_id: str) -> _Places | None:
    try:
        return _Places(job_of_run(output, run_id), run_id)
    except UserError:
        return None


def _check(records: list[Mapping[str, Any]], places: _Places | None, report: Report) -> None:
    if places is not None:
        places.read({entry["url"] for record in records for _, entry in _entries(record)})
    for record in records:
        for name, entry in _entries(record):
            found = places.sha256(entry["url"]) if places is not None else "the file of its run is gone"
            subject = f"{record['id']} (sample {record['sample_index']}): {name} {entry['url']}"
            report.num_inputs += 1
            if len(found) != 64 or " " in found:
                report.unreadable_inputs.add(f"{subject}: {found}")
            elif found != entry["sha256"]:
                report.changed_inputs.add(f"{subject} has the sha256 {found}, and had {entry['sha256']}")


def _entries(record: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the inputs of a record that have a URL, with their names."""
    for name, given in json.loads(record["inputs"]).items():
        for entry in given if isinstance(given, list) else [given]:
            if "url" in entry:
                yield name, entry
