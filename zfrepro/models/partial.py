"""Exact incremental forward pass for occlusion (paper, section 4.2): recompute only what a square can change.

A square of side q at (y, x) changes a window of every convolutional layer's map: the places whose receptive field
meets the square. Everything outside equals the clean image's activation, which is computed once. So each convolution
and each pooling is run on a small patch only: the changed window of its input, surrounded by clean activations, with
true padding (zeros; -inf for pooling) where the map ends. The windows grow with the receptive field, so the saving
shrinks upwards; where a window covers nearly all of a map, the whole map is assembled and the plain network goes on
from there. Fully connected layers see everything and are run plainly, many positions at once.

Positions are a grid, walked in blocks of neighbours; a block is one batch. Within a block the window of an op has one
size, the largest that any of its positions needs, and starts that are clamped into the map: a window that is larger
than the change is still right, its extra places are recomputed to what they were. Blocks keep windows near the border
small (they are cut there) and the memory bounded, whatever the number of positions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from zfrepro.models.network import Network
from zfrepro.models.table import Op, conv_ops, op_sizes

Features = dict[int, Tensor]

PLAIN_SHARE = 0.85  # share of a map from which on recomputing all of it costs no more than picking the window out
HEAD_BATCH = 128  # positions that go through the fully connected layers together: their weights are read once


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
    """What changes along one axis of a map: for position p the places [start[p], start[p] + size)."""

    start: Tensor  # (P,) int32
    size: int


def spans(starts: Sequence[int], square: int, ops: Sequence[Op], sizes: Sequence[int]) -> list[Span]:
    """The changed span along one axis, before the first op and after each one: len(ops) + 1 of them.

    starts: the square's offsets in pixels, one per position; sizes: sides of the maps, as from `op_sizes`.
    """
    low = torch.tensor(starts, dtype=torch.int32)
    high = low + square
    found = [Span(low, square)]
    for op, side in zip(ops, sizes[1:]):
        # Place i sees [i * stride - padding, i * stride - padding + kernel).
        low = torch.div(low + op.padding - op.kernel, op.stride, rounding_mode="floor") + 1
        high = torch.div(high - 1 + op.padding, op.stride, rounding_mode="floor") + 1
        low, high = low.clamp(0, side), high.clamp(0, side)
        high = torch.maximum(low, high)  # a stride larger than the kernel can leave pixels that nobody sees
        size = max(1, int((high - low).max()))
        found.append(Span(low.clamp(max=side - size), size))
    return found


class _Map:
    """A clean map as rows of channels, H * W of them; one more row for the places outside; then room for changed places."""

    def __init__(self, x: Tensor, outside: float) -> None:
        """x: (1, C, H, H)."""
        self.side = x.shape[2]
        rows = x[0].permute(1, 2, 0).reshape(-1, x.shape[1])
        self.table = torch.cat([rows, rows.new_full((1, x.shape[1]), outside)])

    def beside(self, changed: Tensor) -> Tensor:
        """The clean rows, the outside one, and those of `changed` (N, C, h, w), place by place: a table for lookups.

        One table for all calls: the clean rows are not copied again.
        """
        first, rows = self.side**2 + 1, changed.permute(0, 2, 3, 1)
        count = rows.shape[:3].numel()
        if len(self.table) < first + count:
            room = self.table.new_empty(count, self.table.shape[1])
            self.table = torch.cat([self.table[:first], room])
        self.table[first : first + count].view(rows.shape).copy_(rows)
        return self.table


def _assemble(clean: _Map, changed: Tensor, y: Span, x: Span, rows: Tensor, columns: Tensor) -> Tensor:
    """Patches of the occluded maps: (Py * Px, C, R, K), channels_last, where position (i, j) takes the places
    rows[i] x columns[j] of its map: from its changed window where they lie in it, clean elsewhere, padding off the map.

    changed: (Py * Px, C, y.size, x.size), windows at y.start x x.start; rows: (Py, R) and columns: (Px, K), places.
    """
    device, channels = changed.device, changed.shape[1]
    dy, dx = rows - y.start[:, None], columns - x.start[:, None]  # places within the window
    position = torch.arange(len(rows) * len(columns), dtype=torch.int32).view(len(rows), len(columns), 1, 1)
    in_window = position * (y.size * x.size) + (dy * x.size)[:, None, :, None] + dx[None, :, None, :]
    in_map = (rows * clean.side)[:, None, :, None] + columns[None, :, None, :]
    inside = ((rows >= 0) & (rows < clean.side))[:, None, :, None] & ((columns >= 0) & (columns < clean.side))[:, None]
    hit = ((dy >= 0) & (dy < y.size))[:, None, :, None] & ((dx >= 0) & (dx < x.size))[:, None]
    outside = clean.side**2  # number of the extra row
    index = torch.where(hit, in_window + outside + 1, torch.where(inside, in_map, outside))
    taken = clean.beside(changed).index_select(0, index.flatten().to(device))
    return taken.view(position.numel(), rows.shape[1], columns.shape[1], channels).permute(0, 3, 1, 2)


def _whole(clean: _Map, changed: Tensor, y: Span, x: Span) -> Tensor:
    """All of the occluded maps: (P, C, H, H)."""
    places = torch.arange(clean.side, dtype=torch.int32)
    return _assemble(clean, changed, y, x, places.expand(len(y.start), -1), places.expand(len(x.start), -1))


def _needed(op: Op, output: Span) -> Tensor:
    """(P, n): the places of its input that an op reads for an output span."""
    reach = torch.arange((output.size - 1) * op.stride + op.kernel, dtype=torch.int32)
    return (output.start * op.stride - op.padding)[:, None] + reach


class Occluder:
    """The occluded forward passes of one image.

    image: (3, S, S), a network input; fill: (3, S, S), what the square shows, place by place (a grey square is not
    constant once the mean image is subtracted). Both float, on the network's device.
    """

    def __init__(self, network: Network, image: Tensor, fill: Tensor, square: int) -> None:
        self.network, self.square = network, square
        self.ops = conv_ops(network.layers)
        self.sizes = op_sizes(self.ops, image.shape[-1])
        x = image[None].contiguous(memory_format=torch.channels_last)
        self.fill = fill.permute(1, 2, 0).contiguous()
        self.clean = []  # the input of each op, and the output of the last
        for op in [*self.ops, None]:
            self.clean.append(_Map(x, -torch.inf if op and op.kind == "pool" else 0.0))
            x = network.step(op, x) if op else x

    def _squares(self, y: Span, x: Span) -> Tensor:
        """The fill under each position's square: (P, 3, q, q)."""
        reach = torch.arange(self.square)
        rows, columns = y.start[:, None] + reach, x.start[:, None] + reach
        taken = self.fill[rows[:, None, :, None], columns[None, :, None, :]]  # (Py, Px, q, q, 3)
        return taken.flatten(0, 1).permute(0, 3, 1, 2)

    def maps(self, ys: Sequence[int], xs: Sequence[int], wanted: Collection[int]) -> Features:
        """Output maps of the wanted convolutional layers, and of the last one, for the squares at ys x xs (one batch,
        row by row): layer -> (Py * Px, C, H, H)."""
        y, x = (spans(starts, self.square, self.ops, self.sizes) for starts in (ys, xs))
        windowed, now, found = True, self._squares(y[0], x[0]), {}
        for i, op in enumerate(self.ops):
            if op.kind in ("conv", "pool"):
                if windowed and y[i + 1].size * x[i + 1].size >= PLAIN_SHARE * self.sizes[i + 1] ** 2:
                    windowed, now = False, _whole(self.clean[i], now, y[i], x[i])
                if windowed:
                    places = _needed(op, y[i + 1]), _needed(op, x[i + 1])
                    now = _assemble(self.clean[i], now, y[i], x[i], *places)
            now = self._unpadded(op, now) if windowed else self.network.step(op, now)
            last = i + 1 == len(self.ops)
            if last or (self.ops[i + 1].layer != op.layer and op.layer in wanted):
                found[op.layer] = _whole(self.clean[i + 1], now, y[i + 1], x[i + 1]) if windowed else now
        return found

    def _unpadded(self, op: Op, x: Tensor) -> Tensor:
        """One op on patches that bring their padding along."""
        if op.kind == "conv":
            conv = self.network.conv(op.layer)
            return F.conv2d(x, conv.weight, conv.bias, op.stride)
        if op.kind == "pool":
            return F.max_pool2d(x, op.kernel, op.stride)
        if op.kind == "relu":
            return F.relu_(x)  # a convolution's own output
        return self.network.step(op, x)


