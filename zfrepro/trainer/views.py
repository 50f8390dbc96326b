"""How a training looks at its images: which crop of each, at which size, with which colours.

`Squares` crop centre squares as they are packed, minus a mean image (ZFNet, section 3). `Rectangles` rescale the whole image
first, its smaller side to S, fixed or drawn anew at every visit, and crop anywhere in it, minus the mean colour (VGG, section
3.1). Both draw from the generator of the step, for the whole batch, on the CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zfrepro.data import Packed, Split
from zfrepro.data.rescaling import Places, Regions, draw_places, read_crops, resample, rescaled_shapes, shapes_of
from zfrepro.data.transforms import crop_positions, draw_crops, take_crops
from zfrepro.errors import UserError
from zfrepro.options.commands import TrainConfig


@dataclass(frozen=True)
class Read:
    """Packed squares (B, S, S, 3) uint8, and where they are to be cropped."""

    images: Tensor
    places: Places

    def to(self, device: torch.device) -> Read:
        """On the device; from pinned memory without waiting. Places follow as they are needed."""
        return Read(self.images.to(device, non_blocking=True), self.places)

    def pinned(self) -> Read:
        return Read(self.images.pin_memory(), self.places)


Pixels = Read | Regions


@dataclass(frozen=True)
class View(ABC):
    """How one split is looked at; B rows in a batch."""

    split: Split
    mean: Tensor  # (S, S, 3) or (3,), on the device
    scale: Tensor  # () or (3,): factor on the mean-subtracted pixels
    crop: int  # side of the network's input
    # (3, 3): columns are the colours' principal axes, as long as the shift's deviation along them
    axes: Tensor | None = None
    flips: bool = True  # drawn crops are mirrored at random

    @abstractmethod
    def draw(self, rows: np.ndarray, generator: torch.Generator) -> Places:
        """A crop for each row, as the augmentation has them."""

    @abstractmethod
    def centre(self, rows: np.ndarray) -> Places:
        """The centre crop of each row."""

    @abstractmethod
    def crops(self, rows: np.ndarray, places: Places) -> Tensor:
        """(B, 4) float32: where the crops lie in the packed images: x0, y0, x1, y1 in their pixels."""

    @abstractmethod
    def read(self, rows: np.ndarray, places: Places) -> Pixels:
        """What is needed of the images, out of the memory map."""

    @abstractmethod
    def inputs(self, pixels: Pixels, shift: Tensor | None) -> Tensor:
        """(B, 3, c, c) float32, channels_last: (pixel - mean + shift) * scale, shift (B, 3) being a colour for each image."""

    def draw_shift(self, count: int, generator: torch.Generator) -> Tensor | None:
        """(count, 3) float32 colours to add: N(0, 1) along each of the axes; None without them."""
        return None if self.axes is None else torch.randn(count, 3, generator=generator) @ self.axes.T

    def _shifted(self, inputs: Tensor, shift: Tensor | None) -> Tensor:
        return inputs if shift is None else inputs + (shift * self.scale)[:, :, None, None]


@dataclass(frozen=True)
class Squares(View):
    """Crops of packed squares at their own size."""

    augmentation: str = "ten_crop"

    @property
    def size(self) -> int:
        return int(self.mean.shape[0])

    def draw(self, rows: np.ndarray, generator: torch.Generator) -> Places:
        if self.augmentation == "centre":
            return self.centre(rows)
        y, x, flip = draw_crops(len(rows), self.size, self.crop, self.augmentation, generator)
        return self._at(y, x, flip * self.flips)

    def centre(self, rows: np.ndarray) -> Places:
        return self._at(*crop_positions(self.size, self.crop)[4].expand(len(rows), 3).T)

    def _at(self, y: Tensor, x: Tensor, flip: Tensor) -> Places:
        return Places(torch.full_like(y, self.size), y, x, flip)

    def crops(self, rows: np.ndarray, places: Places) -> Tensor:
        return torch.stack([places.x, places.y, places.x + self.crop, places.y + self.crop], 1).float()

    def read(self, rows: np.ndarray, places: Places) -> Read:
        return Read(torch.from_numpy(self.split.images[rows]), places)

    def inputs(self, pixels: Pixels, shift: Tensor | None) -> Tensor:
        assert isinstance(pixels, Read)
        at = pixels.places
        crops = take_crops(pixels.images, self.mean, at.y, at.x, at.flip, self.crop, self.scale)
        return self._shifted(crops, shift)


@dataclass(frozen=True)
class Rectangles(View):
    """Crops of the whole image, rescaled so that its smaller side is one of `sides`, both ends included."""

    sides: tuple[int, int] = (0, 0)
    augmentation: str = "random_crop"

    def draw(self, rows: np.ndarray, generator: torch.Generator) -> Places:
        if self.augmentation == "centre":
            return self.centre(rows)
        return draw_places(shapes_of(self.split.images, rows), self.sides, self.crop, generator, self.flips)

    def centre(self, rows: np.ndarray) -> Places:
        """At the middle of `sides`."""
        side = round(sum(self.sides) / 2)
        room = rescaled_shapes(shapes_of(self.split.images, rows), side) - self.crop
        y, x = torch.from_numpy(room // 2).unbind(1)
        return Places(torch.full_like(y, side), y, x, torch.zeros_like(y))

    def crops(self, rows: np.ndarray, places: Places) -> Tensor:
        shapes = shapes_of(self.split.images, rows)
        down, across = torch.from_numpy(shapes / rescaled_shapes(shapes, places.side.numpy())).unbind(1)
        left, top = places.x * across, places.y * down
        return torch.stack([left, top, left + self.crop * across, top + self.crop * down], 1).float()

    def read(self, rows: np.ndarray, places: Places) -> Regions:
        return read_crops(self.split.images, rows, places, self.crop)

    def inputs(self, pixels: Pixels, shift: Tensor | None) -> Tensor:
        assert isinstance(pixels, Regions)
        return self._shifted(resample(pixels, self.mean, self.scale), shift)


def view_of(config: TrainConfig, data: Packed, split: Split, mean: Tensor, scale: Tensor, crop: int) -> View:
    """The view that the options ask for. mean (S, S, 3) or (3,), on the device.

    Raises UserError where the data set does not know what is asked for.
    """
    axes, flips = colour_axes(data, config.colour_shift, config.colour_shift_by), config.boxes.flips
    if data.fit == "square" and not config.train_scale:
        image = mean if mean.ndim == 3 else mean.expand(data.size, data.size, 3).contiguous()
        return Squares(split, image, scale, crop, axes, flips, config.augmentation)
    scales = list(config.train_scale) or [data.size]
    colour = mean if mean.ndim == 1 else mean.mean((0, 1))
    return Rectangles(split, colour, scale, crop, axes, flips, (scales[0], scales[-1]), config.augmentation)


def colour_axes(data: Packed, shift: float, by: str) -> Tensor | None:
    """(3, 3) float32: the principal axes of the training pixels' colours as columns, each `shift` times its eigenvalue, a
    variance of values 0..255, or the square root of that, the deviation along it. Krizhevsky's shift is 0.1 (2012, section
    4.1); his text has the eigenvalue, which is hundreds of grey levels (VGG's O4). None for 0.

    Raises UserError where the packed data set does not hold the colours' covariance.
    """
    if shift == 0:
        return None
    if not np.isfinite(data.covariance).all():
        raise UserError(
            f"colour_shift={shift:g}: {data.folder} was packed by an earlier version, without the colours' covariance; "
            "delete that folder and give the same command again"
        )
    variances, axes = np.linalg.eigh(data.covariance)
    lengths = variances.clip(0) if by == "eigenvalue" else np.sqrt(variances.clip(0))
    return torch.from_numpy(axes * lengths * shift).float()
