"""A trained run, opened: its network, its preprocessing, its data. Every experiment begins here."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zfrepro.checkpoints import checkpoint_of, load_checkpoint
from zfrepro.data import Known, Packed, Split, open_own, recall
from zfrepro.data.matching import Classes, Matching, match_classes
from zfrepro.data.rescaling import Images, rescaled
from zfrepro.data.squares import squared
from zfrepro.data.transforms import centre_crop, resized
from zfrepro.devices import resolve_device, resolve_precision
from zfrepro.errors import UserError, nearest, require
from zfrepro.files import file_hash, shown, true_name
from zfrepro.models.network import Network
from zfrepro.options.commands import IMPORTED, TrainConfig
from zfrepro.options.compose import choices, load_saved
from zfrepro.options.declare import check_options
from zfrepro.options.shared import Common, Experiment


@dataclass
class TrainedRun:
    """A network with what it was trained on. Images are squares (B, S, S, 3) uint8, S = `side`, where nothing else is said."""

    folder: Path
    config: TrainConfig
    network: Network  # float32, eval, channels_last, on `device`
    checkpoint_hash: str
    epoch: int  # epochs of training behind the checkpoint
    class_names: tuple[str, ...]
    known: Known | None  # what the checkpoint remembers of its data; None: imported, trained on none of ours
    mean: Tensor  # (S, S, 3) float32, pixels
    scale: Tensor  # () or (3,) float32: factor on the mean-subtracted pixels
    device: torch.device
    precision: str  # fp32 | bf16
    class_ids: tuple[str, ...] = ()  # WordNet ids, or folders' names; empty where they are not known

    @cached_property
    def data(self) -> Packed:
        """The data set that the run was trained on. Raises UserError where it is not the same any more."""
        return open_own(self.config.data, self.known, self.config.run)

    @cached_property
    def squares(self) -> Packed:
        """The same as squares of `side` pixels: what all experiments see but those that test whole images."""
        return squared(self.data, self.side) if self.data.fit == "whole" else self.data

    def split(self, name: str) -> Split:
        """The squares to train on, 'train', or to validate on, 'val'."""
        return self.squares.train if name == "train" else self.squares.val

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes that the images' labels number: the network's; where it has no softmax, the data set's."""
        return self.class_names if self.network.softmax else self.data.class_names

    @property
    def side(self) -> int:
        """S: the packed squares' side; of whole images, the smallest size to which they were resized in training."""
        return int(self.mean.shape[0])

    @cached_property
    def matching(self) -> Matching:
        """Which of the network's classes the data set's are. Says what could not be matched."""
        data = Classes(self.data.class_ids, self.data.class_names)
        if self.known is not None or self.network.softmax is None:  # trained here; or nothing is told apart
            return Matching(np.arange(len(data.names)), [], [])
        found = match_classes(Classes(self.class_ids, self.class_names), data)
        if note := found.note():
            print(
                f"run={self.config.run}: {note}; their images are left out where the true class is needed",
                file=sys.stderr,
            )
        return found

    def labels_of(self, split: Split) -> np.ndarray:
        """(N,) int64: the network's numbers of the true classes of a split of its data; -1 where it has no such class."""
        return self.matching.numbers[split.labels]

    def inputs(self, images: np.ndarray | Tensor) -> Tensor:
        """Network inputs (B, 3, s, s): centre crops, mean subtracted, scaled; s = network.input_size."""
        batch = torch.as_tensor(images).to(self.device)
        return centre_crop(batch, self.mean, self.network.input_size, self.scale)

    def whole(self, images: Images, side: int, rows: np.ndarray | None = None) -> Tensor:
        """Network inputs (B, 3, h, w) of whole images, those of `rows` (all of them if None), their smaller side resized to
        `side` pixels, all of one shape then: what dense evaluation takes (VGG paper, section 3.2). A mean image is stretched
        over them."""
        rows = np.arange(len(images)) if rows is None else rows
        pictures = rescaled(images, rows, side, torch.zeros(3, device=self.device)).permute(0, 2, 3, 1)
        mean = self.mean if self.mean.ndim == 1 else resized(self.mean[None], (pictures.shape[1], pictures.shape[2]))[0]
        return ((pictures - mean) * self.scale).permute(0, 3, 1, 2)

    def crops(self, images: np.ndarray | Tensor) -> Tensor:
        """The centre crops themselves, (B, s, s, 3) uint8 on the CPU: what the network saw."""
        size, crop = self.mean.shape[0], self.network.input_size
        start = (size - crop) // 2
        return torch.as_tensor(images)[:, start : start + crop, start : start + crop]

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The run's precision, for the block."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def require_softmax(run: TrainedRun) -> int:
    """The number of the softmax layer. Raises UserError where the network has none, and names the cure."""
    if run.network.softmax is None:
        raise UserError(
            f"run={run.config.run}: its weights came without a classifier, and this needs probabilities; train one on top: "
            f"{training_of_a_head(run.config, run.network.feature_layers[-1])}"
        )
    return run.network.softmax


