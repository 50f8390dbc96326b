"""The deconvnet (paper, section 2.1): from one activation back down to the pixels that caused it.

A unit is one activation of a convolutional layer's output (after pooling and contrast normalisation, as
`Network.features` returns it). It is sent down alone, every other activation of its layer set to zero, through the layer
table in reverse: contrast normalisation passed through, unpooling with the switches of the way up, ReLU on the signal,
transposed filters without bias, until the pixels. No ReLU at the pixels: a projection has both signs.

`window.project` is that walk, at the cost of the units' receptive fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from zfrepro.models.table import Op

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
