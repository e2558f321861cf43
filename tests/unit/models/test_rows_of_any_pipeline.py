"""From rows and a job file to the arguments of pipelines that rendermill has no code for."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rendermill.jobs.config.job import Job
from rendermill.jobs.config.job_file import parse_job
from rendermill.jobs.planning.models import ResolvedModel, make_validator, resolve_model
from rendermill.jobs.planning.prepare import check_columns
from rendermill.manifests.errors import RowProblem, UserError
from rendermill.manifests.inputs import InputValue
from rendermill.manifests.reader.manifest import open_manifest
from rendermill.manifests.request import Request
from rendermill.manifests.rows import RowValidator
from tests.pipelines import equality, images
from tests.pipelines.equality import Case

BUILDERS = {"flux": images.flux, "inpaint": images.sdxl_inpaint}
SIZES = {"width": 64, "height": 32, "num_inference_steps": 2}
PICTURE = InputValue("picture.png", "picture.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    for name, build in BUILDERS.items():
        equality.save(Case(build, {}, {}), folder / name)
    return folder


def resolved(folder: Path, columns: dict[str, str | None], **changes: Any) -> tuple[Job, dict[str, ResolvedModel]]:
    models = {name: {"checkpoint": str(folder / name), "dtype": "float32", "defaults": SIZES} for name in BUILDERS}
    models["flux"]["defaults"] = SIZES | {"max_sequence_length": 48}
    models["flux"] |= changes
    job = parse_job({"manifest": "m", "output": "o", "models": models, "columns": columns}, "job.yaml")
    return job, {name: resolve_model(job, name, on_gpu=False) for name in job.models}


def validator(folder: Path, **changes: Any) -> RowValidator:
    return make_validator(*resolved(folder, {}, **changes))


def test_arguments_of_rows_and_of_the_job_file_reach_the_pipeline(folder: Path) -> None:
    item = validator(folder).item({"prompt": "a cat", "model": "flux", "true_cfg_scale": 2, "negative_prompt": "x"})
    request = Request(id=item.id, prompt=item.prompt, **item.settled.fields, **item.samples[0]._asdict())
    case = Case(images.flux, {}, {"max_sequence_length": 48, "true_cfg_scale": 2.0})
    checkpoint = equality.describe(str(folder / "flux"), None)
    rendered = equality.render(equality.engine_for(checkpoint, Case(images.flux, {}, {})), request, {})
    np.testing.assert_array_equal(rendered.frames, equality.stock(folder / "flux", case, request, {}))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"model": "inpaint"}, "image: missing; this model needs a URL, a path or the bytes of one in every row"),
        ({"model": "inpaint", "image": PICTURE}, "mask_image: missing"),
        ({"model": "flux", "true_cfg_scale": "x"}, "true_cfg_scale: expected a number, got 'x' (str)"),
        ({"model": "flux", "strength": 0.5}, "strength: this model takes none; leave it empty"),
        ({"model": "flux", "image": PICTURE}, "image: this model takes none; leave it empty"),
        (
            {"model": "flux", "guidance_scale_2": 2.0},
            "guidance_scale_2: this model has no second expert; leave it empty",
        ),
        ({"model": "flux", "width": 63}, "width: 63 is not a multiple of 4; 60 or 64 would be"),
        ({"model": "flux", "fps": 16.0}, "num_frames, fps: this model renders images; leave them empty"),
    ],
)
def test_a_row_that_the_pipeline_cannot_render_is_rejected(folder: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(RowProblem) as rejection:
        validator(folder).item({"prompt": "a cat", **row})
    assert words in str(rejection.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"defaults": {"true_cfg_scal": 2.0}},
            "models.flux.defaults.true_cfg_scal: unknown key; did you mean 'true_cfg_scale'?",
        ),
        (
            {"pipeline_arguments": {"max_sequence_length": 48}},
            "models.flux.pipeline_arguments.max_sequence_length: this model takes arguments as columns and `defaults`; "
            "write it there",
        ),
        ({"speedups": {"cache_interval": 2}}, "models.flux.speedups.cache_interval: this pipeline has no such speedup"),
    ],
)
def test_a_job_file_that_does_not_suit_the_pipeline_is_refused(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as refusal:
        validator(folder, **changes)
    assert words in str(refusal.value)


def test_a_column_that_is_named_like_what_a_table_cannot_give_is_refused_unless_it_is_kept(
    folder: Path, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"prompt": ["a cat"], "latents": [0.5]}), tmp_path / "m.parquet")
    manifest = open_manifest(str(tmp_path / "m.parquet"))
    job, models = resolved(folder, {})
    with pytest.raises(UserError) as refusal:
        check_columns(job, manifest, models)
    assert str(refusal.value) == (
        "manifest: column latents: no argument of flux (FluxPipeline), as it takes tensors, which a table cannot give; "
        "to have it in the records only, write `columns: {latents: null}`"
    )
    check_columns(resolved(folder, {"latents": None})[0], manifest, models)
