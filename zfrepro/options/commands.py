"""The options of each command, in the class `<Command>Config`. Their defaults are the paper's, where it says one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from omegaconf import MISSING

from zfrepro.errors import UserError, require, require_choice
from zfrepro.options.declare import anything, at_least, each, group, one_of, option, positive, within
from zfrepro.options.shared import (
    RESUME,
    Common,
    DataConfig,
    DataShare,
    Experiment,
    LearnedBoxes,
    ModelConfig,
    run_name,
)

# Optional[...] rather than X | None below: OmegaConf reads these annotations at run time.
# ruff: noqa: UP045

WORKERS = "trainings at once; 0: on the CPU one for each, at most 4, on a GPU one"
side = within("[1, 4096]")  # of an image, in pixels
OWN = "null: the run's own"
FILL = option(
    "grey",
    "what the square or the mask shows: grey (128) | mean (the mean image) | black | noise",
    one_of("grey", "mean", "black", "noise"),
)


IMPORTED = "imported"  # the preset of a run whose weights were trained elsewhere


@dataclass
class TrainConfig(Common):
    """`zfrepro train` (ZFNet, section 3; VGG, section 3.1)."""

    preset: str = option(MISSING, "data, model and training recipe together", anything)
    model: ModelConfig = group(ModelConfig, "the network's layer table")
    data: DataConfig = group(DataConfig, "the data set")
    epochs: int = option(70, "after each of them the network is validated and saved", at_least(1))
    passes: int = option(1, "over the training images in an epoch; more: for a handful of images", at_least(1))
    rows: Optional[str] = option(None, "digest of the training images that an experiment chose; null: all", anything)
    batch_size: int = option(128, "images of an update, over all processes together", at_least(1))
    lr: float = option(0.01, "learning rate, at its highest", positive)
    momentum: float = option(0.9, "of SGD", within("[0, 1)"))
    weight_decay: float = option(5e-4, "of SGD; ZFNet's is silent, this is Krizhevsky's and VGG's", within("[0, inf)"))
    schedule: str = option(
        "plateau",
        "plateau: lr / 10 when the validation error stops falling | cosine: to 0 at the end",
        one_of("plateau", "cosine"),
    )
    patience: int = option(3, "plateau: epochs without a better validation error before lr is divided", at_least(1))
    divisions: Optional[int] = option(
        None,
        "plateau: training ends where the error stops falling after so many divisions; null: it goes on to the last epoch",
        at_least(0),
    )
    warmup_steps: int = option(0, "the learning rate rises linearly over so many updates", at_least(0))
    renorm_radius: Optional[float] = option(
        0.1, "RMS above which a convolutional filter is scaled back; null: off", positive
    )
    augmentation: str = option(
        "ten_crop",
        "ten_crop: corners and centre | random_crop: any place; both with random flips | centre: none",
        one_of("ten_crop", "random_crop", "centre"),
    )
    train_scale: list[int] = option(
        [],
        "smaller side to which an image is resized before it is cropped: [S], or [min,max] to draw one; []: as packed",
        each(side),
    )
    colour_shift: float = option(
        0.0,
        "shift of all pixels along the colours' principal axes, times what colour_shift_by says; 0: off",
        within("[0, 10]"),
    )
    colour_shift_by: str = option(
        "sqrt",
        "sqrt: of an axis's eigenvalue, its standard deviation | eigenvalue: itself, as Krizhevsky's text says",
        one_of("sqrt", "eigenvalue"),
        later=True,
    )
    subtract: str = option(
        "image", "what is subtracted from every picture: image (the mean image) | colour", one_of("image", "colour")
    )
    init: str = option(
        "paper",
        "standard deviations: paper: 0.01 everywhere | variance: 0.1 (VGG's 0.01 read literally) | glorot: Glorot & Bengio's | "
        "he: He et al.'s, first and last layer 0.01 | he_all: He et al.'s everywhere",
        one_of("paper", "variance", "glorot", "he", "he_all"),
    )
    regression: Optional[str] = option(
        None,
        "what is learned: pcr: a box for each class | scr: one for all (VGG, Appendix A); null: classes",
        one_of("pcr", "scr"),
    )
    boxes: LearnedBoxes = group(LearnedBoxes, "regression: which boxes are learned, and how")
    init_from: Optional[str] = option(None, "a run whose weights are the first ones; null: drawn weights", run_name)
    init_match: str = option(
        "number",
        "init_from: number: layers of equal number and shape | order: equal shapes, in their order | name: equal name and shape",
        one_of("number", "order", "name"),
    )
    init_convolutions: Optional[int] = option(
        None, "init_match=order|name: how many of the other run's convolutions are taken; null: all", at_least(0)
    )
    init_hash: Optional[str] = option(
        None, "init_from: hash of its checkpoint; null: of the one that is there when the training begins", anything
    )
    inputs: str = option(
        "auto",
        "preprocessing: own: `subtract` and `input_scale` | source: that of init_from's run | auto: source's if there is one",
        one_of("auto", "own", "source"),
    )
    freeze: int = option(0, "layers from the first on that are not trained", at_least(0))
    input_scale: float = option(1.0, "factor on the mean-subtracted pixels; the paper's range is +-128", positive)
    snapshot_epochs: list[int] = option(
        [1, 2, 5, 10, 20, 30, 40, 64], "Fig. 4: epochs whose weights are kept", each(at_least(1))
    )
    checkpoint_every: int = option(500, "updates between checkpoints, besides one an epoch", at_least(1), neutral=True)
    resume: bool = option(True, "false: start over, replacing the run", anything, neutral=True)

    @property
    def origin(self) -> str:
        """The network, and where its weights come from, in words."""
        return f"{self.model.name}, " + (
            "imported weights" if self.preset == IMPORTED else f"trained on {self.data.name}"
        )

    def check(self) -> None:
        size, crop = self.data.size, self.model.input_size
        if crop > size:
            raise UserError(
                f"model.input_size={crop}: the crop is larger than the images; must be at most data.size={size}, "
                f"or give data.size={crop} or more"
            )
        scale = list(self.train_scale)
        fits = len(scale) <= 2 and scale == sorted(scale) and all(side >= crop for side in scale)
        require("train_scale", scale, fits, f"[S] or [min,max], each at least model.input_size={crop}, or []")
        if scale or self.data.fit == "whole":
            why = "where images are rescaled (data.fit=whole, train_scale)"
            require("augmentation", self.augmentation, self.augmentation != "ten_crop", f"random_crop or centre {why}")
            require("subtract", self.subtract, self.subtract == "colour", f"colour {why}: a mean image has one size")
        if self.augmentation == "centre":
            require("colour_shift", self.colour_shift, not self.colour_shift, "0 with augmentation=centre")
            require("train_scale", scale, len(scale) < 2, "one size with augmentation=centre")
        most = len(self.model.layers)
        require("freeze", self.freeze, self.freeze <= most, f"at most {most}, the layers below the softmax")
        if self.init_from is None:
            require("freeze", self.freeze, not self.freeze, "0 where there is no init_from=<run> to take layers from")
            require("inputs", self.inputs, self.inputs != "source", "own or auto where there is no init_from=<run>")
        require("init_from", self.init_from, self.init_from != self.run, "another run than the one to be trained")
        for name, given in self.boxes.departures().items() if self.regression is None else ():
            require(f"boxes.{name}", given, False, "left out, or given with regression=pcr or regression=scr")


DENSE = ("dense", "dense_and_multi_crop")
READ_BY = {  # the methods to which a reading matters
    "places": DENSE,
    "rounding": DENSE,
    "grid": ("multi_crop", "dense_and_multi_crop"),
    "weights": ("dense_and_multi_crop",),
}


@dataclass
class Reading:
    """How networks are tested where VGG's section 3.2 can be read in several ways."""

    places: str = option(
        "scores",
        "dense: what joins the places of an image: scores: their mean, then the softmax | posteriors: the mean of the "
        "softmax outputs | sum, max: of the scores",
        one_of("scores", "posteriors", "sum", "max"),
        later=True,
    )
    rounding: str = option(
        "floor",
        "dense: pooled maps of odd sides: floor: rounded down | ceil: up, as Caffe's",
        one_of("floor", "ceil"),
        later=True,
    )
    grid: str = option(
        "image",
        "multi_crop: where its 5 x 5 places lie: image: over the whole image | square: over its centre square",
        one_of("image", "square"),
        later=True,
    )
    weights: str = option(
        "half",
        "dense_and_multi_crop: half: the two weigh alike | views: by their views of an image, 2 and 50",
        one_of("half", "views"),
        later=True,
    )

    def departures(self, method: str = "dense_and_multi_crop") -> dict[str, str]:
        """The readings, other than the usual ones, that matter to a method; all of them matter to both together."""
        usual, read = Reading(), [name for name, methods in READ_BY.items() if method in methods]
        return {name: getattr(self, name) for name in read if getattr(self, name) != getattr(usual, name)}


