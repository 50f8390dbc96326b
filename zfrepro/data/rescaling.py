"""Images of any shape at any size: crops of the rescaled image, and the rescaled image itself (VGG paper, 3.1 and 3.2).

An image of h x w pixels is rescaled, its proportions kept, until its smaller side has S pixels; a crop of c x c pixels is
taken at whole pixels of the rescaled image. Only the part of the image that the crop shows is read. Interpolation is
bilinear, antialiased where the image shrinks: triangles of one pixel's radius of the coarser grid, as Pillow's and
torchvision's, one matrix for the rows and one for the columns, a batch at a time, on the CPU or the GPU alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from zfrepro.errors import require

FLOATS = 1 << 24  # of a batch in intermediate memory: larger batches are rescaled in parts


class Images(Protocol):
    """N images, (h, w, channels) uint8 each, of one or of many shapes: a split's. Masks, (h, w), have one channel."""

    def __getitem__(self, row: int, /) -> np.ndarray: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Places:
    """Where crops are taken: B numbers each, int64 on the CPU."""

    side: Tensor  # smaller side of the rescaled image, S
    y: Tensor  # the crop's upper left corner in the rescaled image
    x: Tensor
    flip: Tensor  # 1: mirrored, after it was taken

    def __getitem__(self, part: slice) -> Places:
        return Places(self.side[part], self.y[part], self.x[part], self.flip[part])


def shapes_of(images: Images, rows: np.ndarray) -> np.ndarray:
    """(B, 2) int64: heights and widths of some rows."""
    if isinstance(images, np.ndarray):
        return np.tile(np.array(images.shape[1:3], np.int64), (len(rows), 1))
    return np.asarray(images.shapes[rows], np.int64)  # type: ignore[attr-defined]


def rescaled_shapes(shapes: np.ndarray, side: np.ndarray | int) -> np.ndarray:
    """(B, 2) int64: heights and widths when the smaller side has `side` pixels; the larger is rounded down, as torchvision's."""
    short = shapes.min(axis=-1, keepdims=True)
    return shapes * np.asarray(side, np.int64).reshape(-1, 1) // short


def draw_places(
    shapes: np.ndarray, sides: tuple[int, int], crop: int, generator: torch.Generator, flip: bool = True
) -> Places:
    """For images of `shapes` (B, 2): S a whole number drawn from `sides`, both included, the crop anywhere in the rescaled
    image, mirrored or not; all uniform. Every image takes four numbers of the generator, whatever its shape."""
    low, high = sides
    require("train_scale", low, crop <= low <= high, f"at least the crop's {crop} pixels, smallest side first")
    drawn = torch.rand(len(shapes), 4, generator=generator, dtype=torch.float64)
    side = low + (drawn[:, 0] * (high - low + 1)).long()
    room = torch.from_numpy(rescaled_shapes(shapes, side.numpy())) - crop + 1
    y, x = (drawn[:, 1:3] * room).long().unbind(1)
    return Places(side, y, x, (drawn[:, 3] * 2).long() * flip)


# ----------------------------------------------------------------------------------------------- what a crop is made of


@dataclass(frozen=True)
class Regions:
    """B pieces of images, padded to one shape, and which pixels of the rescaled images they become, output x output."""

    pixels: Tensor  # (B, H, W, channels) uint8
    corner: Tensor  # (B, 2) int64: the piece's upper left corner in its image, y, x
    extent: Tensor  # (B, 2) int64: its height and width without padding
    shapes: Tensor  # (B, 2) int64: of the whole images
    rescaled: Tensor  # (B, 2) int64: of the rescaled ones
    start: Tensor  # (B, 2) int64: the first pixel of the output in the rescaled image, y, x
    output: tuple[int, int]  # height and width
    flip: Tensor  # (B,)

    def to(self, device: torch.device) -> Regions:
        """On the device; from pinned memory without waiting."""
        return self._each(lambda values: values.to(device, non_blocking=True))

    def pinned(self) -> Regions:
        """In memory that a GPU reads by itself."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Regions:
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Regions(output=self.output, **{name: change(value) for name, value in tensors.items()})


def read_crops(images: Images, rows: np.ndarray, places: Places, crop: int) -> Regions:
    """What is needed of the images `rows` (B,) for crops of c x c pixels. NumPy only: may run in a reader's thread."""
    start = torch.stack([places.y, places.x], 1).numpy()
    return _read(images, rows, places.side.numpy(), start, (crop, crop), places.flip)


