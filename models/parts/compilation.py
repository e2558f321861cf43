"""Quantization and compilation of a model's parts, as its settings say."""

import torch

from rendermill.models.parts.operations import Region
from rendermill.models.quantization.schemes import SCHEMES
from rendermill.models.settings import Settings


def prepare_blocks(blocks: torch.nn.ModuleList, settings: Settings) -> None:
    """Quantize and compile a denoiser's blocks in place, as the settings say.

    Blocks share one graph, so the first one takes nearly all of the compilation time. In strict mode each batch size
    has its own graph, because a graph for all sizes would depend on the size that came first.
    """
    if settings.speedups.quantization is not None:
        SCHEMES[settings.speedups.quantization].quantize(blocks)
    if not settings.compile:
        return
    torch._dynamo.config.recompile_limit = 1024  # beyond it, blocks would silently run eagerly, with other pixels
    for block in blocks:
        _compile(block, settings)


def compile_decoder(decoder: torch.nn.Module, settings: Settings) -> None:
    """Compile an image VAE's decoder in place, as a whole, because its parts differ and could not share a graph."""
    _compile(decoder, settings)


def _compile(module: torch.nn.Module, settings: Settings) -> None:
    module.compile(dynamic=None if settings.reference_batch is None else False)
    assert module._compiled_call_impl is not None  # there is no public way to wrap the compiled call
    module._compiled_call_impl = Region(module._compiled_call_impl)
