"""The defaults of models whose checkpoints are on this machine, which `rendermill config` shows. Needs no Ray."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rendermill.models.capabilities import BadConfig
from rendermill.models.inspection.generic_family import UnsupportedPipeline
from rendermill.models.registry import family_of


def pipeline_defaults(checkpoint: str) -> tuple[str, Mapping[str, Any]] | None:
    """Return the pipeline class of a checkpoint, and its defaults for what neither job file nor row sets.

    Returns:
        None if the checkpoint is not on this machine, or of a kind that planning refuses.
    """
    folder = Path(checkpoint)
    try:
        model_index = json.loads((folder / "model_index.json").read_bytes())
        configs = {"model_index": model_index}
        for path in folder.glob("*/*config.json"):
            if path.name in ("config.json", "scheduler_config.json"):
                configs[path.parent.name] = json.loads(path.read_bytes())
        family = family_of(model_index["_class_name"])
        return model_index["_class_name"], family.all_defaults(configs)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, BadConfig, UnsupportedPipeline):
        return None
