"""What a layer table comes to (ZF Fig. 3, VGG Tables 1 and 2): shapes, receptive fields, parameters, multiply-adds."""

from __future__ import annotations

import torch

from zfrepro.models.network import Network, multiply_adds
from zfrepro.models.table import Op, ops_of, receptive_field
from zfrepro.options.shared import ModelConfig

UNITS = {"conv": "maps", "fc": "units", "softmax": "classes"}
COLUMNS = ["layer", "name", "what", "output", "receptive field / stride", "parameters", "multiply-adds"]


def on_paper(config: ModelConfig, outputs: int) -> Network:
    """The network without memory for its weights: to be described, not run."""
    with torch.device("meta"):
        return Network(config, outputs)


def describe(network: Network) -> list[list[str]]:
    """The cells below COLUMNS for each layer, the softmax layer included: the output as maps x side x side, the field in
    pixels, multiply-adds for one image; biases, pooling and normalisation not counted."""
    work, rows = multiply_adds(network), []
    for layer in network.layers:
        n, side, field = layer.number, network.side(layer.number), receptive_field(ops_of(network.layers, layer.number))
        what = f"{layer.outputs} {UNITS[layer.kind]}: " + ", ".join(map(_step, layer.ops))
        output = f"{layer.outputs}x{side}x{side}" if layer.kind == "conv" else str(layer.outputs)
        parameters = sum(p.numel() for p in network.weights[str(n)].parameters())
        numbers = f"{field.size}/{field.stride}", f"{parameters:,}", f"{work[n]:,}"
        rows.append([str(n), layer.name, what, output, *numbers])
    return rows


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
