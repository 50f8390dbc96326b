"""Caltech's protocol: random folds with a fixed number of training images per class, and the mean of per-class accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Fold:
    """Rows of the pool of target images, each (n,) sorted int64; no row is in both."""

    train: np.ndarray
    test: np.ndarray


def draw_fold(labels: np.ndarray, per_class: int, test_per_class: int, seed: int, fold: int) -> Fold:
    """Of every class `per_class` training rows and, of the rest, at most `test_per_class` test rows; see `possible_sizes`.

    labels: (N,). A class's order depends on (seed, fold, class) alone, so a larger `per_class` adds to the same training
    rows.
    """
    train, test = [], []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        order = np.random.default_rng([seed, fold, int(label)]).permutation(rows)
        train.append(order[:per_class])
        test.append(order[per_class : per_class + test_per_class])
    return Fold(np.sort(np.concatenate(train)), np.sort(np.concatenate(test)))


def usual_size(data_set: str) -> int:
    """Training images per class where nothing else is said, as in ZFNet's Table 7 and in VGG's Table 11."""
    return 60 if data_set == "caltech256" else 30


def smallest_class(labels: np.ndarray) -> int:
    """How many images the class has that has the fewest."""
    return int(np.unique(labels, return_counts=True)[1].min())


def possible_sizes(labels: np.ndarray, sizes: Sequence[int]) -> list[int]:
    """Those of `sizes`, rising, that leave every class an image to test on."""
    return sorted({size for size in sizes if size < smallest_class(labels)})


def mean_class_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes in `labels` of the share of their images that is right, in percent. Both (N,)."""
    right = predicted == labels
    return 100 * float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def inner_folds(labels: np.ndarray, count: int, seed: int) -> list[Fold]:
    """`count` parts of a training set, stratified: each in turn is held out to choose options on. Positions, not rows.

    Fewer parts where a class has fewer images; none where one has a single image.
    """
    count = min(count, smallest_class(labels))
    if count < 2:
        return []
    part = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        part[np.random.default_rng([seed, int(label)]).permutation(rows)] = np.arange(len(rows)) % count
    return [Fold(np.flatnonzero(part != held), np.flatnonzero(part == held)) for held in range(count)]
