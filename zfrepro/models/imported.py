"""Weights that were trained elsewhere as weights of a `Network`: read in order, matched by shape, right or refused.

Batch normalisation, which is fixed after training, is folded into the convolution before it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zfrepro.errors import UserError, require
from zfrepro.models.network import Network
from zfrepro.options.shared import ModelConfig

NAMED = 4  # layers that a message names
INSTEAD = "; leave it out of what is saved, or export the network to ONNX and give weights=<the .onnx file>"
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Trained:
    """A layer's weights, and what the file calls it."""

    name: str
    weight: Tensor  # (out, in, k, k) or (out, in), float32
    bias: Tensor  # (out,)


def fold_batch_norm(layer: Trained, norm: Mapping[str, Tensor], epsilon: float) -> Trained:
    """The one layer that equals a layer followed by batch normalisation in evaluation; in float64.

    norm: running_mean and running_var (out,), and where it scales and shifts weight and bias (out,).
    """
    mean, variance = norm["running_mean"].double(), norm["running_var"].double()
    factor = norm.get("weight", torch.ones(())).double() / (variance + epsilon).sqrt()
    shifted = (layer.bias.double() - mean) * factor + norm.get("bias", torch.zeros(())).double()
    scaled = layer.weight.double() * factor.view(-1, *[1] * (layer.weight.ndim - 1))
    return Trained(layer.name, scaled.float(), shifted.float())


# ------------------------------------------------------------------------------------------------------- a state dict


def read_state_dict(state: Any, where: str, epsilon: float | None = None, wanted: int | None = None) -> list[Trained]:
    """The layers of a state dict, in its order. Names tell only which tensors belong together.

    where: what messages begin with. epsilon: of batch normalisation, and that it stands right behind each convolution;
    None: unknown, for a state dict does not say. wanted: the first `wanted` layers, and nothing above is looked at. Raises
    UserError for whatever is not a convolution or a fully connected layer.
    """
    layers: list[Trained] = []
    normalised = True  # whether the last layer may no longer be
    groups: dict[str, dict[str, Tensor]] = {}  # by layer, then by part: weight, bias ...
    for key, tensor in _unwrapped(state, where).items():
        groups.setdefault(key.rpartition(".")[0], {})[key.rpartition(".")[2]] = tensor
    _refuse_disorder(groups, where)
    for name, parts in groups.items():
        norm = "running_mean" in parts
        if len(layers) == wanted and not norm:
            break
        known = _checked(name, parts, where)
        if not norm:
            layers.append(_layer(name, known, where))
        elif epsilon is None:
            raise UserError(
                f"{where}: {name} is batch normalisation, and a state dict says neither its epsilon nor whether it comes "
                "before or after the ReLU; export the network to ONNX and give weights=<the .onnx file>"
            )
        elif normalised or known["running_mean"].shape != layers[-1].bias.shape or "running_var" not in known:
            raise UserError(f"{where}: {name} is batch normalisation that fits no convolution before it")
        else:
            layers[-1] = fold_batch_norm(layers[-1], known, epsilon)
        normalised = norm
    return layers


def _refuse_disorder(groups: Mapping[str, Mapping[str, Tensor]], where: str) -> None:
    """Refuse layers that their numbers put in another order, conv10 before conv2, where they could be taken for one another
    or all stand in the order of the alphabet: sorted by a format that knows no order, such as safetensors, HDF5 or JSON."""
    alphabet, last = list(groups) == sorted(groups), dict[Any, tuple[list[int], str]]()
    for name, parts in groups.items():
        alike = re.sub(r"\d+", "#", name), *(() if alphabet else parts.get("weight", torch.zeros(())).shape)
        numbers = [int(number) for number in re.findall(r"\d+", name)]
        before, first = last.get(alike, (numbers, name))
        if before > numbers:
            order = "in the order of the alphabet" if alphabet else "in disorder"
            raise UserError(
                f"{where}: its layers stand {order} ({first} before {name}), not in the network's; load them into the network "
                "and save its model.state_dict()"
            )
        last[alike] = numbers, name


def _layer(name: str, parts: Mapping[str, Tensor], where: str) -> Trained:
    """A layer's weight and bias; without a bias, zeros."""
    weight = parts.get("weight", torch.zeros(()))
    if weight.ndim not in (2, 4) or set(parts) - {"weight", "bias"}:
        what = ", ".join(f"{part} {_shape(tensor)}" for part, tensor in parts.items())
        raise UserError(
            f"{where}: {name or 'its top level'} ({what}) is no convolution and no fully connected layer{INSTEAD}"
        )
    bias = parts.get("bias", torch.zeros(len(weight)))
    if bias.shape != weight.shape[:1]:
        raise UserError(f"{where}: {name} has a bias of {_shape(bias)} for weights of {_shape(weight)}")
    return Trained(name, weight, bias)


