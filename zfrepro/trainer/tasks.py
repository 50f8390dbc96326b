"""What a network is trained for: the loss of a batch, and the errors by which a validation is judged.

The loop in `train.py` knows no task: it feeds inputs with the task's targets, asks for the loss, and adds up what the task
counts.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zfrepro.data import Packed, Split
from zfrepro.statistics import GUESSES


class Task(Protocol):
    """A task for a network of `outputs` numbers on top; B images in a batch."""

    outputs: int
    wrong: str  # what metrics.jsonl calls the share of training images that `loss` counts as wrong, in percent
    best: str  # the validation error that selects best.pt and, where it no longer falls, lowers the learning rate

    def rows(self, split: Split, rows: np.ndarray) -> np.ndarray:
        """Those of some training rows that there is something to learn from."""

    def targets(self, split: Split, rows: np.ndarray) -> Tensor:
        """(B, ...) what is to be learned of some images, on the CPU."""

    def seen(self, targets: Tensor, crops: Tensor, flip: Tensor, draw: Tensor) -> Tensor:
        """The targets as the network sees them: in crops (B, 4), x0, y0, x1, y1 in pixels of the packed images, mirrored
        where flip (B,). draw: (B,) uniform in [0, 1), for a choice."""

    def loss(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss of a batch, () float32 with its graph, and how many of the images are wrong, () int64."""

    def count(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(K,) float64 sums over a batch, which add up over batches and processes to what `errors` needs."""

    def errors(self, counts: list[float], images: int) -> dict[str, float]:
        """The validation's line in metrics.jsonl, from the sums over all images."""


class Classification:
    """One of C classes by multinomial logistic regression (section 3): cross-entropy, top-1 and top-5 errors."""

    wrong = "train_top1_error"
    best = "val_top1_error"

    def __init__(self, data: Packed) -> None:
        self.outputs = data.num_classes

    def rows(self, split: Split, rows: np.ndarray) -> np.ndarray:
        return rows

    def targets(self, split: Split, rows: np.ndarray) -> Tensor:
        """(B,) int64 classes."""
        return torch.from_numpy(np.asarray(split.labels[rows]))

    def seen(self, targets: Tensor, crops: Tensor, flip: Tensor, draw: Tensor) -> Tensor:
        """A class is the same in every crop."""
        return targets

    def loss(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy in nats of logits (B, C), and how many are not highest at the true class."""
        return F.cross_entropy(outputs, targets), (outputs.detach().argmax(1) != targets).sum()

    def count(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(2,): images whose true class is not the first, and not among the first five; of equally probable ones, which
        bfloat16 often gives, the first wins, as in `zfrepro evaluate`."""
        order = outputs.softmax(1).argsort(dim=1, descending=True, stable=True)
        top = order[:, :GUESSES] == targets[:, None]
        return torch.stack([(~top[:, 0]).sum(), (~top.any(1)).sum()]).double()

    def errors(self, counts: list[float], images: int) -> dict[str, float]:
        """Top-1 and top-5 errors in percent."""
        top1, top5 = (100 * wrong / images for wrong in counts)
        return {"val_top1_error": top1, "val_top5_error": top5}
