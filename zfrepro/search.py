"""Top-nine search: for every map of every convolutional layer, the images that excite it most (paper, section 4, Fig. 2).

One streaming pass over the images keeps, for each map, the `count` images with the strongest spatial maximum and the place of
that maximum: O(maps x count) memory whatever the data set's size. The result is kept in the run's folder and read again
while checkpoint and images are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from zfrepro.data import Split
from zfrepro.errors import UserError
from zfrepro.files import atomic_write
from zfrepro.models.network import Network
from zfrepro.run import TrainedRun

COUNT = 9
BATCH_BYTES = 48 << 20  # largest tensor of a batch


@dataclass(frozen=True)
class Top:
    """The strongest images of each of a layer's M maps, strongest first; one unit an image."""

    values: np.ndarray  # (M, count) float32
    images: np.ndarray  # (M, count) int64: rows of the split
    rows: np.ndarray  # (M, count) int64: the unit's place in the map
    columns: np.ndarray

    @property
    def live(self) -> np.ndarray:
        """Numbers of the maps that some image excites."""
        return np.flatnonzero(self.values[:, 0] > 0)

    def units(self, maps: np.ndarray) -> np.ndarray:
        """(len(maps) * count, 3) units map, row, column, for `project`; in the order of `images[maps].ravel()`."""
        number = np.repeat(maps, self.values.shape[1])
        return np.stack([number, self.rows[maps].ravel(), self.columns[maps].ravel()], axis=1)


class Best:
    """The strongest images so far of each of `maps` maps."""

    def __init__(self, maps: int, count: int, device: torch.device) -> None:
        self.values = torch.full((maps, count), -torch.inf, device=device)
        self.images = torch.full((maps, count), -1, device=device)
        self.places = torch.zeros((maps, count), dtype=torch.long, device=device)
        self.width = 0

    def update(self, output: Tensor, images: Tensor) -> None:
        """Take in a layer's output (B, M, H, W) for the images numbered `images` (B,). Of equals, the earlier stays."""
        self.width = output.shape[-1]
        cells = output.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H * W, M), as it lies in memory
        strongest = cells.amax(1).T  # (M, B)
        better = strongest > self.values[:, -1:]
        # Soon few images improve on any map: only those cost more than the maximum.
        maps = better.any(1).nonzero()[:, 0]
        if not len(maps):
            return
        number, image = better.nonzero(as_tuple=True)
        places = torch.zeros(better.shape, dtype=torch.long, device=output.device)
        places[number, image] = cells[image, :, number].argmax(1)
        values = torch.cat([self.values[maps], strongest[maps].where(better[maps], -torch.inf)], 1)
        order = values.argsort(dim=1, descending=True, stable=True)[:, : self.values.shape[1]]
        candidates = images.expand(len(maps), -1)
        self.values[maps] = values.gather(1, order)
        self.images[maps] = torch.cat([self.images[maps], candidates], 1).gather(1, order)
        self.places[maps] = torch.cat([self.places[maps], places[maps]], 1).gather(1, order)

    def top(self) -> Top:
        """The result."""
        values, images, places = (t.cpu().numpy() for t in (self.values, self.images, self.places))
        return Top(values, images, places // max(1, self.width), places % max(1, self.width))


@torch.inference_mode()
def search(network: Network, batches: Iterable[tuple[Tensor, Tensor]], count: int = COUNT) -> dict[int, Top]:
    """The `count` strongest images of every map of every convolutional layer.

    batches: inputs (B, channels, S, S) and their numbers (B,) int64, on the network's device.
    """
    best: dict[int, Best] = {}
    for inputs, numbers in batches:
        for layer, output in network.features(inputs, network.conv_layers).items():
            if layer not in best:
                best[layer] = Best(output.shape[1], count, output.device)
            best[layer].update(output, numbers)
    return {layer: found.top() for layer, found in best.items()}


def top_images(run: TrainedRun, split: str = "val", count: int | None = None) -> dict[int, Top]:
    """`search` over the run's 'val' or 'train' images, or its result from an earlier command. Keys: layer numbers.

    count: None: nine, or as many images as there are. Raises UserError where there are fewer than asked for.
    """
    images = run.squares.train if split == "train" else run.squares.val
    rows = images.per_class(run.config.data.per_class if split == "train" else None)
    count = count or min(COUNT, len(rows))
    if len(rows) < count:
        raise UserError(
            f"num_images={count}: the data set has only {len(rows)} images; give num_images={len(rows)} or less"
        )
    name = f"{split}-{len(rows)}-top{count}-{run.checkpoint_hash[:16]}-{run.data.key[:16]}.npz"
    path = run.folder / "search" / name
    layers = run.network.conv_layers
    if path.exists():
        with np.load(path) as stored:
            return {layer: Top(*(stored[f"layer{layer}_{part}"] for part in TOP_PARTS)) for layer in layers}
    found = search(run.network, _batches(run, images, rows), count)
    with atomic_write(path) as file:
        np.savez(file, **{f"layer{n}_{part}": getattr(top, part) for n, top in found.items() for part in TOP_PARTS})
    return found


TOP_PARTS = ("values", "images", "rows", "columns")


def batch_size(network: Network) -> int:
    """Images of a batch whose largest map stays below BATCH_BYTES."""
    widths = network.widths
    largest = max(size**2 * widths[op.layer] for op, size in zip(network.ops, network.sizes[1:]))
    return int(np.clip(BATCH_BYTES // (4 * largest), 1, 512))


def _batches(run: TrainedRun, split: Split, rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    size = batch_size(run.network)
    described = f"top {split.name} images of every map"
    for start in tqdm(range(0, len(rows), size), desc=described, unit="batch", disable=None, leave=False):
        part = rows[start : start + size]
        yield run.inputs(split.images[part]), torch.from_numpy(part).to(run.device)
