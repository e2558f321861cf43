"""Draws records again, with the job that drew them, and compares: bit by bit where that can be, else by PSNR."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray

from rendermill.actors.media.encoders import decode
from rendermill.jobs.cluster.capacity import TASK_NUM_CPUS, Cluster, gpus_per_actor
from rendermill.jobs.cluster.connection import connected
from rendermill.jobs.config.job import Job
from rendermill.jobs.console.progress import show_progress
from rendermill.jobs.console.screen import Screen
from rendermill.jobs.planning.models import ResolvedModel, resolve_model
from rendermill.jobs.planning.origins import differing
from rendermill.jobs.running.dataset import rendered
from rendermill.jobs.running.run_file import job_of_run, new_run_id
from rendermill.jobs.running.services import Services, open_profiles, start_services
from rendermill.manifests.errors import UserError, one_line
from rendermill.manifests.identity import request_hash
from rendermill.manifests.output.runs import newest_run
from rendermill.manifests.output.shards import read_member
from rendermill.manifests.schema import FRAMES, REQUEST_COLUMNS
from rendermill.manifests.storage.folder import Folder

MIN_PSNR = 25.0
"""Decibels: other devices and versions sum in another order, and a video's file has lost a little too."""

_RECORDED = ("path", "member", "format", "pixel_sha256", "device", "environment")


@dataclass(frozen=True)
class DrawnAgain:
    """What came of drawing one record again; `verdict` and `details` are words for people."""

    item: str
    verdict: str
    is_different: bool
    details: str = ""


def draw_again(output: Folder, records: Sequence[Mapping[str, Any]], screen: Screen) -> Iterator[DrawnAgain]:
    """Draw records again, in the cluster that this machine belongs to, or in a local one."""
    with connected() as here, show_progress(screen, {"drawn again": len(records)}) as advance:
        groups, left = _groups(output, records, here)
        for record in left:
            advance("drawn again", 0, 1)
            yield DrawnAgain(_name(record), "not tried: their job, checkpoint or settings are gone", False)
        for job, model, group in groups:
            services = start_services(open_profiles(job))
            for result in _draw(output, job, model, group, services, here):
                advance("drawn again", int(not result.is_different), int(result.is_different))
                yield result


class _Group(NamedTuple):
    job: Job
    model: ResolvedModel
    records: list[Mapping[str, Any]]


def _groups(
    output: Folder, records: Sequence[Mapping[str, Any]], here: Cluster
) -> tuple[list[_Group], list[Mapping[str, Any]]]:
    """The records by the job and model that can draw them: the newest run's, else that of their own.

    Returns:
        The groups, and the records that no job can draw any more.
    """
    groups, left = [], list(records)
    for job in _jobs(output, records):
        for name in {record["model"] for record in left} & set(job.models):
            try:
                model = resolve_model(job, name, on_gpu=gpus_per_actor(job, name, here) > 0)
            except UserError:
                continue
            group = [record for record in left if record["model"] == name and _is_drawn_by(model, record)]
            if group:
                left = [record for record in left if record not in group]
                groups.append(_Group(job, model, group))
    return groups, left


def _jobs(output: Folder, records: Sequence[Mapping[str, Any]]) -> Iterator[Job]:
    """The jobs of the newest run and of those that made the records, as far as their files can still be read."""
    run_ids = dict.fromkeys(record["run_id"] for record in records)
    with suppress(UserError):
        run_ids = dict.fromkeys([newest_run(output), *run_ids])
    for run_id in run_ids:
        with suppress(UserError):
            yield job_of_run(output, run_id)


def _is_drawn_by(model: ResolvedModel, record: Mapping[str, Any]) -> bool:
    """Whether a model with its settings would draw this very record."""
    asked = {column.name: record[column.name] for column in REQUEST_COLUMNS if column.name != "request_hash"}
    return request_hash(asked, model.contract.settings_hash) == record["request_hash"]


def _draw(
    output: Folder,
    job: Job,
    model: ResolvedModel,
    records: Sequence[Mapping[str, Any]],
    services: Services,
    here: Cluster,
) -> Iterator[DrawnAgain]:
    names = [column.name for column in REQUEST_COLUMNS]
    columns: dict[str, Any] = {name: [record[name] for record in records] for name in names}
    columns |= {f"recorded_{name}": pa.array([record[name] for record in records], pa.string()) for name in _RECORDED}
    requests = pa.table(columns)
    config = job.models[model.name]
    chunks = rendered(
        ray.data.from_arrow(requests),
        services.spec(job.model_copy(update={"audit": 0.0}), model, new_run_id()),
        config.pool,
        gpus_per_actor(job, model.name, here),
        min(model.family.num_items_per_chunk, len(records)),
    )
    compared = chunks.map_batches(
        partial(_compare, output=output), batch_size=None, batch_format="pyarrow", num_cpus=TASK_NUM_CPUS
    )
    for row in compared.iter_rows():
        yield DrawnAgain(**row)


def _compare(table: pa.Table, output: Folder) -> pa.Table:
    results = [
        _compare_one(row, pixels, output)
        for row, pixels in zip(table.drop_columns([FRAMES]).to_pylist(), table[FRAMES], strict=True)
    ]
    return pa.table({name: [getattr(result, name) for result in results] for name in DrawnAgain.__dataclass_fields__})


def _compare_one(row: Mapping[str, Any], pixels: Any, output: Folder) -> DrawnAgain:
    item = _name(row)
    if row["error_type"] is not None:
        return DrawnAgain(item, "failed", True, f"{row['error_type']}: {row['error']}")
    data = pixels.as_buffer()
    if hashlib.sha256(data).hexdigest() == row["recorded_pixel_sha256"]:
        return DrawnAgain(item, "with the same pixels", False)
    decibels, likeness = _likeness(np.frombuffer(data, np.uint8), row, output)
    changed = differing(
        {"device": row["recorded_device"]} | json.loads(row["recorded_environment"]),
        {"device": row["device"]} | json.loads(row["environment"]),
    )
    if not changed:
        return DrawnAgain(item, "with other pixels, in the same environment", True, likeness)
    is_alike = decibels is not None and decibels >= MIN_PSNR
    verdict = f"{'alike' if is_alike else 'unlike'} by PSNR, as the environment is another ({changed})"
    return DrawnAgain(item, verdict, not is_alike, likeness)


def _likeness(pixels: np.ndarray, row: Mapping[str, Any], output: Folder) -> tuple[float | None, str]:
    """How like pixels are to those of a record's file: in decibels, None if it has none to compare; and in words."""
    path, member = row["recorded_path"], row["recorded_member"]
    try:
        stored = output.read(path) if member is None else read_member(output, path, member)
        if stored is None:
            return None, "its file is gone"
        decibels = _psnr(pixels, decode(stored, row["recorded_format"]))
    except Exception as error:  # whatever a damaged file makes its decoder raise, or a store its client
        return None, f"its file cannot be read: {one_line(error)}"
    return decibels, "its file has another size" if decibels is None else f"PSNR {decibels:.1f} dB"


def _psnr(pixels: np.ndarray, stored: np.ndarray) -> float | None:
    """Peak signal-to-noise ratio in decibels of uint8 values; None where the sizes differ."""
    if pixels.size != stored.size:
        return None
    error = np.mean((pixels.astype(np.float32) - stored.ravel().astype(np.float32)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['id']!r} sample {row['sample_index']}"
