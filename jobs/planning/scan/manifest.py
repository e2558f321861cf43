"""Scan a manifest once, as far as a limit asks for."""

from dataclasses import dataclass

import pyarrow as pa

from rendermill.jobs.planning.scan.duplicates import Duplicates, find_duplicates, rejected_conflicts
from rendermill.jobs.planning.scan.rejections import Rejections, rejected_file
from rendermill.jobs.planning.scan.rows import SAMPLE_SCHEMA, scan_row_groups
from rendermill.manifests.reader.manifest import Manifest
from rendermill.manifests.rows import RowValidator


@dataclass(frozen=True)
class ScannedManifest:
    """The samples of a manifest's readable rows.

    Attributes:
        samples: of `scan.rows.SAMPLE_SCHEMA`, in the manifest's order.
        duplicates: what shared ids mean for each sample.
        is_complete: whether all rows were read; if not, a limit was reached before.
    """

    samples: pa.Table
    duplicates: Duplicates
    is_complete: bool


def scan_manifest(
    manifest: Manifest, validator: RowValidator, rejections: Rejections, limit: int | None
) -> ScannedManifest:
    """Read rows, in tasks if there are many, until there are enough valid samples.

    Args:
        rejections: takes the rows that cannot be rendered, in the manifest's order, rows with conflicts last.
        limit: the number of valid samples that are enough; None: all are read.
    """
    for file, reason in manifest.unreadable.items():
        rejections.add(rejected_file(file, reason))
    scanned = _scan_until(manifest, validator, rejections, limit)
    conflicts = scanned.samples.filter(pa.array(scanned.duplicates.is_conflict))
    for rows in rejected_conflicts(manifest, conflicts):
        rejections.add(rows)
    rejections.finish()
    return scanned


def _scan_until(
    manifest: Manifest, validator: RowValidator, rejections: Rejections, limit: int | None
) -> ScannedManifest:
    tables, num_samples, next_check = [SAMPLE_SCHEMA.empty_table()], 0, limit or 0
    for samples_of_part, rejected in scan_row_groups(manifest, validator, limit):
        tables.append(samples_of_part)
        rejections.add(rejected)
        num_samples += samples_of_part.num_rows
        if limit is not None and num_samples >= next_check:
            samples = pa.concat_tables(tables)
            duplicates = find_duplicates(manifest, samples)
            if int(duplicates.is_valid.sum()) >= limit:
                return ScannedManifest(samples, duplicates, is_complete=False)
            next_check = 2 * num_samples  # so that all checks together take no more than twice the time of the last
    samples = pa.concat_tables(tables)
    return ScannedManifest(samples, find_duplicates(manifest, samples), is_complete=True)
