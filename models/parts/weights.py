"""Loads a pipeline's components, and finds weights that are not those of their class before or after it is loaded.

The libraries load a checkpoint that lacks a tensor all the same, and leave random numbers in its place.
"""

import importlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import accelerate
import torch


class WrongWeights(Exception):
    """A component's weights are not those of its class."""


def load_components(
    folder: Path, model_index: Mapping[str, Any], dtype: Mapping[str, torch.dtype], variant: str | None
) -> dict[str, torch.nn.Module]:
    """Load the components that have weights.

    Args:
        folder: of the checkpoint.
        model_index: its `model_index.json`.
        dtype: of each component by name, `default` for the others.
        variant: of the weights, where a component has that.

    Raises:
        WrongWeights: a tensor is missing, of another shape, or of no use.
    """
    loaded = {}
    for name, entry in model_index.items():
        has_weights = any((folder / name).glob("*.safetensors"))
        if not isinstance(entry, list) or not has_weights:
            continue
        has_variant = variant is not None and any((folder / name).glob(f"*.{variant}*"))
        component, found = _class(*entry).from_pretrained(
            folder / name,
            dtype=dtype.get(name, dtype["default"]),
            variant=variant if has_variant else None,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
        on_no_device = [key for key, tensor in component.state_dict().items() if tensor.is_meta]
        problem = _words([*found["missing_keys"], *on_no_device], found["unexpected_keys"], found["mismatched_keys"])
        if problem or found.get("error_msgs"):
            raise WrongWeights(f"{name}: {problem or found['error_msgs'][0]}")
        loaded[name] = component
    return loaded


def problem_of_weights(
    library: str, class_name: str, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]
) -> str | None:
    """Why tensors of these shapes are not the weights of a class with this config, in words; None if they are."""
    try:
        component_class = _class(library, class_name)
    except AttributeError:
        return f"{library} has no class {class_name}; another version may have it"
    tensors = {name: torch.empty(tuple(shape), dtype=torch.bfloat16, device="meta") for name, shape in shapes.items()}
    try:
        compare = _compare_transformers if library == "transformers" else _compare_diffusers
        return _words(*compare(component_class, dict(config), tensors))
    except Exception as error:
        return f"{class_name} cannot be made from its config.json and weights: {type(error).__name__}: {error}"


def problem_of_scheduler(class_name: str, config: Mapping[str, Any], changes: Mapping[str, Any]) -> str | None:
    """Why a scheduler cannot be used, in words; None if it can."""
    try:
        scheduler_class = _class("diffusers", class_name)
    except AttributeError:
        return f"diffusers has no class {class_name}; another version may have it"
    try:
        scheduler = scheduler_class.from_config(dict(config))
        if changes:
            scheduler = scheduler_class.from_config(scheduler.config, **changes)
        scheduler.set_timesteps(2)
    except Exception as error:
        return f"{class_name} cannot be used so: {type(error).__name__}: {error}"
    return None


def problem_of_tokenizer(class_name: str, folder: str) -> str | None:
    """Why a tokenizer cannot be loaded, in words; None if it can.

    Args:
        folder: that holds its files.
    """
    try:
        tokenizer_class = _class("transformers", class_name)
    except (AttributeError, ImportError):
        return f"transformers has no class {class_name}; another version may have it"
    try:
        tokenizer = tokenizer_class.from_pretrained(folder, local_files_only=True)
        tokenizer(["a cat", "une forêt, 森の中"], padding="max_length", max_length=16, truncation=True)
    except Exception as error:
        return f"its files cannot be used as a {class_name}: {type(error).__name__}: {error}"
    return None


def _class(library: str, class_name: str) -> Any:
    return getattr(importlib.import_module(library), class_name)


def _compare_transformers(
    component_class: Any, config: dict[str, Any], tensors: Mapping[str, torch.Tensor]
) -> tuple[Collection[str], Collection[str], Collection[Any]]:
    _, found = component_class.from_pretrained(
        None,
        config=component_class.config_class.from_dict(config),
        state_dict=dict(tensors),
        device_map={"": "meta"},
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    return found["missing_keys"], found["unexpected_keys"], found["mismatched_keys"]


def _compare_diffusers(
    component_class: Any, config: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> tuple[Collection[str], Collection[str], Collection[Any]]:
    with accelerate.init_empty_weights():
        component = component_class.from_config(config)
    component._fix_state_dict_keys_on_load(tensors)
    expected = {name: tensor.shape for name, tensor in component.state_dict().items()}
    ignored = component_class._keys_to_ignore_on_load_unexpected or []
    unexpected = [
        name for name in tensors.keys() - expected if not any(re.search(pattern, name) for pattern in ignored)
    ]
    shared = expected.keys() & tensors
    mismatched = [(key, tensors[key].shape, expected[key]) for key in shared if tensors[key].shape != expected[key]]
    return expected.keys() - tensors, unexpected, mismatched


def _words(missing: Collection[str], unexpected: Collection[str], mismatched: Collection[Any]) -> str | None:
    problems = []
    if missing:
        problems.append(f"its weights lack {_named(missing)}")
    if unexpected:
        problems.append(f"its weights have {_named(unexpected)}, for which its class has no use")
    if mismatched:
        name, found, expected = min(mismatched, key=lambda mismatch: mismatch[0])
        problems.append(f"tensor {name} has the shape {tuple(found)}, and its config asks for {tuple(expected)}")
    return "; ".join(problems) or None


def _named(tensors: Collection[str]) -> str:
    others = len(set(tensors)) - 1
    return f"tensor {min(tensors)}" + (f" and {others} others" if others else "")
