"""Options that several commands share: a network's table, a data set, what every command knows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from omegaconf import MISSING

from zfrepro.errors import UserError, require, require_layer
from zfrepro.options.declare import anything, at_least, each, group, matching, one_of, option, positive, within

# Optional[...] rather than X | None below: OmegaConf reads these annotations at run time.
# ruff: noqa: UP045


@dataclass
class LayerConfig:
    """One row of the layer table (paper, Fig. 3); sizes in pixels of the layer's own input."""

    kind: str = option("conv", "conv | fc", one_of("conv", "fc"))
    maps: int = option(0, "conv: feature maps", at_least(0))
    units: int = option(0, "fc: units", at_least(0))
    kernel: int = option(0, "conv: side of the filters", at_least(0))
    stride: int = option(1, "conv: pixels between neighbouring units", at_least(1))
    padding: int = option(0, "conv: zeros on every side", at_least(0))
    pool: int = option(0, "side of the max-pooling window; 0: none", at_least(0))
    pool_stride: int = option(2, "pixels between neighbouring windows", at_least(1))
    pool_padding: int = option(0, "border of the pooled map, at most half a window", at_least(0))
    norm: str = option(
        "none",
        "contrast normalisation across maps: none | after_pool (ZFNet) | before_pool (AlexNet)",
        one_of("none", "after_pool", "before_pool"),
    )
    dropout: float = option(0.0, "fc: share of the layer's output left out in training", within("[0, 1)"))
    name: str = option("", "in the paper's words, as conv3_2; empty: its kind and number", anything)

    def check(self) -> None:
        if self.kind == "fc":
            require("units", self.units, self.units >= 1, "1 or more")
            return
        require("maps", self.maps, self.maps >= 1, "1 or more")
        require("kernel", self.kernel, self.kernel >= 1, "1 or more")
        half = self.pool // 2
        fits = self.pool == 0 or self.pool_padding <= half
        require("pool_padding", self.pool_padding, fits, f"between 0 and half the window ({half})")
        require("dropout", self.dropout, not self.dropout, "0: dropout is for fully connected layers")


@dataclass
class ModelConfig:
    """A network as a table of layers; layer numbers are the paper's and survive the removal of others."""

    name: str = option(MISSING, "the table's name", anything)
    input_size: int = option(MISSING, "side of the square input in pixels", at_least(1))
    layers: list[LayerConfig] = option([], "the table, from the input on", each(anything, repeated=True))
    sibling: Optional[str] = option(
        None, "the other architecture at the same scale (Fig. 6, Table 3), a name in conf/model; null: none", anything
    )
    remove: list[int] = option([], "Table 3: layers to leave out, as [3,4]", each(at_least(1)))
    scale: Optional[dict[int, float]] = option(
        None, "Table 3: layer -> factor on its maps or units, as {6: 0.5}; null: all as in the table", positive
    )
    norm_size: int = option(
        5, "contrast normalisation (Krizhevsky et al. 2012, section 3.3): n, the maps that it goes over", at_least(1)
    )
    norm_k: float = option(2.0, "... k", positive)
    norm_alpha: float = option(1e-4, "... alpha", within("[0, inf)"))
    norm_beta: float = option(0.75, "... beta", within("[0, inf)"))

    def check(self) -> None:
        require("layers", len(self.layers), len(self.layers) >= 1, "at least one layer")
        numbers = list(range(1, len(self.layers) + 1))
        for key, edited in (("remove", self.remove), ("scale", list(self.scale or {}))):
            for number in edited:
                require_layer(key, number, numbers)
        left = [layer.kind for number, layer in zip(numbers, self.layers) if number not in self.remove]
        require("remove", list(self.remove), "conv" in left, "such that a convolutional layer is left")
        kinds = [layer.kind for layer in self.layers]
        late = [number for number, kind in enumerate(kinds) if kind == "conv" and "fc" in kinds[:number]]
        for number in late[:1]:
            raise UserError(f"layers[{number}].kind=conv: must be fc: a conv layer cannot follow a fully connected one")


DATA_SETS = (
    "embedded", "tiny_imagenet", "cifar10", "imagenette", "caltech101", "caltech256", "voc2007", "voc2012",
    "voc2012_actions", "imagenet", "folder",
)  # fmt: skip


