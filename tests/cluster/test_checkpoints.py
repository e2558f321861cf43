"""Checkpoints that are odd: each renders as the one that it is derived from, or is refused in one line by planning."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import odd_checkpoints as odd
import pytest

from rendermill.actors.checkpoints.checkpoint import CheckpointChanged, describe, fetched
from rendermill.jobs.config.job_file import parse_job
from rendermill.jobs.planning.loadable import inspect, parts_of
from rendermill.jobs.planning.models import ResolvedModel, resolve_model
from rendermill.manifests.errors import UserError
from rendermill.models import registry
from rendermill.models.inspection.weights import WrongWeights
from tests.support.commands import Rendermill
from tests.support.odd_checkpoints import TEXT, UNET, change, in_turn, keys, removed, renamed, sharded, text, without
from tests.support.requests import request_for
from tests.unit.models.test_models import render

NO_EXPERT_2 = in_turn(removed("transformer_2"), keys("model_index.json", transformer_2=[None, None]))
FLOW_MATCHING = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}


def nothing(folder: Path) -> None:
    """A checkpoint as it is."""


def with_scheduler(**config: Any) -> odd.Change:
    return in_turn(
        text("scheduler/scheduler_config.json", json.dumps(config)),
        keys("model_index.json", scheduler=["diffusers", config["_class_name"]]),
    )


RENDERED: dict[str, tuple[str, odd.Change, dict[str, Any]]] = {
    "as it is": ("sana", nothing, {}),
    "shards": ("sana", in_turn(sharded("transformer"), sharded("text_encoder", "model")), {}),
    "only fp16": ("sana", odd.as_variant("fp16"), {"variant": "fp16"}),
    "fp16 beside plain": ("sana", odd.as_variant("fp16", is_copied=True), {}),
    "one component in fp16": (
        "sana",
        lambda folder: (folder / "vae" / UNET).rename(folder / "vae" / "diffusion_pytorch_model.fp16.safetensors"),
        {"variant": "fp16"},
    ),
    "shards in fp16": ("sana", sharded("transformer", variant=".fp16"), {"variant": "fp16"}),
    "no metadata": ("sana", renamed(f"vae/{UNET}", str), {}),
    "names of another head": ("sana", renamed(TEXT, "model.{}".format), {}),
    "a linked folder": ("sana", odd.linked("text_encoder"), {}),
    "a linked file": ("sana", odd.linked(f"vae/{UNET}"), {}),
    "a link that leads back": ("sana", lambda folder: (folder / "again").symlink_to(folder), {}),
    "a snapshot of the Hub": ("sana", odd.as_snapshot, {}),
    "unknown keys": ("sana", in_turn(keys("vae/config.json", x=1), keys("transformer/config.json", y=2)), {}),
    "no key that has a default": ("sana", keys("transformer/config.json", norm_eps=1e-6), {}),
    "what training leaves": (
        "sana",
        in_turn(text("training_args.bin", "x"), text("random_states_0.pkl", "x"), text("vae/optimizer.bin", "x")),
        {},
    ),
    "weights of a LoRA beside": ("sana", lambda folder: shutil.copy(folder / TEXT, folder / "lora.safetensors"), {}),
    "empty parts": ("sana", keys("model_index.json", safety_checker=[None, None], feature_extractor=None, on=True), {}),
    "one name of a tied tensor": (
        "wan",
        in_turn(keys("text_encoder/config.json", tie_word_embeddings=False), renamed(TEXT, str)),
        {},
    ),
    "the other name of a tied tensor": (
        "wan",
        in_turn(
            keys("text_encoder/config.json", tie_word_embeddings=False),
            renamed(TEXT, lambda name: name.replace("shared.weight", "encoder.embed_tokens.weight")),
        ),
        {},
    ),
    "one expert of none": ("wan", in_turn(NO_EXPERT_2, keys("model_index.json", boundary_ratio=None)), {}),
}
"""What renders as the original, and how the model's config says so."""

