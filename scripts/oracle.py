"""What the deconvnet and the incremental occlusion compute, by definition: for checks and timings, and slower.

With overlapping switches added, a projection is the gradient of half the squared activation in which each ReLU's derivative
is replaced by a ReLU on the gradient, and the contrast normalisation's by one. Pooling windows without a maximum are dropped
by a plain ReLU after the pooling: it changes no value, and its derivative at zero is zero.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
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


@torch.no_grad()
def brute_force_features(
    network: Network, image: Tensor, fill: Tensor, square: int, ys: Sequence[int], xs: Sequence[int],
    wanted: Collection[int], batch: int = 32,
) -> Iterator[tuple[Tensor, dict[int, Tensor]]]:  # fmt: skip
    """`partial.occluded_features` by its definition: paint the square, run the whole network."""
    corners = [(y, x) for y in ys for x in xs]
    for first in range(0, len(corners), batch):
        part = corners[first : first + batch]
        painted = image.repeat(len(part), 1, 1, 1)
        for canvas, (y, x) in zip(painted, part):
            canvas[:, y : y + square, x : x + square] = fill[:, y : y + square, x : x + square]
        found = network.features(painted.contiguous(memory_format=torch.channels_last), wanted)
        yield torch.arange(first, first + len(part)), {layer: found[layer] for layer in wanted}
