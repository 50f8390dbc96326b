"""A network's layer as one descriptor of a whole picture at any size (VGG paper, Appendix B).

The picture is resized to a smaller side Q, the layer applied at every place where it fits (VGG section 3.2), its outputs
averaged over the places, then with those of the mirror image. Descriptors of several sizes are averaged or stacked, then
brought to unit length; those of several networks are stacked and brought to unit length once more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from zfrepro.data import Packed
from zfrepro.data.rescaling import Images, by_shape, shapes_of
from zfrepro.errors import UserError
from zfrepro.files import move, pending, read_array
from zfrepro.models.network import Network
from zfrepro.models.table import ops_of
from zfrepro.run import TrainedRun

PIXELS = 1 << 21  # of a batch, at the size at which the network sees it


@dataclass(frozen=True)
class Pool:
    """Images to be described: the training images, then the validation images, by a key that changes with their content."""

    name: str
    key: str
    splits: tuple[Images, Images]

    @classmethod
    def of(cls, data: Packed) -> Pool:
        return cls(str(data.manifest["name"]), data.key, (data.train.images, data.val.images))


class Cut:
    """The pieces of images that lie in boxes, one image each; as an image of many shapes to whoever reads it.

    A narrow box is widened about its middle to a fourth of its length: a sliver at a given smaller side would be endless.
    """

    def __init__(self, images: Images, owners: np.ndarray, boxes: np.ndarray) -> None:
        """owners: (M,) the image of each box (M, 4)."""
        self.images, self.owners = images, owners
        limits = np.tile(shapes_of(images, owners)[:, ::-1], 2)
        sides = boxes[:, 2:] - boxes[:, :2]
        spare = np.maximum(sides.max(1, keepdims=True) / 4 - sides, 0) / 2
        wide = np.concatenate([np.floor(boxes[:, :2] - spare), np.ceil(boxes[:, 2:] + spare)], 1)
        self.edges = np.clip(wide, 0, limits).astype(np.int64)
        self.shapes = self.edges[:, [3, 2]] - self.edges[:, [1, 0]]
        if (self.shapes < 1).any():
            row = int(np.flatnonzero((self.shapes < 1).any(1))[0])
            raise UserError(
                f"data: box {boxes[row].tolist()} lies outside its image; mend the annotations and pack again"
            )

    def __len__(self) -> int:
        return len(self.owners)

    def __getitem__(self, row: int) -> np.ndarray:
        x0, y0, x1, y1 = self.edges[row].tolist()
        return self.images[int(self.owners[row])][y0:y1, x0:x1]


def describe(run: TrainedRun, pool: Pool, layer: int, scale: int, relu: bool = True) -> np.ndarray:
    """Descriptors (N, D) float32 of all images at a smaller side of `scale` pixels, memory-mapped: the training images' rows,
    then the validation images'. Computed in the run's precision; once, then they are in the run's features/."""
    identity = [run.checkpoint_hash, pool.key, run.precision, layer, scale, *([] if relu else ["before ReLU"])]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    path = run.folder / "features" / f"{pool.name}-{key}" / f"layer{layer}_{scale}px.npy"
    shape = (sum(map(len, pool.splits)), run.network.widths[layer])
    if (there := read_array(path, shape)) is not None:
        return there
    path.parent.mkdir(parents=True, exist_ok=True)
    found = np.empty(shape, np.float32)
    bar = tqdm(total=len(found), desc=f"{run.config.run}: layer {layer} at {scale} px", unit=" images", disable=None)
    with pending(run.folder, "features") as fresh, bar:
        for images, start in zip(pool.splits, (0, len(pool.splits[0]))):
            for rows in by_shape(images, np.arange(len(images)), scale, PIXELS):
                found[start + rows] = describe_batch(run, images, rows, layer, scale, relu).cpu().numpy()
                bar.update(len(rows))
        np.save(fresh / path.name, found)
        move(fresh / path.name, path)
    return np.load(path, mmap_mode="r")


@torch.no_grad()
def describe_batch(
    run: TrainedRun, images: Images, rows: np.ndarray, layer: int, scale: int, relu: bool = True
) -> Tensor:
    """(B, D) float32 of the images `rows` (B,): the layer's mean over places and over the two mirror images."""
    pictures, found = run.whole(images, scale, rows), []
    for view in (pictures, pictures.flip(3)):
        with run.autocast():
            maps = outputs_of(run.network, view.contiguous(memory_format=torch.channels_last), layer, relu)
        found.append(maps.float().flatten(2).mean(2) if maps.ndim == 4 else maps.float())
    return (found[0] + found[1]) / 2


def outputs_of(network: Network, images: Tensor, layer: int, relu: bool) -> Tensor:
    """What a layer gives of images; or, with relu=False, its products with its weights alone."""
    if relu:
        return network.features(images, [layer])[layer]
    ops = ops_of(network.layers, layer)
    weighted = next(place for place, op in enumerate(ops) if op.layer == layer)
    for op in ops[: weighted + 1]:
        images = network.step(op, images)
    return images


def join_scales(found: Sequence[np.ndarray], join: str, unit_scales: bool = False) -> np.ndarray:
    """Descriptors of several scales, each (N, D), as one of unit length: (N, D) for join=mean or max, (N, len(found) D) for
    stack. unit_scales: each of them has unit length before."""
    scales = [unit_length(rows) for rows in found] if unit_scales else found
    if join == "stack":
        return unit_length(np.concatenate(scales, axis=1))
    return unit_length(np.mean(scales, axis=0) if join == "mean" else np.max(scales, axis=0))


def unit_length(rows: np.ndarray) -> np.ndarray:
    """Rows (N, D) divided by their lengths; a row of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