def _unwrapped(state: Any, where: str) -> dict[str, Tensor]:
    """The tensors of a state dict by name, out of what a training script may have put around them."""
    if not isinstance(state, Mapping):
        raise UserError(f"{where}: holds a {type(state).__name__} and no state dict; save model.state_dict()")
    found = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if found and len(found) == len(state):
        return found
    inner = [key for key, value in state.items() if isinstance(value, Mapping) and _holds_weights(value)]
    if len(inner) == 1:  # the tensors beside it are statistics, not layers
        return _unwrapped(state[inner[0]], where)
    if inner:
        raise UserError(
            f"{where}: holds {len(inner)} state dicts ({', '.join(map(str, inner))[:120]}); save the one that is meant, such "
            f"as torch.save(torch.load(<this file>)[{inner[0]!r}], <another>)"
        )
    others = ", ".join(str(key) for key in state if key not in found)[:120]
    raise UserError(f"{where}: not a state dict of tensors by name" + (f" (it also holds {others})" if others else ""))


def _holds_weights(state: Mapping[Any, Any]) -> bool:
    """Whether there are weights of layers in it; an optimiser's state, numbered, and weights of a loss's classes are none."""
    return any(
        _holds_weights(value)
        if isinstance(value, Mapping)
        else isinstance(value, Tensor) and value.ndim in (2, 4) and key.rpartition(".")[2] == "weight"
        for key, value in state.items()
        if isinstance(key, str)
    )


def _checked(name: str, parts: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """A layer's parts in float32. Raises UserError for others than weights, and for what are no real numbers."""
    for part, tensor in parts.items():
        key = f"{name}.{part}" if name else part
        if part not in NORM:
            raise UserError(
                f"{where}: its entry {key} is no weight or bias of a convolution or a fully connected layer{INSTEAD}"
            )
        if part != "num_batches_tracked" and (not tensor.is_floating_point() or tensor.layout != torch.strided):
            raise UserError(f"{where}: {key} is a tensor of {tensor.dtype}, {tensor.layout}; weights are real numbers")
    return {part: tensor.detach().float() for part, tensor in parts.items() if part != "num_batches_tracked"}


# -------------------------------------------------------------------------------------------------- into a layer table


@torch.no_grad()
def assemble(config: ModelConfig, given: Sequence[Trained], where: str, layers: int | None = None) -> Network:
    """The network of a layer table with these weights: in evaluation, on the CPU.

    given: a layer for each row of the table, and one more for the softmax layer. The fully connected layers may be
    missing, or hold nothing but NaN, from some layer on: what the file has no weights for is left out of the table, and the
    network has no softmax. layers: keep layers 1 ... `layers` of the table and look at nothing above.

    Raises UserError where a layer has another shape than the table says, and for a weight that is no finite number.
    """
    rows, given = list(config.layers), list(given)
    if layers is not None:
        require("layers", layers, 1 <= layers <= len(rows), f"between 1 and {len(rows)}, the layers below the softmax")
        rows, given = rows[:layers], given[:layers]
    while given and given[-1].weight.ndim == 2 and bool(given[-1].weight.isnan().all()):
        given.pop()  # torchvision's IMAGENET1K_FEATURES have such a classifier
    if all(row.kind == "fc" for row in rows[len(given) :]):
        rows = rows[: len(given)]
    outputs = len(given[-1].weight) if len(given) == len(rows) + 1 else 0
    if outputs == 1:
        raise UserError(
            f"{where}: {given[-1].name} has one output, and a softmax of one is always 1; give a network with an output for each "
            f"class, or layers={len(rows)}, those below it alone"
        )
    with torch.device("meta"):
        network = Network(dataclasses.replace(config, layers=rows), outputs)
    _require_fit(network, given, where)
    state = {}
    for layer, own in zip(network.layers, given):
        state[f"weights.{layer.number}.weight"] = _as_in(own.weight, layer.kind)
        state[f"weights.{layer.number}.bias"] = own.bias
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _as_in(weight: Tensor, kind: str) -> Tensor:
    """A fully connected layer's weights may come as those of the convolution that it is."""
    return weight if kind == "conv" else weight.flatten(1)


def _require_fit(network: Network, given: Sequence[Trained], where: str) -> None:
    """Refuse weights that are not those of the network's layers; names the first that differ."""
    wrong, first = [], 0
    for layer, own in zip(network.layers, given):
        expected = network.get_parameter(f"weights.{layer.number}.weight")
        found = _as_in(own.weight, layer.kind)
        if expected.shape != found.shape:
            wrong.append(f"layer {layer.number} is {_shape(expected)}, {own.name} {_shape(own.weight)}")
        elif not (own.weight.isfinite().all() and own.bias.isfinite().all()):
            wrong.append(f"layer {layer.number}, {own.name} holds values that are no finite numbers")
        first = first or (layer.number if wrong else 0)
    if len(given) != len(network.layers):
        below = len(network.config.layers)
        wrong.insert(0, f"the table has {below} layers below its softmax, the file {len(given)} in all")
    if wrong:
        cure = (
            f"; layers={first - 1} takes those below alone"
            if first > 1
            else "; give model=<the network's own layer table>.yaml"
        )
        listed = "; ".join(wrong[:NAMED]) + (f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else "")
        raise UserError(f"{where}: does not fit the table {network.config.name}: {listed}{cure}")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"
