"""The network of a layer table: forward pass, features, initialisation."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from zfrepro.errors import UserError
from zfrepro.models.table import Op, layers_of, op_sizes, ops_of
from zfrepro.options.shared import ModelConfig


def contrast_normalise(x: Tensor, size: int, k: float, alpha: float, beta: float) -> Tensor:
    """b = a / (k + alpha * sum of a^2 over `size` neighbouring maps)^beta (Krizhevsky et al. 2012, section 3.3).

    x: (B, C, H, W). The neighbours of map i are i - size // 2 ... i + (size - 1) // 2, as in `torch.nn.LocalResponseNorm`;
    unlike there, the sum is not divided by `size`. Computed in float32 at least: alpha * a^2 vanishes beside k in bfloat16.
    """
    a = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    with torch.autocast(a.device.type, enabled=False):
        return _ContrastNorm.apply(a, size, k, alpha, beta).to(x.dtype)


class _ContrastNorm(torch.autograd.Function):
    """Contrast normalisation with its derivative written out: half the passes over memory of the recorded one."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, size: int, k: float, alpha: float, beta: float) -> Tensor:
        """a (B, C, H, W) -> a / s^beta, where s = k + alpha * (windowed sum of a^2)."""
        before, after = size // 2, (size - 1) // 2
        base = _sum_over_maps(a * a, before, after).mul_(alpha).add_(k)
        factor = base.pow(-beta)
        ctx.save_for_backward(a, base, factor)
        ctx.window, ctx.weight = (after, before), -2 * alpha * beta  # map i lies in the windows of these
        return a * factor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        """g / s^beta - 2 alpha beta a * (mirrored windowed sum of g a / s^(beta + 1))."""
        a, base, factor = ctx.saved_tensors
        own = gradient * factor
        others = _sum_over_maps((own * a).div_(base), *ctx.window)
        return own.addcmul_(a, others, value=ctx.weight), None, None, None, None


def _sum_over_maps(x: Tensor, before: int, after: int) -> Tensor:
    """The sum over maps i - before ... i + after at every place: x (B, C, H, W) -> (B, C, H, W)."""
    # A banded 1x1 convolution is the windowed sum over maps; it is faster than pooling or shifting on every device.
    return F.conv2d(x, _band(x.shape[1], before, after, x.dtype, x.device))