def training_of_a_head(config: TrainConfig, layers: int) -> str:
    """The command that trains a classifier on top of a run's `layers` layers, which stay as they are.

    An imported network takes pixels of +-128: the demo's learning rate, meant for a tenth of that, would end in no number.
    """
    model, data = config.model.name, config.data
    table = model if model in choices("train")["model"] else "<a table with its top>"
    root = f" data.root={shlex.quote(data.root)}" if data.root else ""
    return (
        f"zfrepro train run={config.run}_head init_from={config.run} freeze={layers} model={table} "
        f"model.input_size={config.model.input_size} data={data.name}{root} data.size={data.size} augmentation=centre "
        "init=paper lr=0.003"
    )


def runs_in(outputs: Path) -> list[str]:
    """Names of the trained runs below an outputs folder, sorted; a run may be called torchvision/vgg16. The networks that
    an experiment trained within a run are none."""
    places = [path.parent.parent for depth in ("*", "*/*") for path in outputs.glob(f"{depth}/train/config.yaml")]
    return sorted(place.relative_to(outputs).as_posix() for place in places if place.parent not in places)


def load_config(folder: Path, run: str | None = None) -> TrainConfig:
    """The config that a run was trained with. `run`: its name, which may have several parts. Raises UserError where there
    is none."""
    path = folder / "train" / "config.yaml"
    if not path.exists():
        run = run or folder.name
        runs = runs_in(folder.parents[len(Path(run).parts) - 1])
        there = f"; there are: {', '.join(runs)}" if runs else ""
        raise UserError(
            f"run={run}: no trained run in {shown(folder)}{nearest(run, runs)}; "
            f"train it with `zfrepro train run={run}`{there}"
        )
    if (true := true_name(folder)) != folder.name:
        raise UserError(
            f"run={run or folder.name}: is {true} on this disk, which takes capital and small letters for one; give "
            f"run={(run or folder.name).removesuffix(folder.name)}{true}, or another name"
        )
    here: dict[str, Any] = {"device": "auto"}  # what belongs to the machine, not to the training
    if cache := os.environ.get("ZFREPRO_CACHE"):
        here["data"] = {"cache": cache}
    return load_saved(path, TrainConfig, here)


def snapshots(folder: Path) -> list[int]:
    """Epochs whose weights were kept, in order."""
    kept = (path.stem.removeprefix("epoch_") for path in (folder / "train" / "checkpoints").glob("epoch_*.pt"))
    return sorted(int(epoch) for epoch in kept if epoch.isdecimal())


def outputs_of(regression: str | None, classes: int) -> int:
    """Numbers that come out on top: one a class, or the four of a box, for all classes or for each."""
    return {None: classes, "scr": 4, "pcr": 4 * classes}[regression]


