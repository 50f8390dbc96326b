"""What a training starts from: another run's weights, whole or in part (VGG, section 3.1; and fine-tuning).

`number`: layers of the same number, where their weights have the same shape. `order`: VGG's way from A to the deeper networks.
The source's convolutions, from the first on, each go to the target's next convolution of the same shape; of 64 -> 128 and
128 -> 256 maps, say, however many of 128 -> 128 stand between. Fully connected layers are counted from the top. `name`: layers
of the same name in both tables, conv5_1 and conv5_1, where their weights have the same shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zfrepro.checkpoints import checkpoint_of, load_checkpoint
from zfrepro.data import Packed
from zfrepro.data.transforms import resized
from zfrepro.errors import UserError, nearest, require
from zfrepro.files import file_hash, shown
from zfrepro.models.network import Network
from zfrepro.models.table import Layer, layers_of
from zfrepro.options.commands import TrainConfig
from zfrepro.run import load_config, runs_in
from zfrepro.trainer.folder import Folder

# layer -> shape of its weights: (out, in, k, k) of a convolution, else (out, in)
Shapes = Mapping[int, tuple[int, ...]]
Names = Mapping[int, str]


def same_number(source: Shapes, target: Shapes) -> dict[int, int]:
    """Target layer -> source layer."""
    return {number: number for number, shape in target.items() if source.get(number) == shape}


def same_order(source: Shapes, target: Shapes, convolutions: int | None = None) -> dict[int, int]:
    """Target layer -> source layer; `convolutions`: how many of the source's are taken, all if None."""
    found: dict[int, int] = {}
    left = [number for number, shape in target.items() if len(shape) == 4]
    for number in [number for number, shape in source.items() if len(shape) == 4][:convolutions]:
        fit = next((place for place in left if target[place] == source[number]), None)
        if fit is not None:
            found[fit] = number
            left = left[left.index(fit) + 1 :]
    tops = [[number for number, shape in table.items() if len(shape) == 2][::-1] for table in (source, target)]
    return found | {fit: number for number, fit in zip(*tops) if target[fit] == source[number]}


def same_name(
    source: Shapes, target: Shapes, theirs: Names, ours: Names, convolutions: int | None = None
) -> dict[int, int]:
    """Target layer -> source layer; theirs, ours: the names of the source's and the target's layers."""
    few = [number for number, shape in source.items() if len(shape) == 4][:convolutions]
    named = {theirs[number]: number for number, shape in source.items() if number in few or len(shape) == 2}
    found = {number: named[name] for number, name in ours.items() if name in named}
    return {number: origin for number, origin in found.items() if source[origin] == target[number]}


@dataclass(frozen=True)
class Source:
    """Another run's best weights."""

    run: str
    state: dict[str, Any]  # of the checkpoint
    names: Names = field(default_factory=dict)  # of its layers, for init_match=name

    @property
    def shapes(self) -> dict[int, tuple[int, ...]]:
        """Of its layers' weights, from the first on."""
        layers = {
            int(key.split(".")[1]): value for key, value in self.state["model"].items() if key.endswith(".weight")
        }
        return {number: tuple(layers[number].shape) for number in sorted(layers)}


def source_path(config: TrainConfig) -> Path:
    """The checkpoint that `config.init_from` names."""
    return checkpoint_of(config.runs_folder / str(config.init_from))


def open_origin(config: TrainConfig) -> Source:
    """The run that `config.init_from` names. Raises UserError where it has no weights."""
    path, name = source_path(config), str(config.init_from)
    if not path.exists():
        runs = runs_in(config.runs_folder)
        raise UserError(
            f"init_from={name}: {shown(path)} is not there{nearest(name, runs)}; "
            f"give the name of a trained run" + (f", of {', '.join(runs)}" if runs else "")
        )
    named = config.init_match == "name"
    layers = layers_of(load_config(config.runs_folder / name, name).model, outputs=1) if named else ()
    return Source(name, load_checkpoint(path), names_of(layers))


def names_of(layers: Sequence[Layer]) -> dict[int, str]:
    return {layer.number: layer.name for layer in layers}


