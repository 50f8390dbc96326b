"""Images that two data sets share, by the normalised correlation of small grey versions (paper, section 5.2)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 16  # pixels of the small grey versions: enough to tell photographs apart, few enough to forgive recompression
CHUNK = 4096  # images at a time


def small_grey(images: np.ndarray) -> Tensor:
    """(N, S, S, 3) uint8 -> (N, 256) float32 of mean 0 and length 1; zeros for an image of one grey."""
    found = torch.empty(len(images), SIDE * SIDE)
    for start in range(0, len(images), CHUNK):
        rows = slice(start, start + CHUNK)
        grey = torch.from_numpy(np.array(images[rows])).float().mean(3)
        small = F.adaptive_avg_pool2d(grey[:, None], SIDE).flatten(1)
        centred = small - small.mean(1, keepdim=True)
        length = centred.norm(dim=1, keepdim=True)
        found[rows] = torch.where(length > 1e-3 * SIDE, centred / length.clamp(min=1e-6), torch.zeros(()))
    return found


def best_matches(targets: Tensor, sources: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """For every target (N, D) the largest correlation with any source (M, D), in [-1, 1], and that source's row. Both (N,)."""
    best, row = torch.full((len(targets),), -1.0), torch.zeros(len(targets), dtype=torch.int64)
    for start in range(0, len(sources), CHUNK):
        for first in range(0, len(targets), CHUNK):
            rows = slice(first, first + CHUNK)
            value, index = (targets[rows] @ sources[start : start + CHUNK].T).max(1)
            better = value > best[rows]
            best[rows] = torch.where(better, value, best[rows])
            row[rows] = torch.where(better, index + start, row[rows])
    return best.numpy(), row.numpy()
