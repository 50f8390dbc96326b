"""`zfrepro import`: a run made of weights that torchvision trained, so that every other command works on them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor

from zfrepro.checkpoints import save_checkpoint
from zfrepro.data import placed
from zfrepro.errors import UserError, require
from zfrepro.figures.training import draw_filters
from zfrepro.files import lock, shown
from zfrepro.models.imported import convert, torchvision_model
from zfrepro.models.network import Network
from zfrepro.options.checks import check
from zfrepro.options.commands import ImportConfig, TrainConfig
from zfrepro.options.identity import write_config

PREFIX = "torchvision/"


def import_weights(config: ImportConfig) -> None:
    """Write `train/` of the run: config.yaml, checkpoints/{best,last}.pt, filters.png."""
    if not config.model.name.startswith(PREFIX):
        raise UserError(f"model={config.model.name}: only torchvision's can be imported, such as model={PREFIX}vgg16")
    name = config.model.name.removeprefix(PREFIX)
    crop = config.model.input_size
    require("data.size", config.data.size, config.data.size >= crop, f"{crop} or more")
    folder = config.folder / "train"
    with lock(config.folder):
        if (folder / "checkpoints" / "last.pt").exists() and config.resume:
            print(f"run={config.run}: is there already; nothing to do (resume=false imports it again)")
            return
        state, meta = load_weights(name, config.weights)
        model = torchvision_model(name, state)
        network = convert(Network(config.model, len(state["classifier.6.bias"])), model)
        checkpoint = checkpoint_of(network, meta, config.data.size)
        for which in ("best", "last"):
            save_checkpoint(folder / "checkpoints" / f"{which}.pt", checkpoint)
        filters = network.conv(network.conv_layers[0]).weight.detach().numpy()
        draw_filters(filters).savefig(folder / "filters.png", dpi=150)
        write_config(folder / "config.yaml", run_config(config))
    classes = len(checkpoint["class_names"])
    print(f"wrote {shown(folder)}/: config.yaml, filters.png, checkpoints/{{best,last}}.pt ({name}, {classes} classes)")


def load_weights(name: str, weights: str) -> tuple[Mapping[str, Tensor], Any]:
    """A state dict, from a file or by the name of one of torchvision's (downloaded), and torchvision's description of its
    default weights: preprocessing and class names. Raises UserError where there is no such thing."""
    from zfrepro.vision import torchvision

    known = torchvision.models.get_model_weights(name)
    if Path(weights).expanduser().is_file():
        try:
            state = torch.load(Path(weights).expanduser(), map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise UserError(
                f"weights={weights}: not a readable state dict (torch.save of model.state_dict())"
            ) from error
        if not isinstance(state, dict) or "classifier.6.bias" not in state:
            raise UserError(f"weights={weights}: not a state dict of torchvision's {name}")
        return state, known.DEFAULT
    if weights not in known.__members__:
        names = ", ".join(known.__members__)
        raise UserError(f"weights={weights}: no such file, and torchvision's {name} has {names}")
    chosen = known[weights]
    try:
        return chosen.get_state_dict(progress=True, check_hash=True), chosen
    except (URLError, OSError) as error:
        raise UserError(
            f"weights={weights}: could not fetch {chosen.url} ({error}); fetch it by hand and give weights=<the file>"
        ) from error


def checkpoint_of(network: Network, meta: Any, size: int) -> dict[str, Any]:
    """What `open_run` reads. torchvision's (x / 255 - mean) / std is here (x - 255 mean) * 1 / (255 std), per colour."""
    preprocessing = meta.transforms()
    mean, std = (255 * torch.tensor(values) for values in (preprocessing.mean, preprocessing.std))
    names = meta.meta["categories"]
    if len(names) != network.outputs:
        names = [f"class {number}" for number in range(network.outputs)]
    return {
        "model": network.state_dict(),
        "class_names": list(names),
        "mean": mean.expand(size, size, 3).contiguous(),
        "scale": 1 / std,
        "epoch": 0,
    }


def run_config(config: ImportConfig) -> TrainConfig:
    """The config under which the other commands find the run; its training options were not used."""
    made = TrainConfig(
        run=config.run, outputs=config.outputs, seed=config.seed, device=config.device, precision=config.precision,
        preset="imported", model=config.model, data=placed(config.data), epochs=1, batch_size=256, lr=0.01, renorm_radius=None,
    )  # fmt: skip
    check(made)
    return made
