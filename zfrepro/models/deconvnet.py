"""The deconvnet (paper, section 2.1): from one activation back down to the pixels that caused it.

A unit is one activation of a convolutional layer's output (after pooling and contrast normalisation, as
`Network.features` returns it). It is sent down alone, every other activation of its layer set to zero, through the layer
table in reverse: contrast normalisation passed through, unpooling with the switches of the way up, ReLU on the signal,
transposed filters without bias, until the pixels. No ReLU at the pixels: a projection has both signs.

`ascend` and `descend` are that walk on whole maps, as plain as it gets; `window.project` is what to call: it gives the same
projections at the cost of the units' receptive fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zfrepro.models.network import Network
from zfrepro.models.table import Op, ops_of

UNPOOL = ("sum", "max")
TIES = ("drop", "first")
NOWHERE = -1  # the switch of a pooling window without a maximum


@dataclass(frozen=True)
class Rules:
    """Where the paper is silent: what two pooling windows that share a switch do, and where a pooling window sends its
    signal that has no maximum, being zero throughout after the ReLU (most of the upper layers' windows are).

    Its switch would be a tie between all its places. `drop`: switches are "the locations of the maxima within each pooling
    region" (section 2.1); where there is none, none is recorded and no signal passes down. `first`: the first place in reading
    order stands for it, as in a back-propagation by common libraries: signal lands at places that excited nothing.
    On two demo networks of 12 epochs 82 and 83 % of layer 2's windows are such, and of layer 5's energy 69 and 72 % fall on
    the objects with `drop`, 53 and 54 % with `first` (`zfrepro visualize layer=5 ties=...`).
    """

    unpool: str = "sum"  # sum: they add (the projection is then a back-propagation) | max: the stronger one wins
    ties: str = "drop"  # drop | first

    def __post_init__(self) -> None:
        if self.unpool not in UNPOOL or self.ties not in TIES:
            raise ValueError(f"unpool must be one of {UNPOOL} and ties one of {TIES}, not {self.unpool}, {self.ties}")


DEFAULT = Rules()


def require_conv_layer(network: Network, layer: int) -> None:
    """Raises ValueError for a layer that is no convolutional layer of the network."""
    if layer not in network.conv_layers:
        raise ValueError(f"layer {layer} has no projections: the convolutional layers are {network.conv_layers}")


# ------------------------------------------------------------------------------------------------- one op up, one op down


def pool_up(x: Tensor, op: Op, padding: int, ties: str) -> tuple[Tensor, Tensor]:
    """Max pooling and its switches: for each window the flat place (row * width + column) of its maximum in x, of equals the
    first in reading order (so torch has it on the CPU and on CUDA); NOWHERE for a window without a maximum above zero, if
    these are dropped."""
    pooled, switches = F.max_pool2d(x, op.kernel, op.stride, padding, return_indices=True)
    if ties == "drop":
        switches.masked_fill_(pooled <= 0, NOWHERE)
    return pooled, switches


def unpool(signal: Tensor, switches: Tensor, size: int, rule: str) -> Tensor:
    """Put each value of `signal` (B, C, h, w) at its switch in maps of size x size, zero elsewhere; (B, C, size, size).

    A scatter that adds, or keeps the maximum (with the zero that is there): `max_unpool2d` would overwrite one window's
    value by another's.
    """
    batch, channels = signal.shape[:2]
    signal = signal * (switches != NOWHERE)
    # Maps last, as channels_last tensors lie in memory: the flattened views below are free then.
    values = signal.permute(0, 2, 3, 1).reshape(batch, -1, channels)
    places = switches.clamp(min=0).permute(0, 2, 3, 1).reshape(batch, -1, channels)
    cells = values.new_zeros(batch, size * size, channels)
    if rule == "sum":
        cells.scatter_add_(1, places, values)
    else:
        cells.scatter_reduce_(1, places, values, "amax")
    return cells.view(batch, size, size, channels).permute(0, 3, 1, 2)


# ------------------------------------------------------------------------------------------------------------ whole maps


@dataclass(frozen=True)
class Trace:
    """What the way up leaves behind for the way down: per op its input's side and its switches."""

    ops: list[Op]
    sizes: list[int]  # side of the input of each op
    switches: list[Tensor | None]  # of poolings, (B, C, h, w)


@torch.no_grad()
def ascend(network: Network, images: Tensor, layer: int, rules: Rules = DEFAULT) -> tuple[Tensor, Trace]:
    """The layer's output (B, C, h, w) for images (B, channels, S, S), and the trace of the way up."""
    require_conv_layer(network, layer)
    x, trace = images, Trace(ops_of(network.layers, layer), [], [])
    for op in trace.ops:
        trace.sizes.append(x.shape[-1])
        switches = None
        if op.kind == "pool":
            x, switches = pool_up(x, op, op.padding, rules.ties)
        else:
            x = network.step(op, x)
        trace.switches.append(switches)
    return x, trace


@torch.no_grad()
def descend(network: Network, signal: Tensor, trace: Trace, rules: Rules = DEFAULT) -> Tensor:
    """A signal at the layer's output (B, C, h, w) down to pixels (B, channels, S, S)."""
    for op, size, switches in zip(reversed(trace.ops), reversed(trace.sizes), reversed(trace.switches)):
        if op.kind == "relu":
            signal = F.relu(signal)
        elif switches is not None:
            signal = unpool(signal, switches, size, rules.unpool)
        elif op.kind == "conv":
            # A stride may leave rows at the lower edge unread; they come back as zeros.
            reached = (signal.shape[-1] - 1) * op.stride - 2 * op.padding + op.kernel
            filters = network.conv(op.layer).weight
            signal = F.conv_transpose2d(signal, filters, None, op.stride, op.padding, size - reached)
    return signal
