"""The same projections by automatic differentiation: independent of the deconvnet, and slower. For checks and timings.

With overlapping switches added, a projection is the gradient of half the squared activation in which each ReLU's derivative
is replaced by a ReLU on the gradient, and the contrast normalisation's by one. Pooling windows without a maximum are dropped
by a plain ReLU after the pooling: it changes no value, and its derivative at zero is zero.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zfrepro.models.network import Network, contrast_normalise
from zfrepro.models.table import ops_of


class _ReluOnSignal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.relu(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return F.relu(grads[0])


class _NormPassedThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, k: float, alpha: float, beta: float) -> Tensor:
        return contrast_normalise(x, size, k, alpha, beta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        return grads[0], None, None, None, None


def autograd_projections(network: Network, images: Tensor, layer: int, units: Tensor, ties: str = "drop") -> Tensor:
    """Projections (B, channels, S, S) of unit i = units[i] (map, row, column) of image i; images (B, channels, S, S)."""
    x = pixels = images.detach().clone().requires_grad_()
    c = network.config
    for op in ops_of(network.layers, layer):
        if op.kind == "conv":
            conv = network.conv(op.layer)
            # Detached: the gradient of the weights would be work for nothing.
            bias = None if conv.bias is None else conv.bias.detach()
            x = F.conv2d(x, conv.weight.detach(), bias, op.stride, op.padding)
        elif op.kind == "relu":
            x = _ReluOnSignal.apply(x)
        elif op.kind == "pool":
            x = F.max_pool2d(x, op.kernel, op.stride, op.padding)
            x = F.relu(x) if ties == "drop" else x
        else:
            x = _NormPassedThrough.apply(x, c.norm_size, c.norm_k, c.norm_alpha, c.norm_beta)
    chosen = x[torch.arange(len(units)), units[:, 0], units[:, 1], units[:, 2]]
    return torch.autograd.grad(chosen, pixels, chosen.detach())[0]
