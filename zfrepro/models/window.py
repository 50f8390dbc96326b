"""Projections at the cost of the receptive field: only the window that a unit reaches is carried, up and down.

Everything that a unit depends on lies in its cone: one cell of its layer, the cells below that it sees, and so on to its
receptive field in the image. A unit of layer 2 of the ZFNet sees 43 of 224 px; on whole images 96 % of the work is wasted.

All units of a layer have cones of one shape, at different places. Cells of a cone beyond the image's edge are kept and
held at what the network sees there (zero; minus infinity in a pooling), so units in the middle and at the border share a
batch. Where a cone outgrows the maps (upper layers of small networks), whole maps are carried: upward once per image,
shared by its units, as far as `cheapest_crop` finds it cheaper; downward by unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zfrepro.models.deconvnet import DEFAULT, NOWHERE, Rules, pool_up, unpool
from zfrepro.models.network import Network
from zfrepro.models.table import Op, op_sizes, ops_of

# Largest tensor of a chunk of units: beyond it a CPU's caches and its allocator slow everything down.
CHUNK_BYTES = 24 << 20


@dataclass(frozen=True)
class Frame:
    """A square of side `width` on maps of side `size`, per unit at its own place: rows [row, row + width), columns
    [column, column + width). It may hang over the edges."""

    row: list[int]  # per unit
    column: list[int]
    width: int
    size: int

    def below(self, op: Op, size: int) -> Frame:
        """The cells of the input of `op` (side `size`) that these cells of its output see; hangs over where it pads."""
        row, column = ([start * op.stride - op.padding for start in starts] for starts in (self.row, self.column))
        return Frame(row, column, (self.width - 1) * op.stride + op.kernel, size)

    def of(self, units: Sequence[int]) -> Frame:
        return Frame([self.row[u] for u in units], [self.column[u] for u in units], self.width, self.size)


def whole_frame(units: int, size: int) -> Frame:
    return Frame([0] * units, [0] * units, size, size)


def take(x: Tensor, which: Sequence[int], source: Frame, target: Frame) -> Tensor:
    """Cells of `target` out of x, which holds those of `source`: (U, C, width, width), zero where x has none.

    x: (N, C, w, w); which: for each unit its row of x.
    """
    if source == target and list(which) == list(range(len(x))):
        return x
    w, maps_last = target.width, x.permute(0, 2, 3, 1)
    taken = x.new_zeros(len(which), w, w, x.shape[1])
    for unit, image in enumerate(which):
        y, x0 = target.row[unit] - source.row[unit], target.column[unit] - source.column[unit]
        top, left = max(0, -y), max(0, -x0)
        bottom, right = min(w, source.width - y), min(w, source.width - x0)
        if top < bottom and left < right:
            taken[unit, top:bottom, left:right] = maps_last[image, y + top : y + bottom, x0 + left : x0 + right]
    return taken.permute(0, 3, 1, 2)


def fill_beyond(x: Tensor, frame: Frame, value: float) -> Tensor:
    """Set the cells of x (U, C, width, width) that lie beyond the edges to `value`, in place."""
    for unit, (row, column) in enumerate(zip(frame.row, frame.column)):
        for start, axis in ((row, 1), (column, 2)):
            inside = min(frame.width, frame.size - start)
            if start < 0:
                x[unit].narrow(axis, 0, min(-start, frame.width)).fill_(value)
            if inside < frame.width:
                x[unit].narrow(axis, max(inside, 0), frame.width - max(inside, 0)).fill_(value)
    return x


# --------------------------------------------------------------------------------------------------------------- way up


@dataclass(frozen=True)
class Switches:
    """A pooling's switches on the way up, with where its windows lie and, for each unit, its row."""

    tensor: Tensor  # for each window the flat place of its maximum in the input's frame, or NOWHERE
    frame: Frame
    which: list[int]
    below: Frame  # the input's frame

    def at(self, target: Frame, reached: Frame) -> Tensor:
        """The switches of the windows of `target`, by unit, as flat places in `reached`, the frame below it."""
        switches, width = take(self.tensor, self.which, self.frame, target), self.below.width
        nowhere = switches == NOWHERE
        shift = [
            (r - r0) * reached.width + c - c0
            for r, c, r0, c0 in zip(reached.row, reached.column, self.below.row, self.below.column)
        ]
        if reached.width != width:
            switches = switches + torch.div(switches, width, rounding_mode="floor") * (reached.width - width)
        if any(shift):
            switches = switches - torch.tensor(shift, device=switches.device)[:, None, None, None]
            # Windows outside the cone have no switch, and no signal either: any place will do.
            switches = switches.clamp_(0, reached.width**2 - 1)
        return switches.masked_fill(nowhere, NOWHERE)


