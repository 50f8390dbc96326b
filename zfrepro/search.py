"""Top-nine search: for every map of every convolutional layer, the images that excite it most (paper, section 4, Fig. 2).

One streaming pass over the images keeps, for each map, the images with the strongest spatial maximum and the place of that
maximum: O(maps x count) memory whatever the data set's size. The result is kept in the run's folder and read again while
checkpoint and images are the same.

Where the hardware multiplies bfloat16, the pass is in it and keeps more candidates than are asked for; `exact` computes the units
of the maps that are looked at again, in float32.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from zfrepro.errors import UserError
from zfrepro.files import atomic_write, shown
from zfrepro.forward import forward
from zfrepro.models.window import unit_values
from zfrepro.run import TrainedRun

COUNT = 9
SPARE = 3  # more candidates in bf16
UNITS_AT_ONCE = 256


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

    def first(self, count: int) -> Top:
        return Top(*(part[:, :count] for part in vars(self).values()))


PARTS = tuple(Top.__dataclass_fields__)


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
        strongest = cells.amax(1).T.float()  # (M, B)
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
        values, images, places = (t.cpu().numpy() for t in (self.values, self.images, self.places))
        return Top(values, images, places // max(1, self.width), places % max(1, self.width))


def search(batches: Iterable[tuple[np.ndarray, dict[int, Tensor]]], count: int = COUNT) -> dict[int, Top]:
    """The `count` strongest images of every map, by layer. batches: images' numbers (B,) and layer -> maps (B, M, H, W)."""
    best: dict[int, Best] = {}
    for numbers, outputs in batches:
        for layer, output in outputs.items():
            if layer not in best:
                best[layer] = Best(output.shape[1], count, output.device)
            best[layer].update(output, torch.from_numpy(numbers).to(output.device))
    return {layer: found.top() for layer, found in best.items()}


def top_images(run: TrainedRun, split: str = "val", count: int | None = None) -> dict[int, Top]:
    """`search` over the run's 'val' or 'train' images, or its result from an earlier command. Keys: layer numbers.

    count: None: nine, or as many images as there are. Raises UserError where there are fewer than asked for.
    """
    count = count or usual_count(run, split)
    return {layer: top.first(count) for layer, top in _candidates(run, split, count).items()}


def usual_count(run: TrainedRun, split: str) -> int:
    """Nine, or as many images as there are."""
    return min(COUNT, len(_rows(run, split)))


def exact(run: TrainedRun, split: str, count: int | None, layer: int, maps: np.ndarray) -> tuple[Top, float]:
    """The `count` strongest images of a layer as from `top_images`, those of `maps` by their units' values in float32 whatever
    the run's precision; and the share of their places in which that changed the image."""
    count = count or usual_count(run, split)
    top = _candidates(run, split, count)[layer]
    if run.precision == "fp32" or not len(maps):
        return top.first(count), 0.0
    groups = in_groups(run, split, top, maps, f"layer {layer} in float32")
    values = [unit_values(run.network, inputs, layer, units, which).cpu().numpy() for inputs, units, which in groups]
    own = np.concatenate(values).reshape(len(maps), -1)
    order = np.argsort(-own, axis=1, kind="stable")
    new = Top(*(part.copy() for part in vars(top).values()))
    new.values[maps] = np.take_along_axis(own, order, 1)
    for part, old in ((new.images, top.images), (new.rows, top.rows), (new.columns, top.columns)):
        part[maps] = np.take_along_axis(old[maps], order, 1)
    return new.first(count), float((new.images[maps] != top.images[maps])[:, :count].mean())


def in_groups(
    run: TrainedRun, split: str, top: Top, maps: np.ndarray, title: str
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The strongest units of `maps`, map by map, strongest first, some at a time: network inputs (N, 3, s, s), units (U, 3), and
    for each its image's number (U,), as `project_windows` takes them. title: of a progress bar."""
    rows, units, images = top.images[maps].ravel(), torch.from_numpy(top.units(maps)), run.split(split).images
    with tqdm(total=len(rows), desc=title, unit=" units", disable=None, leave=False) as bar:
        for start in range(0, len(rows), UNITS_AT_ONCE):
            group = slice(start, start + UNITS_AT_ONCE)
            needed, which = np.unique(rows[group], return_inverse=True)
            yield run.inputs(images[needed]), units[group], torch.from_numpy(which)
            bar.update(len(which))


def _rows(run: TrainedRun, split: str) -> np.ndarray:
    return run.split(split).per_class(run.config.data.per_class if split == "train" else None)


def _candidates(run: TrainedRun, split: str, count: int) -> dict[int, Top]:
    """`search`, or its earlier result; in bf16 with SPARE images more than `count`, where there are so many."""
    rows = _rows(run, split)
    if len(rows) < count:
        raise UserError(
            f"num_images={count}: the data set has only {len(rows)} images; give num_images={len(rows)} or less"
        )
    kept = min(count + (SPARE if run.precision == "bf16" else 0), len(rows))
    name = f"{split}-{len(rows)}-top{kept}-{run.precision}-{run.checkpoint_hash[:16]}-{run.data.key[:16]}.npz"
    path = run.folder / "search" / name
    if path.exists() and (stored := _read(path, run, len(run.split(split)))) is not None:
        return stored
    layers = run.network.conv_layers
    title = f"top {split} images of every map"
    found = search(forward(run, run.split(split).images, layers, rows, title), kept)
    with atomic_write(path) as file:
        np.savez(file, **{f"layer{n}_{part}": getattr(top, part) for n, top in found.items() for part in PARTS})
    return found


def _read(path: Path, run: TrainedRun, images: int) -> dict[int, Top] | None:
    """An earlier result; None, and a line that says so, where it is damaged."""
    found = {}
    try:
        with np.load(path) as stored:
            for layer in run.network.conv_layers:
                top = Top(*(stored[f"layer{layer}_{part}"] for part in PARTS))
                side, maps = run.network.side(layer), run.network.widths[layer]
                shapes = {part.shape for part in vars(top).values()}
                good = len(shapes) == 1 and top.values.ndim == 2 and len(top.values) == maps
                limits = ((top.images, images), (top.rows, side), (top.columns, side))
                if not good or any(part.min() < 0 or part.max() >= limit for part, limit in limits):
                    raise ValueError("not what a search finds")
                found[layer] = top
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        print(f"{shown(path)}: damaged; the images are searched again")
        return None
    return found
