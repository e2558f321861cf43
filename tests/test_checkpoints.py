"""Checkpoints that could run code or read files of others: each is refused in one line, before anything is loaded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from actors.checkpoints import describe
from manifests.errors import UserError


@pytest.fixture
def checkpoint(tmp_path: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that may be changed."""
    monkeypatch.setattr("actors.checkpoints.CACHE", tmp_path / "cache")
    return shutil.copytree(checkpoints / "sana-shapes", tmp_path / "sana")


def change(path: Path, **content: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | content))


def refused(checkpoint: Path) -> str:
    with pytest.raises(UserError) as refusal:
        describe(str(checkpoint), None)
    return str(refusal.value)


@pytest.mark.parametrize("name", ["vae/diffusion_pytorch_model.bin", "text_encoder/deep/x.pt", "x.ckpt", "vae/x.pth"])
def test_pickles_are_refused_where_no_safetensors_are(checkpoint: Path, name: str) -> None:
    for weights in (checkpoint / "vae").glob("*.safetensors"):
        weights.unlink()
    (checkpoint / name).parent.mkdir(exist_ok=True)
    (checkpoint / name).write_bytes(b"")
    assert f"{name} is a pickle, which can run code; convert it to safetensors" in refused(checkpoint)


def test_pickles_beside_safetensors_are_left_alone(checkpoint: Path) -> None:
    (checkpoint / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"")
    assert describe(str(checkpoint), None).pipeline_class == "SanaPipeline"


@pytest.mark.parametrize(
    ("key", "value", "file"),
    [
        ("_class_name", ["my_pipeline", "MyPipeline"], "my_pipeline.py"),
        ("vae", ["my_vae", "MyVAE"], "vae/my_vae.py"),
        ("vae", ["diffusers", "AutoencoderDC"], "vae/diffusers.py"),
        ("scheduler", ["os", "system"], None),
    ],
)
def test_code_of_a_checkpoints_own_is_refused(checkpoint: Path, key: str, value: Any, file: str | None) -> None:
    change(checkpoint / "model_index.json", **{key: value})
    if file:
        (checkpoint / file).write_text("raise SystemExit('it ran')")
    assert f"{key} in its model_index.json is {value}, code of its own, which is never run" in refused(checkpoint)


@pytest.mark.parametrize("shard", ["../../other/model.safetensors", "/etc/model.safetensors", "pytorch_model.bin"])
def test_an_index_may_name_safetensors_beside_it_alone(checkpoint: Path, shard: str) -> None:
    index = checkpoint / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "diffusion_pytorch_model.safetensors"}}))
    describe(str(checkpoint), None)
    index.write_text(json.dumps({"weight_map": {"x": shard}}))
    assert f"names {shard!r}; it may name safetensors beside it alone" in refused(checkpoint)
