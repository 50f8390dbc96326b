"""The options of each command."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from omegaconf import MISSING

from zfrepro.options.shared import Common, DataConfig, DataShare, Experiment, ModelConfig

# Optional[...] rather than X | None below: OmegaConf reads these annotations at run time.
# ruff: noqa: UP045


@dataclass
class TrainConfig(Common):
    """`zfrepro train` (paper, section 3)."""

    preset: str = MISSING  # data, model and recipe together
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    epochs: int = MISSING  # after each of them the network is validated and saved
    passes: int = 1  # over the training images in an epoch; more: for a handful of images
    rows: Optional[str] = None  # digest of the training images that an experiment chose; null: all
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
    """`zfrepro import`: a run made of weights that were trained elsewhere."""

    model: ModelConfig = field(default_factory=ModelConfig)  # the layer table; an .onnx file brings its own
    weights: str = "DEFAULT"  # a state dict or an .onnx file, or the name of one of torchvision's (downloaded)
    layers: Optional[int] = None  # keep layers 1 to this one, and look at nothing above; null: all
    mean: list[float] = field(default_factory=list)  # [r,g,b] subtracted from pixels 0..1, or 0..255 if one is above 1
    std: list[float] = field(default_factory=list)  # ... and what they are divided by; [], both: known, or refused
    channels: str = "rgb"  # rgb | bgr: the order of colours that the network takes, and mean and std have
    classes: Optional[str] = None  # file with a class a line: a name, or a WordNet id and a name; null: torchvision's
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
