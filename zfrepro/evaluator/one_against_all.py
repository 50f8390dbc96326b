"""One linear SVM a class against all others (VGG paper, Appendix B), by scikit-learn's LinearSVC.

An image of which a class is only 'difficult' has no say in that class, neither in training nor in the score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from sklearn.svm import LinearSVC

from zfrepro.evaluator.splits import Fold
from zfrepro.workers import cpus

ITERATIONS = 1000  # of liblinear; features of unit length need a few hundred


@dataclass(frozen=True)
class Machines:
    """C classes: weights (C, D) and biases (C,), float64."""

    weights: np.ndarray
    biases: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(N, C) signed distances from the classes' planes, for features (N, D); higher is more confident."""
        return features @ self.weights.T + self.biases


def train_machines(features: np.ndarray, truth: np.ndarray, cost: float) -> Machines:
    """Minimise |w|^2 / 2 + cost * sum of hinge losses for each class. features: (N, D); truth: (N, C), 1 in the class, 0 not
    in it, -1 not to be used. A class without examples of both kinds gets the score 0 everywhere."""
    seen, back = _turned(np.asarray(features, np.float64))

    def one(column: np.ndarray) -> tuple[np.ndarray, float]:
        used = column != -1
        if len(np.unique(column[used])) < 2:
            return np.zeros(seen.shape[1]), 0.0
        machine = LinearSVC(C=cost, loss="hinge", max_iter=ITERATIONS, random_state=0).fit(seen[used], column[used])
        return machine.coef_[0], float(machine.intercept_[0])

    with ThreadPoolExecutor(cpus()) as pool:  # liblinear lets other threads run
        weights, biases = zip(*pool.map(one, truth.T))
    return Machines(np.stack(weights) @ back.T, np.array(biases))


def _turned(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) in coordinates (N, R) of their own span, where they have more numbers than there are of them, and the
    axes (D, R). Inner products stay, and with them the machines; a fit takes time by R, not by D."""
    if features.shape[1] <= len(features):
        return features, np.eye(features.shape[1])
    axes, triangle = np.linalg.qr(features.T)
    return triangle.T, axes


def choose_cost(
    features: np.ndarray,
    truth: np.ndarray,
    costs: Sequence[float],
    held: Fold | None,
    score: Callable[[np.ndarray, np.ndarray], float],
) -> float:
    """The cost whose machines score best on the held-out part of a training set (of equal ones the smallest); the middle one
    of `costs` where nothing is held out. score(scores, positions): higher is better."""
    costs = sorted(costs)
    if held is None or len(costs) == 1:
        return costs[len(costs) // 2]
    found = []
    for cost in costs:
        machines = train_machines(features[held.train], truth[held.train], cost)
        found.append(score(machines.scores(features[held.test]), held.test))
    return costs[int(np.argmax(found))]


def score_images(
    train: np.ndarray,
    test: np.ndarray,
    marks: np.ndarray,
    costs: Sequence[float],
    seed: int,
    measure: Callable[[np.ndarray, np.ndarray], float],
) -> tuple[np.ndarray, float]:
    """Scores (n, C) of test images of several labels, and the cost that `measure` found best on a random half of the training
    images, as VOC's own validation set is. train (N, D), test (n, D), marks (N, C)."""
    order = np.random.default_rng(seed).permutation(len(train))
    half = len(order) // 2
    held = Fold(np.sort(order[half:]), np.sort(order[:half]))
    cost = choose_cost(train, marks, costs, held, lambda scores, rows: measure(scores, marks[rows]))
    return train_machines(train, marks, cost).scores(test), cost
