"""`zfrepro import`: a run made of weights that were trained elsewhere, so that every other command works on them.

What a file of weights does not say, how pixels were scaled and what the classes are called, comes from the options, or from
torchvision where the weights are known to be its own; it is never guessed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zfrepro.checkpoints import read_tensors, save_checkpoint
from zfrepro.data import placed
from zfrepro.data.matching import imagenet_wnids
from zfrepro.errors import UserError, require
from zfrepro.figures.training import draw_filters
from zfrepro.files import file_hash, lock, read_json, shown, write_json
from zfrepro.lists import read_text
from zfrepro.models.imported import Trained, assemble, read_state_dict
from zfrepro.models.network import Network
from zfrepro.models.onnx_chain import read_chain
from zfrepro.options.commands import IMPORTED, ImportConfig, TrainConfig
from zfrepro.options.declare import check_options
from zfrepro.options.identity import config_hash, write_config
from zfrepro.options.shared import ModelConfig
from zfrepro.run import load_config, training_of_a_head
from zfrepro.trainer import torchvision_weights as known
from zfrepro.trainer.torchvision_weights import Preprocessing


@dataclass(frozen=True)
class Source:
    path: Path
    digest: str  # SHA-256
    table: ModelConfig
    weights: list[Trained]
    architecture: str | None  # torchvision's name of it; None: not one of torchvision's


def import_weights(config: ImportConfig) -> None:
    """Write `train/` of the run: config.yaml, import.json, checkpoints/{best,last}.pt, filters.png."""
    if _is_there(config):
        print(f"run={config.run}: is there already; nothing to do (resume=false imports it again)")
        return
    source = read_source(config)
    network = assemble(source.table, source.weights, _where(config), config.layers)
    crop = network.input_size
    require("data.size", config.data.size, config.data.size >= crop, f"{crop} or more, the side of the network's input")
    inputs = preprocessing_of(config, source, network)
    names, ids = classes_of(config, source, network)
    if inputs.bgr:
        first = network.conv(network.conv_layers[0]).weight
        first.copy_(first.flip(1))
    with lock(config.folder):
        write_run(config, source, network, inputs, names, ids)
    print(f"pixels: minus {_listed(inputs.mean)}, divided by {_listed(inputs.std)} (R, G, B; {inputs.how})")
    if not network.outputs:
        command = training_of_a_head(run_config(config, network.config), network.feature_layers[-1])
        print(f"no classifier: what needs probabilities will say so; to train one:\n  {command}")


def _where(config: ImportConfig) -> str:
    return f"weights={config.weights}"


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _is_there(config: ImportConfig) -> bool:
    """Whether this very import was made. Raises UserError where the folder holds something else."""
    folder = config.folder / "train"
    if not (folder / "checkpoints" / "last.pt").exists():
        return False
    if load_config(config.folder).preset != IMPORTED:
        raise UserError(f"run={config.run}: was trained here; give run=<another name> to import beside it")
    note = folder / "import.json"
    if config.resume and note.exists() and read_json(note).get("options") != config_hash(config):
        raise UserError(
            f"run={config.run}: was imported with other options; give run=<another name>, or resume=false to replace it"
        )
    return config.resume


# ----------------------------------------------------------------------------------------------------------- the weights


def read_source(config: ImportConfig) -> Source:
    """The weights that `config` names. Raises UserError where there is no such thing, or where it cannot be read."""
    table, path = config.model, Path(config.weights).expanduser()
    own = known.architecture(table.name) if table.layers else None
    if table.remove or table.scale:
        raise UserError("model.remove and model.scale: a network that is trained already is taken as it is")
    if not path.is_file():
        if path.exists() or own is None:
            why = "not a file" if path.exists() else "no such file"
            raise UserError(
                f"weights={config.weights}: {why}; give a state dict or an .onnx file, or one of torchvision's networks, such "
                "as model=torchvision/vgg16, whose weights can be fetched"
            )
        path = known.fetched(own, config.weights)
    if path.suffix.lower() == ".onnx":
        derived, weights = read_chain(path, config.layers)
        if table.layers:
            _require_same(table, derived, config)
        return Source(path, file_hash(path), table if table.layers else derived, weights, None)
    if not table.layers:
        raise UserError(f"{_where(config)}: a state dict needs its layer table; give model=<name or path of a .yaml>")
    state = read_file(path, _where(config))
    weights = read_state_dict(state, _where(config), known.EPSILON if own else None, config.layers)
    if bare := [one.name for one in weights if one.weight.is_meta or one.bias.is_meta]:
        raise UserError(
            f"{_where(config)}: {bare[0]} has a shape and no values (device meta); save the weights themselves"
        )
    return Source(path, file_hash(path), table, weights, own)


def read_file(path: Path, where: str) -> Any:
    """A file of weights. Raises UserError for every other file."""
    if path.suffix.lower() == ".safetensors":
        raise UserError(
            f"{where}: safetensors is not read, as it has lost the order of the layers; load it into your network by "
            f"safetensors.torch.load_model(model, {path.name!r}) and give what torch.save(model.state_dict(), "
            f"{path.with_suffix('.pth').name!r}) writes"
        )
    try:
        return read_tensors(path)
    except ValueError as error:
        raise UserError(
            f"{where}: not a readable state dict, {error}; save it by torch.save(model.state_dict(), ...)"
        ) from error


def _require_same(table: ModelConfig, derived: ModelConfig, config: ImportConfig) -> None:
    """Refuse a table that does not compute what the ONNX file computes. Names and dropout may differ."""
    rows = [
        [dataclasses.replace(row, dropout=0.0, name="") for row in one.layers[: len(derived.layers)]]
        for one in (table, derived)
    ]
    differing = [n for n, (own, theirs) in enumerate(zip(*rows), 1) if own != theirs]
    norm = ("norm_size", "norm_k", "norm_alpha", "norm_beta") if any(row.norm != "none" for row in rows[1]) else ()
    wrong = [f"layer {n}" for n in differing]
    wrong += [key for key in ("input_size", *norm) if getattr(table, key) != getattr(derived, key)]
    wrong += ["the number of layers"] if len(rows[0]) != len(rows[1]) else []
    if wrong:
        raise UserError(
            f"model={table.name}: differs from what {config.weights} computes ({', '.join(wrong)}); leave model= out: the "
            "file has its own table"
        )


# ------------------------------------------------------------------------------------------- what the weights do not say


def preprocessing_of(config: ImportConfig, source: Source, network: Network) -> Preprocessing:
    """The options' mean, std and channels, or what is known. Raises UserError where nothing is."""
    if config.mean or config.std:
        return given_preprocessing(config.mean, config.std, config.channels)
    found, layer1 = None, source.weights[0].weight
    if source.architecture:
        found = known.known_preprocessing(source.architecture, source.digest, layer1, bool(network.outputs))
    if found is None:
        raise UserError(
            f"{_where(config)}: a file does not say which pixels its network takes; give mean=[r,g,b] std=[r,g,b], and "
            "channels=bgr if it takes B, G, R (torchvision trains with mean=[0.485,0.456,0.406] std=[0.229,0.224,0.225], "
            "Caffe with mean=[103.939,116.779,123.68] std=[1,1,1] channels=bgr)"
        )
    if config.channels == "bgr" and not found.bgr:
        raise UserError(
            "channels=bgr: these weights are known to take R, G, B; give mean= and std= as well if they do not"
        )
    return found


