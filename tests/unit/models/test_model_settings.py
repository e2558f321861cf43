"""A model's settings: what has no effect is refused while planning, and what is left open follows the checkpoint."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rendermill.jobs.cli import main
from rendermill.jobs.config.job_file import parse_job
from rendermill.jobs.planning.models import ResolvedModel, resolve_model
from rendermill.manifests.errors import UserError
from tests.support.odd_checkpoints import change, removed

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown key of the scheduler": (
        "sana",
        {"scheduler": {"flow_shfit": 3.0}},
        "scheduler.flow_shfit: unknown key; did",
    ),
    "key of another scheduler": (
        "sana-sprint",
        {"scheduler": {"flow_shift": 3.0}},
        "scheduler.flow_shift: unknown key; k",
    ),
    "text for a number": (
        "sana",
        {"scheduler": {"flow_shift": "x"}},
        "scheduler.flow_shift: should be a valid number, got",
    ),
    "number below its range": (
        "wan",
        {"scheduler": {"flow_shift": -1}},
        "scheduler.flow_shift: should be greater than 0",
    ),
    "not a number": ("wan", {"scheduler": {"beta_end": float("nan")}}, "scheduler.beta_end: should be a finite number"),
    "null for a number": ("wan", {"scheduler": {"flow_shift": None}}, "scheduler.flow_shift: should be a valid number"),
    "unknown choice": (
        "sana",
        {"scheduler": {"algorithm_type": "x"}},
        "scheduler.algorithm_type: should be 'dpmsolver'",
    ),
    "number for a switch": (
        "sana",
        {"scheduler": {"use_flow_sigmas": 1}},
        "scheduler.use_flow_sigmas: should be a valid",
    ),
    "unknown component": ("sana", {"dtype": {"vea": "float32"}}, "dtype.vea: unknown key; did you mean 'vae'?"),
    "component without weights": (
        "sana",
        {"dtype": {"tokenizer": "float32"}},
        "dtype.tokenizer: unknown key; known here",
    ),
    "expert of another model": (
        "sana",
        {"dtype": {"transformer_2": "float32"}},
        "dtype.transformer_2: unknown key; did",
    ),
    "no tokens": (
        "wan",
        {"pipeline_arguments": {"max_sequence_length": 0}},
        "max_sequence_length: should be greater than",
    ),
    "text for tokens": (
        "wan",
        {"pipeline_arguments": {"max_sequence_length": "9"}},
        "should be a valid integer, got '9'",
    ),
    "switch for tokens": (
        "wan",
        {"pipeline_arguments": {"max_sequence_length": True}},
        "should be a valid integer, got Tr",
    ),
    "no tokens at all": (
        "wan",
        {"pipeline_arguments": {"max_sequence_length": None}},
        "should be a valid integer, got No",
    ),
    "numbers for lines": (
        "sana",
        {"pipeline_arguments": {"complex_human_instruction": [1]}},
        "pipeline_arguments.complex_human_instruction: should be a valid string",
    ),
    "unknown default": (
        "sana",
        {"defaults": {"guidance_scal": 1}},
        "defaults.guidance_scal: unknown key; did you mean 'guidance_scale'?",
    ),
    "unknown variant": ("sana", {"variant": "fp8"}, "it has no weights of the variant 'fp8', but of none"),
    "more steps than a changed scheduler has": (
        "sana",
        {"scheduler": {"num_train_timesteps": 10}},
        "defaults.num_inference_steps: 20 is over the scheduler's 10",
    ),
}


@pytest.fixture
def resolve(checkpoints: Path, tmp_path: Path) -> Callable[..., ResolvedModel]:
    """Settles a model with a checkpoint, whose configs may be changed first."""

    def settle(kind: str, config: Mapping[str, Any], **changes: Mapping[str, Any]) -> ResolvedModel:
        folder = checkpoints / f"{kind}-shapes"
        if changes:
            folder = Path(shutil.copytree(folder, tmp_path / kind))
        for component, content in changes.items():
            file = "model_index.json" if component == "model_index" else f"{component}/config.json"
            change(folder / file, **content)
        models = {"model": {"checkpoint": str(folder)} | dict(config)}
        return resolve_model(parse_job({"manifest": "m", "output": "o", "models": models}, "job.yaml"), "model", False)

    return settle


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_without_effect_is_refused(name: str, resolve: Callable[..., ResolvedModel]) -> None:
    kind, config, message = REFUSED[name]
    with pytest.raises(UserError) as refusal:
        resolve(kind, config)
    assert message in str(refusal.value)


def test_settings_with_effect_are_taken(resolve: Callable[..., ResolvedModel]) -> None:
    assert resolve("wan", {"scheduler": {"flow_shift": 5, "disable_corrector": [0], "sigma_min": 0.1}})
    assert resolve("sana", {"pipeline_arguments": {"complex_human_instruction": None, "max_sequence_length": 1}})


@pytest.mark.parametrize(
    ("dtype", "settled"),
    [
        ("float32", {"default": "float32"}),
        ({"vae": "float32"}, {"default": "bfloat16", "vae": "float32"}),
        ({"default": "float16", "text_encoder": "float32"}, {"default": "float16", "text_encoder": "float32"}),
    ],
)
def test_components_that_dtype_leaves_out_have_its_default(
    dtype: Any, settled: dict[str, str], resolve: Callable[..., ResolvedModel]
) -> None:
    assert resolve("sana", {"dtype": dtype}).settings.dtype == settled


SIX_BLOCKS = {"encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024]}


@pytest.mark.parametrize(
    ("kind", "changes", "defaults"),
    [
        ("sana", {}, {"width": 128, "height": 128, "fps": None}),
        ("sana-sprint", {}, {"width": 128, "height": 128}),
        ("sana", {"transformer": {"sample_size": 32, "patch_size": 1}, "vae": SIX_BLOCKS}, {"width": 1024}),
        (
            "sana",
            {"transformer": {"sample_size": 16, "patch_size": 1}, "vae": SIX_BLOCKS},
            {"width": 512, "height": 512},
        ),
        ("sana", {"transformer": {"sample_size": None}}, {"width": 1024, "height": 1024}),
        ("wan", {}, {"width": 832, "height": 480, "num_frames": 81, "fps": 16.0}),
        ("wan", {"model_index": {"expand_timesteps": True}}, {"width": 832, "fps": 24.0}),
    ],
)
def test_defaults_follow_the_checkpoint(
    kind: str, changes: dict[str, Any], defaults: dict[str, Any], resolve: Callable[..., ResolvedModel]
) -> None:
    settled = resolve(kind, {}, **changes).contract.defaults
    assert {key: settled.get(key) for key in defaults} == defaults
    given = resolve(kind, {"defaults": {"width": 256, "height": 64}}).contract.defaults
    assert (given["width"], given["height"]) == (256, 64)


def test_config_shows_what_a_pipeline_fills_in(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    broken = Path(shutil.copytree(checkpoints / "sana-shapes", tmp_path / "broken"))
    removed("vae/config.json")(broken)
    (broken / "transformer" / "config.json").write_text("{")
    places = {"sana": checkpoints / "sana-shapes", "wan": checkpoints / "wan-shapes", "broken": broken, "hub": "a/b"}
    models = {name: {"checkpoint": str(place), "defaults": {"height": 64}} for name, place in places.items()}
    (tmp_path / "job.yaml").write_text(json.dumps({"manifest": "m", "output": "o", "models": models}))
    assert main(["config", "job.yaml", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    defaults = {name: model["defaults"] for name, model in shown["job"]["models"].items()}
    assert (defaults["sana"]["width"], defaults["sana"]["height"], defaults["wan"]["fps"]) == (128, 64, 16.0)
    assert defaults["broken"]["width"] is defaults["hub"]["width"] is None
    assert shown["sources"]["models.sana.defaults.width"] == "default of SanaPipeline"
    assert shown["sources"]["models.sana.defaults.height"] == "job.yaml:1"