def _read(
    images: Images, rows: np.ndarray, side: np.ndarray, start: np.ndarray, output: tuple[int, int], flip: Tensor
) -> Regions:
    shapes = shapes_of(images, rows)
    rescaled = rescaled_shapes(shapes, side)
    ratio = shapes / rescaled  # pixels of the image to one of the rescaled image
    support = np.maximum(ratio, 1)
    # The first and the last output pixel's centres in the image, and how far their triangles reach.
    first = np.floor((start + 0.5) * ratio - support + 0.5).astype(np.int64).clip(0)
    last = np.ceil((start + np.array(output) - 0.5) * ratio + support - 0.5).astype(np.int64) + 1
    last = np.minimum(last, shapes)
    extent = last - first
    channels = getattr(images, "channels", 3) or 1
    pixels = np.empty((len(rows), *extent.max(0), channels), np.uint8)
    for b, (row, (top, left), (bottom, right), (height, width)) in enumerate(
        zip(rows.tolist(), first.tolist(), last.tolist(), extent.tolist(), strict=True)
    ):
        pixels[b, :height, :width] = images[row][top:bottom, left:right].reshape(height, width, channels)
    names = ("pixels", "corner", "extent", "shapes", "rescaled", "start")
    arrays = (pixels, first, extent, shapes, rescaled, start)
    numbers = {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}
    return Regions(**numbers, output=output, flip=flip)


# ------------------------------------------------------------------------------------------------------------ resampling


def resample(regions: Regions, colour: Tensor, scale: float | Tensor = 1.0) -> Tensor:
    """(B, channels, h, w) float32 in channels_last memory: the regions' outputs, (pixel - colour) * scale, mirrored where flip.

    colour: (3,), the mean colour of the training images. Pixels are rounded nowhere on the way.
    """
    device, (height, width) = regions.pixels.device, regions.output
    count, channels = len(regions.pixels), regions.pixels.shape[3]
    result = torch.empty(count, height, width, channels, device=device)
    part = max(1, FLOATS // max(1, regions.pixels[:1].numel()))
    with torch.autocast(device.type, enabled=False):
        for begin in range(0, count, part):
            these = slice(begin, begin + part)
            down, across = (_matrix(regions, axis, these) for axis in (0, 1))
            rows = down @ regions.pixels[these].float().flatten(2)  # (b, h, W * 3): as the pixels lie
            planes = rows.unflatten(2, (-1, channels)).permute(0, 3, 1, 2).flatten(1, 2) @ across.mT  # (b, 3 * h, w)
            torch.sub(planes.unflatten(1, (channels, height)).permute(0, 2, 3, 1), colour, out=result[these])
    if isinstance(scale, Tensor) or scale != 1.0:
        result.mul_(scale)
    return result.permute(0, 3, 1, 2)


def _matrix(regions: Regions, axis: int, part: slice) -> Tensor:
    """(b, outputs, pixels) float32: each output's weights on the pixels of its piece, one axis; rows sum to 1."""
    start, corner, extent, shape, rescaled = (
        values[part, axis, None].double()
        for values in (regions.start, regions.corner, regions.extent, regions.shapes, regions.rescaled)
    )
    outputs, pixels = regions.output[axis], regions.pixels.shape[1 + axis]
    step = torch.arange(outputs, device=start.device)
    if axis == 1:  # a mirrored crop: its columns in the other order
        step = torch.where(regions.flip[part, None].bool(), outputs - 1 - step, step)
    ratio = shape / rescaled
    centre = (start + step + 0.5) * ratio - corner  # in the piece
    at = torch.arange(pixels, device=start.device) + 0.5
    distance = (at - centre[:, :, None]).abs() / ratio.clamp(min=1)[:, :, None]
    weights = (1 - distance).clamp(min=0) * (at < extent[:, :, None])
    return (weights / weights.sum(2, keepdim=True)).float()


# ----------------------------------------------------------------------------------------------------------- whole images


def rescaled(images: Images, rows: np.ndarray, side: int, colour: Tensor, scale: float | Tensor = 1.0) -> Tensor:
    """(B, 3, H, W): the whole images `rows` (B,), all of one shape, with `side` pixels in their smaller side."""
    shapes = rescaled_shapes(shapes_of(images, rows), side)
    require("rows", rows.tolist(), len(np.unique(shapes, axis=0)) == 1, "images of one shape")
    nothing = np.zeros((len(rows), 2), np.int64)
    height, width = shapes[0].tolist()
    regions = _read(images, rows, np.full(len(rows), side), nothing, (height, width), torch.zeros(len(rows)))
    return resample(regions.to(colour.device), colour, scale)


def by_shape(images: Images, rows: np.ndarray, side: int, pixels: int) -> Iterator[np.ndarray]:
    """Batches of `rows` whose images have one shape when rescaled to `side`, of at most `pixels` pixels together (but at
    least one image); the largest shapes first, so that memory that suffices for the first batch suffices for all."""
    shapes = rescaled_shapes(shapes_of(images, rows), side)
    kinds, which = np.unique(shapes, axis=0, return_inverse=True)
    for kind in np.argsort(-kinds.prod(1), kind="stable"):
        own = rows[which.reshape(-1) == kind]
        size = max(1, pixels // int(kinds[kind].prod()))
        for begin in range(0, len(own), size):
            yield own[begin : begin + size]