@dataclass
class EvaluateConfig(Reading, Experiment):
    """`zfrepro evaluate` (ZFNet, Table 2; VGG, section 3.2)."""

    runs: list[str] = option(
        [], "several runs: each one, and the average of their softmax outputs; []: the run alone", each(run_name)
    )
    method: str = option(
        "ten_crop",
        "centre | ten_crop (and centre) | dense: the whole image | multi_crop: 5 x 5 x 2 | dense_and_multi_crop",
        one_of("centre", "ten_crop", "dense", "multi_crop", "dense_and_multi_crop"),
    )
    test_scales: list[int] = option(
        [], "smaller sides at which images are tested, averaged; []: as in training", each(side)
    )
    batch_size: int = option(256, "crops of a forward pass", at_least(1))

    def check(self) -> None:
        for name, given in self.departures().items():
            methods = READ_BY[name]
            require(name, given, self.method in methods, f"left out, or given with method={' or '.join(methods)}")


@dataclass
class PicturesConfig(Experiment):
    """What Figures 5 and 7 share: their pictures, and over how many images the claims behind them are measured."""

    images: list[str] = option(
        [], "your own pictures, as [dog.jpg]; []: validation images, drawn by seed", each(anything, repeated=True)
    )
    labels: list[str] = option(
        [], "their classes by name; []: what the network takes them for", each(anything, repeated=True)
    )
    num_images: int = option(5, "pictures in the figure", at_least(1))
    claims_images: int = option(
        120, "validation images over which the claims are measured; 0: not measured", at_least(0)
    )

    def check(self) -> None:
        if self.labels and len(self.labels) != len(self.images):
            raise UserError(
                f"labels={list(self.labels)}: {len(self.labels)} labels for {len(self.images)} images; "
                "give one each, or none"
            )


