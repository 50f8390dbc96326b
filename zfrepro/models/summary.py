"""What a layer table comes to (ZF Fig. 3, VGG Tables 1 and 2): shapes, receptive fields, parameters, multiply-adds."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zfrepro.models.network import Network, multiply_adds
from zfrepro.models.table import Layer, Op, ops_of, receptive_field
from zfrepro.options.shared import ModelConfig

UNITS = {"conv": "maps", "fc": "units", "softmax": "classes"}


@dataclass(frozen=True)
class Row:
    """A layer, described."""

    number: int
    name: str
    what: str
    output: str  # maps x side x side
    field: str  # receptive field / stride, in pixels
    parameters: int
    multiply_adds: int  # for one image; biases, pooling and normalisation not counted

    @property
    def cells(self) -> list[str]:
        """As a row of a table."""
        numbers = f"{self.parameters:,}", f"{self.multiply_adds:,}"
        return [str(self.number), self.name, self.what, self.output, self.field, *numbers]


def on_paper(config: ModelConfig, outputs: int) -> Network:
    """The network without memory for its weights: to be described, not run."""
    with torch.device("meta"):
        return Network(config, outputs)


def describe(network: Network) -> list[Row]:
    """A row for each layer, the softmax layer included."""
    work = multiply_adds(network)
    rows = []
    for layer in network.layers:
        n, side, field = layer.number, network.side(layer.number), receptive_field(ops_of(network.layers, layer.number))
        output = f"{layer.outputs}x{side}x{side}" if layer.kind == "conv" else str(layer.outputs)
        parameters = sum(p.numel() for p in network.weights[str(n)].parameters())
        rows.append(Row(n, layer.name, _what(layer), output, f"{field.size}/{field.stride}", parameters, work[n]))
    return rows


def _what(layer: Layer) -> str:
    return f"{layer.outputs} {UNITS[layer.kind]}: " + ", ".join(map(_step, layer.ops))


def _step(op: Op) -> str:
    if op.kind == "dropout":
        return f"dropout {op.share:g}"
    if op.kind in ("relu", "norm"):
        return op.kind
    padding, pool = f" pad {op.padding}" if op.padding else "", " pool" if op.kind == "pool" else ""
    return f"{op.kernel}x{op.kernel}/{op.stride}{padding}{pool}"


def other_operations(network: Network) -> int:
    """Biases (one addition an output), pooling (one comparison a window element), normalisation (size + 2 an element)."""
    costs, widths = {"conv": 1, "norm": network.config.norm_size + 2}, network.widths
    return sum(
        widths[op.layer] * size**2 * (op.kernel**2 if op.kind == "pool" else costs.get(op.kind, 0))
        for op, size in zip(network.ops, network.sizes[1:])
    )
