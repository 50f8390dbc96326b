"""Features of a data set's images: one streaming pass through a frozen network, kept in memory-mapped files.

outputs/<run>/features/<data set>-<key>/layer<n>.npy, (N, D): the training images' rows first, then the validation images'.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from zfrepro.data import Packed
from zfrepro.data.cache import short_hash
from zfrepro.errors import require_layer
from zfrepro.files import move, pending, read_array, require_space
from zfrepro.forward import forward
from zfrepro.models.network import Network
from zfrepro.run import TrainedRun


def extract(
    run: TrainedRun, data: Packed, layers: Sequence[int], dtype: str = "float32", pool: int | None = None
) -> dict[int, np.ndarray]:
    """The outputs of `layers` for the centre crops of all images, (N, D) memory-mapped, D = maps x side x side or units.

    Layers that are in the cache already are not computed again. `pool`: average the maps down to pool x pool first. The pass
    is in the run's precision.
    """
    for layer in layers:
        require_layer("layer", layer, run.network.feature_layers)
    identity = [run.checkpoint_hash, data.key, dtype, pool, run.precision]
    folder = run.folder / "features" / f"{data.manifest['name']}-{short_hash(identity)[:12]}"
    total = len(data.train) + len(data.val)

    def stored(layer: int) -> np.ndarray | None:
        return read_array(folder / f"layer{layer}.npy", (total, width(run.network, layer, pool)))

    found = {layer: array for layer in layers if (array := stored(layer)) is not None}
    if missing := [layer for layer in layers if layer not in found]:
        _fill(run, data, missing, folder, dtype, pool)
        found |= {layer: np.load(folder / f"layer{layer}.npy", mmap_mode="r") for layer in missing}
    return found


def _fill(run: TrainedRun, data: Packed, layers: Sequence[int], folder: Path, dtype: str, pool: int | None) -> None:
    """One pass that writes the files of `layers`; they get their names when all are complete."""
    folder.mkdir(parents=True, exist_ok=True)
    total, kind = len(data.train) + len(data.val), np.dtype(dtype)
    widths = {layer: width(run.network, layer, pool) for layer in layers}
    size = total * sum(widths.values()) * kind.itemsize  # a memory map on a full disk ends the process without a word
    require_space(folder, size, "features", "give pool=<n> or dtype=float16, or make room")
    with pending(run.folder, "features") as fresh:
        files = {
            layer: np.lib.format.open_memmap(fresh / f"{layer}.npy", "w+", kind, (total, widths[layer]))
            for layer in layers
        }
        title = f"layers {', '.join(map(str, layers))}"
        for rows, found in forward(run, partial(images_of, data), layers, np.arange(total), title=title):
            for layer, values in found.items():
                files[layer][rows] = flat(values, pool).cpu().numpy()
        for layer in layers:
            files.pop(layer).flush()
            move(fresh / f"{layer}.npy", folder / f"layer{layer}.npy")


def images_of(data: Packed, rows: np.ndarray) -> np.ndarray:
    """(n, S, S, 3) uint8: images by row, the training images' first and then the validation images', copied."""
    picked, first = np.empty((len(rows), data.size, data.size, 3), np.uint8), rows < len(data.train)
    picked[first] = data.train.images[rows[first]]
    picked[~first] = data.val.images[rows[~first] - len(data.train)]
    return picked


def width(network: Network, layer: int, pool: int | None = None) -> int:
    """How many features an image has at a layer."""
    side = network.side(layer)
    return network.widths[layer] * (side if pool is None else min(pool, side)) ** 2


def flat(values: Tensor, pool: int | None = None) -> Tensor:
    """Outputs (B, C, H, W) or (B, U) as features (B, D) float32; maps averaged down to pool x pool first, if asked."""
    values = values.float()
    if pool is not None and values.ndim == 4:
        values = F.adaptive_avg_pool2d(values, min(pool, values.shape[-1]))
    return values.flatten(1)
