"""Files of checkpoints that change, are damaged, or could run code."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rendermill.actors.checkpoints.checkpoint import CheckpointChanged, describe, fetched
from tests.slow.checkpoints.cases import nothing
from tests.slow.checkpoints.planned import refused
from tests.support import odd_checkpoints as odd
from tests.support.odd_checkpoints import TEXT, UNET, change, removed, sharded, text


def test_a_local_checkpoint_that_changes_is_not_loaded(checkpoint: Path) -> None:
    found, file = describe(str(checkpoint), None), checkpoint / "vae" / UNET
    before = file.read_bytes()
    file.write_bytes(before[:-2] + b"\0\0")
    with pytest.raises(CheckpointChanged, match=f"vae/{UNET} changed since the run was planned"), fetched(found, 0.0):
        pass
    file.write_bytes(before)
    with pytest.raises(CheckpointChanged), fetched(found, 0.0) as folder:
        (folder / "scheduler" / "scheduler_config.json").write_text("{}")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, dict[str, Callable[[], None]]]]:
    """An HTTP server of this folder, and by path what happens when it is asked for that file's content."""
    happens: dict[str, Callable[[], None]] = {}

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if "Range" not in self.headers:
                happens.pop(Path(self.path).name, lambda: None)()
            super().do_GET()

        def log_message(self, *arguments: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", happens
    server.shutdown()


def test_a_stored_checkpoint_that_changes_leaves_nothing_in_the_cache(
    tmp_path: Path, checkpoints: Path, cache: Path, served: tuple[str, dict[str, Callable[[], None]]]
) -> None:
    url, happens = served
    folder = shutil.copytree(checkpoints / "sana-shapes", tmp_path / "sana")
    (folder / "README.md").unlink()

    def replace_weights() -> None:
        weights = (folder / "vae" / UNET).read_bytes()
        (folder / "vae" / UNET).write_bytes(weights + b"\0")

    for moment in ("before", "meanwhile"):
        found = describe(f"{url}/sana", None)
        if moment == "before":
            replace_weights()
        else:
            happens["model.safetensors"] = replace_weights
        with pytest.raises(CheckpointChanged, match=f"vae/{UNET} changed"), fetched(found, 0.0):
            pass
        assert [path for path in (cache / "checkpoints").iterdir() if path.suffix != ".lock"] == []
        shutil.copy(checkpoints / "sana-shapes" / "vae" / UNET, folder / "vae" / UNET)


def test_a_cached_checkpoint_that_is_damaged_is_fetched_again(
    tmp_path: Path, checkpoints: Path, cache: Path, served: tuple[str, dict[str, Callable[[], None]]]
) -> None:
    shutil.copytree(checkpoints / "sana-shapes", tmp_path / "sana")
    found = describe(f"{served[0]}/sana", None)
    for damage in (removed(f"vae/{UNET}"), odd.cut(TEXT, 1000), text("vae/config.json", "{}"), nothing):
        with fetched(found, 0.0) as folder:
            assert (folder / "vae" / UNET).read_bytes() == (tmp_path / "sana" / "vae" / UNET).read_bytes()
            assert describe(str(folder), None).configs == found.configs
        damage(folder)


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
    sharded("transformer")(checkpoint)
    describe(str(checkpoint), None)
    index = checkpoint / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": shard}}))
    assert f"names {shard!r}; it may name safetensors beside it alone" in refused(checkpoint)
