"""Features of a data set's images: one streaming pass through a frozen network, kept in memory-mapped files.

outputs/<run>/features/<data set>-<key>/layer<n>.npy, (N, D): the training images' rows first, then the validation images'.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from zfrepro.data import Packed
from zfrepro.errors import UserError, require_layer
from zfrepro.files import pending
from zfrepro.run import TrainedRun

BATCH = 128


def extract(
    run: TrainedRun, data: Packed, layers: Sequence[int], dtype: str = "float32", pool: int | None = None
) -> dict[int, np.ndarray]:
    """The outputs of `layers` for the centre crops of all images, (N, D) memory-mapped, D = maps x side x side or units.

    Layers that are in the cache already are not computed again. `pool`: average the maps down to pool x pool first. The pass
    is in float32 whatever the run's precision: features are compared, not trained.
    """
    for layer in layers:
        require_layer("layer", layer, run.network.feature_layers)
    folder = run.folder / "features" / f"{data.manifest['name']}-{_key(run, data, dtype, pool)}"
    missing = [layer for layer in layers if not (folder / f"layer{layer}.npy").exists()]
    if missing:
        _fill(run, data, missing, folder, dtype, pool)
    return {layer: np.load(folder / f"layer{layer}.npy", mmap_mode="r") for layer in layers}


def _key(run: TrainedRun, data: Packed, dtype: str, pool: int | None) -> str:
    """A hash of what determines the features."""
    identity = [run.checkpoint_hash, data.key, dtype, pool]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]


@torch.no_grad()
def _fill(run: TrainedRun, data: Packed, layers: Sequence[int], folder: Path, dtype: str, pool: int | None) -> None:
    """One pass that writes the files of `layers`; they get their names when all are complete."""
    folder.mkdir(parents=True, exist_ok=True)
    total, row = len(data.train) + len(data.val), 0
    files: dict[int, np.memmap] = {}
    bar = tqdm(total=total, desc=f"layers {', '.join(map(str, layers))}", unit=" images", disable=None)
    with pending(run.folder, "features") as fresh, bar:
        for split in (data.train, data.val):
            for start in range(0, len(split), BATCH):
                images = np.ascontiguousarray(split.images[start : start + BATCH])
                for layer, values in outputs(run, images, layers, pool).items():
                    if layer not in files:
                        shape = (total, values.shape[1])
                        _check_space(folder, total * values.shape[1] * np.dtype(dtype).itemsize)
                        files[layer] = np.lib.format.open_memmap(fresh / f"{layer}.npy", "w+", np.dtype(dtype), shape)
                    files[layer][row : row + len(values)] = values.cpu().numpy()
                row += len(images)
                bar.update(len(images))
        for layer in layers:
            files.pop(layer).flush()
            (fresh / f"{layer}.npy").replace(folder / f"layer{layer}.npy")


def _check_space(folder: Path, size: int) -> None:
    """Refuse what does not fit: a memory map on a full disk ends the process without a word."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{folder}: features need {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; give pool=<n> or dtype=float16, "
            "or make room"
        )


def outputs(run: TrainedRun, images: np.ndarray, layers: Sequence[int], pool: int | None = None) -> dict[int, Tensor]:
    """Features (B, D) float32 of one batch of packed images, for each of `layers`."""
    found = run.network.features(run.inputs(images), layers)
    return {layer: _flat(values.float(), pool) for layer, values in found.items()}


def _flat(values: Tensor, pool: int | None) -> Tensor:
    """(B, C, H, W) or (B, U) -> (B, D)."""
    if pool is not None and values.ndim == 4:
        values = F.adaptive_avg_pool2d(values, min(pool, values.shape[-1]))
    return values.flatten(1)
