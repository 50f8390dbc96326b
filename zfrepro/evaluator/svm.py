"""A linear SVM on features of any width.

A linear SVM needs of its features only their inner products, a matrix as large as the fold whatever the width: it is summed
over blocks of columns, so that features larger than the memory are read once, block by block. scikit-learn's SVC (libsvm, one
class against another) does the rest. Nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.svm import SVC

from zfrepro.evaluator.splits import Fold, inner_folds, mean_class_accuracy

BLOCK_BYTES = 128 << 20  # of features in memory at a time, as float32
FLOOR = 0.1  # of the mean deviation: a feature that hardly ever fires is not scaled up beyond what this one would be


@dataclass(frozen=True)
class Products:
    """Inner products of scaled features: (n, n) of the training rows, (m, n) of the test rows with them; float64."""

    train: np.ndarray
    test: np.ndarray


def products(features: np.ndarray, fold: Fold, scaling: str, device: torch.device) -> Products:
    """features: (N, D), memory-mapped. Features are centred; `common` divides all of them by one number, `each` by its own
    standard deviation (but see FLOOR). Both are taken from the training rows. The mean squared length is then 1.
    """
    train = np.zeros((len(fold.train), len(fold.train)))
    test = np.zeros((len(fold.test), len(fold.train)))
    floor = 0.0
    if scaling == "each":
        deviations = [own.std(0) for own, _ in blocks(features, Fold(fold.train, fold.train[:0]))]
        floor = FLOOR * float(np.concatenate(deviations).mean())
    for own, other in blocks(features, fold):
        a, b = torch.from_numpy(own).to(device), torch.from_numpy(other).to(device)
        shift = a.mean(0)
        a, b = a - shift, b - shift
        if scaling == "each":
            factor = 1 / a.square().mean(0).sqrt().clamp(min=max(floor, 1e-12))
            a, b = a * factor, b * factor
        train += (a @ a.T).cpu().numpy()
        test += (b @ a.T).cpu().numpy()
    length = max(float(np.trace(train)) / len(train), 1e-12)
    return Products(train / length, test / length)


def blocks(features: np.ndarray, fold: Fold) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training and test rows (n, d), (m, d) float32 of successive blocks of columns."""
    step = max(1, BLOCK_BYTES // (4 * (len(fold.train) + len(fold.test))))
    for start in range(0, features.shape[1], step):
        columns = slice(start, start + step)
        yield tuple(np.asarray(features[rows, columns], dtype=np.float32) for rows in (fold.train, fold.test))  # type: ignore[misc]


@dataclass(frozen=True)
class Chosen:
    """A fold's result: accuracy in percent, and what was chosen on its training rows."""

    accuracy: float
    scaling: str
    cost: float


def svm_accuracy(
    features: np.ndarray, labels: np.ndarray, fold: Fold, scalings: Sequence[str], costs: Sequence[float], parts: int,
    seed: int, device: torch.device,
) -> Chosen:  # fmt: skip
    """Train on a fold's training rows, test on its test rows: mean of the per-class accuracies.

    Scaling and cost are those with the best accuracy on one held-out part in `parts` of the training rows; of equal ones the
    smallest cost.
    """
    found = {scaling: products(features, fold, scaling, device) for scaling in scalings}
    own = labels[fold.train]
    best = (-1.0, scalings[0], sorted(costs)[len(costs) // 2])
    for inner in inner_folds(own, parts, seed)[:1] if len(scalings) * len(costs) > 1 else []:
        for scaling, kernel in found.items():
            for cost in sorted(costs):
                fitted = fit_svm(kernel.train[np.ix_(inner.train, inner.train)], own[inner.train], cost)
                predicted = fitted.predict(kernel.train[np.ix_(inner.test, inner.train)])
                score = mean_class_accuracy(predicted, own[inner.test])
                if score > best[0]:
                    best = (score, scaling, cost)
    _, scaling, cost = best
    predicted = fit_svm(found[scaling].train, own, cost).predict(found[scaling].test)
    return Chosen(mean_class_accuracy(predicted, labels[fold.test]), scaling, cost)


def fit_svm(kernel: np.ndarray, labels: np.ndarray, cost: float) -> SVC:
    """A linear SVM from the (n, n) inner products of its training rows."""
    return SVC(C=cost, kernel="precomputed", cache_size=500).fit(kernel, labels)
