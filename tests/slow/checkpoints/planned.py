"""Checkpoints as planning sees them, and the pixels of a model that has one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rendermill.actors.checkpoints.checkpoint import fetched
from rendermill.jobs.config.job_file import parse_job
from rendermill.jobs.planning.loadable import inspect, parts_of
from rendermill.jobs.planning.models import ResolvedModel, resolve_model
from rendermill.manifests.errors import UserError
from rendermill.models import registry
from tests.support.requests import request_for
from tests.unit.models.test_models import render


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
