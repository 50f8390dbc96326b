"""Typed configuration: a DictConfig becomes one of these dataclasses once, here, and what is impossible is refused here.

Everything downstream takes a dataclass and trusts it. A refusal is a `UserError`: one sentence that names the key, what was
given and what is possible.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, TypeVar

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException

# Optional[...] rather than X | None below: OmegaConf reads these annotations at run time.
# ruff: noqa: UP045

# Pixels of packed pictures, an eighth more than a network's input: room for crops, as 256 for the paper's 224.
OmegaConf.register_new_resolver("room_for", lambda crop: round(crop * 8 / 7), replace=True)

T = TypeVar("T")


class UserError(Exception):
    """A mistake that the user can mend; its text is one line that says what is wrong and what to do."""


def conf_folder() -> Path:
    """The folder of Hydra configs: inside the package where it was installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def nearest(given: str, valid: Collection[str]) -> str:
    """' (did you mean X?)' for the valid name closest to `given`, or '' where none is close."""
    close = difflib.get_close_matches(given, [str(name) for name in valid], n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def require(key: str, given: object, ok: bool, possible: str) -> None:
    """Refuse `key=given` with what is possible, unless `ok`."""
    if not ok:
        raise UserError(f"{key}={given}: must be {possible}")


def require_choice(key: str, given: str, choices: Collection[str]) -> None:
    """Refuse a name that is none of `choices`, suggesting the nearest."""
    if given not in choices:
        raise UserError(f"{key}={given}: must be one of {', '.join(choices)}{nearest(given, choices)}")


def require_layer(key: str, given: int, present: Sequence[int]) -> None:
    """Refuse a layer number that the network does not have."""
    if given not in present:
        raise UserError(f"{key}={given}: the layers to choose from are {', '.join(map(str, present))}")


# ------------------------------------------------------------------------------------------------------- shared pieces


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


# ------------------------------------------------------------------------------------------------------------ commands


@dataclass
class TrainConfig(Common):
    """`zfrepro train` (paper, section 3)."""

    preset: str = MISSING  # data, model and recipe together
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    epochs: int = MISSING  # passes over the training images
    batch_size: int = MISSING  # over all processes together
    lr: float = MISSING  # learning rate, at its highest
    momentum: float = 0.9  # of SGD
    weight_decay: float = 5e-4  # of SGD; the paper is silent, this is Krizhevsky's
    schedule: str = "plateau"  # plateau: lr / 10 when the validation error stops falling | cosine: to 0 at the end
    patience: int = 3  # plateau: epochs without a better validation error before lr is divided
    warmup_steps: int = 0  # the learning rate rises linearly over so many steps
    renorm_radius: Optional[float] = 0.1  # RMS above which a convolutional filter is scaled back; null: off
    augmentation: str = "ten_crop"  # ten_crop: corners and centre | random_crop: any place; both with random flips
    init: str = "paper"  # paper: N(0, 0.01) everywhere | he: He for layers 2-7, N(0, 0.01) for the first and last
    input_scale: float = 1.0  # factor on the mean-subtracted pixels; the paper's range is +-128
    snapshot_epochs: list[int] = field(default_factory=list)  # Fig. 4: epochs whose weights are kept
    checkpoint_every: int = 500  # steps between checkpoints, besides one an epoch
    resume: bool = True  # false: start over, replacing the run


@dataclass
class DataPlace:
    """Where a run's own data set lies now."""

    root: Optional[str] = None  # null: where it lay in training


@dataclass
class Experiment(Common):
    """What every command knows that reads a trained run: the run knows its own model and data."""

    data: DataPlace = field(default_factory=DataPlace)
    resume: bool = True  # false: make a result again that is up to date


@dataclass
class EvaluateConfig(Experiment):
    """`zfrepro evaluate` (Table 2)."""

    runs: list[str] = field(default_factory=list)  # several runs: each one, and the average of their softmax outputs
    batch_size: int = 256


@dataclass
class PicturesConfig(Experiment):
    """What Figures 5 and 7 share: their pictures, and over how many images the claims behind them are measured."""

    images: list[str] = field(default_factory=list)  # your own pictures; empty: validation images, drawn by seed
    labels: list[str] = field(default_factory=list)  # their classes by name; empty: what the network takes them for
    num_images: int = 5  # pictures in the figure
    claims_images: int = 120  # validation images over which the claims are measured; 0: not measured


@dataclass
class OccludeConfig(PicturesConfig):
    """`zfrepro occlude` (Fig. 7)."""

    layer: Optional[int] = None  # its strongest map is watched; null: the last convolutional layer (5)
    square: Optional[int] = None  # side of the square in pixels of the network's input; null: 50 of 224
    stride: Optional[int] = None  # pixels between its positions; null: 8 of 224
    fill: str = "grey"  # what it shows: grey (128) | mean (the mean image) | black | noise
    others: int = 3  # projections of the same map for other images


@dataclass
class InvarianceConfig(PicturesConfig):
    """`zfrepro invariance` (Fig. 5)."""

    claims_images: int = 200
    layers: list[int] = field(default_factory=list)  # empty: the first and the last below the softmax (1 and 7)
    translation: Optional[float] = None  # largest shift up and down, pixels of the network's input; null: 60 of 224
    scale: float = 1.8  # largest magnification
    rotation: float = 360.0  # largest angle in degrees
    steps: int = 25  # steps of each transformation; odd, so that one of them is no shift at all
    fill: str = "mean"  # border that is uncovered: mean (the mean image) | grey | black | edge | reflect
    batch_size: int = 256


@dataclass
class CorrespondConfig(Experiment):
    """`zfrepro correspond` (Fig. 8, Table 1)."""

    class_name: Optional[str] = None  # null: dog, or the first class whose images have the parts
    parts: Optional[str] = None  # a .csv of your own boxes: image,part,left,top,right,bottom
    layers: list[int] = field(
        default_factory=list
    )  # empty: the last convolutional and the last below the softmax (5, 7)
    num_images: int = 5  # images in a draw, compared pair by pair
    mask: float = 0.18  # side of the mask around a key point, as a share of the image's side
    fill: str = "grey"  # what the mask shows: grey (128) | mean (the mean image) | black | noise
    draws: int = 1000  # random draws of images behind the confidence intervals
    batch_size: int = 256


@dataclass
class DataShare(DataPlace):
    """The run's own data set, or a part of it."""

    per_class: Optional[int] = None  # train on the first n images of every class; null: as the run did


@dataclass
class AblateConfig(Experiment):
    """`zfrepro ablate` (Table 3)."""

    data: DataShare = field(default_factory=DataShare)
    variant: str = "all"  # one row to train, for sweeps; all: every row, and the table
    seeds: list[int] = field(default_factory=list)  # nets of every row, one a seed; []: `seed` alone
    epochs: Optional[int] = None  # null, here and below: the run's own
    batch_size: Optional[int] = None
    lr: Optional[float] = None
    warmup_steps: Optional[int] = None
    dropout: Optional[float] = None  # in the fully connected layers; null: as in the layer table
    workers: int = 0  # trainings at once; 0: on the CPU one for each, at most 4, on a GPU one
    average: list[str] = field(default_factory=list)  # rows whose nets' softmax outputs are averaged (Table 2)


@dataclass
class TargetConfig(Common):
    """What `transfer` and `probe` share: a target data set, read by the frozen layers of a run."""

    data: DataConfig = field(default_factory=DataConfig)  # the target; packed at the source network's own size
    resume: bool = True  # false: make a result again that is up to date, and train its networks again
    folds: int = 5  # random splits
    test_per_class: int = 50  # at most so many test images of every class
    parts: int = 3  # of a training set, each held out in turn to choose the regularisation
    strengths: list[float] = field(
        default_factory=list
    )  # softmax: C, the inverse of the regularisation, to choose from
    dtype: str = "float32"  # of the cached features: float32 | float16
    pool: Optional[int] = None  # average the maps of a layer down to pool x pool first; null: as they are


@dataclass
class TransferConfig(TargetConfig):
    """`zfrepro transfer` (Tables 4-6, Fig. 9)."""

    scenes: DataConfig = field(
        default_factory=DataConfig
    )  # several labels an image: stands in for VOC 2012 on the demo
    tables: list[str] = field(default_factory=list)  # table4 | table5 | table6 | fig9; []: those that fit the target
    layer: Optional[int] = None  # whose features the new softmax reads; null: the last below the old one
    per_class: dict[str, list[int]] = field(default_factory=dict)  # table -> numbers of training images per class
    scratch: bool = True  # also train the same network from scratch on the same images (Tables 4 and 5)
    scratch_steps: int = 400  # ... for so many updates, at the run's own recipe, its learning rate falling to 0
    workers: int = 0  # trainings at once; 0: on the CPU one for each, at most 4, on a GPU one
    overlap: Optional[float] = (
        0.95  # correlation from which a target image counts as one of the source's; null: no check
    )
    drop_overlap: bool = False  # leave such images out of the target


@dataclass
class ProbeConfig(TargetConfig):
    """`zfrepro probe` (Table 7)."""

    layers: list[int] = field(default_factory=list)  # for the linear SVM
    softmax_layers: list[int] = field(default_factory=list)
    per_class: Optional[int] = None  # training images per class; null: 60 for Caltech-256, else 30
    costs: list[float] = field(default_factory=list)  # SVM: C to choose from
    scalings: list[str] = field(default_factory=list)  # SVM: of the features, to choose from: common | each


@dataclass
class ReportConfig(Common):
    """`zfrepro report`."""


@dataclass
class VisualizeConfig(Experiment):
    """`zfrepro visualize` (Fig. 2)."""

    layer: str = "all"  # a convolutional layer's number, or all
    num_maps: int = 16  # maps on a page, random among the live ones
    maps: list[int] = field(default_factory=list)  # these instead
    num_images: int = 9  # strongest images of each map
    split: str = "val"  # whose images: val | train
    unpool: str = "sum"  # sum | max: pooling windows that share a switch add, or the stronger one wins
    norm: str = "identity"  # identity | gradient: contrast normalisation is passed through, or its derivative applied


@dataclass
class EvolveConfig(Experiment):
    """`zfrepro evolve` (Fig. 4)."""

    num_maps: int = 6  # rows a layer, random among the maps that live in the last snapshot
    alike_maps: int = 64  # maps a layer on which the likeness of consecutive snapshots is measured
    epochs_shown: list[int] = field(default_factory=list)  # snapshot epochs; empty: all there are
    unpool: str = "sum"
    norm: str = "identity"


@dataclass
class FiltersConfig(Experiment):
    """`zfrepro filters` (Fig. 6)."""

    data: DataShare = field(default_factory=DataShare)
    sibling: Optional[str] = None  # the other architecture, a name in conf/model; null: the one that the model names
    sibling_epochs: Optional[int] = None  # of its training; null: the run's own
    epochs: Optional[int] = None  # of the training without renormalisation; null, here and below: the run's own
    lr: Optional[float] = None
    input_scale: Optional[float] = None
    workers: int = 0  # trainings at once; 0: on the CPU one for each, at most 4, on a GPU one
    num_maps: int = 64  # second-layer maps in (d) and (e), random among the live ones
    dead: float = 0.1  # a filter is dead whose RMS is below this share of the median, or that no image excites
    unpool: str = "sum"
    norm: str = "identity"


@dataclass
class ImportConfig(Common):
    """`zfrepro import`: a run made of torchvision's trained weights."""

    model: ModelConfig = field(default_factory=ModelConfig)  # one of conf/model/torchvision
    weights: str = "DEFAULT"  # DEFAULT or another name of torchvision's (downloaded), or a file of a state dict
    data: DataConfig = field(default_factory=DataConfig)  # images to look at: any data set
    resume: bool = True


@dataclass
class SummaryConfig(Common):
    """`zfrepro summary` (Fig. 3)."""

    model: ModelConfig = field(default_factory=ModelConfig)
    num_classes: int = 1000


@dataclass
class DoctorConfig(Common):
    """`zfrepro doctor`."""

    data: DataConfig = field(default_factory=DataConfig)


# -------------------------------------------------------------------------------------------------------- model tables


def load_model(name: str) -> ModelConfig:
    """The layer table conf/model/<name>.yaml, composed by Hydra. Raises UserError where there is none of that name."""
    root = conf_folder() / "model"
    names = sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))
    require_choice("model", name, names)
    inside = GlobalHydra.instance().is_initialized()  # in a command Hydra stands ready; it refuses to be set up twice
    with contextlib.nullcontext() if inside else initialize_config_dir(str(conf_folder()), version_base="1.3"):
        cfg = compose(overrides=[f"+model={name}"]).model
    return to_dataclass(cfg, ModelConfig)


