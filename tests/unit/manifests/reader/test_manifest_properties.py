"""Any manifest row is valid or rejected with a reason, and any id has a file of its own inside the output."""

import math
import posixpath
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rendermill.manifests.errors import RowProblem
from rendermill.manifests.identity import RequestHasher, blake2b_128, request_hash
from rendermill.manifests.output import layout
from rendermill.manifests.output.rejected import row_as_json
from rendermill.manifests.request import OPTIONAL_FIELDS
from rendermill.manifests.rows import RowValidator
from rendermill.manifests.schema import MANIFEST_COLUMNS, ModelContract
from rendermill.models.capabilities import Capabilities

ARGUMENTS = frozenset({"negative_prompt", "guidance_scale_2"})
CAPABILITIES = Capabilities(kind="video", size_multiple=16, frame_multiple=4, arguments=ARGUMENTS)
DEFAULTS = {"width": 64, "height": 64, "num_frames": 5, "fps": 16.0, "num_inference_steps": 2, "guidance_scale": 5.0}
VALIDATOR = RowValidator({"wan": ModelContract(DEFAULTS, CAPABILITIES.problem, "settings")}, "wan", job_seed=7)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, 5, 16, 64, 2**31, 2**63 - 1, -1]),
    st.floats(),
    st.text(),
    st.binary(),
    st.datetimes(),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.text(max_size=3), SCALARS, max_size=3))
NAMES = st.one_of(st.sampled_from([column.name for column in MANIFEST_COLUMNS]), st.text(min_size=1, max_size=5))
SHARED_NAMES = st.sampled_from(["model", *OPTIONAL_FIELDS])
ROWS = st.dictionaries(NAMES, VALUES, max_size=10)
LIKELY_ROWS = st.builds(lambda row, prompt: row | {"prompt": prompt}, ROWS, st.text(min_size=1))
IDS = st.text(max_size=300)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(ROWS, LIKELY_ROWS))
def test_a_row_is_valid_or_rejected_with_a_reason(row: dict[str, Any]) -> None:
    if isinstance(row.get("num_samples"), int | float) and not row["num_samples"] <= 8:
        row["num_samples"] = 8
    try:
        item = VALIDATOR.item(row)
    except RowProblem as problem:
        assert str(problem)
        assert row_as_json(row)
        return
    fields = item.settled.fields
    assert item.prompt.strip()
    assert CAPABILITIES.problem(fields) is None
    assert math.isfinite(fields["guidance_scale"])
    assert item.samples
    assert all(0 <= sample.seed < 2**63 for sample in item.samples)
    assert len({sample.request_hash for sample in item.samples}) == len(item.samples)
    assert VALIDATOR.item(dict(reversed(row.items()))) == item, "the order of columns should not matter"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.dictionaries(SHARED_NAMES, SCALARS), IDS, st.text(), st.integers(0, 9), st.integers(0, 2**63 - 1))
def test_requests_hash_alike_one_by_one_and_many_at_once(
    shared: dict[str, Any], item_id: str, prompt: str, sample_index: int, seed: int
) -> None:
    own = {"id": item_id, "prompt": prompt, "sample_index": sample_index, "seed": seed}
    assert RequestHasher(shared, "00")(item_id, prompt, sample_index, seed) == request_hash(shared | own, "00")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(IDS, st.integers(0, 3)), min_size=1, max_size=5, unique=True))
def test_every_sample_has_a_file_of_its_own_inside_the_output(samples: list[tuple[str, int]]) -> None:
    paths = [layout.media_path("wan", *sample, blake2b_128(list(sample)).hex(), "f", "mp4") for sample in samples]
    assert len({path.lower() for path in paths}) == len(samples)
    for path in paths:
        assert posixpath.normpath(path) == path
        assert path.startswith("media/wan/")
        assert path.isprintable()
        assert len(path.rpartition("/")[2].encode()) < 255
