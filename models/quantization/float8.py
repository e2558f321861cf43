"""Matrix products in float8, by torchao. H100, L40 and newer GPUs have them, at twice the speed of bfloat16."""

from torch import nn
from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_

from rendermill.models.quantization.pointwise import PointwiseConvolution

_MULTIPLE = 16
"""The number of channels must be a multiple of this for the float8 products of cuBLAS."""


def quantize(blocks: nn.ModuleList) -> None:
    """Let the linear layers and 1 × 1 convolutions of a denoiser's blocks multiply in float8 (e4m3), in place.

    Weights have a scale for each output channel, activations one for each token, computed at run time. So an item's
    pixels do not depend on the other items of its batch.
    """
    for block in blocks:
        for parent in list(block.modules()):
            for name, module in list(parent.named_children()):
                if isinstance(module, nn.Conv2d) and _is_pointwise(module):
                    setattr(parent, name, PointwiseConvolution(module))
    config = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), set_inductor_config=False)
    quantize_(blocks, config, filter_fn=lambda module, _: _is_suitable(module))


def _is_pointwise(convolution: nn.Conv2d) -> bool:
    return convolution.kernel_size == convolution.stride == (1, 1) and convolution.groups == 1


def _is_suitable(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and not (module.in_features % _MULTIPLE or module.out_features % _MULTIPLE)
