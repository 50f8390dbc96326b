"""Exact incremental forward pass for occlusion (paper, section 4.2): recompute only what a square can change.

A square of side q at (y, x) changes a window of every convolutional layer's map: the places whose receptive field
meets the square. Everything outside equals the clean image's activation, which is computed once.

- A convolution is linear: its output is the clean output plus the convolution of the change, which is zero outside the
  input's window. So the window of the change alone is convolved, with zeros around it. That is less work than to
  convolve the window with its clean surroundings: a place at the rim of the output's window is reached by few of the
  filter's weights, and libraries skip those that meet padding.
- A pooling needs the neighbours of what changed: the window that it reads holds them as well.

The windows grow with the receptive field, so the saving shrinks upwards; where a window covers nearly all of a map, the
whole map is assembled and the plain network goes on from there. Fully connected layers see everything and are run
plainly, many positions at once.

Positions are a grid, walked in blocks; a block is one batch. Within a block the window of an op has one size, the largest
that any of its positions needs, and starts that are clamped into the map: a window that is larger than the change is
still right, its extra places come out as they were. So positions with windows of like size share a block: those near the
border, where windows are cut, and those whose windows happen to fall well on the strides. Blocks keep the memory
bounded, whatever the number of positions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zfrepro.models.network import Network
from zfrepro.models.table import Op, op_sizes, ops_of

Features = dict[int, Tensor]
Places = np.ndarray  # int32: rows or columns of a map, or flat places in it

PLAIN_SHARE = 0.85  # share of its input from which on an op is run on whole maps: picking windows out costs as much
HEAD_BATCH = 512  # positions that go through the fully connected layers together: their weights are read once


def square_positions(size: int, square: int, stride: int) -> list[int]:
    """Offsets of a square along one side: 0, stride, ... and the last one flush with the border, size - square.

    Raises ValueError where the square does not fit.
    """
    if not 1 <= square <= size or stride < 1:
        raise ValueError(f"a square of {square} px does not fit {size} px, or the stride {stride} is below 1")
    last = size - square
    return sorted({*range(0, last + 1, stride), last})


@dataclass(frozen=True)
class Span:
    """A window along one axis of a map: for position p the places [start[p], start[p] + size)."""

    start: Places  # (P,)
    size: int


@lru_cache(4096)  # the same for every image, and for rows and columns
def spans(starts: tuple[int, ...], square: int, ops: tuple[Op, ...], sizes: tuple[int, ...]) -> list[Span]:
    """The span along one axis that is carried, before the first op and after each one: len(ops) + 1 of them.

    starts: the square's offsets in pixels, one per position; sizes: sides of the maps, as from `op_sizes`. A span holds
    all changes that a later op sees; what a pooling reads holds all that its outcomes see.
    """
    low = np.array(starts, np.int32)
    high = low + square
    changed = [(low, high)]
    for op, side in zip(ops, sizes[1:]):
        # Place j sees [j * stride - padding, j * stride - padding + kernel).
        low = ((low + op.padding - op.kernel) // op.stride + 1).clip(0, side)
        high = ((high - 1 + op.padding) // op.stride + 1).clip(0, side)
        high = np.maximum(low, high)  # a stride larger than the kernel can leave pixels that nobody sees
        changed.append((low, high))
    found = [_span(*changed.pop(), sizes[-1])]
    for op, (low, high), side in zip(reversed(ops), reversed(changed), reversed(sizes[:-1])):
        if op.kind == "conv":
            phase = int(low[0]) % op.stride if ((low - low[0]) % op.stride == 0).all() else 0
            found.append(_span(low, high, side, op.stride, phase))
        elif op.kind == "pool":
            low = found[-1].start * op.stride - op.padding
            high = low + (found[-1].size - 1) * op.stride + op.kernel
            beyond = low.min() < 0 or high.max() > side  # there, padding goes around all windows
            phase = 0 if beyond else -op.padding % op.stride
            found.append(_span(low.clip(min=0), high.clip(max=side), side, op.stride, phase))
        else:  # place by place
            found.append(found[-1])
    return found[::-1]


def _span(low: Places, high: Places, side: int, step: int = 1, phase: int = 0) -> Span:
    """The smallest span within [0, side) that holds [low, high) at each position and starts at `phase` modulo `step`:
    a filter or a pooling window of that stride then falls on all positions alike."""
    start = low - (low - phase) % step
    size = max(1, int((high - start).max()))
    if int(start.max()) > side - size:  # to be moved into the map
        size = min(side, size + (side - size - phase) % step)
    return Span(np.minimum(start, side - size), size)


def _places(span: Span) -> Places:
    """The places of each position's window: (P, size)."""
    return span.start[:, None] + np.arange(span.size, dtype=np.int32)


def _grid(rows: Places, columns: Places, width: int) -> Places:
    """Rows (Py, R) and columns (Px, K) of a map that is `width` wide -> flat places (Py, Px, R, K)."""
    return rows[:, None, :, None] * np.int32(width) + columns[None, :, None, :]


