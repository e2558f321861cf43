"""Render records again, with the job that rendered them, and compare the results."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import ray

from rendermill.actors.media.sound import from_column
from rendermill.jobs.cluster.capacity import TASK_NUM_CPUS, Cluster
from rendermill.jobs.cluster.connection import connected
from rendermill.jobs.config.job import Job
from rendermill.jobs.planning.models import ResolvedModel
from rendermill.jobs.planning.prepare import PreparedModel, open_profiles, prepare_model
from rendermill.jobs.running.dataset.input_tasks import InputTasks
from rendermill.jobs.running.dataset.model_pipeline import render
from rendermill.jobs.running.inputs import input_options
from rendermill.jobs.running.run_file import job_of_run, new_run_id
from rendermill.jobs.running.services import start_services
from rendermill.jobs.verification.compare import (
    HAD_INLINE_INPUTS,
    NOT_TRIED,
    RECORDED,
    RenderedAgain,
    compare,
    item_name,
)
from rendermill.manifests.errors import UserError
from rendermill.manifests.identity import request_hash
from rendermill.manifests.inputs import places_of
from rendermill.manifests.output.records import as_requested
from rendermill.manifests.output.runs import newest_run
from rendermill.manifests.reader.files import manifest_folder
from rendermill.manifests.request import hashed_fields
from rendermill.manifests.schema import AUDIO, FRAMES, REQUEST_COLUMNS
from rendermill.manifests.storage.folder import Folder
from rendermill.manifests.storage.urls import absolute

_Record = Mapping[str, Any]


class _Group(NamedTuple):
    """Records that one model of one job can render again."""

    job: Job
    model: PreparedModel
    records: list[_Record]


def render_again(output: Folder, records: Sequence[_Record]) -> Iterator[RenderedAgain]:
    """Render records again, in the cluster that this machine belongs to, or in a local one."""
    without_places = [record for record in records if record["inputs"] and places_of(record["inputs"]) is None]
    yield from (RenderedAgain(item_name(record), HAD_INLINE_INPUTS, False) for record in without_places)
    records = [record for record in records if record not in without_places]
    if not records:
        return
    with connected() as cluster:
        groups, left = _groups(output, [as_requested(record) for record in records], cluster)
        yield from (RenderedAgain(item_name(record), NOT_TRIED, False) for record in left)
        for group in groups:
            yield from _render(output, group)


def _groups(output: Folder, records: Sequence[_Record], cluster: Cluster) -> tuple[list[_Group], list[_Record]]:
    """Group records by the job and model that can render them: those of the newest run, else those of their own run.

    Returns:
        The groups, and the records that no job can render any more.
    """
    groups, left = [], list(records)
    for job in _jobs(output, records):
        for name in {record["model"] for record in left} & set(job.models):
            try:
                model = prepare_model(job, name, cluster)
            except UserError:
                continue
            group = [record for record in left if record["model"] == name and _renders(model.resolved, record)]
            if group:
                left = [record for record in left if record not in group]
                groups.append(_Group(job, model, group))
    return groups, left


def _jobs(output: Folder, records: Sequence[_Record]) -> Iterator[Job]:
    """Yield the jobs of the newest run and of those that made the records, if their files can still be read."""
    run_ids = dict.fromkeys(record["run_id"] for record in records)
    with suppress(UserError):
        run_ids = dict.fromkeys([newest_run(output), *run_ids])
    for run_id in run_ids:
        with suppress(UserError):
            yield job_of_run(output, run_id)


def _renders(model: ResolvedModel, record: _Record) -> bool:
    """Return whether a model with its settings would render exactly this record."""
    return request_hash(hashed_fields(record), model.contract.settings_hash) == record["request_hash"]


def _render(output: Folder, group: _Group) -> Iterator[RenderedAgain]:
    job, model, records = group
    services = start_services(open_profiles(job))
    spec = services.spec(job.model_copy(update={"audit": 0.0}), model.resolved, new_run_id())
    requests: ray.data.Dataset = ray.data.from_arrow(_requests(records))
    if model.resolved.inputs:
        options = input_options(job, manifest_folder(absolute(job.manifest)))
        tasks = InputTasks(model.resolved.inputs, options, spec.run_id, spec.input_reader)
        requests = requests.map_batches(tasks.read, batch_size=None, batch_format="pyarrow", num_cpus=TASK_NUM_CPUS)
    chunk_size = min(model.num_items_per_chunk, len(records))
    compared = render(requests, spec, model.config.pool, model.num_gpus, chunk_size).map_batches(
        partial(_compare_all, output=output), batch_size=None, batch_format="pyarrow", num_cpus=TASK_NUM_CPUS
    )
    for row in compared.iter_rows():
        yield RenderedAgain(**row)


def _requests(records: Sequence[_Record]) -> pa.Table:
    columns: dict[str, Any] = {column.name: [record[column.name] for record in records] for column in REQUEST_COLUMNS}
    columns |= {f"recorded_{name}": pa.array([record[name] for record in records], pa.string()) for name in RECORDED}
    return pa.table(columns)


def _compare_all(table: pa.Table, output: Folder) -> pa.Table:
    rows = table.drop_columns([FRAMES, AUDIO]).to_pylist()
    results = [
        compare(row, pixels, from_column(audio), output)
        for row, pixels, audio in zip(rows, table[FRAMES], table[AUDIO], strict=True)
    ]
    return pa.table(
        {field.name: [getattr(result, field.name) for result in results] for field in fields(RenderedAgain)}
    )
