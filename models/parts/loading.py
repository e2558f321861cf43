"""Loading a diffusers pipeline, and saving memory once it is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from rendermill.models.inspection.weights import WrongWeights, class_of, problem_in_words
from rendermill.models.settings import Settings


def load_pipeline(folder: Path, settings: Settings, device: str) -> Any:
    """Load a diffusers pipeline from safetensors (memory-mapped), and apply its settings.

    Args:
        folder: a diffusers folder.
        device: `cuda` or `cpu`.

    Raises:
        WrongWeights: the weights of a component are not those of its class.
    """
    if settings.speedups.float32_matmul_precision is not None:
        torch.set_float32_matmul_precision(settings.speedups.float32_matmul_precision)
    dtype = {component: getattr(torch, name) for component, name in settings.dtype.items()}
    model_index = DiffusionPipeline.load_config(folder)
    components = _load_components(folder, model_index, dtype, settings.variant)
    pipeline = DiffusionPipeline.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, **components
    )
    if settings.scheduler:
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, **settings.scheduler)
    if settings.vae_tiling:
        if getattr(pipeline, "vae", None) is None:
            raise ValueError(f"{type(pipeline).__name__} has no VAE that could decode in tiles; remove `vae_tiling`")
        pipeline.vae.enable_tiling()
    if settings.offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif settings.offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    elif settings.offload == "group":
        pipeline.enable_group_offload(onload_device=torch.device(device), offload_type="leaf_level", use_stream=True)
    else:
        pipeline.to(device)
    return pipeline


def _load_components(
    folder: Path, model_index: Mapping[str, Any], dtype: Mapping[str, torch.dtype], variant: str | None
) -> dict[str, torch.nn.Module]:
    """Load the components that have weights.

    Args:
        folder: of the checkpoint.
        model_index: its `model_index.json`.
        dtype: of each component by name, `default` for the others.
        variant: of the weights; a component without it is loaded without a variant.

    Raises:
        WrongWeights: a tensor is missing, of another shape, or of no use.
    """
    loaded = {}
    for name, entry in model_index.items():
        has_weights = any((folder / name).glob("*.safetensors"))
        if not isinstance(entry, list) or not has_weights:
            continue
        has_variant = variant is not None and any((folder / name).glob(f"*.{variant}*"))
        component, found = class_of(*entry).from_pretrained(
            folder / name,
            dtype=dtype.get(name, dtype["default"]),
            variant=variant if has_variant else None,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
        on_no_device = [key for key, tensor in component.state_dict().items() if tensor.is_meta]
        problem = problem_in_words(
            [*found["missing_keys"], *on_no_device], found["unexpected_keys"], found["mismatched_keys"]
        )
        if problem or found.get("error_msgs"):
            raise WrongWeights(f"{name}: {problem or found['error_msgs'][0]}")
        loaded[name] = component
    return loaded


def save_memory(pipeline: Any, settings: Settings) -> str | None:
    """Apply the next way to save memory to a diffusers pipeline: tiles first, then offload; see `Model.save_memory`."""
    vae = getattr(pipeline, "vae", None)
    if vae is not None and not getattr(vae, "use_tiling", True):
        pipeline.vae.enable_tiling()
        return "the VAE decodes in tiles"
    if settings.offload == "if_needed" and not getattr(pipeline, "_all_hooks", None):
        pipeline.enable_model_cpu_offload()
        return "models wait in CPU memory while they are idle"
    return None
