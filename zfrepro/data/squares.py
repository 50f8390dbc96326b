"""The centre squares of images that are packed whole, at any size: what ZFNet's experiments see of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from zfrepro.data.decode import frame
from zfrepro.data.packed import Packed, Split, Truth, Whole
from zfrepro.data.packing import fit_boxes
from zfrepro.data.rescaling import Places, read_crops, resample, rescaled_shapes

BATCH = 128


class Squares:
    """(N, S, S, 3) or (N, S, S) uint8, made as they are asked for: rows by number, slice or array, as of a NumPy array, and
    parts of them by slices."""

    def __init__(self, images: Whole, side: int) -> None:
        self.images, self.side = images, side
        self.shape = (len(images), side, side) + (() if images.channels is None else (images.channels,))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: int | slice | np.ndarray | tuple[Any, ...]) -> np.ndarray:
        rows, *parts = rows if isinstance(rows, tuple) else (rows,)
        wanted = np.arange(len(self))[rows]
        flat = wanted.reshape(-1)
        found = np.empty((len(flat), *self.shape[1:]), np.uint8)
        for start in range(0, len(flat), BATCH):
            found[start : start + BATCH] = self._cut(flat[start : start + BATCH])
        return found.reshape(*wanted.shape, *self.shape[1:])[tuple([slice(None)] * wanted.ndim + parts)]

    def _cut(self, rows: np.ndarray) -> np.ndarray:
        spare = (rescaled_shapes(self.images.shapes[rows], self.side) - self.side) / 2
        y, x = torch.from_numpy(np.rint(spare).astype(np.int64)).unbind(1)
        places = Places(torch.full_like(y, self.side), y, x, torch.zeros_like(y))
        colours = self.images.channels or 1
        crops = resample(read_crops(self.images, rows, places, self.side), torch.zeros(colours))
        pixels = crops.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        return (pixels if self.images.channels else pixels[..., 0]).numpy()


def squared(data: Packed, side: int) -> Packed:
    """The data set as it would be, packed as squares of `side` pixels: to rounding. The mean is that of the colour."""
    return dataclasses.replace(
        data,
        key=f"{data.key}-{side}px",
        manifest=data.manifest | {"fit": "square", "size": side},
        mean=np.array(np.broadcast_to(data.colour.astype(np.float32), (side, side, 3))),
        train=_squared(data.train, side),
        val=_squared(data.val, side),
    )


def _squared(split: Split, side: int) -> Split:
    images = split.images
    assert isinstance(images, Whole)
    frames = np.array([frame(height, width, side, "square") for height, width in images.shapes.tolist()])
    boxes = split.boxes and fit_boxes(split.boxes, frames)
    truth = split.truth and _truth(split.truth, frames, side)
    squares: Any = Squares(images, side)
    return dataclasses.replace(split, images=squares, boxes=boxes, truth=truth)


def _truth(truth: Truth, frames: np.ndarray, side: int) -> Truth:
    """Masks are cut like images; boxes and key points move with them, and what is outside is no longer seen."""
    scale, shift = frames[:, None, :2], frames[:, None, 2:4]
    corners = truth.boxes.reshape(-1, 2, 2) * scale - shift
    points = truth.keypoints * scale - shift
    outside = ((points < 0) | (points >= side)).any(-1)
    points[outside] = np.nan
    assert isinstance(truth.masks, Whole)
    masks: Any = Squares(truth.masks, side)
    boxes = np.clip(np.rint(corners), 0, side).astype(np.int16).reshape(-1, 4)
    return Truth(masks, boxes, points.astype(np.float32))
