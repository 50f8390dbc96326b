"""A softmax layer on fixed features: multinomial logistic regression, trained to its optimum.

The paper retrains the softmax layer on top of frozen layers (section 5.2). With the features fixed the problem is convex, so
it is solved rather than annealed: L-BFGS until the gradient vanishes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zfrepro.evaluator.splits import Fold

TOLERANCE = 1e-5  # largest entry of the gradient at which the optimum counts as reached
ROUGHLY = 1e-4  # enough to compare strengths
STEPS = 2000
ROWS = 512  # of features at a time where they need float64 for a moment


@dataclass(frozen=True)
class Softmax:
    """Weights (D, C) and biases (C,), float64, and the largest entry of the gradient where the training ended."""

    weights: Tensor
    biases: Tensor
    gradient: float

    def probabilities(self, features: Tensor) -> np.ndarray:
        """(N, C) for features (N, D)."""
        scores = [part.double() @ self.weights + self.biases for part in features.split(ROWS)]
        return torch.cat(scores).softmax(1).cpu().numpy()


@dataclass(frozen=True)
class Axes:
    """Features in the coordinates of their principal axes; those along which they are all zero are left out."""

    features: Tensor  # (N, R)
    directions: Tensor  # (D, R) orthonormal
    energy: Tensor  # (R,) mean square along each

    @classmethod
    def of(cls, features: Tensor, dtype: torch.dtype = torch.float64) -> Axes:
        """features: (N, D). dtype: of the result, in which the softmax is then trained."""
        features = features.double()
        count, width = features.shape
        if width <= count:
            energy, directions = torch.linalg.eigh(features.T @ features / count)
            held = energy > energy[-1] * 1e-13
            found = features @ directions[:, held], directions[:, held], energy[held]
        else:  # the products of the images have the same axes, and are fewer
            energy, images = torch.linalg.eigh(features @ features.T / count)
            held = energy > energy[-1] * 1e-10  # below, rounding bends the directions
            length = (count * energy[held]).sqrt()
            found = images[:, held] * length, features.T @ (images[:, held] / length), energy[held]
        return cls(*(tensor.to(dtype) for tensor in found))


def fit(
    features: Tensor | Axes,
    targets: Tensor,
    strength: float,
    start: Softmax | None = None,
    tolerance: float = TOLERANCE,
) -> Softmax:
    """Minimise the cross-entropy plus |weights|^2 / (2 * strength * N), as scikit-learn's LogisticRegression(C=strength).

    features: (N, D), or their `Axes` where several strengths are tried. targets: (N, C), each row a distribution over the
    classes. Biases are not regularised. `start`: a solution to begin at, such as that of the next smaller strength.
    tolerance: the largest entry of the gradient at which to stop.
    """
    axes = features if isinstance(features, Axes) else Axes.of(features)
    targets = targets.to(axes.features)
    count, classes = targets.shape
    decay = 1 / (strength * count)
    # Correlated features make thin valleys. In other coordinates, weights = directions @ (scale * free), the curvature at the
    # start is the identity (that of weights 0 is energy / C + decay along each axis), and the minimum is the same.
    scale = (axes.energy / classes + decay).rsqrt()[:, None]
    seen, prior = axes.features * scale.T, decay * scale.square()
    if start is None:
        free, biases = torch.zeros(len(scale), classes).to(seen), torch.zeros(classes).to(seen)
    else:
        free, biases = axes.directions.T @ start.weights.to(seen) / scale, start.biases.to(seen, copy=True)
    solver = torch.optim.LBFGS(
        [free, biases],
        max_iter=STEPS,
        tolerance_grad=tolerance,
        tolerance_change=0,  # the gradient alone decides
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def slopes() -> tuple[Tensor, Tensor, Tensor]:
        """The loss and its gradients in `free` and `biases`."""
        likely = (seen @ free + biases).log_softmax(1)
        error, pull = (likely.exp() - targets) / count, prior * free
        loss = (free * pull).sum() / 2 - (targets * likely).sum() / count
        return loss, seen.T @ error + pull, error.sum(0)

    def closure() -> Tensor:
        loss, free.grad, biases.grad = slopes()
        return loss

    with torch.no_grad():
        solver.step(closure)
        _, up, across = slopes()
    gradient = max(float((axes.directions @ (up / scale)).abs().max()), float(across.abs().max()))
    return Softmax((axes.directions @ (scale * free)).double(), biases.double(), gradient)


def one_hot(labels: np.ndarray, classes: int) -> Tensor:
    """(N, C) float64."""
    return torch.eye(classes, dtype=torch.float64)[torch.from_numpy(np.ascontiguousarray(labels))]


def choose_strength(
    features: Tensor,
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
    axes = [Axes.of(features[fold.train], torch.float32) for fold in folds]
    for strength in strengths:
        total = 0.0
        for index, fold in enumerate(folds):
            model = models[index] = fit(axes[index], targets[fold.train], strength, models[index], ROUGHLY)
            total += score(model.probabilities(features[fold.test]), fold.test)
        if total < best:
            break
        if total > best:
            chosen, best = strength, total
    return chosen
