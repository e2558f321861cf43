"""What each item of a batch has of its own in the denoising loop: its noise, and values such as its guidance."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor

from rendermill.manifests.request import Request


def generators(requests: Sequence[Request]) -> list[torch.Generator]:
    """Return a CPU generator for each item; diffusers takes float32 noise from it on the CPU, equal on every device."""
    return [torch.Generator("cpu").manual_seed(request.seed) for request in requests]


def noise(shape: tuple[int, ...], item_generators: list[torch.Generator], device: torch.device) -> torch.Tensor:
    """Return float32 noise of shape (items, *shape), each item's from its own generator."""
    values = randn_tensor((len(item_generators), *shape), generator=item_generators, dtype=torch.float32)
    return to_device(values, device)


def step_arguments(scheduler: Any, **offered: Any) -> dict[str, Any]:
    """Select from the offered arguments those that `scheduler.step` takes.

    Args:
        offered: `generator`: the items' generators, for the noise of each step; others as in the stock pipeline.

    Raises:
        ValueError: the scheduler takes noise from a generator of its own.
    """
    if hasattr(scheduler, "noise_sampler"):
        raise ValueError(f"scheduler: the noise of {type(scheduler).__name__} is not an item's own; use another one")
    parameters = inspect.signature(scheduler.step).parameters
    return {name: value for name, value in offered.items() if name in parameters}


def set_timesteps(scheduler: Any, num_inference_steps: int, **arguments: Any) -> None:
    """Set the timesteps of a whole loop.

    Steps are counted from the first, because a scheduler may have the same timestep twice.
    """
    scheduler.set_timesteps(num_inference_steps, **arguments)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)


def per_item(values: Sequence[float], num_dims: int, device: torch.device) -> torch.Tensor:
    """Return one float32 value for each item, of shape (items, 1, …), to multiply tensors of `num_dims` dimensions."""
    return to_device(torch.tensor(values, dtype=torch.float32), device).view(-1, *[1] * (num_dims - 1))


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor of this process to the device, behind the work in its queue, without waiting."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
