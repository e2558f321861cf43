"""Request hashes as earlier versions gave them: an output that they began goes on without rendering an item again."""

import json
from pathlib import Path
from typing import Any

import pytest

from rendermill.jobs.config.job_file import parse_job
from rendermill.jobs.planning.models import make_validator, resolve_model
from tests.support.commands import ROOT

GOLDEN = Path(__file__).parent / "golden" / "request_hashes.json"

MODELS: dict[str, dict[str, Any]] = {
    "sana": {"checkpoint": "sana-shapes"},
    "sana changed": {
        "checkpoint": "sana-shapes",
        "dtype": {"vae": "float32"},
        "defaults": {"width": 96, "height": 64, "negative_prompt": "blurred", "guidance_scale": 3.5},
        "scheduler": {"flow_shift": 5.0},
        "pipeline_arguments": {"max_sequence_length": 200, "complex_human_instruction": None},
        "format": "webp",
        "quality": 80,
        "vae_tiling": True,
    },
    "sana fast steps": {"checkpoint": "sana-shapes", "speedups": {"cache_interval": 2, "guidance_interval": [0, 0.6]}},
    "sprint": {"checkpoint": "sana-sprint-shapes", "dtype": "float32", "compile": True, "reference_batch": 4},
    "wan": {"checkpoint": "wan-shapes", "defaults": {"width": 64, "height": 32, "num_frames": 5}},
    "wan changed": {"checkpoint": "wan-shapes", "quality": 23, "speedups": {"attention_backend": "native"}},
}
ROWS: list[dict[str, Any]] = [
    {"prompt": "a red circle"},
    {"id": "named", "prompt": "a red circle", "num_samples": 3},
    {"id": "seeded", "prompt": "une forêt, 森の中 %s", "seed": 2**62, "num_samples": 2, "num_inference_steps": 7},
    {"prompt": "with its own columns", "caption": "x", "weight": 0.5, "nothing": None},
    {"id": "sized", "prompt": "wide", "width": 128, "height": 64, "guidance_scale": 1},
]
VIDEO_ROWS: list[dict[str, Any]] = [{"id": "clip", "prompt": "it moves", "num_frames": 9, "fps": 12, "seed": 1}]
NEGATIVE_ROWS: list[dict[str, Any]] = [{"id": "not so", "prompt": "a cat", "negative_prompt": "a dog"}]


def rows_of(model: str) -> list[dict[str, Any]]:
    kind = VIDEO_ROWS if model.startswith("wan") else []
    return ROWS + kind + ([] if model == "sprint" else NEGATIVE_ROWS)


def found(reproducibility: str) -> dict[str, list[Any]]:
    """The request hashes by model, row and sample."""
    settings = {
        model.replace(" ", "-"): {**own, "checkpoint": str(ROOT / "checkpoints" / own["checkpoint"])}
        for model, own in MODELS.items()
    }
    content = {"manifest": "m", "output": "o", "seed": 7, "reproducibility": reproducibility, "models": settings}
    job = parse_job(content, "job.yaml")
    validator = make_validator(job, {name: resolve_model(job, name, on_gpu=False) for name in job.models})
    hashes: dict[str, list[Any]] = {}
    for model in settings:
        for number, row in enumerate(rows_of(model)):
            item = validator.item({**row, "model": model})
            hashes[f"{model} {number}"] = [item.id, *map(list, item.samples)]
    return hashes


@pytest.mark.parametrize("reproducibility", ["strict", "fast"])
def test_request_hashes_are_those_of_earlier_versions(reproducibility: str) -> None:
    assert found(reproducibility) == json.loads(GOLDEN.read_text())[reproducibility]