def given_preprocessing(mean: Sequence[float], std: Sequence[float], channels: str) -> Preprocessing:
    """mean and std: one number or one a colour, in the network's order of colours; of pixels 0..255 if one of them is
    above 1, else of pixels 0..1. Raises UserError where they leave that open, and for what is no number."""
    values = []
    for key, given in (("mean", mean), ("std", std)):
        good = len(given) in (1, 3) and all(math.isfinite(value) for value in given)
        require(key, list(given), good, "a list of three numbers (or one for all colours); mean and std go together")
        values.append(tuple(given) * (3 // len(given)))
    require("std", list(std), min(std) > 0, "above 0")
    if set(values[0]) == {0.0} and set(values[1]) == {1.0}:
        raise UserError(
            "mean=[0] std=[1]: of pixels 0..255 or 0..1? give std=[255] for pixels / 255, std=[0.0039215686] for pixels"
        )
    finer, coarser = (max(map(abs, given)) > 1 for given in values)
    if (finer and min(std) < 1) or (coarser and not finer and any(mean)):
        raise UserError(
            f"mean={list(mean)} std={list(std)}: one is of pixels 0..1, the other of pixels 0..255; give both of the same (std "
            "divides: where pixels are multiplied by 0.017, it is 58.8)"
        )
    unit = 1.0 if finer or coarser else 255.0
    order = slice(None, None, -1 if channels == "bgr" else 1)
    mean, std = (tuple(unit * value for value in given[order]) for given in values)
    return Preprocessing(mean, std, "as given", channels == "bgr")


def classes_of(config: ImportConfig, source: Source, network: Network) -> tuple[list[str], list[str]]:
    """Names of the classes, and their ids in WordNet where they are known, else nothing."""
    count = network.outputs
    if config.classes is not None:
        if not count:
            raise UserError(f"classes={config.classes}: these weights have no classifier; leave classes= out")
        return read_classes(Path(config.classes).expanduser(), count)
    names = known.class_names(source.architecture, count) if source.architecture else None
    if names is None:
        return [f"class {number}" for number in range(count)], []
    return list(names), list(imagenet_wnids()) if count == len(imagenet_wnids()) else []


def read_classes(path: Path, count: int) -> tuple[list[str], list[str]]:
    """Names and ids of `count` classes from a file: a name a line, or `n01440764 tench, Tinca tinca`, or JSON, a list of
    either or {"0": ["n01440764", "tench"], ...}. Raises UserError where there are more or fewer."""
    try:
        text = read_text(path)
        listed = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
        if isinstance(listed, dict):
            listed = [listed[str(number)] for number in range(len(listed))]
        lines = [line if isinstance(line, str) else " ".join(map(str, line)) for line in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no text, or no JSON list of names"
        raise UserError(f"classes={path}: cannot be read ({why}); give a file with a class a line") from error
    lines = [line.strip() for line in lines if line.strip()]
    require(
        "classes", path, len(lines) == count, f"a file of {count} lines, the network's classes (it has {len(lines)})"
    )
    found = [re.fullmatch(r"(n\d{8})(?:[\s,;:]+(.*))?", line) for line in lines]
    names = [(match.group(2) or match.group(1)) if match else line for match, line in zip(found, lines)]
    ids = [match.group(1) for match in found if match]
    return names, ids if len(ids) == count else []


# --------------------------------------------------------------------------------------------------------------- the run


def write_run(
    config: ImportConfig, source: Source, network: Network, inputs: Preprocessing, names: list[str], ids: list[str]
) -> None:
    """The files; the checkpoint that says that all are there comes last. Its mean is that of every pixel of pictures, its scale
    1 / std for each colour."""
    folder, size = config.folder / "train", config.data.size
    write_config(folder / "config.yaml", run_config(config, network.config))
    filters: Tensor = network.conv(network.conv_layers[0]).weight.detach()
    draw_filters(filters.numpy()).savefig(folder / "filters.png", dpi=150)
    note = {"options": config_hash(config), "weights": str(source.path), "sha256": source.digest, **vars(inputs)}
    layers = [one.name for one in source.weights[: len(network.layers)]]
    write_json(folder / "import.json", {**note, "layers": layers, "classes": network.outputs})
    checkpoint = {
        "model": network.state_dict(),
        "class_names": names,
        **({"class_ids": ids} if ids else {}),
        "mean": torch.tensor(inputs.mean).expand(size, size, 3).contiguous(),
        "scale": 1 / torch.tensor(inputs.std),
        "epoch": 0,
    }
    for which in ("best", "last"):
        save_checkpoint(folder / "checkpoints" / f"{which}.pt", checkpoint)
    what = f"{len(network.feature_layers)} layers" + (f" and {network.outputs} classes" if network.outputs else "")
    print(
        f"wrote {shown(folder)}{os.sep}: config.yaml, import.json, filters.png, checkpoints/{{best,last}}.pt ({what})"
    )


def run_config(config: ImportConfig, table: ModelConfig) -> TrainConfig:
    """The config under which the other commands find the run; its training options were not used."""
    made = TrainConfig(
        run=config.run, outputs=config.outputs, seed=config.seed, device=config.device, precision=config.precision,
        preset=IMPORTED, model=table, data=placed(config.data), epochs=1, batch_size=256, lr=0.01, renorm_radius=None,
        augmentation="random_crop", subtract="colour",
    )  # fmt: skip
    check_options(made)
    return made