@dataclass
class OccludeConfig(PicturesConfig):
    """`zfrepro occlude` (ZFNet, Fig. 7)."""

    layer: Optional[int] = option(
        None, "its strongest map is watched; null: the last convolutional layer (5)", at_least(1)
    )
    square: Optional[int] = option(
        None, "side of the square in pixels of the network's input; null: 50 of 224 pixels", at_least(1)
    )
    stride: Optional[int] = option(None, "pixels between its positions; null: 8 of 224 pixels", at_least(1))
    fill: str = FILL
    others: int = option(3, "projections of the same map for other images", within("[0, 3]"))


@dataclass
class InvarianceConfig(PicturesConfig):
    """`zfrepro invariance` (ZFNet, Fig. 5)."""

    claims_images: int = option(
        200, "validation images over which the claims are measured; 0: not measured", at_least(0)
    )
    layers: list[int] = option(
        [], "whose features; []: the first and the last below the softmax (1 and 7)", each(at_least(1))
    )
    translation: Optional[float] = option(
        None, "largest shift up and down, pixels of the network's input; null: 60 of 224 pixels", within("(0, 4096]")
    )
    scale: float = option(1.8, "largest magnification", within("(1, 100]"))
    rotation: float = option(360.0, "largest angle in degrees", within("(0, 360]"))
    steps: int = option(
        25, "steps of each transformation; odd, so that one of them is no shift at all", within("[3, 999]")
    )
    fill: str = option(
        "mean",
        "border that is uncovered: mean (the mean image) | grey | black | edge | reflect",
        one_of("mean", "grey", "black", "edge", "reflect"),
    )
    batch_size: int = option(256, "images of a forward pass", at_least(1))

    def check(self) -> None:
        super().check()
        require("steps", self.steps, self.steps % 2 == 1, "odd, and 3 or more")


