"""1 × 1 convolutions as linear layers."""

import torch
from torch import nn


class PointwiseConvolution(nn.Module):
    """A 1 × 1 convolution as a linear layer over the channels, which torchao can quantize."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.linear = nn.Linear(convolution.in_channels, convolution.out_channels, device="meta")
        self.linear.weight = nn.Parameter(convolution.weight.flatten(1), requires_grad=False)
        self.linear.bias = convolution.bias  # type: ignore[assignment]  # which may be None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (items, in_channels, height, width) to (items, out_channels, height, width)."""
        return self.linear(features.movedim(1, -1)).movedim(-1, 1)