# ---------------------------------------------------------------------------------------------------------- conversion


def to_dataclass(cfg: DictConfig, cls: type[T]) -> T:
    """The DictConfig as a `cls`, checked. Raises UserError on unknown keys, wrong types and impossible values."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(cls), cfg)
        typed = OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        raise UserError(unknown_key(str(error.full_key), cfg, cls)) from error
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key}: a value is needed; give {error.full_key}=<value>") from error
    except InterpolationResolutionError as error:
        raise UserError(f"{error.full_key}: {_first_line(error)}") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key or 'config'}: {_first_line(error)}") from error
    check(typed)
    return typed  # type: ignore[return-value]


def unknown_key(key: str, cfg: DictConfig, cls: type) -> str:
    """The sentence for a key that `cls` does not have, with the nearest one that it does."""
    parent, _, _ = key.rpartition(".")
    node: Any = cls
    for part in filter(None, parent.split(".")):
        names = {f.name: f for f in dataclasses.fields(node)}
        part = part.split("[")[0]
        factory = names[part].default_factory if part in names else None
        node = factory if dataclasses.is_dataclass(factory) else (LayerConfig if part == "layers" else cls)
    valid = [f"{parent}.{f.name}" if parent else f.name for f in dataclasses.fields(node)]
    close = nearest(key, valid)
    return f"{key}: unknown key{close or '; known are ' + ', '.join(valid)}"


def _first_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error).splitlines()[0])


DECONVNET = {"unpool": ("sum", "max"), "norm": ("identity", "gradient"), "split": ("val", "train")}


def check(config: object) -> None:
    """Refuse impossible values, whichever dataclass they stand in."""
    if isinstance(config, Common):
        _check_common(config)
    if isinstance(config, TrainConfig):
        _check_training(config)
    if isinstance(config, AblateConfig):
        _check_ablation(config)
    if isinstance(config, SummaryConfig):
        require("num_classes", config.num_classes, config.num_classes >= 1, "1 or more")
    if isinstance(config, TargetConfig):
        _check_target(config)
    if isinstance(config, PicturesConfig):
        _check_pictures(config)
    if isinstance(config, CorrespondConfig):
        require(
            "mask", config.mask, 0 < config.mask < 1, "between 0 and 1, both excluded (a share of the image's side)"
        )
        require("draws", config.draws, config.draws >= 1, "1 or more")
        require("num_images", config.num_images, config.num_images >= 2, "2 or more (images are compared in pairs)")
    for key, choices in DECONVNET.items():
        if hasattr(config, key):
            require_choice(key, getattr(config, key), choices)
    for value in vars(config).values():
        if isinstance(value, ModelConfig):
            _check_model(value)
        elif isinstance(value, DataConfig):
            check_data(value)


def _check_common(c: Common) -> None:
    workers = getattr(c, "workers", 0)
    require("workers", workers, workers >= 0, "0 or more")
    plain = re.fullmatch(r"[\w][\w.+=,@/-]*", c.run) is not None and ".." not in c.run
    require("run", c.run, plain, "a name of letters, digits and . _ - + = @ (it becomes a folder below outputs/)")
    require("seed", c.seed, 0 <= c.seed < 2**31, "between 0 and 2147483647")
    require_choice("precision", c.precision, ("fp32", "bf16", "auto"))
    resolve_device(c.device)
    for key in ("num_maps", "num_images", "epochs", "batch_size"):
        if (value := getattr(c, key, None)) is not None:
            require(key, value, value >= 1, "1 or more")


def _check_pictures(c: PicturesConfig) -> None:
    require("claims_images", c.claims_images, c.claims_images >= 0, "0 (not measured) or more")
    if c.labels and len(c.labels) != len(c.images):
        raise UserError(
            f"labels={list(c.labels)}: {len(c.labels)} labels for {len(c.images)} images; give one each, or none"
        )
    if isinstance(c, OccludeConfig):
        require("square", c.square, c.square is None or c.square >= 1, "1 or more, or null for 50 of 224 pixels")
        require("stride", c.stride, c.stride is None or c.stride >= 1, "1 or more, or null for 8 of 224 pixels")
        require("others", c.others, 0 <= c.others <= 3, "between 0 and 3, what the figure has room for")
    if isinstance(c, InvarianceConfig):
        require("steps", c.steps, c.steps >= 3 and c.steps % 2 == 1, "odd, and 3 or more")
        require("scale", c.scale, 1 < c.scale < math.inf, "above 1")
        require("rotation", c.rotation, 0 < c.rotation <= 360, "above 0 and at most 360 degrees")
        shift = c.translation
        require(
            "translation",
            shift,
            shift is None or 0 < shift < math.inf,
            "a positive number, or null for 60 of 224 pixels",
        )


def _check_training(c: TrainConfig) -> None:
    require("lr", c.lr, 0 < c.lr < math.inf, "a positive number")
    require("momentum", c.momentum, 0 <= c.momentum < 1, "at least 0 and below 1")
    require("weight_decay", c.weight_decay, 0 <= c.weight_decay < math.inf, "0 or more")
    require("patience", c.patience, c.patience >= 1, "1 or more")
    require("warmup_steps", c.warmup_steps, c.warmup_steps >= 0, "0 or more")
    require("input_scale", c.input_scale, 0 < c.input_scale < math.inf, "a positive number")
    require("checkpoint_every", c.checkpoint_every, c.checkpoint_every >= 1, "1 or more")
    if c.renorm_radius is not None:
        require("renorm_radius", c.renorm_radius, 0 < c.renorm_radius < math.inf, "a positive number, or null for off")
    require_choice("schedule", c.schedule, ("plateau", "cosine"))
    require_choice("augmentation", c.augmentation, ("ten_crop", "random_crop"))
    require_choice("init", c.init, ("paper", "he"))
    require("snapshot_epochs", c.snapshot_epochs, all(e >= 1 for e in c.snapshot_epochs), "a list of epochs from 1 on")
    if c.model.input_size > c.data.size:
        raise UserError(
            f"model.input_size={c.model.input_size}: the crop is larger than the images; "
            f"must be at most data.size={c.data.size}, or give data.size={c.model.input_size} or more"
        )


def _check_ablation(c: AblateConfig) -> None:
    require("seeds", c.seeds, all(0 <= s < 2**31 for s in c.seeds), "a list of numbers from 0 on")
    require("seeds", c.seeds, len(set(c.seeds)) == len(c.seeds), "a list without repetitions")
    if c.lr is not None:
        require("lr", c.lr, 0 < c.lr < math.inf, "a positive number, or null for the run's own")
    if c.warmup_steps is not None:
        require("warmup_steps", c.warmup_steps, c.warmup_steps >= 0, "0 or more, or null for the run's own")
    if c.dropout is not None:
        require("dropout", c.dropout, 0 <= c.dropout < 1, "at least 0 and below 1, or null for the layer table's")
    if c.data.per_class is not None:
        require(
            "data.per_class", c.data.per_class, c.data.per_class >= 1, "1 or more, or null for as many as the run had"
        )


def _check_target(c: TargetConfig) -> None:
    for key in ("folds", "test_per_class", "scratch_steps", "pool"):
        if (value := getattr(c, key, None)) is not None:
            require(key, value, value >= 1, "1 or more")
    require("parts", c.parts, c.parts >= 2, "2 or more")
    require_choice("dtype", c.dtype, ("float32", "float16"))
    for key in ("strengths", "costs"):
        values = getattr(c, key, [1.0])
        require(key, values, bool(values) and all(0 < v < math.inf for v in values), "a list of positive numbers")
    if isinstance(c, TransferConfig):
        for name in [*c.tables, *c.per_class]:
            require_choice("tables", name, ("table4", "table5", "table6", "fig9"))
        for name, sizes in c.per_class.items():
            require(
                f"per_class.{name}", sizes, bool(sizes) and all(n >= 1 for n in sizes), "a list of numbers from 1 on"
            )
        require("overlap", c.overlap, c.overlap is None or 0 < c.overlap <= 1, "above 0 and at most 1, or null")
    if isinstance(c, ProbeConfig):
        require(
            "layers", c.layers, bool(c.layers or c.softmax_layers), "a list with a layer at least (or softmax_layers)"
        )
        require("per_class", c.per_class, c.per_class is None or c.per_class >= 1, "1 or more, or null")
        require("scalings", c.scalings, bool(c.scalings), "a list of common, each")
        for name in c.scalings:
            require_choice("scalings", name, ("common", "each"))


def _check_model(m: ModelConfig) -> None:
    require("model.input_size", m.input_size, m.input_size >= 1, "1 or more")
    require("model.layers", len(m.layers), len(m.layers) >= 1, "at least one layer")
    numbers = list(range(1, len(m.layers) + 1))
    for key, edited in (("model.remove", m.remove), ("model.scale", list(m.scale or {}))):
        for number in edited:
            require_layer(key, number, numbers)
    left = [layer.kind for number, layer in zip(numbers, m.layers) if number not in m.remove]
    require("model.remove", list(m.remove), "conv" in left, "such that a convolutional layer is left")
    for number, factor in (m.scale or {}).items():
        require(f"model.scale.{number}", factor, 0 < factor < math.inf, "a positive factor")
    seen_fc = False
    for number, layer in zip(numbers, m.layers):
        key = f"model.layers[{number - 1}]"
        require_choice(f"{key}.kind", layer.kind, ("conv", "fc"))
        require_choice(f"{key}.norm", layer.norm, ("none", "after_pool", "before_pool"))
        require(f"{key}.dropout", layer.dropout, 0 <= layer.dropout < 1, "at least 0 and below 1")
        if layer.kind == "fc":
            seen_fc = True
            require(f"{key}.units", layer.units, layer.units >= 1, "1 or more")
            continue
        require(f"{key}.kind", layer.kind, not seen_fc, "fc: a conv layer cannot follow a fully connected one")
        require(f"{key}.maps", layer.maps, layer.maps >= 1, "1 or more")
        require(f"{key}.kernel", layer.kernel, layer.kernel >= 1, "1 or more")
        require(f"{key}.stride", layer.stride, layer.stride >= 1, "1 or more")
        require(f"{key}.padding", layer.padding, layer.padding >= 0, "0 or more")
        require(f"{key}.pool", layer.pool, layer.pool >= 0, "0 (none) or more")
        require(f"{key}.pool_stride", layer.pool_stride, layer.pool_stride >= 1, "1 or more")
        half = layer.pool // 2
        ok = layer.pool == 0 or 0 <= layer.pool_padding <= half
        require(f"{key}.pool_padding", layer.pool_padding, ok, f"between 0 and half the window ({half})")
        require(f"{key}.dropout", layer.dropout, not layer.dropout, "0: dropout is for fully connected layers")


def check_data(d: DataConfig) -> None:
    """Refuse an impossible data set description."""
    require_choice("data.name", d.name, DATA_SETS)
    require_choice("data.on_error", d.on_error, ("raise", "skip"))
    require_choice("data.part", d.part, ("source", "target", "scenes"))
    require("data.size", d.size, 8 <= d.size <= 4096, "between 8 and 4096 pixels")
    require("data.val_fraction", d.val_fraction, 0 < d.val_fraction < 1, "between 0 and 1, both excluded")
    require("data.train_per_class", d.train_per_class, d.train_per_class >= 1, "1 or more")
    require("data.val_per_class", d.val_per_class, d.val_per_class >= 1, "1 or more")
    require("data.workers", d.workers, d.workers >= 0, "0 (one per CPU) or more")
    if d.per_class is not None:
        require("data.per_class", d.per_class, d.per_class >= 1, "1 or more, or null for all")


def resolve_device(device: str) -> torch.device:
    """'auto' -> CUDA where there is a GPU. Raises UserError for a GPU that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if re.fullmatch(r"cpu|cuda(:\d+)?", device) is None:
        raise UserError(
            f"device={device}: must be auto, cpu, cuda or cuda:<n>{nearest(device, ('cpu', 'cuda', 'auto'))}"
        )
    if device.startswith("cuda"):
        count = torch.cuda.device_count()
        index = int(device.partition(":")[2] or 0)
        if index >= count:
            there = f"this machine has {count} GPU(s)" if count else "no GPU is there (or torch is a CPU build)"
            raise UserError(f"device={device}: {there}; use device=cpu or device=auto")
    return torch.device(device)


def resolve_precision(precision: str, device: torch.device) -> str:
    """'auto' -> 'bf16' where the hardware multiplies bfloat16 natively (GPUs from Ampere on, CPUs with AVX512-BF16 or AMX)."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    if not torch.backends.mkldnn.is_available():  # as on Apple's machines
        return "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported() else "fp32"
