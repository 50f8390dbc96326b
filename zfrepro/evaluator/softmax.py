"""A softmax layer on fixed features: multinomial logistic regression, trained to its optimum.

The paper retrains the softmax layer on top of frozen layers (section 5.2). With the features fixed the problem is convex, so
it is solved rather than annealed, by Newton's method. The best weights are sums of the images' features, and all that is asked
of the features on the way there are their inner products: thousands of features of an image cost no more than a few.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zfrepro.evaluator.splits import Fold

TOLERANCE = 1e-7  # nats an image by which a step still lowers the loss, where the optimum counts as reached
ROUGHLY = 1e-4  # enough to compare strengths
FLAT = 1e-9  # length of a gradient, as a share of that at weights of zero, that is none
STEPS, INNER = 100, 200  # of Newton's method at most, and of conjugate gradients in each
EQUAL = 1e-9  # scores that differ by less are alike


@dataclass(frozen=True)
class Images:
    """Features (N, D) of images, and their inner products (N, N) where these are less work than the features themselves."""

    features: Tensor
    products: Tensor | None

    @classmethod
    def of(cls, features: Tensor) -> Images:
        """In float64. features: (N, D)."""
        features = features.double()
        return cls(features, features @ features.T if len(features) < 2 * features.shape[1] else None)

    def part(self, rows: np.ndarray) -> Images:
        """Some of them, in float32."""
        products = None if self.products is None else self.products[rows][:, rows].float()
        return Images(self.features[rows].float(), products)

    def scores(self, shares: Tensor) -> Tensor:
        """(N, C): their features times the weights (D, C) that are sums of their features by `shares` (N, C)."""
        return self.features @ (self.features.T @ shares) if self.products is None else self.products @ shares


@dataclass(frozen=True)
class Softmax:
    """Weights (D, C) and biases (C,), float64; the largest entry of the gradient where the training ended; and the shares (N, C)
    of the images that it was trained on in the weights."""

    weights: Tensor
    biases: Tensor
    gradient: float
    shares: Tensor

    def probabilities(self, features: Tensor) -> np.ndarray:
        """(N, C) for features (N, D)."""
        return (features.double() @ self.weights + self.biases).softmax(1).cpu().numpy()


@dataclass(frozen=True)
class Place:
    """Weights and biases, or a direction from there to others."""

    shares: Tensor  # (N, C): weights = features.T @ shares
    biases: Tensor  # (C,)
    scores: Tensor  # (N, C): features @ weights

    def moved(self, way: Place, by: float) -> Place:
        """`by` times `way` from here."""
        return Place(*(here + by * there for here, there in zip(vars(self).values(), vars(way).values())))


class Problem:
    """The loss: cross-entropy plus decay / 2 |weights|^2, its slope and its curvature."""

    def __init__(self, images: Images, targets: Tensor, strength: float) -> None:
        self.images, self.targets = images, targets.to(images.features)
        self.count, self.classes = targets.shape
        self.decay = 1 / (strength * self.count)
        # Of a bias in lengths: so the curvature along biases is at first as large as the least along weights.
        self.heavy = 1 / (self.classes * self.decay)

    def place(self, shares: Tensor, biases: Tensor) -> Place:
        """The weights and biases with these shares of the images."""
        return Place(shares, biases, self.images.scores(shares))

    def nowhere(self) -> Place:
        """Weights and biases of 0."""
        zero = torch.zeros_like(self.targets)
        return Place(zero, zero[0].clone(), zero)

    def along(self, way: Place, shares: Tensor, biases: Tensor) -> float:
        """The inner product of a direction with another, of which no scores are known."""
        return float((way.scores * shares).sum() + self.heavy * (way.biases * biases).sum())

    def loss(self, at: Place) -> float:
        likely = (at.scores + at.biases).log_softmax(1)
        return float(self.decay * (at.shares * at.scores).sum() / 2 - (self.targets * likely).sum() / self.count)

    def downhill(self, at: Place, probable: Tensor) -> Place:
        """The gradient, turned round. probable: the softmax's outputs (N, C)."""
        missing = (self.targets - probable) / self.count
        return self.place(missing - self.decay * at.shares, missing.sum(0) / self.heavy)

    def bent(self, way: Place, probable: Tensor) -> tuple[Tensor, Tensor]:
        """How the gradient changes along a direction: its shares and biases."""
        felt = way.scores + way.biases
        felt = probable * (felt - (probable * felt).sum(1, keepdim=True)) / self.count
        return felt + self.decay * way.shares, felt.sum(0) / self.heavy

    def step(self, down: Place, probable: Tensor, enough: float) -> Place:
        """Towards the bottom of the parabola that fits the loss here, until the square of its gradient's length is `enough`
        (conjugate gradients)."""
        step, rest, way = self.nowhere(), down, down
        size = self.along(rest, rest.shares, rest.biases)
        for _ in range(INNER):
            shares, biases = self.bent(way, probable)
            far = size / self.along(way, shares, biases)
            step = step.moved(way, far)
            rest = self.place(rest.shares - far * shares, rest.biases - far * biases)
            before, size = size, self.along(rest, rest.shares, rest.biases)
            if size <= enough:
                break
            way = rest.moved(way, size / before)
        return step

    def walked(self, at: Place, step: Place, promised: float) -> Place:
        """A step, or the half of it, or a quarter ... that lowers the loss about as its slope promised."""
        loss, share = self.loss(at), 1.0
        rounding = 10 * torch.finfo(at.scores.dtype).eps * abs(loss)
        while self.loss(at.moved(step, share)) > loss - 1e-4 * share * promised + rounding and share > 1e-6:
            share /= 2
        return at.moved(step, share)