@dataclass
class CorrespondConfig(Experiment):
    """`zfrepro correspond` (ZFNet, Fig. 8, Table 1)."""

    class_name: Optional[str] = option(
        None, "class of the images; null: dog, or the first class whose images have the parts", anything
    )
    parts: Optional[str] = option(
        None, "a .csv of your own boxes: image,part,left,top,right,bottom; null: the data set's own", anything
    )
    layers: list[int] = option(
        [], "whose features; []: the last convolutional and the last below the softmax (5 and 7)", each(at_least(1))
    )
    num_images: int = option(5, "images in a draw, compared pair by pair", at_least(2))
    mask: float = option(0.18, "side of the mask around a key point, as a share of the image's side", within("(0, 1)"))
    fill: str = FILL
    draws: int = option(1000, "random draws of images behind the confidence intervals", at_least(1))
    batch_size: int = option(256, "images of a forward pass", at_least(1))


@dataclass
class SeedsConfig(Experiment):
    """What the experiments share that train rows of networks, with several seeds each."""

    seeds: list[int] = option([], "nets of every row, one a seed; []: `seed` alone", each(at_least(0)))
    epochs: Optional[int] = option(None, f"passes over the training images; {OWN}", at_least(1))
    workers: int = option(0, WORKERS, at_least(0), neutral=True)


@dataclass
class RetrainingConfig(SeedsConfig):
    """... and each by the run's own recipe."""

    data: DataShare = group(DataShare, "where the run's data set lies, and how much of it")
    batch_size: Optional[int] = option(None, f"images of an update; {OWN}", at_least(1))
    lr: Optional[float] = option(None, f"learning rate; {OWN}", positive)
    warmup_steps: Optional[int] = option(None, f"updates over which it rises; {OWN}", at_least(0))


@dataclass
class AblateConfig(RetrainingConfig):
    """`zfrepro ablate` (ZFNet, Table 3)."""

    variant: str = option("all", "one row to train, for sweeps; all: every row, and the table", anything)
    once: list[str] = option([], "rows that are trained with the first of the seeds alone", each(anything))
    dropout: Optional[float] = option(
        None, "in the fully connected layers; null: as in the layer table", within("[0, 1)")
    )
    average: list[str] = option(
        ["alexnet", "zfnet"], "rows whose nets' softmax outputs are averaged (Table 2)", each(anything)
    )


CONFIGURATIONS = ("a", "a_lrn", "b", "b_5x5", "c", "d", "e")


@dataclass
class DepthConfig(Reading, SeedsConfig):
    """`zfrepro depth` (VGG, Tables 3-6)."""

    configurations: list[str] = option(
        list(CONFIGURATIONS),
        "networks to train; the deeper ones start from a",
        each(one_of(*CONFIGURATIONS), some=True),
    )
    scales: list[int] = option(
        [64, 96, 128],
        "training scales: S, a larger S, and the upper end of the scale jitter from S on",
        each(side),
    )
    tuning_seeds: list[int] = option(
        [],
        "the same where a network starts from itself at another scale, some of `seeds`; []: all of them",
        each(at_least(0)),
    )
    tuning_epochs: Optional[int] = option(
        None, f"passes where a network starts from itself at another scale; {OWN}", at_least(1)
    )
    start_lr: Optional[float] = option(
        None, "learning rate of the networks that start from A; null: the run's own", positive, later=True
    )
    start_warmup_steps: Optional[int] = option(
        None, "... and the steps in which theirs rises from 0; null: the run's own", at_least(0), later=True
    )
    tuning_lr: Optional[float] = option(
        None,
        "learning rate where a network starts from itself at another scale; null: a tenth of the run's own",
        positive,
        later=True,
    )
    start_convolutions: Optional[int] = option(
        4,
        "convolutions of A that the deeper networks start from; null: all that fit",
        at_least(0),
        later=True,
    )
    start_match: str = option(
        "order",
        "where they go: order: each to the next of its shape | name: conv5_1 to conv5_1",
        one_of("order", "name"),
        later=True,
    )

    def check(self) -> None:
        rising = len(self.scales) == 3 and sorted(self.scales) == list(self.scales)
        require("scales", list(self.scales), rising, "three sizes that rise, as [64,96,128]")
        seeds = list(self.seeds) or [self.seed]
        known = set(self.tuning_seeds) <= set(seeds)
        require("tuning_seeds", list(self.tuning_seeds), known, f"among seeds={seeds}")