def head(network: Network, maps: Tensor, wanted: Collection[int]) -> Features:
    """From the last convolutional layer's maps (P, C, H, H) to the wanted fully connected layers and the logits."""
    found, x = {}, maps.flatten(1)
    for layer in network.layers:
        if layer.kind == "fc":
            x = F.relu(network.weights[str(layer.number)](x))
            if layer.number in wanted:
                found[layer.number] = x
    found[network.softmax] = network.weights[str(network.softmax)](x)
    return found


def blocks(ys: Sequence[int], xs: Sequence[int], count: int) -> Iterator[tuple[range, range]]:
    """The grid of positions in rectangles of neighbours, about square and of at most `count` positions."""
    tall = max(1, min(isqrt(count), len(ys)))
    wide = max(1, min(count // tall, len(xs)))
    for top in range(0, len(ys), tall):
        for left in range(0, len(xs), wide):
            yield range(top, min(top + tall, len(ys))), range(left, min(left + wide, len(xs)))


def _numbers(rows: range, columns: range, width: int) -> Tensor:
    """Numbers of a block's positions in the whole grid, row by row."""
    return (torch.tensor(rows)[:, None] * width + torch.tensor(columns)[None]).flatten()


@torch.no_grad()
def occluded_features(
    network: Network,
    image: Tensor,
    fill: Tensor,
    square: int,
    ys: Sequence[int],
    xs: Sequence[int],
    wanted: Collection[int],
    block: int | None = None,
) -> Iterator[tuple[Tensor, Features]]:
    """`network.features` of the image with a square at every position of ys x xs, some positions at a time.

    image, fill: (3, S, S), see `Occluder`; ys, xs: offsets of the square's top left corner in pixels; wanted: layers
    (the softmax layer's number: logits); block: positions in one batch (None: what was fastest). Yields
    (numbers (N,), features): the positions' numbers in the grid, row by row, and layer -> (N, ...). Every position
    comes once, in another order than the grid's.
    """
    if block is None:
        # What was fastest for the ZFNet on a CPU, scaled by the size of its maps; a GPU wants larger batches.
        block = max(20, round((1 if image.device.type == "cpu" else 20) * 20 * (224 / image.shape[-1]) ** 2))
    occluder = Occluder(network, image, fill, square)
    top = network.conv_layers[-1]
    waiting: list[tuple[Tensor, Features]] = []

    def flush() -> tuple[Tensor, Features]:
        numbers = torch.cat([n for n, _ in waiting])
        maps = {layer: torch.cat([found[layer] for _, found in waiting]) for layer in waiting[0][1]}
        waiting.clear()
        above = head(network, maps[top], wanted) if max(wanted) > top else {}
        return numbers, {layer: value for layer, value in (maps | above).items() if layer in wanted}

    for rows, columns in blocks(ys, xs, block):
        maps = occluder.maps([ys[i] for i in rows], [xs[j] for j in columns], wanted)
        waiting.append((_numbers(rows, columns, len(xs)), maps))
        if sum(len(n) for n, _ in waiting) >= HEAD_BATCH:
            yield flush()
    if waiting:
        yield flush()


@torch.no_grad()
def brute_force_features(
    network: Network,
    image: Tensor,
    fill: Tensor,
    square: int,
    ys: Sequence[int],
    xs: Sequence[int],
    wanted: Collection[int],
    batch: int = 32,
) -> Iterator[tuple[Tensor, Features]]:
    """The same by its definition: paint the square, run the whole network. The benchmark's and the tests' yardstick."""
    corners = [(y, x) for y in ys for x in xs]
    for first in range(0, len(corners), batch):
        part = corners[first : first + batch]
        painted = image.repeat(len(part), 1, 1, 1)
        for canvas, (y, x) in zip(painted, part):
            canvas[:, y : y + square, x : x + square] = fill[:, y : y + square, x : x + square]
        found = network.features(painted.contiguous(memory_format=torch.channels_last), wanted)
        yield torch.arange(first, first + len(part)), {layer: found[layer] for layer in wanted}


def collect(stream: Iterator[tuple[Tensor, Features]], reduce: Callable[[Features], Tensor]) -> Tensor:
    """`reduce` of every position, in the grid's order, on the CPU: reduce turns features (N, ...) into (N, ...)."""
    portions = [(numbers, reduce(found).cpu()) for numbers, found in stream]
    values = torch.cat([value for _, value in portions])
    result = torch.empty_like(values)
    result[torch.cat([numbers for numbers, _ in portions])] = values
    return result