@torch.no_grad()
def fit(
    features: Tensor | Images,
    targets: Tensor,
    strength: float,
    start: Softmax | None = None,
    tolerance: float = TOLERANCE,
) -> Softmax:
    """Minimise the cross-entropy plus |weights|^2 / (2 * strength * N), as scikit-learn's LogisticRegression(C=strength).

    features: (N, D), or their `Images` where several strengths are tried. targets: (N, C), each row a distribution over the
    classes. Biases are not regularised. `start`: a solution for the same images to begin at, such as that of the next smaller
    strength. tolerance: see TOLERANCE.
    """
    images = features if isinstance(features, Images) else Images.of(features)
    problem = Problem(images, targets, strength)
    at = problem.nowhere()
    down = problem.downhill(at, torch.full_like(at.shares, 1 / problem.classes))
    steepest = math.sqrt(problem.along(down, down.shares, down.biases))
    if start is not None:
        at = problem.place(start.shares.to(at.shares), start.biases.to(at.biases))
    for _ in range(STEPS):
        probable = (at.scores + at.biases).softmax(1)
        down = problem.downhill(at, probable)
        size = math.sqrt(max(0.0, problem.along(down, down.shares, down.biases)))
        if size <= FLAT * steepest:
            break
        step = problem.step(down, probable, (size * min(0.5, math.sqrt(size / steepest))) ** 2)
        promised = problem.along(step, down.shares, down.biases)  # twice what the parabola has
        at = problem.walked(at, step, promised)
        if promised <= tolerance:
            break
    down = problem.downhill(at, (at.scores + at.biases).softmax(1))
    slope = images.features.T @ down.shares, problem.heavy * down.biases
    gradient = max(float(one.abs().max()) for one in slope)
    return Softmax((images.features.T @ at.shares).double(), at.biases.double(), gradient, at.shares)


def one_hot(labels: np.ndarray, classes: int) -> Tensor:
    """(N, C) float64."""
    return torch.eye(classes, dtype=torch.float64)[torch.from_numpy(np.ascontiguousarray(labels))]


def choose_strength(
    features: Tensor | Images,
    targets: Tensor,
    strengths: Sequence[float],
    folds: Sequence[Fold],
    score: Callable[[np.ndarray, np.ndarray], float],
) -> float:
    """The strength that scores best on the held-out parts `folds` of a training set; of equal ones the smallest.

    score(probabilities, positions) judges a held-out part, higher is better. The strengths are tried from the smallest up,
    each from the solution before, until one is worse than the best: beyond it the fit is costly and over-fits more. Without
    folds (a single image per class holds nothing out): the middle one of `strengths`.
    """
    strengths = sorted(strengths)
    if not folds or len(strengths) == 1:
        return strengths[len(strengths) // 2]
    chosen, best = strengths[0], -np.inf
    models: list[Softmax | None] = [None] * len(folds)
    images = features if isinstance(features, Images) else Images.of(features)
    parts = [images.part(fold.train) for fold in folds]
    for strength in strengths:
        total = 0.0
        for index, fold in enumerate(folds):
            model = models[index] = fit(parts[index], targets[fold.train], strength, models[index], ROUGHLY)
            total += score(model.probabilities(images.features[fold.test]), fold.test)
        if total < best - EQUAL:
            break
        if total > best + EQUAL:
            chosen, best = strength, total
    return chosen
