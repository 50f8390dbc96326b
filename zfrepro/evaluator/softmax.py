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
STEPS = 2000


@dataclass(frozen=True)
class Softmax:
    """Weights (D, C) and biases (C,), float64, and the largest entry of the gradient where the training ended."""

    weights: Tensor
    biases: Tensor
    gradient: float

    def probabilities(self, features: Tensor) -> np.ndarray:
        """(N, C) for features (N, D)."""
        return (features.double() @ self.weights + self.biases).softmax(1).cpu().numpy()


def fit(features: Tensor, targets: Tensor, strength: float, start: Softmax | None = None) -> Softmax:
    """Minimise the cross-entropy plus |weights|^2 / (2 * strength * N), as scikit-learn's LogisticRegression(C=strength).

    features: (N, D). targets: (N, C), each row a distribution over the classes. Biases are not regularised. `start`: a
    solution to begin at, such as that of the next smaller strength.
    """
    features, targets = features.double(), targets.double()
    (count, width), classes = features.shape, targets.shape[1]
    decay = 1 / (strength * count)
    # Correlated features make thin valleys. In other coordinates, weights = basis @ free, the curvature at the start is the
    # identity (that of weights 0 is features' features / (N * C) + decay), and the minimum is the same.
    curvature = features.T @ features / (count * classes)
    curvature.diagonal().add_(decay)
    lower = torch.linalg.cholesky(curvature)
    basis = torch.linalg.solve_triangular(lower.T, torch.eye(width).to(features), upper=True)
    seen, prior = features @ basis, decay * basis.T @ basis
    free = torch.zeros(width, classes, dtype=torch.float64, device=features.device)
    biases = torch.zeros(classes, dtype=torch.float64, device=features.device)
    if start is not None:
        free, biases = lower.T @ start.weights, start.biases.clone()
    solver = torch.optim.LBFGS(
        [free, biases],
        max_iter=STEPS,
        tolerance_grad=TOLERANCE,
        tolerance_change=0,  # the gradient alone decides
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        logits = seen @ free + biases
        error = (logits.softmax(1) - targets) / count
        pull = prior @ free
        free.grad = seen.T @ error + pull
        biases.grad = error.sum(0)
        loss = -(targets * logits.log_softmax(1)).sum() / count
        return loss + (free * pull).sum() / 2

    with torch.no_grad():
        solver.step(closure)
    weights = basis @ free
    error = ((features @ weights + biases).softmax(1) - targets) / count
    gradient = max(float((features.T @ error + decay * weights).abs().max()), float(error.sum(0).abs().max()))
    return Softmax(weights, biases, gradient)


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
    for strength in strengths:
        total = 0.0
        for index, fold in enumerate(folds):
            model = models[index] = fit(features[fold.train], targets[fold.train], strength, models[index])
            total += score(model.probabilities(features[fold.test]), fold.test)
        if total < best:
            break
        if total > best:
            chosen, best = strength, total
    return chosen