@dataclass
class TargetConfig(Common):
    """What `transfer` and `probe` share: a target data set, read by the frozen layers of a run."""

    data: DataConfig = group(DataConfig, "the target; packed at the source network's own size")
    resume: bool = option(True, f"{RESUME}, and train its networks again", anything, neutral=True)
    folds: int = option(5, "random splits", at_least(1))
    test_per_class: int = option(50, "at most so many test images of every class", at_least(1))
    parts: int = option(3, "of a training set, each held out in turn to choose the regularisation", at_least(2))
    strengths: list[float] = option(
        [0.0001, 0.001, 0.01, 0.1, 1.0],
        "softmax: C, the inverse of the regularisation, to choose from",
        each(positive, some=True),
    )
    dtype: str = option("float32", "of the cached features: float32 | float16", one_of("float32", "float16"))
    pool: Optional[int] = option(
        None, "average the maps of a layer down to pool x pool first; null: maps as they are", at_least(1)
    )

    def check(self) -> None:
        given = self.data.per_class
        require("data.per_class", given, given is None, "null: per_class or images_per_class says how many to train on")


TABLES = ("table4", "table5", "table6", "fig9")
ONLY = {  # a protocol's own options, of which the other knows nothing
    "zfnet": ("folds", "parts", "strengths", "dtype", "pool", "tables", "per_class", "scratch", "scratch_steps",
              "scratch_doublings"),
    "vgg": ("runs", "scales", "join", "unit_scales", "relu", "costs", "splits", "images_per_class"),
}  # fmt: skip
COSTS = option([0.1, 1.0, 10.0, 100.0], "SVM: C to choose from", each(positive, some=True))


@dataclass
class TransferConfig(TargetConfig):
    """`zfrepro transfer` (ZFNet, Tables 4-6, Fig. 9; VGG, Tables 11, 12)."""

    protocol: str = option(
        "zfnet",
        "zfnet: a softmax on centre crops' features | vgg: SVMs on descriptors of whole images, at several scales",
        one_of("zfnet", "vgg"),
    )
    runs: list[str] = option(
        [], "vgg: several networks, each one, and VGG's stacked; []: the run alone", each(run_name)
    )
    scales: list[int] = option(
        [],
        "vgg: smaller sides at which images are described; []: 256, 384, 512 (VOC: 640, 768) for an input of 224",
        each(side),
    )
    join: Optional[str] = option(
        None,
        "vgg: of the scales when networks are stacked: mean | stack | max; null: mean where images have several labels",
        one_of("mean", "stack", "max"),
    )
    unit_scales: bool = option(
        False, "vgg: descriptors of each scale have unit length before they are joined", anything, later=True
    )
    relu: bool = option(
        True, "vgg: descriptors are what a layer gives after its ReLU | false: before it", anything, later=True
    )
    costs: list[float] = COSTS
    splits: int = option(3, "vgg: random splits", at_least(1))
    images_per_class: Optional[int] = option(
        None, "vgg: training images a class; null: 60 for Caltech-256, else 30", at_least(1)
    )

    scenes: DataConfig = group(DataConfig, "several labels an image: stands in for VOC 2012 on the demo")
    tables: list[str] = option([], f"{' | '.join(TABLES)}; []: those that fit the target", each(one_of(*TABLES)))
    layer: Optional[int] = option(
        None, "whose features the new softmax reads; null: the last below the old one", at_least(1)
    )
    per_class: dict[str, list[int]] = option(
        {
            "table4": [15, 30],
            "table5": [15, 30, 45, 60],
            "fig9": [1, 2, 3, 5, 6, 8, 10, 15, 20, 30, 45, 60],
        },
        "numbers of training images a class",
        each(at_least(1), some=True),
    )
    scratch: Optional[bool] = option(
        None,
        "also train the same network from scratch on the same images (Tables 4 and 5); null: unless it was imported",
        anything,
    )
    scratch_steps: int = option(
        400, "... for so many updates, at the run's own recipe, its learning rate falling to 0", at_least(1)
    )
    scratch_doublings: int = option(
        2, "... and so often for twice as many, while it is wrong on more than 5 % of its training images", at_least(0)
    )
    workers: int = option(0, WORKERS, at_least(0), neutral=True)
    overlap: Optional[float] = option(
        0.95,
        "correlation from which a target image counts as one of the source's; null: no comparison",
        within("(0, 1]"),
    )
    drop_overlap: bool = option(False, "leave such images out of the target", anything)

    def check(self) -> None:
        super().check()
        sized = tuple(name for name in TABLES if name != "table6")
        for name in self.per_class:
            require_choice("per_class", name, sized)
        for name in sized:
            require(f"per_class.{name}", None, name in self.per_class, "a list of numbers of images, such as [15,30]")
        usual = TransferConfig()
        for protocol, names in ONLY.items():
            for name in names if protocol != self.protocol else ():
                given = getattr(self, name)
                require(name, given, given == getattr(usual, name), f"left out, or given with protocol={protocol}")