def _numbered(rows: Places, columns: Places, area: int) -> Places:
    """Where each position's own window of `area` places begins: (Py, Px, 1, 1)."""
    count = len(rows) * len(columns)
    return np.arange(0, count * area, area, dtype=np.int32).reshape(len(rows), len(columns), 1, 1)


def _taken(table: Tensor, index: Places) -> Tensor:
    """Rows of a table (N, C) as patches: index (Py, Px, R, K) -> (Py * Px, C, R, K), channels_last."""
    taken = F.embedding(torch.from_numpy(index).to(table.device), table)  # half the time of `index_select` on a CPU
    return taken.flatten(0, 1).permute(0, 3, 1, 2)


class _Map:
    """A map as a table of its places: H * W rows of channels."""

    def __init__(self, x: Tensor) -> None:
        """x: (1, C, H, H)."""
        self.side = x.shape[2]
        self.table = x[0].permute(1, 2, 0).reshape(-1, x.shape[1]).contiguous()  # rows are looked up

    def windows(self, y: Span, x: Span) -> Tensor:
        """What the windows y x x hold: (Py * Px, C, y.size, x.size), channels_last."""
        return _taken(self.table, _grid(_places(y), _places(x), self.side))

    def changed(self, windows: Tensor, y: Span, x: Span) -> Tensor:
        """The whole map as each position has it: (Py * Px, C, H, H). windows: (Py * Px, C, y.size, x.size)."""
        maps, channels = self.table.repeat(len(windows), 1), windows.shape[1]
        rows, columns = _places(y), _places(x)
        index = _numbered(rows, columns, self.side**2) + _grid(rows, columns, self.side)
        places = torch.from_numpy(index.reshape(-1)).to(maps.device)
        maps.index_copy_(0, places.long(), windows.permute(0, 2, 3, 1).reshape(-1, channels))
        return maps.view(len(windows), self.side, self.side, channels).permute(0, 3, 1, 2)


def _meeting(op: Op, given: Span, output: Span) -> tuple[int, Places]:
    """How a convolution or pooling of an input window gives an output window, along one axis: the padding to put around the
    input window, and (P,) which outcome is the output window's first."""
    before = given.start + op.padding - op.stride * output.start  # padding that the first place of the output sees
    after = output.size * op.stride - op.stride + op.kernel - before - given.size
    padding = max(int(before.max()), int(after.max()), 0)
    padding += int(before[0] - padding) % op.stride
    return padding, (padding - before) // op.stride


class Occluder:
    """The occluded forward passes of one image.

    image: (3, S, S), a network input; fill: (3, S, S), what the square shows, place by place (a grey square is not
    constant once the mean image is subtracted). Both float, on the network's device.
    """

    def __init__(self, network: Network, image: Tensor, fill: Tensor, square: int) -> None:
        self.network, self.square = network, square
        self.ops = tuple(ops_of(network.layers, network.conv_layers[-1]))
        self.sizes = tuple(op_sizes(self.ops, image.shape[-1]))
        x = image[None].contiguous(memory_format=torch.channels_last)
        self.fill = _Map(fill[None])
        self.clean = [_Map(x)]  # the input of each op, and the output of the last
        for op in self.ops:
            x = network.step(op, x)
            self.clean.append(_Map(x))

    def by_reach(self, starts: Sequence[int]) -> list[int]:
        """Numbers of the offsets along one axis, those with the smallest windows first."""
        reach = [sum(span.size for span in spans((start,), self.square, self.ops, self.sizes)) for start in starts]
        return sorted(range(len(starts)), key=reach.__getitem__)

    def _painted(self, ys: Sequence[int], xs: Sequence[int], y: Span, x: Span) -> Tensor:
        """Windows of the image with the squares on it."""
        down, across = (
            (_places(span) >= np.array(corner)[:, None]) & (_places(span) < np.array(corner)[:, None] + self.square)
            for span, corner in ((y, ys), (x, xs))
        )
        covered = torch.from_numpy(down[:, None, :, None] & across[None, :, None, :]).flatten(0, 1)[:, None]
        fill, image = self.fill.windows(y, x), self.clean[0].windows(y, x)
        return torch.where(covered.to(fill.device), fill, image)

    def maps(self, ys: Sequence[int], xs: Sequence[int], wanted: Collection[int]) -> Features:
        """Output maps of the wanted convolutional layers, and of the last one, for the squares at ys x xs (one batch,
        row by row): layer -> (Py * Px, C, H, H)."""
        y, x = (spans(tuple(starts), self.square, self.ops, self.sizes) for starts in (ys, xs))
        windowed, now, found = True, self._painted(ys, xs, y[0], x[0]), {}
        for i, op in enumerate(self.ops):
            nearly_all = y[i].size * x[i].size >= PLAIN_SHARE * self.sizes[i] ** 2
            if windowed and nearly_all and op.kind in ("conv", "pool"):
                windowed, now = False, self.clean[i].changed(now, y[i], x[i])
            now = self._window(i, now, y, x) if windowed else self.network.step(op, now)
            last = i + 1 == len(self.ops)
            if last or (self.ops[i + 1].layer != op.layer and op.layer in wanted):
                found[op.layer] = self.clean[i + 1].changed(now, y[i + 1], x[i + 1]) if windowed else now
        return found

    def _window(self, i: int, now: Tensor, y: Sequence[Span], x: Sequence[Span]) -> Tensor:
        """Op i on the windows of its input, which it may overwrite: the windows of its output."""
        op, down, across = self.ops[i], y[i : i + 2], x[i : i + 2]
        if op.kind == "conv":
            weight = self.network.conv(op.layer).weight
            change = now.sub_(self.clean[i].windows(y[i], x[i]))
            moved = _moved(op, down, across, lambda pad: F.conv2d(change, weight, None, op.stride, pad))
            return self.clean[i + 1].windows(y[i + 1], x[i + 1]).add_(moved)
        if op.kind == "pool":
            return _moved(op, down, across, lambda pad: F.max_pool2d(now, op.kernel, op.stride, pad))
        return F.relu_(now) if op.kind == "relu" else self.network.step(op, now)