def open_run(config: Common, which: str | int = "best", boxes: bool = False) -> TrainedRun:
    """Open the run that `config` names: its 'best' or 'last' weights or those of a snapshot epoch.

    boxes: a network of boxes is wanted, and not one of classes. Raises UserError where there is no such run or checkpoint,
    and for a run of the other kind.
    """
    trained = load_config(config.folder, config.run)
    if boxes and not trained.regression:
        raise UserError(
            f"run={config.run}: its network gives classes, not boxes; `zfrepro localize` trains one of boxes"
        )
    if trained.regression and not boxes:
        raise UserError(
            f"run={config.run}: its network gives boxes, not classes; give run={trained.init_from}, from which it was started"
        )
    if isinstance(config, Experiment) and config.data.root:
        require("data.root", config.data.root, Path(config.data.root).expanduser().exists(), "a folder that is there")
        trained.data.root = config.data.root
        check_options(trained.data, "data.")
    checkpoint = checkpoint_of(config.folder, f"epoch_{which}" if isinstance(which, int) else which)
    if not checkpoint.exists():
        raise UserError(
            f"run={config.run}: {shown(checkpoint)} is not there; let `zfrepro train` finish an epoch first, or, if it had been "
            "there, begin again with resume=false"
        )
    state, digest = _read(checkpoint)
    device = resolve_device(config.device)
    with torch.device("meta"):  # without drawing the millions of weights that are replaced
        network = Network(trained.model, outputs_of(trained.regression, len(state["class_names"])))
    try:
        network.load_state_dict({name: weights.float() for name, weights in state["model"].items()}, assign=True)
    except RuntimeError as error:
        raise UserError(f"{shown(checkpoint)}: its weights do not fit the model of train/config.yaml") from error
    network = network.placed(device).eval().requires_grad_(False)
    last = checkpoint.with_name("last.pt")  # earlier versions of the program remembered the data there alone
    known = recall(state) or (recall(load_checkpoint(last)) if last.exists() else None)
    resized = trained.data.fit == "whole" and trained.train_scale
    side = min(trained.train_scale) if resized else trained.data.size
    return TrainedRun(
        folder=config.folder,
        config=dataclasses.replace(trained, run=config.run, outputs=config.outputs),
        network=network,
        checkpoint_hash=digest,
        epoch=int(state["epoch"]),
        class_names=tuple(state["class_names"]),
        class_ids=tuple(state.get("class_ids", ())),
        known=known,
        mean=_mean_image(state["mean"], side).to(device),
        scale=state["scale"].to(device),
        device=device,
        precision=resolve_precision(config.precision, device),
    )


def _read(checkpoint: Path) -> tuple[dict[str, Any], str]:
    """A checkpoint and its hash, of one and the same file, although a training may replace it meanwhile."""
    while True:
        before = checkpoint.stat()
        state, digest = load_checkpoint(checkpoint), file_hash(checkpoint)
        after = checkpoint.stat()
        if (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns):
            return state, digest


def require_apart(runs: Sequence[TrainedRun]) -> None:
    """Refuse a run and its copy among those of the option `runs`, which would count as two nets."""
    first: dict[str, str] = {}
    for run in runs:
        name = run.config.run
        if (other := first.setdefault(run.checkpoint_hash, name)) != name:
            raise UserError(f"runs={name}: has the very weights of {other}; give runs that were trained apart")


def open_source(config: Experiment, name: str | None = None, key: str = "runs") -> TrainedRun:
    """The classification run `name`, of the option `key`, or `config`'s own, from which an experiment trains others. Its data
    are looked at here, before anything is trained."""
    with naming(key, name):
        run = open_run(dataclasses.replace(config, run=name or config.run))
        _ = run.data.train
    return run


def require_recipe(run: TrainedRun) -> TrainConfig:
    """How a run was trained. Raises UserError for an imported one, of which that is not known."""
    if run.config.preset == IMPORTED:
        raise UserError(
            f"run={run.config.run}: was imported, so there is no training to vary; give a run that `zfrepro train` made"
        )
    return run.config


@contextlib.contextmanager
def naming(key: str, name: str | None) -> Iterator[None]:
    """A UserError about the run `name` tells the option that named it, where that is not `run`."""
    try:
        yield
    except UserError as error:
        raise UserError(re.sub(rf"^run={re.escape(name or '')}: ", f"{key}={name}: ", str(error))) from error


def _mean_image(mean: Tensor, side: int) -> Tensor:
    """(S, S, 3): the mean image, or the mean colour (3,) everywhere."""
    return mean if mean.ndim == 3 and len(mean) == side else mean.reshape(-1, 3).mean(0).expand(side, side, 3)
