"""Options that several commands share: a network's table, a data set, what every command knows."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from omegaconf import MISSING

# Optional[...] rather than X | None below: OmegaConf reads these annotations at run time.
# ruff: noqa: UP045


@dataclass
class LayerConfig:
    """One row of the layer table (paper, Fig. 3); sizes in pixels of the layer's own input."""

    kind: str = "conv"  # conv | fc
    maps: int = 0  # conv: feature maps
    units: int = 0  # fc: units
    kernel: int = 0
    stride: int = 1
    padding: int = 0
    pool: int = 0  # side of the max-pooling window; 0: none
    pool_stride: int = 2
    pool_padding: int = 0
    norm: str = "none"  # contrast normalisation across maps: none | after_pool (ZFNet) | before_pool (AlexNet)
    dropout: float = 0.0  # on the layer's output, in training
    name: str = ""  # in the paper's words, as conv3_2; empty: its kind and number


@dataclass
class ModelConfig:
    """A network as a table of layers; layer numbers are the paper's and survive the removal of others."""

    name: str = MISSING  # the table's name
    input_size: int = MISSING  # side of the square input in pixels
    layers: list[LayerConfig] = field(default_factory=list)
    sibling: Optional[str] = None  # the other architecture at the same scale (Fig. 6, Table 3): a name in conf/model
    remove: list[int] = field(default_factory=list)  # Table 3: layers to leave out
    scale: Optional[dict[int, float]] = None  # Table 3: layer -> factor on its maps or units
    norm_size: int = 5  # contrast normalisation (Krizhevsky et al. 2012, section 3.3): n, k, alpha, beta
    norm_k: float = 2.0
    norm_alpha: float = 1e-4
    norm_beta: float = 0.75


DATA_SETS = (
    "embedded", "tiny_imagenet", "cifar10", "imagenette", "caltech101", "caltech256", "voc2012", "imagenet", "folder",
)  # fmt: skip


@dataclass
class DataConfig:
    """A data set and how it is packed: decoded once, smaller side resized to `size`, centre-cropped to size x size."""

    name: str = MISSING  # one of DATA_SETS
    size: int = MISSING  # side of the packed images in pixels
    root: Optional[str] = None  # folder (or archive) that holds the data set
    cache: str = field(default_factory=lambda: os.environ.get("ZFREPRO_CACHE") or "~/.cache/zfrepro")  # packed data
    download: bool = False  # fetch it where torchvision can
    on_error: str = "raise"  # raise | skip: images that cannot be read
    per_class: Optional[int] = None  # use only the first n training images of every class
    val_fraction: float = 0.1  # for data sets that bring no validation split: share of each class
    split_seed: int = 0  # ... and the seed that draws it
    part: str = "source"  # embedded only: source | target classes | scenes (several objects, several labels)
    train_per_class: int = 250  # embedded only: images drawn per class (scenes: per 20 images)
    val_per_class: int = 50  # embedded only, likewise
    workers: int = 0  # processes that decode; 0: one per CPU


@dataclass
class Common:
    """What every command knows."""

    run: str = MISSING  # the run's folder below `outputs`
    outputs: str = "outputs"  # relative to the working directory
    seed: int = 0  # of initialisation, order, crops, dropout, and of what an experiment draws
    device: str = "auto"  # auto | cpu | cuda
    precision: str = "auto"  # fp32 | bf16 | auto: bf16 autocast where the hardware computes in it
    debug: bool = False  # show tracebacks of user errors

    @property
    def folder(self) -> Path:
        """Absolute path of the run's folder."""
        return Path(self.outputs).expanduser().resolve() / self.run


@dataclass
class DataPlace:
    """Where a run's own data set lies now."""

    root: Optional[str] = None  # null: where it lay in training


@dataclass
class DataShare(DataPlace):
    """The run's own data set, or a part of it."""

    per_class: Optional[int] = None  # train on the first n images of every class; null: as the run did


@dataclass
class Experiment(Common):
    """What every command knows that reads a trained run: the run knows its own model and data."""

    data: DataPlace = field(default_factory=DataPlace)
    resume: bool = True  # false: make a result again that is up to date
