"""The table of model families, by the pipeline class that a checkpoint's `model_index.json` names.

To add one, write its module in `families/`, and its entry here. Importing this module needs no torch, so that planning
is quick.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from rendermill.models.capabilities import Capabilities, Configs, Family
from rendermill.models.families.sana import registration as sana
from rendermill.models.families.wan import registration as wan
from rendermill.models.inputs import InputSpec
from rendermill.models.inspection.generic_family import generic_family
from rendermill.models.interface import Model
from rendermill.models.settings import Settings


def _blank_capabilities(configs: Configs) -> Capabilities:
    return Capabilities(
        kind="image",
        size_multiple=1,
        max_num_inference_steps=1,
        inputs={"image": InputSpec("image", is_required=False)},
    )


FAMILIES: Mapping[str, Family] = {
    **sana.FAMILIES,
    **wan.FAMILIES,
    "BlankPipeline": Family(
        implementation="rendermill.models.families.blank:Blank",
        defaults={"width": 64, "height": 64, "num_frames": 1, "num_inference_steps": 1, "guidance_scale": 1.0},
        capabilities=_blank_capabilities,
        arguments={},
        reference_batch={False: 1, True: 1},
        num_items_per_chunk=8192,
        components=(),
    ),
}


def family_of(pipeline_class: str) -> Family:
    """Return the family of a pipeline class: one with a loop of its own, or that of any pipeline of diffusers.

    Raises:
        UnsupportedPipeline: the installed diffusers has no such class, or a table cannot give what it needs.
    """
    return FAMILIES.get(pipeline_class) or generic_family(pipeline_class)


def implementation(pipeline_class: str) -> type[Model]:
    """Import and return the `Model` of a family, and with it torch and diffusers."""
    module, name = family_of(pipeline_class).implementation.split(":")
    model: type[Model] = getattr(import_module(module), name)
    return model


def load(pipeline_class: str, folder: Path, settings: Settings, device: str) -> Model:
    """Load a checkpoint with its family's `Model`.

    Args:
        folder: a diffusers folder with safetensors.
        device: `cuda` or `cpu`.
    """
    return implementation(pipeline_class)(folder, settings, device)
