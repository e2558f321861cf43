"""What a job will do: the samples to render, and counts by model and shape of all others."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rendermill.jobs.planning.remaining import Outstanding
from rendermill.jobs.planning.sample_states import SampleStates, StoredHashes, find_states
from rendermill.jobs.planning.scan.manifest import scan_manifest
from rendermill.jobs.planning.scan.rejections import Rejections
from rendermill.manifests.reader.manifest import Manifest
from rendermill.manifests.request import Shape
from rendermill.manifests.rows import RowValidator


@dataclass(frozen=True)
class ShapeCount:
    """The numbers of samples of one model and shape.

    Attributes:
        num_to_do: to be rendered.
        num_changed: those of `num_to_do` whose item has a record of another request.
        num_finished: that have a record already.
        num_failed: that failed in an earlier run and are left as they are.
    """

    model: str
    shape: Shape
    num_to_do: int
    num_changed: int
    num_finished: int
    num_failed: int


@dataclass(frozen=True)
class InputCounts:
    """The images and videos that some samples are rendered from.

    Attributes:
        num: of all samples.
        num_distinct: with different URLs or content.
        num_inline_bytes: the size of those that the manifest itself holds, each as often as a sample has it.
    """

    num: int = 0
    num_distinct: int = 0
    num_inline_bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """The plan of a run: the samples to render, and counts of all others.

    Attributes:
        outstanding: the samples to render.
        models: the names of the job's models.
        shapes: counts by model and shape.
        num_duplicates: rows that repeat an earlier row.
        num_rejected: rows that cannot be rendered, and files that cannot be read.
        num_not_in_manifest: samples that have a record, and that no valid row asks for any more; 0 if a limit ended
            the scan before the manifest's end.
        inputs: the images and videos of the samples to render.
    """

    outstanding: Outstanding
    models: list[str]
    shapes: list[ShapeCount]
    num_duplicates: int
    num_rejected: int
    num_not_in_manifest: int
    inputs: InputCounts

    @cached_property
    def num_to_do(self) -> Mapping[str, int]:
        """The number of samples to render, by model."""
        return self._sums("num_to_do")

    @property
    def models_to_render(self) -> list[str]:
        """The names of the models that have something to render."""
        return [model for model, count in self.num_to_do.items() if count]

    @cached_property
    def num_finished(self) -> Mapping[str, int]:
        """The number of samples that have a record already, by model."""
        return self._sums("num_finished")

    @cached_property
    def num_failed(self) -> int:
        """The number of samples that failed in an earlier run and are left as they are."""
        return sum(self._sums("num_failed").values())

    def _sums(self, name: str) -> Mapping[str, int]:
        sums = Counter(dict.fromkeys(self.models, 0))
        for count in self.shapes:
            sums[count.model] += getattr(count, name)
        return dict(sums)


def make_plan(
    manifest: Manifest,
    validator: RowValidator,
    stored: StoredHashes,
    rejections: Rejections,
    limit: int | None,
    retry_failures: bool,
) -> Plan:
    """Scan a manifest, and decide what each model is to render.

    Args:
        stored: what the output holds already.
        rejections: takes the rows that cannot be rendered.
        limit: only the manifest's first N valid samples count, and later rows are not read; None: all count.
        retry_failures: render again what failed before.
    """
    models = list(validator.models)
    scanned = scan_manifest(manifest, validator, rejections, limit)
    states = find_states(scanned, stored, limit, retry_failures)
    return Plan(
        outstanding=Outstanding(_to_do(scanned.samples, states.is_to_do, models), manifest.row_groups),
        models=models,
        shapes=_count_shapes(scanned.samples, states, models),
        num_duplicates=scanned.duplicates.num_repeated_rows(scanned.samples),
        num_rejected=rejections.num_rows,
        num_not_in_manifest=states.num_not_in_manifest,
        inputs=_count_inputs(scanned.samples, states.is_to_do),
    )


def _count_inputs(samples: pa.Table, is_to_do: np.ndarray) -> InputCounts:
    samples = samples.select(["inputs", "inline_bytes"])
    if samples["inputs"].null_count == samples.num_rows:
        return InputCounts()
    samples = samples.filter(pa.array(is_to_do))
    hashes = samples["inputs"].drop_null()
    flat = pc.list_flatten(hashes)
    num_bytes = pc.sum(samples["inline_bytes"]).as_py() or 0
    return InputCounts(len(flat), len(flat.unique()), num_bytes)


def _count_shapes(samples: pa.Table, states: SampleStates, models: list[str]) -> list[ShapeCount]:
    counted = {
        "num_to_do": states.is_to_do,
        "num_changed": states.is_changed,
        "num_finished": states.is_finished,
        "num_failed": states.is_failed,
    }
    columns = {name: pa.array(is_counted.astype(np.int64)) for name, is_counted in counted.items()}
    table = pa.table({"model": samples["model"], "shape": samples["shape"], **columns}).unify_dictionaries()
    sums = table.group_by(["model", "shape"]).aggregate([(name, "sum") for name in counted])
    counts = [
        ShapeCount(models[row["model"]], Shape.parse(row["shape"]), *(row[f"{name}_sum"] for name in counted))
        for row in sums.to_pylist()
    ]
    return sorted(counts, key=lambda count: (models.index(count.model), count.shape))


def _to_do(samples: pa.Table, is_to_do: np.ndarray, models: list[str]) -> pa.Table:
    """Return the samples to render with the columns that `Outstanding` takes: models by name, and no keys."""
    chosen = samples.filter(pa.array(is_to_do))
    names = pa.DictionaryArray.from_arrays(chosen["model"].combine_chunks(), pa.array(models, pa.string()))
    return chosen.drop_columns(["key", "inputs", "inline_bytes"]).set_column(
        samples.schema.get_field_index("model"), "model", names
    )
