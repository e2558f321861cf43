"""Users' mistakes, through the command line: exit status 2, one line that names what is wrong, nothing written.

Those that reading the job file finds are in `test_job_file.py`.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.support.commands import Rendermill
from tests.support.odd_checkpoints import TEXT, without

Prepare = Callable[[Rendermill], dict[str, Any]]


def overrides(*given: str) -> Prepare:
    return lambda _: {"overrides": given}


def manifest_text(rendermill: Rendermill) -> dict[str, Any]:
    (rendermill.folder / "prompts.parquet").write_text("not a table")
    return {}


def manifest_table(table: pa.Table) -> Prepare:
    def prepare(rendermill: Rendermill) -> dict[str, Any]:
        rendermill.manifest(table)
        return {}

    return prepare


def manifests_that_disagree(rendermill: Rendermill) -> dict[str, Any]:
    rendermill.manifest(pa.table({"prompt": ["a"], "score": [1]}), "parts/a.parquet")
    rendermill.manifest(pa.table({"prompt": ["b"], "score": ["high"]}), "parts/b.parquet")
    return {"overrides": (f"manifest={rendermill.folder}/parts",)}


def pickled_checkpoint(rendermill: Rendermill) -> dict[str, Any]:
    folder = rendermill.folder / "pickled"
    (folder / "vae").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "SanaPipeline", "vae": ["diffusers", "AutoencoderDC"]}')
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"")
    return {"overrides": (f"models.sana.checkpoint={folder}",)}


def unknown_pipeline(rendermill: Rendermill) -> dict[str, Any]:
    folder = rendermill.folder / "flux"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipelin"}')
    return {"overrides": (f"models.sana.checkpoint={folder}",)}


MISTAKES: dict[str, tuple[Prepare, str]] = {
    "unknown key": (overrides("sead=3"), "sead: unknown key; did you mean 'seed'?"),
    "missing checkpoint": (overrides("models.sana.checkpoint=/nowhere/sana"), "models.sana.checkpoint /nowhere/sana"),
    "checkpoint not on the Hub": (
        overrides("models.sana.checkpoint=nobody/no-such-model"),
        "models.sana.checkpoint nobody/no-such-model: no such folder, and the Hub has no such model",
    ),
    "pickled checkpoint": (pickled_checkpoint, "vae/diffusion_pytorch_model.bin is a pickle"),
    "unknown pipeline": (unknown_pipeline, "has no pipeline FluxPipelin; did you mean FluxPipeline?"),
    "revision of a folder": (overrides("models.sana.revision=main"), "only a checkpoint on the Hub has a revision"),
    "unknown pipeline argument": (
        overrides("models.sana.pipeline_arguments.max_sequence_len=3"),
        "models.sana.pipeline_arguments.max_sequence_len: unknown key; did you mean 'max_sequence_length'?",
    ),
    "unrenderable defaults": (
        overrides("models.sana.defaults.width=50"),
        "models.sana.defaults.width: 50 is",
    ),
    "video format for images": (overrides("models.sana.format=mp4"), "models.sana.format: this model renders images"),
    "quality of a png": (overrides("models.sana.quality=90"), "command line: models.sana.quality: png has none"),
    "lossless video": (
        overrides("models.sana.checkpoint=checkpoints/wan-shapes", "models.sana.quality=0"),
        "command line: models.sana.quality: 0 is outside 1 … 51, the range of mp4",
    ),
    "default size beyond its format": (
        overrides("models.sana.format=webp", "models.sana.defaults.width=16384"),
        "models.sana.defaults.width: 16384 is over 16383, the most that webp holds; png has no such limit",
    ),
    "offload without a GPU": (overrides("models.sana.offload=model"), "models.sana.offload: 'model' needs a GPU"),
    "missing manifest": (overrides("manifest=/nowhere/x.parquet"), "manifest /nowhere/x.parquet: no such file"),
    "glob without a match": (overrides("manifest=/nowhere/*.parquet"), "manifest /nowhere/*.parquet: no such file"),
    "unknown URL scheme": (overrides("manifest=s4://bucket/x"), "s4://bucket/x: Protocol not known: s4"),
    "unknown URL scheme of the output": (overrides("output=s4://bucket/x"), "s4://bucket/x: Protocol not known: s4"),
    "manifest is no Parquet": (manifest_text, "prompts.parquet: not a readable Parquet file"),
    "manifest without prompt": (manifest_table(pa.table({"text": ["x"]})), "no column `prompt`"),
    "empty manifest": (manifest_table(pa.table({"prompt": pa.array([], pa.string())})), "it has no rows"),
    "extra column named as a record's": (
        manifest_table(pa.table({"prompt": ["x"], "sha256": ["y"]})),
        "column `sha256` is the name of a record's own column",
    ),
    "manifest files that disagree": (manifests_that_disagree, "column `score` is string, but int64 in another file"),
    "unwritable output": (overrides("output=/proc/nowhere"), "output /proc/nowhere: cannot be written"),
    "more GPUs than there are": (overrides("models.sana.pool.num_gpus=2"), "2 GPUs, and the cluster has 0"),
    "more CPUs than there are": (overrides("models.sana.pool.num_cpus=99"), "99 CPUs, and the cluster has 4"),
    "actors that leave no CPU": (overrides("models.sana.pool.num_cpus=4"), "reading and storing need 0.25"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_and_status_2(rendermill: Rendermill, mistake: str) -> None:
    prepare, message = MISTAKES[mistake]
    rendermill.model("sana", "sana-shapes")
    rendermill.manifest([{"prompt": "a cat"}])
    finished = rendermill.generate(*prepare(rendermill).get("overrides", ()))
    assert finished.status == 2, finished
    assert message in finished.error
    assert finished.error.count("\n") == 1, finished.error
    assert finished.out == ""
    assert not rendermill.output.exists()


def test_extra_columns_keep_the_types_of_the_first_run(rendermill: Rendermill) -> None:
    rendermill.model("sana", "sana-shapes")
    rendermill.manifest(pa.table({"prompt": [""], "score": [1]}))
    assert rendermill.generate().status == 3, "one rejected row, nothing to render"
    rendermill.manifest(pa.table({"prompt": [""], "score": ["high"]}))
    finished = rendermill.generate()
    assert finished.status == 2
    assert "column `score` is string, but int64 in the first run" in finished.error


def test_retry_of_what_is_no_output(rendermill: Rendermill) -> None:
    finished = rendermill.run("retry", rendermill.folder)
    assert finished.status == 2
    assert "is no output of rendermill" in finished.error


def test_a_cluster_that_is_not_there(rendermill: Rendermill) -> None:
    rendermill.model("sana", "sana-shapes")
    rendermill.manifest([{"prompt": "a cat"}])
    finished = rendermill.run("generate", rendermill.write_job(), RAY_AUTH_TOKEN="0" * 64)
    assert finished.status == 2, finished
    assert finished.error.count("\n") == 1
    assert "RAY_AUTH_TOKEN" in finished.error


def test_a_plan_names_the_tensor_that_is_missing(rendermill: Rendermill, checkpoints: Path, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(checkpoints / "sana-shapes", tmp_path / "a b" / "[é] #1%20?" / "sana")
    without(TEXT, "norm.weight")(checkpoint)
    rendermill.model("sana", "sana-shapes")
    rendermill.manifest([{"prompt": "a cat"}])
    finished = rendermill.generate(f"models.sana.checkpoint='{checkpoint}'")
    assert (finished.status, finished.out, finished.error.count("\n")) == (2, "", 1), finished
    assert f"models.sana.checkpoint {checkpoint}: text_encoder: its weights lack tensor norm.weight" in finished.error
