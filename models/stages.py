"""What the families' stages share: fixed-size forward passes, noise, uint8 frames, loading."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor

from models.base import Rendered, RenderRequest, Settings

TEXT_ENCODER_REFERENCE_BATCH = 8
"""Prompts in every forward pass of a text encoder in strict mode; encoding is cheap, so one size serves everywhere."""


def in_batches(function: Callable[..., torch.Tensor], batch_size: int | None, *inputs: torch.Tensor) -> torch.Tensor:
    """Call a function on slices of exactly `batch_size` items, so that every item sees the same kernels.

    Args:
        function: takes tensors (items, …) and returns one.
        batch_size: None calls the function once, with all items.
        inputs: tensors with the same number of items; the last slice is padded by repeating its last item.
    """
    if batch_size is None:
        return function(*inputs)
    outputs = []
    for start in range(0, inputs[0].shape[0], batch_size):
        parts = [tensor[start : start + batch_size] for tensor in inputs]
        num_items = parts[0].shape[0]
        if num_items < batch_size:
            parts = [torch.cat([part, part[-1:].expand(batch_size - num_items, *part.shape[1:])]) for part in parts]
        outputs.append(function(*parts)[:num_items])
    return torch.cat(outputs)


def generators(requests: Sequence[RenderRequest]) -> list[torch.Generator]:
    """One CPU generator an item: diffusers draws float32 noise from it on the CPU, equal on every device."""
    return [torch.Generator("cpu").manual_seed(request.seed) for request in requests]


def noise(shape: tuple[int, ...], item_generators: list[torch.Generator], device: torch.device) -> torch.Tensor:
    """Float32 noise of shape (items, *shape), each item's from its own generator."""
    return randn_tensor((len(item_generators), *shape), generator=item_generators, device=device, dtype=torch.float32)


def per_item(values: Sequence[float], num_dims: int, device: torch.device) -> torch.Tensor:
    """A float32 value an item, shaped (items, 1, …) to multiply tensors of `num_dims` dimensions."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, *[1] * (num_dims - 1))


def to_uint8(decoded: torch.Tensor) -> Rendered:
    """Frames from a decoder's output.

    Rounds as `diffusers.VaeImageProcessor.postprocess` with `output_type="pil"` does.

    Args:
        decoded: (items, 3, frames, height, width) in -1 … 1, of any dtype.
    """
    is_finite = torch.isfinite(decoded).flatten(1).all(dim=1)
    frames = (decoded * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1).float()
    return Rendered((frames * 255).round().to(torch.uint8), is_finite)


def load_pipeline(folder: Path, settings: Settings, device: str) -> Any:
    """Load a diffusers pipeline from safetensors (memory-mapped), with its settings applied."""
    dtype = {component: getattr(torch, name) for component, name in settings.dtype.items()}
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)
    if settings.scheduler:
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, **settings.scheduler)
    if settings.vae_tiling:
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


def compile_blocks(blocks: torch.nn.ModuleList) -> None:
    """Compile a denoiser's blocks in place; they share one graph, so the first costs about all of it."""
    for block in blocks:
        block.compile()


def encode_unique(
    encode: Callable[[list[str]], tuple[torch.Tensor, ...]], batch_size: int | None, prompts: Sequence[str]
) -> list[tuple[torch.Tensor, ...]]:
    """Encode each distinct prompt once.

    Args:
        encode: gives tensors (prompts, …) for a list of prompts.
        batch_size: prompts in every call, the last padded; None: all at once.

    Returns:
        For each prompt its slice of every tensor, (1, …).
    """
    distinct = list(dict.fromkeys(prompts))
    size = batch_size or len(distinct)
    encoded: dict[str, tuple[torch.Tensor, ...]] = {}
    for start in range(0, len(distinct), size):
        part = distinct[start : start + size]
        tensors = encode(part + part[-1:] * (size - len(part)))
        for index, prompt in enumerate(part):
            encoded[prompt] = tuple(tensor[index : index + 1] for tensor in tensors)
    return [encoded[prompt] for prompt in prompts]
