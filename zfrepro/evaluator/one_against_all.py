"""One linear SVM a class against all others (VGG paper, Appendix B), by scikit-learn's SVC (libsvm).

Its solver of the dual problem ends at the solution, which liblinear's is far from after thousands of steps where the cost is
high; and it needs inner products alone, which all classes and costs share.

An image of which a class is only 'difficult' has no say in that class, neither in training nor in the score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from sklearn.svm import SVC

from zfrepro.evaluator.splits import Fold
from zfrepro.workers import cpus


@dataclass(frozen=True)
class Machines:
    """C classes: weights (C, D) and biases (C,), float64."""

    weights: np.ndarray
    biases: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(N, C) signed distances from the classes' planes, for features (N, D); higher is more confident."""
        return features @ self.weights.T + self.biases


def inner_products(features: np.ndarray) -> np.ndarray:
    """(N, N) float64 of features (N, D)."""
    own = np.asarray(features, np.float64)
    return own @ own.T


def train_machines(
    features: np.ndarray, truth: np.ndarray, cost: float, products: np.ndarray | None = None
) -> Machines:
    """Minimise |w|^2 / 2 + cost * sum of hinge losses for each class. features: (N, D); truth: (N, C), 1 in the class, 0 not
    in it, -1 not to be used. products: `inner_products` of the features, where they are known already. A class without
    examples of both kinds gets the score 0 everywhere."""
    gram = inner_products(features) if products is None else products

    def one(column: np.ndarray) -> tuple[np.ndarray, float]:
        used, pull = np.flatnonzero(column != -1), np.zeros(len(column))
        if len(np.unique(column[used])) < 2:
            return pull, 0.0
        own = gram if len(used) == len(gram) else gram[np.ix_(used, used)]
        machine = SVC(C=cost, kernel="precomputed").fit(own, column[used])
        pull[used[machine.support_]] = machine.dual_coef_[0]
        return pull, float(machine.intercept_[0])

    with ThreadPoolExecutor(cpus()) as pool:  # libsvm lets other threads run
        pulls, biases = zip(*pool.map(one, truth.T))
    return Machines(np.stack(pulls) @ np.asarray(features, np.float64), np.array(biases))


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
    found, products = [], inner_products(features[held.train])
    for cost in costs:
        machines = train_machines(features[held.train], truth[held.train], cost, products)
        found.append(score(machines.scores(features[held.test]), held.test))
    return costs[int(np.argmax(found))]


def score_images(
    train: np.ndarray, test: np.ndarray, marks: np.ndarray, costs: Sequence[float], seed: int,
    measure: Callable[[np.ndarray, np.ndarray], float],
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Scores (n, C) of test images of several labels, and the cost that `measure` found best on a random half of the training
    images, as VOC's own validation set is. train (N, D), test (n, D), marks (N, C)."""
    order = np.random.default_rng(seed).permutation(len(train))
    half = len(order) // 2
    held = Fold(np.sort(order[half:]), np.sort(order[:half]))
    cost = choose_cost(train, marks, costs, held, lambda scores, rows: measure(scores, marks[rows]))
    return train_machines(train, marks, cost).scores(test), cost
