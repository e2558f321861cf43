"""What the families' stages share: prompts, noise, uint8 frames, loading."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor

from rendermill.models.interface import Rendered, RenderRequest, Settings
from rendermill.models.parts.exact_batches import ExactBatches
from rendermill.models.parts.operations import Region
from rendermill.models.parts.weights import load_components

_TEXT_ENCODER_REFERENCE_BATCH = 8
"""Prompts in every forward pass of a text encoder in strict mode; encoding is cheap, so one size serves everywhere."""

_TEXT_ENCODER_LARGEST_BATCH = 32


LARGEST_DECODER_BATCH = 8
"""A decoder gains nothing from more items at once, and takes more memory for each than a denoiser."""


def text_batches(settings: Settings) -> ExactBatches:
    """How many prompts a text encoder takes at once."""
    reference = None if settings.reference_batch is None else _TEXT_ENCODER_REFERENCE_BATCH
    return ExactBatches(reference, _TEXT_ENCODER_LARGEST_BATCH)


def generators(requests: Sequence[RenderRequest]) -> list[torch.Generator]:
    """One CPU generator an item: diffusers draws float32 noise from it on the CPU, equal on every device."""
    return [torch.Generator("cpu").manual_seed(request.seed) for request in requests]


def noise(shape: tuple[int, ...], item_generators: list[torch.Generator], device: torch.device) -> torch.Tensor:
    """Float32 noise of shape (items, *shape), each item's from its own generator."""
    drawn = randn_tensor((len(item_generators), *shape), generator=item_generators, dtype=torch.float32)
    return to_device(drawn, device)


def step_arguments(scheduler: Any, **offered: Any) -> dict[str, Any]:
    """The offered arguments that `scheduler.step` takes.

    Args:
        offered: `generator`, the generators of the items, from which its noise comes; others as in the stock pipeline.

    Raises:
        ValueError: the scheduler draws noise from a generator of its own.
    """
    if hasattr(scheduler, "noise_sampler"):
        raise ValueError(f"scheduler: the noise of {type(scheduler).__name__} is not an item's own; use another one")
    parameters = inspect.signature(scheduler.step).parameters
    return {name: value for name, value in offered.items() if name in parameters}


def set_timesteps(scheduler: Any, num_inference_steps: int, **arguments: Any) -> None:
    """Set the timesteps of a whole loop. A timestep may stand there twice, so steps are counted from the first one."""
    scheduler.set_timesteps(num_inference_steps, **arguments)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on its way from this process to the device, behind what is in its queue; nobody waits for it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def per_item(values: Sequence[float], num_dims: int, device: torch.device) -> torch.Tensor:
    """A float32 value an item, shaped (items, 1, …) to multiply tensors of `num_dims` dimensions."""
    return to_device(torch.tensor(values, dtype=torch.float32), device).view(-1, *[1] * (num_dims - 1))


def to_uint8(decoded: torch.Tensor) -> Rendered:
    """Frames from a decoder's output.

    Rounds as `diffusers.VaeImageProcessor.postprocess` with `output_type="pil"` does.

    Args:
        decoded: (items, 3, frames, height, width) in -1 … 1, of any dtype.
    """
    is_finite = torch.isfinite(decoded).flatten(1).all(dim=1)
    frames = (decoded * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1).float()
    return Rendered((frames * 255).round().to(torch.uint8).contiguous(), is_finite)


def load_pipeline(folder: Path, settings: Settings, device: str) -> Any:
    """Load a diffusers pipeline from safetensors (memory-mapped), with its settings applied."""
    if settings.speedups.float32_matmul_precision is not None:
        torch.set_float32_matmul_precision(settings.speedups.float32_matmul_precision)
    dtype = {component: getattr(torch, name) for component, name in settings.dtype.items()}
    model_index = DiffusionPipeline.load_config(folder)
    components = load_components(folder, model_index, dtype, settings.variant)
    pipeline = DiffusionPipeline.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, **components
    )
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


def save_memory(pipeline: Any, settings: Settings) -> str | None:
    """Do what `Model.save_memory` says to a diffusers pipeline: tiles first, then offload."""
    if not pipeline.vae.use_tiling:
        pipeline.vae.enable_tiling()
        return "the VAE decodes in tiles"
    if settings.offload == "if_needed" and not getattr(pipeline, "_all_hooks", None):
        pipeline.enable_model_cpu_offload()
        return "models wait in CPU memory while they are idle"
    return None


def compile_decoder(decoder: torch.nn.Module, settings: Settings) -> None:
    """Compile an image VAE's decoder in place, whole: its parts differ, so they could share no graph."""
    _compile(decoder, settings)


def _compile(module: torch.nn.Module, settings: Settings) -> None:
    module.compile(dynamic=None if settings.reference_batch is None else False)
    assert module._compiled_call_impl is not None  # there is no public way to come between
    module._compiled_call_impl = Region(module._compiled_call_impl)


def prepare_blocks(blocks: torch.nn.ModuleList, settings: Settings) -> None:
    """Quantize and compile a denoiser's blocks in place, as the settings say.

    They share one graph, so the first costs about all of the compiling. In strict mode every size gets a graph of its
    own: one for all sizes would depend on which came first.
    """
    if settings.speedups.quantization == "float8":
        from rendermill.models.quantization.float8 import quantize  # torchao is there only for those who use it

        quantize(blocks)
    if not settings.compile:
        return
    torch._dynamo.config.recompile_limit = 1024  # past it, blocks would run eagerly without a word, with other pixels
    for block in blocks:
        _compile(block, settings)


def count_tokens_over(tokenizer: Any, texts: Sequence[str], limit: int) -> list[int]:
    """For each text the number of its tokens, special ones with them, beyond a limit."""
    distinct = list(dict.fromkeys(texts))
    ids = tokenizer(distinct, add_special_tokens=True, verbose=False).input_ids
    num_over = {text: max(0, len(own) - limit) if text else 0 for text, own in zip(distinct, ids, strict=True)}
    return [num_over[text] for text in texts]


def effective_negative_prompt(request: RenderRequest) -> str:
    """The negative prompt, empty where guidance gives it no effect."""
    return (request.negative_prompt or "") if request.guidance_scale > 1.0 else ""


def encode_unique(
    encode: Callable[[list[str]], tuple[torch.Tensor, ...]], batches: ExactBatches, prompts: Sequence[str]
) -> list[tuple[torch.Tensor, ...]]:
    """Encode each distinct prompt once.

    Args:
        encode: gives tensors (prompts, …) for a list of prompts.
        batches: decides how many prompts are encoded at once.

    Returns:
        For each prompt its slice of every tensor, (1, …).
    """
    distinct = list(dict.fromkeys(prompts))
    place = {prompt: index for index, prompt in enumerate(distinct)}
    tensors = batches.with_tuples(
        lambda indices: encode([distinct[index] for index in indices.tolist()]), torch.arange(len(distinct))
    )
    return [tuple(tensor[place[prompt]][None] for tensor in tensors) for prompt in prompts]
