"""The layer table and its geometry: what a network computes, and which pixels a unit sees.

A network is a list of `Layer`s, numbered as in the paper: 1-5 convolutional, 6-7 fully connected, 8 softmax. Every layer
unrolls into a few `Op`s (convolution, ReLU, pooling, contrast normalisation, dropout); the network walks them upwards and
the deconvnet walks the same ones downwards. A fully connected layer is a convolution whose kernel is its whole input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zfrepro.errors import UserError
from zfrepro.options.shared import LayerConfig, ModelConfig


@dataclass(frozen=True)
class Op:
    """One step of a layer; `relu`, `norm` and `dropout` have kernel 1, stride 1, padding 0."""

    kind: str  # conv | relu | pool | norm | dropout
    layer: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    share: float = 0.0  # dropout: of the units that it zeroes


@dataclass(frozen=True)
class Layer:
    number: int
    name: str  # conv3_2
    kind: str  # conv | fc | softmax
    outputs: int  # feature maps, units or classes
    ops: tuple[Op, ...]  # its steps in forward order; the first one is the convolution that holds its weights


@dataclass(frozen=True)
class Field:
    """Receptive field of the units of one op: unit i sees input rows [start + i * stride, start + i * stride + size)."""

    size: int
    stride: int
    start: int


def layers_of(config: ModelConfig, outputs: int = 0) -> tuple[Layer, ...]:
    """The table with the edits of Table 3 applied (`remove`, `scale`) and, above it, a softmax layer of `outputs` classes
    (0: none), whose number is the table's length + 1.

    Raises UserError where no layer is left, or where one does not fit its input.
    """
    layers: list[Layer] = []
    side = config.input_size
    for number, row in enumerate(config.layers, start=1):
        if number not in config.remove:
            own = row.maps if row.kind == "conv" else row.units
            width = max(1, round(own * (config.scale or {}).get(number, 1.0)))
            name = row.name or f"{row.kind}{number}"
            layers.append(Layer(number, name, row.kind, width, _ops(number, row, side)))
            side = op_sizes(ops_of(layers), config.input_size)[-1]
    if not layers:
        raise UserError(f"model.remove={list(config.remove)}: no layer is left")
    if outputs:
        number = len(config.layers) + 1
        layers.append(Layer(number, "softmax", "softmax", outputs, (Op("conv", number, side),)))
    return tuple(layers)


def _ops(number: int, row: LayerConfig, side: int) -> tuple[Op, ...]:
    """A layer's steps. A fully connected one is a convolution over all of the maps of `side` x `side` below it."""
    if row.kind == "fc":
        dropout = (Op("dropout", number, share=row.dropout),) if row.dropout else ()
        return Op("conv", number, side), Op("relu", number), *dropout
    pool = (Op("pool", number, row.pool, row.pool_stride, row.pool_padding),) if row.pool else ()
    norm = (Op("norm", number),)
    after = {"none": pool, "after_pool": pool + norm, "before_pool": norm + pool}[row.norm]
    return Op("conv", number, row.kernel, row.stride, row.padding), Op("relu", number), *after


def ops_of(layers: Sequence[Layer], last: int | None = None) -> list[Op]:
    """The ops of the layers up to number `last` (all if None), in forward order."""
    return [op for layer in layers if last is None or layer.number <= last for op in layer.ops]


def op_sizes(ops: Sequence[Op], input_size: int) -> list[int]:
    """Sides of the maps before the first op and after each one: len(ops) + 1 numbers, in pixels.

    For an image that is no square, one call a side. Raises UserError where an op does not fit its input.
    """
    sizes = [input_size]
    for op in ops:
        if sizes[-1] + 2 * op.padding < op.kernel:
            raise UserError(
                f"model.input_size={input_size}: too small, the {op.kind} of layer {op.layer} "
                f"({op.kernel}x{op.kernel}) gets maps of {sizes[-1]}x{sizes[-1]} only"
            )
        sizes.append((sizes[-1] + 2 * op.padding - op.kernel) // op.stride + 1)  # rounded down, as in the paper
    return sizes


def receptive_field(ops: Sequence[Op]) -> Field:
    """Receptive field of a unit after `ops`; `start` is negative where padding is seen. Not clipped to the image."""
    size, stride, start = 1, 1, 0
    for op in ops:
        start -= op.padding * stride
        size += (op.kernel - 1) * stride
        stride *= op.stride
    return Field(size, stride, start)


def receptive_box(ops: Sequence[Op], row: int, column: int, input_size: int) -> tuple[int, int, int, int]:
    """Pixels (y0, x0, y1, x1), half-open, that the unit (row, column) after `ops` sees, clipped at the image's border."""
    field = receptive_field(ops)
    y, x = (field.start + index * field.stride for index in (row, column))
    clip = [min(max(value, 0), input_size) for value in (y, x, y + field.size, x + field.size)]
    return clip[0], clip[1], clip[2], clip[3]
