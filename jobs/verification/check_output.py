"""Check all media of an output against its records, and choose a random sample of records meanwhile."""

import hashlib
import heapq
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from rendermill.jobs.verification.repair import Broken
from rendermill.jobs.verification.report import Problems, Report
from rendermill.jobs.verification.stored_media import Checked, Finding, check_media
from rendermill.manifests.arrow.hash_set import HashSet
from rendermill.manifests.output.layout import MEDIA
from rendermill.manifests.output.records import read_records, read_stale_media
from rendermill.manifests.storage.folder import Folder

_Advance = Callable[[str, int, int], None]


class RecordSample:
    """Up to N records, chosen so that each record has the same chance, whatever the number of records.

    Attributes:
        num_samples: N.
    """

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples
        self._chosen: list[tuple[float, int, dict[str, Any]]] = []
        self._num_seen = 0

    def offer(self, record: dict[str, Any]) -> None:
        """Choose the record, or do not."""
        self._num_seen += 1
        entry = (random.random(), self._num_seen, record)
        if len(self._chosen) < self.num_samples:
            heapq.heappush(self._chosen, entry)
        elif self.num_samples:
            heapq.heappushpop(self._chosen, entry)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The chosen records."""
        return [record for _, _, record in self._chosen]


class OutputCheck:
    """Reads every file of an output once.

    Args:
        model: Only this model's; None: all.

    Attributes:
        num_files: The number of media files.
        report: What was found.
        broken: The damage that can be repaired.
    """

    def __init__(self, output: Folder, model: str | None) -> None:
        self._output, self._model = output, model
        self._files = set(output.all_names(f"{MEDIA}/{model}" if model else MEDIA))
        self._stale = read_stale_media(output)
        self._hashes_of_known: list[bytes] = []  # of paths, which take far more memory than 16 bytes each
        self.num_files = len(self._files)
        self.report, self.broken = Report(), Broken()

    def run(self, sample: RecordSample, advance: _Advance) -> None:
        """Check all files.

        Args:
            sample: Is offered all records.
            advance: Is called with "files" and the numbers of good and of bad files.
        """
        for checked in check_media(self._output, self._records(sample)):
            self._hashes_of_known.append(_path_hash(checked.path))
            self._note(checked)
            if checked.path in self._files:
                is_bad = any(finding.problem for finding in checked.findings)
                advance("files", int(not is_bad), int(is_bad))
        self._find_files_without_record()
        self.report.is_repairable = bool(self.broken.items or self.broken.written_here)

    def _records(self, sample: RecordSample) -> Iterator[pa.Table]:
        for table in read_records(self._output, self._model):
            for record in table.to_pylist():
                sample.offer(record)
            yield table

    def _note(self, checked: Checked) -> None:
        for finding in checked.findings:
            self._note_finding(finding)
        if checked.without_record:
            self.broken.nameless.append(checked.path)
            for name in checked.without_record:
                self.report.without_record.add(name)

    def _note_finding(self, finding: Finding) -> None:
        self.report.num_records += 1
        self.report.num_bytes += finding.num_bytes
        if finding.problem:
            problems: Problems = getattr(self.report, finding.problem)
            problems.add(f"{finding.name}: {finding.details}" if finding.details else finding.name)
        if finding.problem in ("missing", "damaged"):
            self.broken.items.append(finding.item)

    def _find_files_without_record(self) -> None:
        names = sorted(self._files)
        known = HashSet(np.array(self._hashes_of_known, "S16"))
        is_known = known.contains(np.array([_path_hash(name) for name in names], "S16"))
        for name in (name for name, known in zip(names, is_known, strict=True) if not known):
            if name in self._stale:
                self.report.num_waiting += 1
            else:
                self.broken.nameless.append(name)
                self.report.without_record.add(name)


def _path_hash(path: str) -> bytes:
    return hashlib.blake2b(path.encode(), digest_size=16).digest()
