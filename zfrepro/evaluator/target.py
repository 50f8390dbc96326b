"""A target data set read by a frozen network: its images at the source's size, their features, and classifiers on them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zfrepro.data import Packed, Split, open_data
from zfrepro.evaluator.softmax import Softmax, choose_strength, fit, one_hot
from zfrepro.evaluator.splits import Fold, draw_fold, inner_folds, mean_class_accuracy
from zfrepro.features import images_of
from zfrepro.options.commands import TargetConfig
from zfrepro.options.shared import DataConfig
from zfrepro.run import TrainedRun
from zfrepro.statistics import mean_std

MEAN_BATCH = 256  # images at a time
# What stands for what: the data sets of the paper's tables, and the embedded one in their place.
STAND_INS = {"target": "the embedded data set's target classes", "scenes": "the embedded data set's scenes"}


@dataclass(frozen=True)
class Target:
    """The pool from which folds are drawn: training rows first, then validation rows."""

    config: DataConfig  # at the source network's size
    data: Packed
    labels: np.ndarray  # (N,) int64
    rows: np.ndarray  # (M,) those rows that may be used, sorted

    @property
    def name(self) -> str:
        """What the tables call it."""
        return STAND_INS.get(self.config.part, self.config.name) if self.config.name == "embedded" else self.config.name

    @property
    def slug(self) -> str:
        """A name for folders."""
        return f"embedded_{self.config.part}" if self.config.name == "embedded" else self.config.name

    def fold(self, config: TargetConfig, size: int, number: int) -> Fold:
        """A random fold with so many training images a class, as rows of the pool."""
        drawn = draw_fold(self.labels[self.rows], size, config.test_per_class, config.seed, number)
        return Fold(self.rows[drawn.train], self.rows[drawn.test])

    def images(self, rows: np.ndarray) -> np.ndarray:
        """(n, S, S, 3) uint8, a copy."""
        return images_of(self.data, rows)

    def files(self, rows: np.ndarray) -> list[str]:
        """Names of the sources of some rows."""
        own, other = self.data.train.files, self.data.val.files
        return [own[row] if row < len(own) else other[row - len(own)] for row in rows.tolist()]


def spread(values: Sequence[float]) -> str:
    """'61.2 +- 0.4'."""
    mean, std = mean_std(values)
    return f"{mean:.1f}" + ("" if std is None else f" +- {std:.1f}")


def has_several(data: DataConfig) -> bool:
    """Whether its images have several labels each."""
    return data.name.startswith("voc") or (data.name == "embedded" and data.part == "scenes")


def open_target(config: DataConfig, run: TrainedRun) -> Target:
    """The target's images, packed at the size that the source network was trained on."""
    return packed_target(dataclasses.replace(config, size=run.side))


def packed_target(config: DataConfig) -> Target:
    """The target's images at the size that `config` names."""
    data = open_data(config)
    labels = np.concatenate([data.train.labels, data.val.labels])
    return Target(config, data, labels, np.arange(len(labels)))


def fold_key(target: Target, fold: Fold) -> str:
    """What determines a fold's training images, as a hash."""
    return hashlib.sha256(target.data.key.encode() + fold.train.tobytes()).hexdigest()


class Chosen:
    """(n, S, S, 3) uint8: the rows (n,) of a target, read as they are asked for by number, slice or array."""

    def __init__(self, target: Target, rows: np.ndarray) -> None:
        self.target, self.rows = target, rows
        side = target.data.size
        self.shape = (len(rows), side, side, 3)
        self.shapes = np.full((len(rows), 2), side)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: int | slice | np.ndarray) -> np.ndarray:
        wanted = np.asarray(self.rows[which])
        return self.target.images(wanted.reshape(-1)).reshape(*wanted.shape, *self.shape[1:])

    def mean(self) -> np.ndarray:
        """The mean image (S, S, 3) float32, a few at a time."""
        total = np.zeros(self.shape[1:])
        for start in range(0, len(self), MEAN_BATCH):
            total += self[start : start + MEAN_BATCH].sum(0, dtype=np.float64)
        return (total / len(self)).astype(np.float32)


def fold_data(target: Target, fold: Fold) -> Packed:
    """A fold's training images as a data set to train on.

    The validation split is one training image per class: the trainer wants one, and the test images are not to be looked at
    before the end.
    """
    labels = target.labels[fold.train]
    first = np.unique(labels, return_index=True)[1]

    def split(name: str, places: np.ndarray) -> Split:
        rows = fold.train[places]
        return Split(name, Chosen(target, rows), labels[places], target.files(rows))  # type: ignore[arg-type]

    mean = Chosen(target, fold.train).mean()
    own = {"mean": mean, "colour": mean.mean((0, 1), np.float64)}
    train, val = split("train", np.arange(len(labels))), split("val", first)
    return dataclasses.replace(target.data, key=fold_key(target, fold), train=train, val=val, **own)


# ---------------------------------------------------------------------------------------------------- softmax on features


def load_rows(features: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
    """(n, D) float32 on the device, out of a memory-mapped (N, D)."""
    return torch.from_numpy(np.asarray(features[rows], dtype=np.float32)).to(device)


def common_scale(train: Tensor) -> tuple[Tensor, Tensor]:
    """Shift (D,) and factor () that centre the training features and bring their variance to 1 per feature on average.

    One factor for all features: scaling each by its own deviation blows up units that hardly ever fire.
    """
    shift = train.mean(0)
    return shift, 1 / (train - shift).square().mean().sqrt().clamp(min=1e-12)


@dataclass(frozen=True)
class Scored:
    """A fold's result: accuracy in percent, the regularisation chosen, and the gradient at which the softmax stopped."""

    accuracy: float
    strength: float
    gradient: float


def softmax_accuracy(
    config: TargetConfig, features: np.ndarray, labels: np.ndarray, fold: Fold, seed: int, device: torch.device
) -> Scored:
    """Train a softmax on a fold's training features and test it: mean of the per-class accuracies.

    Scaling and regularisation come from the training rows alone.
    """
    train = load_rows(features, fold.train, device)
    shift, factor = common_scale(train)
    train.sub_(shift).mul_(factor)
    own = labels[fold.train]
    targets = one_hot(own, int(labels.max()) + 1).to(device)

    def score(probabilities: np.ndarray, held: np.ndarray) -> float:
        return mean_class_accuracy(probabilities.argmax(1), own[held])

    folds = inner_folds(own, config.parts, seed)
    strength = choose_strength(train, targets, config.strengths, folds, score)
    model: Softmax = fit(train, targets, strength)
    test = load_rows(features, fold.test, device).sub_(shift).mul_(factor)
    predicted = model.probabilities(test).argmax(1)
    return Scored(mean_class_accuracy(predicted, labels[fold.test]), strength, model.gradient)
