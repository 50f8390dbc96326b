"""The forward pass over many images, a batch at a time: where search, features, errors and predictions begin."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from zfrepro.models.network import Network
from zfrepro.run import TrainedRun, require_softmax

# The largest tensor of a batch: beyond it a CPU's caches and allocator slow everything down; a GPU wants more.
BATCH_BYTES = {"cpu": 48 << 20, "cuda": 1 << 30}
MOST = 512  # images of a batch
DENSE = 16  # images at least where fully connected layers are wanted: their weights are read once a batch


def forward(
    run: TrainedRun,
    images: np.ndarray | Callable[[np.ndarray], np.ndarray],
    layers: Collection[int],
    rows: np.ndarray,
    title: str = "",
    exact: bool = False,
) -> Iterator[tuple[np.ndarray, dict[int, Tensor]]]:
    """Outputs of `layers` (as from `Network.features`) for the centre crops of some images: batches of their rows (B,) and
    layer -> (B, ...).

    images: packed squares (N, S, S, 3) uint8, or a function from rows to theirs; title: of a progress bar, '' for none. In
    the run's precision: bfloat16 tensors where that is bf16; exact: float32 whatever it is.
    """
    size = batch_size(run.network, layers, run.device.type)
    with tqdm(total=len(rows), desc=title, unit=" images", disable=None if title else True, leave=False) as bar:
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            inputs = run.inputs(images(part) if callable(images) else images[part])
            with torch.no_grad(), contextlib.nullcontext() if exact else run.autocast():
                found = run.network.features(inputs, layers)
            yield part, found
            bar.update(len(part))


def logits(run: TrainedRun, images: np.ndarray | Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """(B, classes) float32 for the centre crops of some images, exact. Raises UserError where the network has no softmax."""
    top = require_softmax(run)
    return np.concatenate([found[top].cpu().numpy() for _, found in forward(run, images, [top], rows, exact=True)])


def batch_size(network: Network, layers: Collection[int], device: str = "cpu") -> int:
    """Inputs of a batch whose largest map on the way to `layers` stays below BATCH_BYTES, in float32."""
    widths, last = network.widths, max(layers, default=0)
    sides = zip(network.ops, network.sizes[1:])
    largest = max((size**2 * widths[op.layer] for op, size in sides if op.layer <= last), default=1)
    fitting = BATCH_BYTES.get(device, BATCH_BYTES["cpu"]) // (4 * largest)
    least = DENSE if last > network.conv_layers[-1] else 1
    return min(max(fitting, least), MOST)