@torch.no_grad()
def take_over(network: Network, source: Source, config: TrainConfig) -> str:
    """Copy what fits from the source into the network; returns what was taken and what keeps its drawn weights, in a line.

    Raises UserError where nothing fits, or where a layer that is to be frozen was not taken.
    """
    weights = {layer.number: network.weights[str(layer.number)] for layer in network.layers}
    target = {number: tuple(module.get_parameter("weight").shape) for number, module in weights.items()}
    if config.init_match == "order":
        taken = same_order(source.shapes, target, config.init_convolutions)
    elif config.init_match == "name":
        ours = names_of(network.layers)
        taken = same_name(source.shapes, target, source.names, ours, config.init_convolutions)
    else:
        taken = same_number(source.shapes, target)
    if config.regression:
        taken.pop(network.top, None)  # classes are no boxes, even where there are four of them
    if not taken:
        raise UserError(
            f"init_from={source.run}: none of its layers' weights have the shapes of {config.model.name}'s; "
            "give model=<a table like its own>, or init_match=order where layers lie between"
        )
    drawn = [number for number in target if number not in taken]
    for number in drawn:
        if number <= config.freeze:
            own, there = target[number], source.shapes.get(number)
            raise UserError(
                f"freeze={config.freeze}: layer {number} cannot be taken from init_from={source.run} (its weights are "
                f"{own} here and {there} there); freeze at most {number - 1} layers"
            )
    for number, origin in taken.items():
        for name in ("weight", "bias"):
            network.get_parameter(f"weights.{number}.{name}").copy_(source.state["model"][f"weights.{origin}.{name}"])
    pairs = ", ".join(
        str(number) if number == origin else f"{number} (its {origin})" for number, origin in sorted(taken.items())
    )
    rest = f"; drawn: {', '.join(map(str, drawn))}" if drawn else ""
    frozen = f"; frozen: 1 to {config.freeze}" if config.freeze else ""
    return f"from run={source.run}: layers {pairs}{rest}{frozen}"


def with_source(config: TrainConfig) -> TrainConfig:
    """The config with the hash of the weights that it starts from, by which it knows them again.

    Raises UserError where they are not there, or are others than the config says. A training that has begun needs them no
    more, but they may not have become others.
    """
    if config.init_from is None:
        return config
    path = source_path(config)
    found = file_hash(path) if path.exists() else None
    if found is None and Folder(config).begun:
        found = load_config(config.folder).init_hash
    if found is None:
        open_origin(config)  # says what is missing
    if config.init_hash not in (None, found):
        raise UserError(f"init_from={config.init_from}: has other weights now than init_hash={config.init_hash}")
    return dataclasses.replace(config, init_hash=found)


def freeze(network: Network, layers: int) -> int:
    """Take layers 1 to `layers` out of training; returns the number of the last of them that there is, 0 for none.

    They compute as in a test, without dropout. Raises UserError where no layer would be left to train.
    """
    numbers = [layer.number for layer in network.layers]
    require("freeze", layers, layers < numbers[-1], f"below {numbers[-1]}, the number of the last layer")
    frozen = [number for number in numbers if number <= layers]
    for number in frozen:
        network.weights[str(number)].requires_grad_(False)
    return max(frozen, default=0)


def own_inputs(config: TrainConfig, data: Packed) -> tuple[Tensor, Tensor]:
    """Preprocessing by the training images: their mean image, or the mean colour everywhere, (S, S, 3), and the config's
    factor, ()."""
    mean = torch.from_numpy(data.mean.copy())
    if config.subtract == "colour":
        mean = torch.from_numpy(data.colour).float().expand_as(mean).contiguous()
    return mean, torch.tensor(config.input_scale)


def source_inputs(state: dict[str, Any], size: int, rescaled: bool = False) -> tuple[Tensor, Tensor]:
    """The preprocessing of a checkpoint for images of `size` pixels: its mean, a colour or an image (size, size, 3), resized
    where its images have another size; its factor, () or (3,). rescaled: images get other sizes, which a mean image has not."""
    mean, scale = state["mean"], state["scale"]
    if rescaled and mean.ndim == 3 and bool((mean != mean[0, 0]).any()):
        return mean.mean((0, 1)), scale
    if mean.ndim == 1 or mean.shape[0] == size:
        return mean, scale
    return resized(mean[None], (size, size))[0].contiguous(), scale