@dataclass
class ProbeConfig(TargetConfig):
    """`zfrepro probe` (ZFNet, Table 7)."""

    layers: Optional[list[int]] = option(
        None,
        "whose features the linear SVM reads; null: 1 to 5 and 7, in networks other than ZFNet's and AlexNet's those that end "
        "in a pooling, and the last below the softmax",
        each(at_least(1)),
    )
    softmax_layers: Optional[list[int]] = option(
        None, "whose features a softmax reads; null: 5 and 7, or the last two of the others", each(at_least(1))
    )
    per_class: Optional[int] = option(None, "training images a class; null: 60 for Caltech-256, else 30", at_least(1))
    costs: list[float] = COSTS
    scalings: list[str] = option(
        ["common", "each"],
        "SVM: of the features, to choose from: common | each",
        each(one_of("common", "each"), some=True),
    )

    def check(self) -> None:
        super().check()
        some = self.layers != [] or self.softmax_layers != []
        require("layers", self.layers, some, "a list with a layer at least, or null")


@dataclass
class LocalizeConfig(RetrainingConfig):
    """`zfrepro localize` (VGG, Tables 8-10)."""

    runs: list[str] = option(
        [],
        "more classification runs, trained at another S: their boxes are added to the run's (Table 9)",
        each(run_name),
    )
    classes_from: list[str] = option(
        [], "runs whose posteriors, averaged, name the five classes; []: the run and `runs`", each(run_name)
    )
    class_scales: list[int] = option(
        [], "smaller sides at which images are tested to name the five classes, averaged; []: S", each(side), later=True
    )
    scales: list[int] = option(
        [],
        "smaller sides Q of images that are tested densely, together; []: S and S - 32, for an input of 224",
        each(side),
    )
    boxes: LearnedBoxes = group(LearnedBoxes, "which boxes the networks learn, and how")
    centre_scale: Optional[int] = option(
        None, "smaller side Q of images whose crop at the centre is tested (Table 8); null: S", side, later=True
    )
    threshold: float = option(0.5, "match score up to which two boxes are merged", within("[0, inf)"))
    match: str = option(
        "centre_iou",
        "match score: centre_iou: distance of the centres / mean side + 1 - IoU | paper: distance + intersection, as printed",
        one_of("centre_iou", "paper"),
    )
    mean: str = option(
        "members",
        "a merged box: members: the mean of all its members | plain: of the two merged",
        one_of("members", "plain"),
    )
    rated_by: str = option(
        "own",
        "whose posteriors at its place say how sure a box is: own: those of the run that its network was started from | all: the "
        "average of the runs that name the classes",
        one_of("own", "all"),
        later=True,
    )
    test_flips: bool = option(
        False, "boxes of the mirrored image are merged with the others (Table 9)", anything, later=True
    )
    num_images: int = option(8, "validation images in the figure", at_least(1))
    explain_images: int = option(
        60, "validation images on which boxes are compared with occlusion and projections; 0: not measured", at_least(0)
    )

    def check(self) -> None:
        require(
            "runs", list(self.runs), self.run not in self.runs, f"other runs than run={self.run}, which is the first"
        )


@dataclass
class ReportConfig(Common):
    """`zfrepro report`."""

    runs: list[str] = option(
        [],
        "several runs: the page of each, and one table of the claims over all of them; []: the run alone",
        each(run_name),
    )


