"""Checks of weights, schedulers and tokenizers against their classes, before they are loaded.

The libraries load a checkpoint even if it lacks a tensor, and leave random numbers in its place.
"""

import importlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import accelerate
import torch
import transformers

from rendermill.models.inspection.sources import pipeline_modules


class WrongWeights(Exception):
    """A component's weights are not those of its class."""


def problem_of_weights(
    library: str, class_name: str, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]
) -> str | None:
    """Return why tensors of these shapes are not the weights of a class with this config; None if they are."""
    try:
        component_class = class_of(library, class_name)
    except AttributeError:
        return f"{library} has no class {class_name}; another version may have it"
    tensors = {name: torch.empty(tuple(shape), dtype=torch.bfloat16, device="meta") for name, shape in shapes.items()}
    try:
        is_of_transformers = issubclass(component_class, transformers.PreTrainedModel)
        compare = _compare_transformers if is_of_transformers else _compare_diffusers
        return problem_in_words(*compare(component_class, dict(config), tensors))
    except Exception as error:
        return f"{class_name} cannot be made from its config.json and weights: {type(error).__name__}: {error}"


def problem_of_scheduler(class_name: str, config: Mapping[str, Any], changes: Mapping[str, Any]) -> str | None:
    """Return why a scheduler cannot be used, in words; None if it can."""
    try:
        scheduler_class = class_of("diffusers", class_name)
    except AttributeError:
        return f"diffusers has no class {class_name}; another version may have it"
    try:
        scheduler = scheduler_class.from_config(dict(config))
        if changes:
            scheduler = scheduler_class.from_config(scheduler.config, **changes)
        scheduler.set_timesteps(2)
    except Exception as error:
        return f"{class_name} cannot be used with this config: {type(error).__name__}: {error}"
    return None


def problem_of_tokenizer(class_name: str, folder: str) -> str | None:
    """Return why a tokenizer cannot be loaded, in words; None if it can.

    Args:
        folder: that holds its files.
    """
    try:
        tokenizer_class = class_of("transformers", class_name)
    except (AttributeError, ImportError):
        return f"transformers has no class {class_name}; another version may have it"
    try:
        tokenizer = tokenizer_class.from_pretrained(folder, local_files_only=True)
        tokenizer(["a cat", "une forêt, 森の中"], padding="max_length", max_length=16, truncation=True)
    except Exception as error:
        return f"its files cannot be used as a {class_name}: {type(error).__name__}: {error}"
    return None


def problem_of_processor(class_name: str, folder: str) -> str | None:
    """Return why what prepares pictures for an encoder cannot be loaded, in words; None if it can.

    Transformers has some processors in two forms, one of them without torchvision, and takes the one that it can.

    Args:
        folder: that holds its files.
    """
    try:
        class_of("transformers", class_name).from_pretrained(folder, local_files_only=True)
    except AttributeError:
        return f"transformers has no class {class_name}; another version may have it"
    except ImportError as error:
        missing = "torchvision" if "torchvision" in str(error).lower() else None
        return f"{class_name} needs {missing}, which is not installed" if missing else f"{class_name}: {error}"
    except Exception as error:
        return f"its files cannot be used as a {class_name}: {type(error).__name__}: {error}"
    return None


def class_of(library: str, class_name: str) -> Any:
    """Import and return a class of transformers, of diffusers, or of one of diffusers' modules of pipelines."""
    is_own = library in pipeline_modules()
    return getattr(importlib.import_module(f"diffusers.pipelines.{library}" if is_own else library), class_name)


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


def problem_in_words(missing: Collection[str], unexpected: Collection[str], mismatched: Collection[Any]) -> str | None:
    """Describe the differences between tensors and those of their class; None if there are none.

    Args:
        missing: names of tensors that the class needs.
        unexpected: names of tensors that the class does not use.
        mismatched: the name, the shape, and the expected shape of tensors.
    """
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