@dataclass
class DataConfig:
    """A data set and how it is packed: decoded once, resized to `size`."""

    name: str = option(MISSING, "which data set", one_of(*DATA_SETS))
    size: int = option(MISSING, "smaller side of the packed images in pixels", within("[8, 4096]"))
    fit: str = option(
        "square", "square: the centre square of every image | whole: the whole rectangle", one_of("square", "whole")
    )
    root: Optional[str] = option(
        None,
        "folder or archive that holds the data set; null: where data.download=true puts it",
        anything,
        neutral=True,
    )
    cache: Optional[str] = option(
        None, "folder of the packed data sets; null: $ZFREPRO_CACHE, or else ~/.cache/zfrepro", anything, neutral=True
    )
    download: bool = option(False, "fetch it where torchvision can", anything, neutral=True)
    on_error: str = option("raise", "images that cannot be read: raise | skip", one_of("raise", "skip"))
    per_class: Optional[int] = option(
        None, "use only the first n training images of every class; null: all", at_least(1)
    )
    val_fraction: float = option(
        0.1, "data sets without a validation split: share of every class held out", within("(0, 1)")
    )
    split_seed: int = option(0, "... and the seed that draws it; embedded: the seed of the drawing", at_least(0))
    background: bool = option(
        False,
        "Caltech only: its folder of pictures of nothing is a class too; in VGG's protocol it always is",
        anything,
    )
    part: str = option(
        "source",
        "embedded only: source | target classes | scenes (several objects, several labels)",
        one_of("source", "target", "scenes"),
    )
    train_per_class: int = option(120, "embedded only: training images a class (scenes: as many in all)", at_least(1))
    val_per_class: int = option(20, "embedded only: validation images, likewise", at_least(1))
    workers: int = option(0, "processes that decode; 0: one per CPU", at_least(0), neutral=True)

    def check(self) -> None:
        if self.name == "embedded" and self.root:
            raise UserError(
                f"root={self.root}: the embedded data set is drawn, and no folder is read for it; leave this out, or train on "
                f"that folder with data=folder data.root={self.root}"
            )

    @property
    def unused(self) -> set[str]:
        """The options that say nothing about this data set."""
        drawn, taken = {"part", "train_per_class", "val_per_class"}, {"val_fraction", "on_error", "background"}
        if self.name == "embedded":
            return taken
        return drawn | (set() if self.name.startswith("caltech") else {"background"})

    @property
    def cache_folder(self) -> Path:
        """The data cache, absolute."""
        usual = os.environ.get("ZFREPRO_CACHE", "").strip() or "~/.cache/zfrepro"
        return home_expanded("data.cache", self.cache or usual).resolve()


def home_expanded(key: str, path: str) -> Path:
    """The path with ~ replaced. Raises UserError for a user without a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        hint = " or ZFREPRO_CACHE=<folder>" if key == "data.cache" else ""
        raise UserError(f"{key}={path}: you have no home folder; give {key}=<folder>{hint}") from error


# A part of a run's name is a folder's: on Windows none ends in a point, and these are devices.
PART = r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)(?:[./]|$))\w[\w.+=,@-]*(?<!\.)"
run_name = matching(
    rf"(?!.*\.\.){PART}(/{PART})*",
    "a name of letters, digits and . _ - + = @ (it becomes a folder below outputs/), or several with / between; none may end "
    "in a point or be nul, con, aux and the like, which Windows allows no folder",
)


@dataclass
class LearnedBoxes:
    """Which boxes a network of boxes learns: VGG's Appendix A leaves it open."""

    inside: float = option(
        0.5,
        "share of a box that must lie in the crop, or it is left out of this visit; 0: it never is",
        within("[0, 1]"),
        later=True,
    )
    clip: bool = option(
        False, "true: a box is learned as far as the crop shows it | false: whole", anything, later=True
    )
    several: str = option(
        "random",
        "of several boxes of the image's class: random: another at every visit | largest: that of the largest area",
        one_of("random", "largest"),
        later=True,
    )
    flips: bool = option(True, "crops are mirrored at random, their boxes with them", anything, later=True)

    def departures(self) -> dict[str, Any]:
        """The rules other than the usual ones."""
        usual = LearnedBoxes()
        return {name: given for name, given in vars(self).items() if given != getattr(usual, name)}


@dataclass
class Common:
    """What every command knows."""

    run: str = option(
        "demo",
        "the run's folder below `outputs`",
        run_name,
        neutral=True,
    )
    outputs: str = option("outputs", "folder of the runs, relative to the working directory", anything, neutral=True)
    seed: int = option(0, "of initialisation, order, crops, dropout, and of what an experiment draws", at_least(0))
    device: str = option(
        "auto",
        "auto | cpu | cuda | cuda:<n>",
        matching(r"auto|cpu|cuda(:\d+)?", "auto, cpu, cuda or cuda:<n> (cuda: an NVIDIA or AMD GPU)"),
    )
    precision: str = option(
        "auto",
        "fp32 | bf16 | auto: bf16 autocast where the hardware computes in it",
        one_of("fp32", "bf16", "auto"),
    )
    debug: bool = option(False, "show tracebacks of user errors", anything, neutral=True)

    @property
    def runs_folder(self) -> Path:
        """Absolute path of `outputs`."""
        return home_expanded("outputs", self.outputs).resolve()

    @property
    def folder(self) -> Path:
        """Absolute path of the run's folder."""
        return self.runs_folder / self.run


RESUME = "false: make a result again that is up to date"


@dataclass
class DataPlace:
    """Where a run's own data set lies now."""

    root: Optional[str] = option(None, "the run's own data set; null: where it lay in training", anything, neutral=True)


@dataclass
class DataShare(DataPlace):
    """The run's own data set, or a part of it."""

    per_class: Optional[int] = option(
        None, "train on the first n images of every class; null: as many as the run did", at_least(1)
    )


@dataclass
class Experiment(Common):
    """What every command knows that reads a trained run: the run knows its own model and data."""

    data: DataPlace = group(DataPlace, "where the run's data set lies")
    resume: bool = option(True, RESUME, anything, neutral=True)