def _moved(op: Op, y: Sequence[Span], x: Sequence[Span], run: Callable[[tuple[int, int]], Tensor]) -> Tensor:
    """An op that moves places, from windows y[0] x x[0] of its input to windows y[1] x x[1] of its output.

    run: the op itself on the input windows, with that much padding down and across.
    """
    (down, tops), (across, lefts) = _meeting(op, *y), _meeting(op, *x)
    found = run((down, across))
    tall, wide = found.shape[2:]
    if (tops == tops[0]).all() and (lefts == lefts[0]).all():
        top, left = int(tops[0]), int(lefts[0])
        return found[:, :, top : top + y[1].size, left : left + x[1].size]
    rows, columns = _places(Span(tops, y[1].size)), _places(Span(lefts, x[1].size))
    index = _numbered(rows, columns, tall * wide) + _grid(rows, columns, wide)
    return _taken(found.permute(0, 2, 3, 1).reshape(-1, found.shape[1]), index)


def blocks(rows: Sequence[int], columns: Sequence[int], count: int) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """A grid in about square blocks of at most `count` positions: the rows and columns of each."""
    tall = max(1, min(isqrt(count), len(rows)))
    wide = max(1, min(count // tall, len(columns)))
    for down in _shares(rows, tall):
        for across in _shares(columns, wide):
            yield down, across


def _shares(items: Sequence[int], most: int) -> list[Sequence[int]]:
    """The items in as few stretches of at most `most` as possible, of nearly the same length."""
    parts = -(-len(items) // most)
    return [items[len(items) * i // parts : len(items) * (i + 1) // parts] for i in range(parts)]


def _numbers(rows: Sequence[int], columns: Sequence[int], width: int) -> Tensor:
    """Numbers of a block's positions in the whole grid, row by row."""
    return (torch.tensor(rows)[:, None] * width + torch.tensor(columns)[None]).flatten()


@torch.no_grad()
def occluded_features(
    network: Network, image: Tensor, fill: Tensor, square: int, ys: Sequence[int], xs: Sequence[int],
    wanted: Collection[int], block: int | None = None,
) -> Iterator[tuple[Tensor, Features]]:  # fmt: skip
    """`network.features` of the image with a square at every position of ys x xs, some positions at a time.

    image, fill: (3, S, S), see `Occluder`; ys, xs: offsets of the square's top left corner in pixels; wanted: layers
    (the softmax layer's number: logits); block: positions in one batch (None: what was fastest). Yields
    (numbers (N,), features): the positions' numbers in the grid, row by row, and layer -> (N, ...). Every position
    comes once, in another order than the grid's.
    """
    if block is None:
        # What was fastest for the ZFNet on a CPU, scaled by the size of its maps; a GPU wants larger batches.
        block = max(36, round((36 if image.device.type == "cpu" else 400) * (224 / image.shape[-1]) ** 2))
    occluder = Occluder(network, image, fill, square)
    top = network.conv_layers[-1]
    waiting: list[tuple[Tensor, Features]] = []

    def flush() -> tuple[Tensor, Features]:
        numbers = torch.cat([n for n, _ in waiting])
        maps = {layer: torch.cat([found[layer] for _, found in waiting]) for layer in waiting[0][1]}
        waiting.clear()
        above = network.features(maps[top], wanted, after=top)
        return numbers, {layer: value for layer, value in (maps | above).items() if layer in wanted}

    for rows, columns in blocks(occluder.by_reach(ys), occluder.by_reach(xs), block):
        maps = occluder.maps([ys[i] for i in rows], [xs[j] for j in columns], wanted)
        waiting.append((_numbers(rows, columns, len(xs)), maps))
        if sum(len(n) for n, _ in waiting) >= HEAD_BATCH:
            yield flush()
    if waiting:
        yield flush()


def collect(stream: Iterator[tuple[Tensor, Features]], reduce: Callable[[Features], Tensor]) -> Tensor:
    """`reduce` of every position, in the grid's order, on the CPU: reduce turns features (N, ...) into (N, ...)."""
    portions = [(numbers, reduce(found).cpu()) for numbers, found in stream]
    values = torch.cat([value for _, value in portions])
    result = torch.empty_like(values)
    result[torch.cat([numbers for numbers, _ in portions])] = values
    return result