def cones(ops: Sequence[Op], sizes: Sequence[int], row: list[int], column: list[int]) -> list[Frame]:
    """Frames of the inputs of all ops and of the output, for units (row, column) of the output: len(ops) + 1 frames."""
    frames = [Frame(row, column, 1, sizes[-1])]
    for op, size in zip(reversed(ops), reversed(sizes[:-1])):
        frames.append(frames[-1].below(op, size))
    return frames[::-1]


def cheapest_crop(network: Network, ops: Sequence[Op], frames: Sequence[Frame], images: int, units: int) -> int:
    """At which op to go over from whole maps (once per image) to windows (once per unit), by multiply-adds; 0: crop the
    image itself, len(ops): carry whole maps all the way up."""
    whole = [0] * len(ops)
    window = [0] * len(ops)
    for i, op in enumerate(ops):
        # Other ops only move memory: about as long as a few dozen multiply-adds a cell.
        work = network.conv(op.layer).weight.numel() if op.kind == "conv" else 32 * network.conv(op.layer).out_channels
        whole[i] = work * frames[i + 1].size ** 2 * images
        window[i] = work * frames[i + 1].width ** 2 * units
    return min(range(len(ops) + 1), key=lambda crop: sum(whole[:crop]) + sum(window[crop:]))


def climb(
    network: Network, images: Tensor, which: list[int], frames: Sequence[Frame], ops: Sequence[Op], rules: Rules
) -> tuple[Tensor, list[Switches | None]]:
    """The layer's output at the units (U, C, 1, 1) and what the way down needs, per op."""
    kept: list[Switches | None] = []
    crop = cheapest_crop(network, ops, frames, len(images), len(which))
    x, rows, here = images, which, whole_frame(len(which), images.shape[-1])
    for i, op in enumerate(ops):
        if i == crop:
            x, rows = take(x, which, here, frames[i]), list(range(len(which)))
        windows = i >= crop
        here = frames[i] if windows else whole_frame(len(which), frames[i].size)
        after = frames[i + 1] if windows else whole_frame(len(which), frames[i + 1].size)
        keep = None
        if op.kind == "pool":
            x = fill_beyond(x, here, -torch.inf)
            x, switches = pool_up(x, op, 0 if windows else op.padding, rules.ties)
            keep = Switches(switches, after, rows, here)
        elif op.kind == "conv" and windows:
            conv = network.conv(op.layer)
            x = F.conv2d(x, conv.weight, conv.bias, op.stride)
        else:
            x = network.step(op, x)
        if op.kind in ("conv", "pool") and windows:
            x = fill_beyond(x, after, 0)
        kept.append(keep)
        here = after
    return take(x, rows, here, frames[-1]), kept


# ------------------------------------------------------------------------------------------------------------- way down