UNPOOL = "sum | max: pooling windows that share a switch add, or the stronger one wins"
TIES = "pooling windows without a maximum (all zero): drop: they pass nothing down | first: to their first place"


@dataclass
class ProjectingConfig(Experiment):
    """What Figures 2, 4 and 6 share: how the deconvnet comes down."""

    unpool: str = option("sum", UNPOOL, one_of("sum", "max"))
    ties: str = option("drop", TIES, one_of("drop", "first"))


@dataclass
class VisualizeConfig(ProjectingConfig):
    """`zfrepro visualize` (ZFNet, Fig. 2)."""

    layer: str = option("all", "a convolutional layer's number, or all", anything)
    num_maps: int = option(16, "maps on a page, random among the live ones", at_least(1))
    maps: list[int] = option([], "these instead, by number from 0 on", each(at_least(0)))
    num_images: Optional[int] = option(
        None, "strongest images of each map; null: nine, or as many as there are", at_least(1)
    )
    split: str = option("val", "whose images: val | train", one_of("val", "train"))


@dataclass
class EvolveConfig(ProjectingConfig):
    """`zfrepro evolve` (ZFNet, Fig. 4)."""

    num_maps: int = option(6, "rows a layer, random among the maps that live in the last snapshot", at_least(1))
    alike_maps: int = option(64, "maps a layer on which the likeness of consecutive snapshots is measured", at_least(1))
    epochs_shown: list[int] = option([], "snapshot epochs; []: all there are", each(at_least(1)))


@dataclass
class FiltersConfig(ProjectingConfig):
    """`zfrepro filters` (ZFNet, Fig. 6)."""

    data: DataShare = group(DataShare, "where the run's data set lies, and how much of it")
    sibling: Optional[str] = option(
        None, "the other architecture, a name in conf/model; null: the one that the model names", anything
    )
    sibling_epochs: Optional[int] = option(None, f"of its training; {OWN}", at_least(1))
    epochs: Optional[int] = option(None, f"of the training without renormalisation; {OWN}", at_least(1))
    lr: Optional[float] = option(None, f"... and its learning rate; {OWN}", positive)
    input_scale: Optional[float] = option(None, f"... and its factor on the pixels; {OWN}", positive)
    workers: int = option(0, WORKERS, at_least(0), neutral=True)
    num_maps: int = option(64, "second-layer maps in (d) and (e), random among the live ones", at_least(1))
    dead: float = option(
        0.1, "a filter is dead whose RMS is below this share of the median, or that no image excites", within("[0, 1)")
    )


@dataclass
class ImportConfig(Common):
    """`zfrepro import`: a run made of weights that were trained elsewhere."""

    model: ModelConfig = group(ModelConfig, "the layer table; an .onnx file brings its own")
    weights: str = option(
        "DEFAULT", "a state dict or an .onnx file, or the name of one of torchvision's (downloaded)", anything
    )
    layers: Optional[int] = option(None, "keep layers 1 to this one, and look at nothing above; null: all", at_least(1))
    mean: list[float] = option(
        [], "[r,g,b] subtracted from pixels 0..1, or 0..255 if one is above 1", each(within("[0, 255]"), repeated=True)
    )
    std: list[float] = option(
        [], "... and what they are divided by; [], both: known, or refused", each(positive, repeated=True)
    )
    channels: str = option(
        "rgb", "rgb | bgr: the order of colours that the network takes, and mean and std have", one_of("rgb", "bgr")
    )
    classes: Optional[str] = option(
        None, "file with a class a line: a name, or a WordNet id and a name; null: torchvision's", anything
    )
    data: DataConfig = group(DataConfig, "images to look at: any data set")
    resume: bool = option(True, "false: import it again", anything, neutral=True)


@dataclass
class SummaryConfig(Common):
    """`zfrepro summary` (ZFNet, Fig. 3; VGG, Tables 1 and 2)."""

    run: str = option(
        "",
        "a trained run, whose own table and classes count; empty: `model` and `num_classes`",
        lambda name: run_name(name) if name else None,
    )
    model: ModelConfig = group(ModelConfig, "the network's layer table")
    num_classes: int = option(1000, "units of the softmax", at_least(1))


@dataclass
class DoctorConfig(Common):
    """`zfrepro doctor`."""

    data: DataConfig = group(DataConfig, "the data set that is looked for")