REFUSED: dict[str, tuple[str, odd.Change, str]] = {
    "only fp16": ("sana", odd.as_variant("fp16"), "it has no text_encoder/model.safetensors, but weights of the var"),
    "no shard": (
        "sana",
        in_turn(sharded("transformer"), removed("transformer/diffusion_pytorch_model-00002-of-00003.safetensors")),
        "it has no transformer/diffusion_pytorch_model-00002-of-00003.safetensors, and transformer/diffusion_pyt",
    ),
    "index of another checkpoint": (
        "sana",
        in_turn(
            sharded("transformer"),
            without("transformer/diffusion_pytorch_model-00001-of-00003.safetensors", "proj_out.bias"),
            without("transformer/diffusion_pytorch_model-00002-of-00003.safetensors", "proj_out.bias"),
            without("transformer/diffusion_pytorch_model-00003-of-00003.safetensors", "proj_out.bias"),
        ),
        "has no tensor proj_out.bias, and transformer/diffusion_pytorch_model.safetensors.index.json names it",
    ),
    "no second expert": ("wan", NO_EXPERT_2, "model_index.json: with boundary_ratio 0.55 it needs transformer_2"),
    "no folder of an expert": ("wan", removed("transformer_2"), "it has no transformer_2/config.json, and its model_"),
    "no first expert": (
        "wan",
        keys("model_index.json", transformer=[None, None]),
        "it needs transformer, and has none",
    ),
    "ratio in words": (
        "wan",
        keys("model_index.json", boundary_ratio="half"),
        "boundary_ratio should be a number from",
    ),
    "pointer of weights": ("sana", text(f"transformer/{UNET}", odd.POINTER), f"transformer/{UNET} is a pointer of Git"),
    "pointer of a config": ("sana", text("vae/config.json", odd.POINTER), "vae/config.json is a pointer of Git LFS"),
    "pointer of a tokenizer": ("sana", text("tokenizer/tokenizer.json", odd.POINTER), "tokenizer.json is a pointer of"),
    "empty config": ("sana", text("vae/config.json", ""), "vae/config.json is empty"),
    "empty index": ("sana", text("model_index.json", " \n"), "model_index.json is empty"),
    "no JSON": ("sana", text("vae/config.json", "{"), "vae/config.json is no JSON"),
    "a list": ("sana", text("vae/config.json", "[]"), "vae/config.json should hold keys and values, and holds a list"),
    "an index that is a list": ("sana", text("model_index.json", "[]"), "model_index.json should hold keys and values"),
    "byte order mark": (
        "sana",
        text("model_index.json", b"\xef\xbb\xbf{}"),
        "model_index.json begins with a byte order",
    ),
    "cut weights": (
        "sana",
        odd.cut(f"transformer/{UNET}", 10**6),
        f"transformer/{UNET} has 1000000 bytes, and its head",
    ),
    "cut header": ("sana", odd.cut(f"transformer/{UNET}", 100), f"transformer/{UNET} ends within its header"),
    "empty weights": ("sana", text(f"vae/{UNET}", ""), f"vae/{UNET} is empty"),
    "no weights": ("sana", removed(f"vae/{UNET}"), f"it has no vae/{UNET}, and its model_index.json names vae"),
    "weights of HTML": ("sana", text(f"vae/{UNET}", "<html>" * 99), f"vae/{UNET} is no safetensors file"),
    "no tokenizer": ("sana", removed("tokenizer"), "it has no tokenizer/tokenizer.json"),
    "no scheduler": ("sana", removed("scheduler"), "it has no scheduler/scheduler_config.json"),
    "no VAE at all": ("sana", keys("model_index.json", vae=[None, None]), "its model_index.json names no vae, which"),
    "dangling link": ("sana", in_turn(odd.as_snapshot, removed("../blobs/" + f"{5:040x}")), "which is not there"),
    "quantized": (
        "sana",
        keys("transformer/config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "transformer/config.json: its weights are quantized with bitsandbytes, which needs the package bitsandbytes",
    ),
    "patch of a number": ("wan", keys("transformer/config.json", patch_size=2), "patch_size should be three whole num"),
    "steps in words": (
        "sana",
        keys("scheduler/scheduler_config.json", num_train_timesteps="x"),
        "should be a positive",
    ),
    "another scheduler": ("sana-sprint", with_scheduler(**FLOW_MATCHING), "SanaSprintPipeline needs a SCMScheduler"),
}
"""What the files alone tell."""

NOT_LOADED: dict[str, tuple[str, odd.Change, str]] = {
    "no tensor": (
        "sana",
        without(f"vae/{UNET}", "decoder.conv_in.weight"),
        "vae: its weights lack tensor decoder.conv",
    ),
    "no tensor of a text encoder": (
        "sana",
        without(TEXT, "layers.0.self_attn.k_proj.weight"),
        "text_encoder: its weights lack tensor layers.0.self_attn.k_proj.weight",
    ),
    "other names": (
        "sana",
        renamed(TEXT, "text_model.{}".format),
        "text_encoder: its weights lack tensor embed_tokens.weight and 34 others; its weights have tensor text_model.e",
    ),
    "one more": (
        "wan",
        odd.rewritten(f"transformer/{UNET}", lambda tensors: tensors | {"zero": tensors["proj_out.bias"]}),
        "transformer: its weights have tensor zero, for which its class has no use",
    ),
    "another shape": (
        "sana",
        odd.rewritten(
            f"vae/{UNET}", lambda tensors: tensors | {"decoder.conv_in.bias": tensors["encoder.conv_in.bias"]}
        ),
        "vae: tensor decoder.conv_in.bias has the shape",
    ),
    "unknown class": (
        "wan",
        keys("model_index.json", transformer=["diffusers", "WanTransformer9DModel"]),
        "transformer: diffusers has no class WanTransformer9DModel",
    ),
    "another config": (
        "sana",
        keys("transformer/config.json", num_layers=8),
        "transformer: its weights lack tensor tra",
    ),
    "bad config": (
        "sana",
        keys("transformer/config.json", num_layers="x"),
        "SanaTransformer2DModel cannot be made from",
    ),
    "another tokenizer": (
        "sana",
        keys("model_index.json", tokenizer=["transformers", "GemmaTokenizer"]),
        "tokenizer: its files cannot be used as a GemmaTokenizer",
    ),
    "no such tokenizer": ("sana", keys("model_index.json", tokenizer=["transformers", "X"]), "has no class X"),
    "shift by size": (
        "wan",
        with_scheduler(**FLOW_MATCHING, use_dynamic_shifting=True),
        "scheduler: FlowMatchEulerDiscreteScheduler cannot be used so: ValueError: `mu` must be passed",
    ),
}
"""What only torch tells."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("rendermill.actors.checkpoints.files.CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def copy(tmp_path: Path, checkpoints: Path, cache: Path) -> Callable[[str], Path]:
    """Copies a checkpoint to where it may be changed; the folder's name is an odd one."""
    return lambda kind: shutil.copytree(checkpoints / f"{kind}-shapes", tmp_path / "a b" / "[é] #1%20?" / kind)


@pytest.fixture
def checkpoint(copy: Callable[[str], Path]) -> Path:
    return copy("sana")


def planned(checkpoint: Path, **config: Any) -> ResolvedModel:
    """A model with this checkpoint, as planning has it."""
    models = {"model": {"checkpoint": str(checkpoint), "dtype": "float32", "compile": False} | config}
    model = resolve_model(parse_job({"manifest": "m", "output": "o", "models": models}, "job.yaml"), "model", False)
    parts = [(part, model.checkpoint) for part in parts_of(model.checkpoint, model.settings.scheduler)]
    for problem in filter(None, inspect(parts)):
        raise UserError(problem)
    return model


def pixels(model: ResolvedModel) -> np.ndarray:
    """The pixels of a model."""
    is_video = model.checkpoint.pipeline_class == "WanPipeline"
    request = request_for("a red circle", 3, num_inference_steps=2, **({"num_frames": 5} if is_video else {}))
    with fetched(model.checkpoint, 0.0) as folder:
        loaded = registry.load(model.checkpoint.pipeline_class, folder, model.settings, "cpu")
    return render(loaded, [request])


def refused(checkpoint: Path, **config: Any) -> str:
    with pytest.raises(UserError) as refusal:
        planned(checkpoint, **config)
    return str(refusal.value)


@pytest.fixture(scope="module")
def original(checkpoints: Path) -> dict[str, np.ndarray]:
    return {kind: pixels(planned(checkpoints / f"{kind}-shapes")) for kind in ("sana", "wan")}


@pytest.mark.parametrize("name", RENDERED)
def test_an_odd_checkpoint_renders_as_the_original(
    name: str, copy: Callable[[str], Path], original: dict[str, np.ndarray]
) -> None:
    kind, make_odd, config = RENDERED[name]
    folder = copy(kind)
    make_odd(folder)
    np.testing.assert_array_equal(pixels(planned(folder, **config)), original[kind])


@pytest.mark.parametrize("name", REFUSED)
def test_what_files_tell_is_refused(name: str, copy: Callable[[str], Path]) -> None:
    kind, make_odd, message = REFUSED[name]
    folder = copy(kind)
    make_odd(folder)
    assert message in refused(folder)


@pytest.mark.parametrize("name", NOT_LOADED)
def test_what_torch_tells_is_refused(name: str, copy: Callable[[str], Path]) -> None:
    kind, make_odd, message = NOT_LOADED[name]
    folder = copy(kind)
    make_odd(folder)
    assert message in refused(folder)


@pytest.mark.parametrize("name", ["no tensor", "no tensor of a text encoder", "other names", "one more"])
def test_weights_that_planning_did_not_judge_are_not_loaded(name: str, copy: Callable[[str], Path]) -> None:
    kind, make_odd, message = NOT_LOADED[name]
    folder = copy(kind)
    settings = planned(folder).settings
    make_odd(folder)
    with pytest.raises(WrongWeights) as wrong:
        registry.load("SanaPipeline" if kind == "sana" else "WanPipeline", folder, settings, "cpu")
    assert message in str(wrong.value)


def test_a_plan_names_the_tensor_that_is_missing(rendermill: Rendermill, checkpoint: Path) -> None:
    without(TEXT, "norm.weight")(checkpoint)
    rendermill.model("sana", "sana-shapes")
    rendermill.manifest([{"prompt": "a cat"}])
    finished = rendermill.generate(f"models.sana.checkpoint='{checkpoint}'")
    assert (finished.status, finished.out, finished.error.count("\n")) == (2, "", 1), finished
    assert f"models.sana.checkpoint {checkpoint}: text_encoder: its weights lack tensor norm.weight" in finished.error


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