def lower(
    network: Network, signal: Tensor, maps: Tensor, frame: Frame, ops: Sequence[Op], sizes: Sequence[int],
    kept: Sequence[Switches | None], rules: Rules,
) -> tuple[Tensor, Frame]:  # fmt: skip
    """The units' signal (U, C, 1, 1) down to pixels: (U, channels, w, w) and where they lie."""
    single = True  # while only the unit's own map has a signal
    for op, size, keep in zip(reversed(ops), reversed(sizes[:-1]), reversed(kept)):
        reached = frame.below(op, size)
        if op.kind == "relu":
            signal = F.relu(signal)
        elif op.kind == "pool" and single and frame.width == 1:
            # One value goes to one cell: the cone below is that cell's, not the pooling window's. A silent unit's goes nowhere.
            assert keep is not None
            own = keep.at(frame, reached)[torch.arange(len(maps), device=maps.device), maps, 0, 0]
            place = own.clamp(min=0).tolist()
            row = [start + flat // reached.width for start, flat in zip(reached.row, place)]
            column = [start + flat % reached.width for start, flat in zip(reached.column, place)]
            frame = Frame(row, column, 1, size)
        elif op.kind == "pool":
            assert keep is not None
            signal = unpool(signal, keep.at(frame, reached), reached.width, rules.unpool)
            signal, frame = fit(signal, reached)
        elif op.kind == "conv":
            signal, frame = fit(conv_down(signal, network.conv(op.layer).weight, op.stride), reached)
            single = False
    return signal, frame


def conv_down(signal: Tensor, filters: Tensor, stride: int) -> Tensor:
    """`conv_transpose2d` without padding: (U, C, w, w) through filters (C, in, k, k).

    Libraries are slow where few channels come out, as at the pixels. The stride^2 phases of the result are then computed
    side by side as channels of one ordinary convolution, and interleaved.
    """
    inputs, kernel = filters.shape[1:3]
    if stride == 1 or inputs * stride**2 > 64:
        return F.conv_transpose2d(signal, filters, None, stride)
    taps = -(-kernel // stride)
    padded = F.pad(filters, (0, taps * stride - kernel, 0, taps * stride - kernel))
    phases = padded.unflatten(3, (taps, stride)).unflatten(2, (taps, stride)).flip(2, 4).permute(1, 3, 5, 0, 2, 4)
    phases = phases.reshape(inputs * stride**2, -1, taps, taps).contiguous(memory_format=torch.channels_last)
    width = (signal.shape[-1] - 1) * stride + kernel
    return F.pixel_shuffle(F.conv2d(signal, phases, padding=taps - 1), stride)[..., :width, :width]


def fit(signal: Tensor, frame: Frame) -> tuple[Tensor, Frame]:
    """The same signal without cells that the network does not have: zero beyond the edges, or cut to the whole maps
    where these are no larger."""
    if frame.width < frame.size:
        return fill_beyond(signal, frame, 0), frame
    whole = whole_frame(len(signal), frame.size)
    return take(signal, range(len(signal)), frame, whole), whole


# --------------------------------------------------------------------------------------------------------------- public


@dataclass(frozen=True)
class Windows:
    """Projections of units where they are not zero."""

    pixels: Tensor  # (U, channels, w, w)
    rows: list[int]  # image row of each window's first row; negative where it hangs over the upper edge
    columns: list[int]
    input_size: int

    @classmethod
    def join(cls, parts: Sequence[Windows]) -> Windows:
        """Several of the same layer, one after the other."""
        rows, columns = ([start for part in parts for start in getattr(part, name)] for name in ("rows", "columns"))
        return cls(torch.cat([part.pixels for part in parts]), rows, columns, parts[0].input_size)

    def on_images(self) -> Tensor:
        """On whole images: (U, channels, S, S), zero outside the windows."""
        source = Frame(self.rows, self.columns, self.pixels.shape[-1], self.input_size)
        return take(self.pixels, range(len(self.rows)), source, whole_frame(len(self.rows), self.input_size))


def checked_units(
    network: Network, images: Tensor, layer: int, units: Sequence[tuple[int, int, int]] | Tensor,
    which: Sequence[int] | Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Units (U, 3) and their images (U,) as integers on the device. Raises ValueError for what does not exist."""
    if layer not in network.conv_layers:
        raise ValueError(f"layer {layer} has no projections: the convolutional layers are {network.conv_layers}")
    ops = ops_of(network.layers, layer)
    side = op_sizes(ops, network.input_size)[-1]
    expected = (network.channels, network.input_size, network.input_size)
    if images.ndim != 4 or images.shape[1:] != expected:
        raise ValueError(f"images of shape {tuple(images.shape)}: the network takes {expected} each")
    units = torch.as_tensor(units, dtype=torch.long, device=images.device).reshape(-1, 3)
    if which is None:
        which = [0] * len(units) if len(images) == 1 else list(range(len(images)))
    which = torch.as_tensor(which, dtype=torch.long, device=images.device)
    if which.shape != units.shape[:1]:
        raise ValueError(f"{len(units)} units and {len(which)} image numbers: give one image number per unit")
    limits = torch.tensor([network.conv(layer).out_channels, side, side], device=images.device)
    if len(units) and not bool(((units >= 0) & (units < limits)).all()):
        raise ValueError(f"a unit lies outside layer {layer}, which has {limits[0]} maps of {side} x {side}")
    if len(units) and not bool(((which >= 0) & (which < len(images))).all()):
        raise ValueError(f"an image number lies outside 0..{len(images) - 1}")
    return units, which


def _climbed(
    network: Network, images: Tensor, layer: int, units: Tensor, which: Tensor, rules: Rules
) -> Iterator[tuple[list[int], list[Frame], Tensor, list[Switches | None]]]:
    """Units in groups whose largest tensor stays below CHUNK_BYTES, those of an image together, so that they share it: their
    numbers, the frames of all ops, and what `climb` returns."""
    ops = ops_of(network.layers, layer)
    frames = cones(ops, op_sizes(ops, network.input_size), units[:, 1].tolist(), units[:, 2].tolist())
    maps = (network.conv(op.layer).out_channels for op in ops)
    widest = max(min(frame.width, frame.size) ** 2 * count for count, frame in zip(maps, frames[1:]))
    size = max(1, CHUNK_BYTES // (widest * images.element_size()))
    for part in torch.sort(which, stable=True).indices.split(size):
        group = part.tolist()
        needed, rank = which[group].unique(return_inverse=True)
        at = [frame.of(group) for frame in frames]
        yield group, at, *climb(network, images[needed], rank.tolist(), at, ops, rules)


def project(
    network: Network, images: Tensor, layer: int, units: Sequence[tuple[int, int, int]] | Tensor,
    which: Sequence[int] | Tensor | None = None, rules: Rules = DEFAULT,
) -> Tensor:  # fmt: skip
    """Projections of units to pixels: (U, channels, S, S) in the units of the images, both signs.

    images: (N, channels, S, S) as the network takes them, in its precision; layer: a convolutional layer's number;
    units: U triples (map, row, column) of the layer's output; which: for each unit its image, 0..N-1; None: unit i is of
    image i, or of the only image. Any mix of images and units, at the cost of their receptive fields.

    Raises ValueError for a layer without projections and for a unit or an image that does not exist.
    """
    return project_windows(network, images, layer, units, which, rules).on_images()


@torch.no_grad()
def project_windows(
    network: Network, images: Tensor, layer: int, units: Sequence[tuple[int, int, int]] | Tensor,
    which: Sequence[int] | Tensor | None = None, rules: Rules = DEFAULT,
) -> Windows:  # fmt: skip
    """As `project`, but each projection as the window of pixels that it can reach."""
    units, which = checked_units(network, images, layer, units, which)
    if not len(units):
        return Windows(images.new_zeros(0, network.channels, 1, 1), [], [], network.input_size)
    ops = ops_of(network.layers, layer)
    sizes = op_sizes(ops, network.input_size)
    order: list[int] = []
    starts: list[tuple[int, int]] = []
    found: list[Tensor] = []
    for group, at, top, kept in _climbed(network, images, layer, units, which, rules):
        maps = units[group, 0]
        # Alone: every other map's activation at the unit's place is set to zero.
        alone = torch.zeros_like(top).scatter_(1, maps[:, None, None, None], top.gather(1, maps[:, None, None, None]))
        pixels, frame = lower(network, alone, maps, at[-1], ops, sizes, kept, rules)
        found.append(pixels)
        order += group
        starts += zip(frame.row, frame.column)
    back = torch.tensor(order).argsort()
    rows, columns = ([starts[unit][axis] for unit in back.tolist()] for axis in (0, 1))
    return Windows(torch.cat(found)[back], rows, columns, network.input_size)


@torch.no_grad()
def unit_values(
    network: Network, images: Tensor, layer: int, units: Sequence[tuple[int, int, int]] | Tensor,
    which: Sequence[int] | Tensor | None = None,
) -> Tensor:  # fmt: skip
    """(U,) outputs of units of a convolutional layer, at the cost of their receptive fields; units, which: see `project`."""
    units, which = checked_units(network, images, layer, units, which)
    values = images.new_zeros(len(units))
    for group, _, top, _ in _climbed(network, images, layer, units, which, DEFAULT):
        values[group] = top[torch.arange(len(group), device=top.device), units[group, 0], 0, 0]
    return values