@lru_cache(16)
def _band(maps: int, before: int, after: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(maps, maps, 1, 1): row i is 1 for maps i - before ... i + after, else 0."""
    number = torch.arange(maps, device=device)
    offset = number[None] - number[:, None]
    return ((offset >= -before) & (offset <= after)).to(dtype)[:, :, None, None]


@dataclass(frozen=True)
class Noise:
    """Where dropout's masks come from: a function of (seed, step), so that a resumed or a distributed run draws the same.

    A process of a distributed run holds rows [first, first + batch) of a global batch of `total` images.
    """

    seed: int
    step: int
    first: int
    total: int

    def generator(self, device: torch.device) -> torch.Generator:
        mixed = (self.seed * 0x9E3779B97F4A7C15 + self.step * 0xBF58476D1CE4E5B9 + 1) % 2**63
        return torch.Generator(device).manual_seed(mixed)


def dropout(x: Tensor, share: float, first: int, total: int, generator: torch.Generator) -> Tensor:
    """Zero a random `share` of x (B, U) or (B, U, h, w) and scale the rest up; the mask is drawn for the global batch of
    `total` rows."""
    drawn = torch.rand(total, *x.shape[1:], generator=generator, device=x.device)
    return x * (drawn[first : first + len(x)] >= share) / (1 - share)


def linear_at(x: Tensor, linear: nn.Linear, side: int) -> Tensor:
    """A fully connected layer at every place of maps where its input of `side` x `side` fits: (B, C, H, W) -> (B, U, h, w),
    h = H - side + 1 (no padding), and (B, U) where there is one place only.

    The same as a convolution with the weights seen as (U, C, side, side), several times as fast on a CPU, which would lay
    them out anew at every call.
    """
    if x.ndim == 2 or x.shape[2:] == (side, side):
        return linear(x.flatten(1))
    places = x.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5)  # (B, h, w, C, side, side)
    return linear(places.flatten(3)).permute(0, 3, 1, 2)


class Network(nn.Module):
    """A network built from a layer table, with a linear layer to `outputs` classes on top (the paper's softmax layer) or,
    if `outputs` is 0, none.

    Weights are named by the paper's layer numbers: `weights.1.weight` ... `weights.8.bias`. Input: (B, channels, H, W)
    float, mean-subtracted pixels, H and W at least config.input_size.
    """

    def __init__(self, config: ModelConfig, outputs: int, channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.outputs = outputs
        self.channels = channels
        self.layers = layers_of(config, outputs)
        self.input_size = config.input_size
        self.softmax: int | None = self.layers[-1].number if outputs else None  # its number: 8 in the paper
        self.ops = ops_of(self.layers)
        self.sizes = op_sizes(self.ops, config.input_size)  # sides of the maps around the ops
        self.weights = nn.ModuleDict()
        for layer in self.layers:
            conv = layer.ops[0]
            if layer.kind == "conv":
                module: nn.Module = nn.Conv2d(channels, layer.outputs, conv.kernel, conv.stride, conv.padding)
            else:  # as a matrix: checkpoints have it so, and at the training size the product with it is faster
                module = nn.Linear(channels * conv.kernel**2, layer.outputs)
            self.weights[str(layer.number)] = module
            channels = layer.outputs

    def placed(self, device: torch.device) -> Network:
        """This network on `device`, its filters laid out channels_last (twice as fast on the CPU)."""
        return self.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def conv_layers(self) -> list[int]:
        return [layer.number for layer in self.layers if layer.kind == "conv"]

    @property
    def feature_layers(self) -> list[int]:
        """Numbers of all layers below the softmax."""
        return [layer.number for layer in self.layers if layer.kind != "softmax"]

    @property
    def top(self) -> int:
        """Number of the softmax layer. Raises UserError where there is none."""
        if self.softmax is None:
            raise UserError(f"model={self.config.name}: this network has no softmax layer, it classifies nothing")
        return self.softmax

    @property
    def widths(self) -> dict[int, int]:
        """Maps, units or classes of each layer."""
        return {layer.number: layer.outputs for layer in self.layers}

    def side(self, number: int) -> int:
        """Side of a layer's output maps, 1 for units, at the training size."""
        return self.sizes[len(ops_of(self.layers, number))]

    def conv(self, number: int) -> nn.Conv2d:
        """The convolution of a convolutional layer: its filters (out_maps, in_maps, k, k) and biases."""
        module = self.weights[str(number)]
        assert isinstance(module, nn.Conv2d)
        return module

    def step(self, op: Op, x: Tensor, ceil: bool = False) -> Tensor:
        """One op; dropout does nothing here. ceil: pooled maps of odd sides are rounded up."""
        if op.kind == "conv":
            module = self.weights[str(op.layer)]
            return linear_at(x, module, op.kernel) if isinstance(module, nn.Linear) else module(x)
        if op.kind == "relu":
            return F.relu(x)
        if op.kind == "pool":
            return F.max_pool2d(x, op.kernel, op.stride, op.padding, ceil_mode=ceil)
        if op.kind == "dropout":
            return x
        c = self.config
        return contrast_normalise(x, c.norm_size, c.norm_k, c.norm_alpha, c.norm_beta)

    def features(
        self, x: Tensor, wanted: Collection[int], noise: Noise | None = None, after: int = 0, ceil: bool = False
    ) -> dict[int, Tensor]:
        """Outputs of the `wanted` layers: maps after ReLU, pooling and normalisation (B, C, H, W), units after ReLU (B, U),
        and for the softmax layer its logits (B, outputs). Stops at the highest wanted layer.

        Images larger than the training size give the fully connected layers at every place where their input fits, without
        padding: (B, U, h, w) (VGG paper, section 3.2). With `noise`, dropout acts (training); without, it does not.
        `after`: x is the output of that layer, and not an image. `ceil`: pooled maps of odd sides are rounded up, as Caffe's; for
        larger images only, those of the training size may then have more than one place.
        """
        found: dict[int, Tensor] = {}
        generator = noise.generator(x.device) if noise else None
        last = max(wanted, default=0)
        for layer in self.layers:
            if not after < layer.number <= last:
                continue
            for op in layer.ops:
                if op.kind == "dropout" and noise and generator:
                    x = dropout(x, op.share, noise.first, noise.total, generator)
                else:
                    x = self.step(op, x, ceil)
            if layer.number in wanted:
                found[layer.number] = x
        return found

    def forward(self, x: Tensor, noise: Noise | None = None, after: int = 0, ceil: bool = False) -> Tensor:
        """Logits (B, outputs), or (B, outputs, h, w) for images larger than the training size."""
        return self.features(x, [self.top], noise, after, ceil)[self.top]


def deviation(init: str, shape: Sequence[int], end: bool) -> float:
    """Standard deviation of the weights, shape (out, in, ...), that are drawn for a layer; end: it is the first or the last.

    `paper`: 0.01 everywhere (ZFNet, section 3; what VGG's section 3.1 most likely means); `variance`: 0.1, the variance of 0.01
    that VGG's prints; `he`: He et al.'s sqrt(2 / fan_in), without which a narrow network's signal dies, but 0.01 for both
    ends, `he_all`: for these as well; `glorot`: sqrt(2 / (fan_in + fan_out)) (Glorot & Bengio 2010, named in VGG's 3.1).
    """
    fan_in = math.prod(shape[1:])
    if init == "glorot":
        return math.sqrt(2 / (fan_in + shape[0] * math.prod(shape[2:])))
    if init == "he_all" or (init == "he" and not end):
        return math.sqrt(2 / fan_in)
    return 0.1 if init == "variance" else 0.01


def initialise(network: Network, init: str, seed: int) -> None:
    """Draw the weights, normally distributed (`glorot`: uniformly) with the `deviation` that `init` gives; biases 0."""
    generator = torch.Generator().manual_seed(seed)
    ends = {network.layers[0].number, network.softmax}
    for name, module in network.weights.items():
        weight = module.get_parameter("weight")
        if init == "glorot":
            drawn = math.sqrt(12) * (torch.rand(weight.shape, generator=generator) - 0.5)
        else:
            drawn = torch.randn(weight.shape, generator=generator)
        with torch.no_grad():
            weight.copy_(drawn * deviation(init, weight.shape, int(name) in ends))
            module.get_parameter("bias").zero_()


def multiply_adds(network: Network) -> dict[int, int]:
    """Multiply-adds of the weights of each layer for one image (biases, pooling and normalisation not counted)."""
    return {
        op.layer: network.get_parameter(f"weights.{op.layer}.weight").numel() * size**2
        for op, size in zip(network.ops, network.sizes[1:])
        if op.kind == "conv"
    }
