"""Loads models, and makes requests for them without a manifest."""

from typing import Any

import torch

from rendermill.actors.checkpoints.checkpoint import Checkpoint, fetched
from rendermill.actors.engine.memory import DoesNotFit, explain_weights
from rendermill.manifests.request import Request
from rendermill.manifests.rows import RowValidator
from rendermill.manifests.schema import ModelContract
from rendermill.models import registry
from rendermill.models.interface import Model
from rendermill.models.settings import Settings


def load_model(checkpoint: Checkpoint, settings: Settings, device: str, patience_seconds: float = 0.0) -> Model:
    """Fetch a checkpoint to this machine, and load it.

    Args:
        device: `cuda` or `cpu`.
        patience_seconds: how long to try again if the checkpoint's store fails.

    Raises:
        DoesNotFit: the weights need more memory than the device has.
        CheckpointChanged: the files are not those that were described.
    """
    with fetched(checkpoint, patience_seconds) as folder:
        try:
            return registry.load(checkpoint.pipeline_class, folder, settings, device)
        except torch.OutOfMemoryError as error:
            raise DoesNotFit(explain_weights()) from error


def request_for(checkpoint: Checkpoint, **row: Any) -> Request:
    """Return the request that a manifest row would make, with the defaults of the pipeline.

    Args:
        row: by name of a manifest column, such as `prompt`, `seed`, `width`, `num_inference_steps`.

    Raises:
        RowProblem: the model cannot render this; the message says why.
    """
    family = registry.family_of(checkpoint.pipeline_class)
    defaults = family.all_defaults(checkpoint.configs)
    contract = ModelContract(defaults, family.capabilities(checkpoint.configs).problem, checkpoint.identity)
    item = RowValidator({"model": contract}, "model", job_seed=0).item(row)
    return Request(id=item.id, prompt=item.prompt, **item.settled.fields, **item.samples[0]._asdict())
