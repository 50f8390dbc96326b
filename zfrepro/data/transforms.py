"""Crops of packed images, taken in batches on whatever device the batch is on (paper, section 3).

Shapes: B images of S x S pixels, crops of c x c. Images come as packed, (B, S, S, 3) uint8; crops leave as
(B, 3, c, c) float32 in channels_last memory, which is the packed layout itself: nothing is transposed.

The per-pixel mean belongs to places of the *image*, so it is subtracted before cropping and flipping: a flipped crop is
the flip of the mean-subtracted crop. Values are (pixel - mean) * scale, pixels in 0..255: +-128 at the paper's scale 1.
`scale` may also be a tensor that broadcasts against (B, c, c, 3), such as one factor per colour.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zfrepro.errors import require


def crop_positions(size: int, crop: int) -> Tensor:
    """(10, 3) int64 rows of y, x, flip: the four corners and the centre, then the same flipped (paper, section 3)."""
    require("model.input_size", crop, 1 <= crop <= size, f"between 1 and the images' {size} pixels")
    last, middle = size - crop, (size - crop) // 2
    places = [(0, 0), (0, last), (last, 0), (last, last), (middle, middle)]
    return torch.tensor([(y, x, flip) for flip in (0, 1) for y, x in places])


def draw_crops(
    batch: int, size: int, crop: int, mode: str, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """y, x, flip, each (batch,) int64 on the CPU, from a CPU generator.

    'ten_crop' draws one of the paper's ten crops for every image, 'random_crop' any place, flipped or not. Processes of
    a distributed run draw for the global batch and take their rows: crops do not depend on how many they are.
    """
    if mode == "ten_crop":
        chosen = crop_positions(size, crop)[torch.randint(10, (batch,), generator=generator)]
        return chosen[:, 0], chosen[:, 1], chosen[:, 2]
    y, x = torch.randint(size - crop + 1, (2, batch), generator=generator)
    return y, x, torch.randint(2, (batch,), generator=generator)


def take_crops(
    images: Tensor, mean: Tensor, y: Tensor, x: Tensor, flip: Tensor, crop: int, scale: float | Tensor = 1.0
) -> Tensor:
    """(B, 3, c, c) float32: image b's crop with its upper left corner at y[b], x[b], mirrored where flip[b]."""
    take = _take_on_cpu if images.device.type == "cpu" else _take_by_index
    crops = take(images, mean, y, x, flip, crop)
    return _scaled(crops, scale).permute(0, 3, 1, 2)


def _take_on_cpu(images: Tensor, mean: Tensor, y: Tensor, x: Tensor, flip: Tensor, crop: int) -> Tensor:
    """Image by image in NumPy, whole rows at a time: several times faster here than an index per pixel."""
    count, size = images.shape[:2]
    pixels, means = images.contiguous().numpy().reshape(count, size, -1), mean.contiguous().numpy().reshape(size, -1)
    crops = np.empty((count, crop, crop * 3), np.float32)
    # A pixel's three floats as one item: mirroring then moves pixels and keeps the order of their colours.
    whole = crops.view("V12")
    for b, (top, left, mirrored) in enumerate(zip(y.tolist(), x.tolist(), flip.tolist(), strict=True)):
        rows, columns = slice(top, top + crop), slice(left * 3, (left + crop) * 3)
        np.subtract(pixels[b, rows, columns], means[rows, columns], out=crops[b])
        if mirrored:
            whole[b] = whole[b, :, ::-1].copy()
    return torch.from_numpy(crops).view(count, crop, crop, 3)


def _take_by_index(images: Tensor, mean: Tensor, y: Tensor, x: Tensor, flip: Tensor, crop: int) -> Tensor:
    """Two gathers and no synchronisation: positions drawn on the CPU follow the kernels before them to the device."""
    y, x, flip = (t.to(images.device, non_blocking=True)[:, None] for t in (y, x, flip))
    step = torch.arange(crop, device=images.device)
    rows = (y + step)[:, :, None]  # (B, c, 1)
    columns = (x + torch.where(flip.bool(), crop - 1 - step, step))[:, None, :]  # (B, 1, c)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return images[batch, rows, columns] - mean[rows, columns]


def _scaled(values: Tensor, scale: float | Tensor) -> Tensor:
    if isinstance(scale, Tensor):
        return values * scale
    return values if scale == 1.0 else values.mul_(scale)  # `values` is always our own fresh tensor


def centre_crop(images: Tensor, mean: Tensor, crop: int, scale: float | Tensor = 1.0) -> Tensor:
    """(B, 3, c, c): the crop at the centre, the fifth of `crop_positions`."""
    y, x, _ = crop_positions(images.shape[1], crop)[4].tolist()
    place = slice(y, y + crop), slice(x, x + crop)
    return _scaled(images[:, place[0], place[1]] - mean[place], scale).permute(0, 3, 1, 2)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, H, W, 3) at a height and width of `size` pixels, float32."""
    if tuple(images.shape[1:3]) == size:
        return images.float()
    channels = images.permute(0, 3, 1, 2).float()
    return F.interpolate(channels, size, mode="bilinear", antialias=True).permute(0, 2, 3, 1)
