"""How a classification network is tested: what it answers for whole images, at one size or several.

ZFNet's paper averages ten crops (section 3), VGG's applies the network to the whole uncropped image at every place, averages
the scores over places, and adds crops on a regular grid, several sizes of the image and several networks (VGG, section 3.2).
Posteriors are averaged over mirrored images, crops, sizes and networks; scores only over the places of one image. Where that
section can be read in other ways, a `Reading` says how.

Q is the smaller side of a test image after isotropic rescaling, in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from zfrepro.data import Split
from zfrepro.data.transforms import crop_positions
from zfrepro.errors import require
from zfrepro.forward import batch_size
from zfrepro.options.commands import Reading, TrainConfig
from zfrepro.run import TrainedRun, require_softmax

METHODS = {
    "centre": "the centre crop",
    "ten_crop": "ten crops",
    "dense": "dense evaluation",
    "multi_crop": "50 crops",
    "dense_and_multi_crop": "dense evaluation and 50 crops",
}
GRID = 5  # crops a side of the regular grid
BATCH = 256  # crops of a forward pass, or as many pixels of whole images
JOIN: dict[str, Callable[..., Tensor]] = {"scores": torch.mean, "sum": torch.sum, "max": torch.amax}  # over places
WEIGHTS = {"half": (1, 1), "views": (2, 2 * GRID**2)}  # of dense evaluation and crops
USUAL = Reading()


# ------------------------------------------------------------------------------------------------------------------ places


def grid_positions(height: int, width: int, crop: int, grid: str = "image") -> Tensor:
    """(50, 3) int64 rows of y, x, flip: a regular 5x5 grid over the whole image or the square at its centre, the ends included,
    then the same flipped.

    Offsets are round(i (side - crop) / 4); at a side of `crop` all rows of the grid coincide (VGG, section 3.2).
    """
    steps = torch.arange(GRID, dtype=torch.float64) / (GRID - 1)
    sides = (height, width) if grid == "image" else (min(height, width),) * 2
    starts = ((whole - side) // 2 for whole, side in zip((height, width), sides))
    ys, xs = (start + (steps * (side - crop)).round().long() for start, side in zip(starts, sides))
    places = torch.cartesian_prod(ys, xs)
    return torch.cat([F.pad(places, (0, 1), value=flip) for flip in (0, 1)])


# -------------------------------------------------------------------------------------------------------------- posteriors


def crops_of(inputs: Tensor, positions: Tensor, crop: int) -> Tensor:
    """(B, 3, H, W) -> (B * P, 3, crop, crop), channels_last: every crop of an image after the other; rows of y, x, flip."""
    taken = []
    for y, x, flip in positions.tolist():
        one = inputs[:, :, y : y + crop, x : x + crop]
        taken.append(one.flip(3) if flip else one)
    return torch.stack(taken, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def crop_posteriors(run: TrainedRun, inputs: Tensor, positions: Tensor) -> Tensor:
    """(B, C) float32: the mean of the softmax outputs of an image's crops."""
    crops = crops_of(inputs, positions, run.network.input_size)
    with run.autocast():
        logits = run.network(crops)
    return logits.float().softmax(1).unflatten(0, (-1, len(positions))).mean(1)


def joined(scores: Tensor, places: str) -> Tensor:
    """Scores at every place of an image, (B, C, h, w) or (B, C) of one place, to its posteriors, (B, C) float32."""
    scores = scores.float().reshape(*scores.shape[:2], -1)
    if places == "posteriors":
        return scores.softmax(1).mean(2)
    return JOIN[places](scores, 2).softmax(1)


def dense_posteriors(run: TrainedRun, inputs: Tensor, reading: Reading) -> Tensor:
    """(B, C) float32: the places of the whole image together, averaged with those of its mirror image."""
    crop, found = run.network.input_size, []
    ceil = reading.rounding == "ceil" and inputs.shape[2:] != (crop, crop)
    for images in (inputs, inputs.flip(3)):
        with run.autocast():
            scores = run.network(images.contiguous(memory_format=torch.channels_last), ceil=ceil)
        found.append(joined(scores, reading.places))
    return torch.stack(found).mean(0)


Posteriors = TypeVar("Posteriors", np.ndarray, Tensor)


def together(dense: Posteriors, crops: Posteriors, weights: str) -> Posteriors:
    """The mean of both methods' posteriors, weighted."""
    own, others = WEIGHTS[weights]
    return (own * dense + others * crops) / (own + others)


def image_posteriors(run: TrainedRun, images: np.ndarray, method: str, smaller: int, reading: Reading) -> Tensor:
    """(B, C) float32 posteriors of images of one size by a method, at one size Q."""
    inputs, crop = run.whole(images, smaller), run.network.input_size
    height, width = inputs.shape[2:]
    if method == "centre":
        return crop_posteriors(run, inputs, ten_positions(height, width, crop)[4:5])
    if method == "ten_crop":
        return crop_posteriors(run, inputs, ten_positions(height, width, crop))
    if method == "dense":
        return dense_posteriors(run, inputs, reading)
    crops = crop_posteriors(run, inputs, grid_positions(height, width, crop, reading.grid))
    if method == "multi_crop":
        return crops
    return together(dense_posteriors(run, inputs, reading), crops, reading.weights)


def ten_positions(height: int, width: int, crop: int) -> Tensor:
    """(10, 3) rows of y, x, flip: the four corners and the centre of the whole image, then the same flipped."""
    down, across = crop_positions(height, crop), crop_positions(width, crop)
    return torch.stack([down[:, 0], across[:, 1], down[:, 2]], 1)


@torch.inference_mode()
def posteriors(
    run: TrainedRun, split: Split, method: str, scales: Sequence[int] = (), rows: np.ndarray | None = None,
    batch: int = BATCH, reading: Reading = USUAL,
) -> np.ndarray:  # fmt: skip
    """(N, C) float32: the softmax outputs for the rows of a split (all of them if None), averaged over the sizes `scales`.

    scales: sizes Q; none: the run's own, see `own_scale`. batch: crops of a forward pass. reading: where VGG's paper leaves it
    open. Raises UserError for a size below the network's input and for a run without a softmax layer.
    """
    crop, top = run.network.input_size, require_softmax(run)
    sizes = list(scales) or [own_scale(run.config)]
    require("test_scales", sizes, min(sizes) >= crop, f"a list of sizes of at least the network's input, {crop} pixels")
    rows = np.arange(len(split)) if rows is None else rows
    found = np.zeros((len(rows), run.network.widths[top]), np.float32)
    most = most_images(method, crop, max(sizes), min(batch, batch_size(run.network, [top], run.device.type)))
    with tqdm(total=len(rows), desc=f"{run.config.run}, {method}", unit=" images", disable=None, leave=False) as bar:
        for group in batches(split, rows, most):
            images = np.stack([split.images[row] for row in rows[group].tolist()])
            for smaller in sizes:
                found[group] += image_posteriors(run, images, method, smaller, reading).cpu().numpy() / len(sizes)
            bar.update(len(group))
    return found


def told(reading: Reading) -> str:
    """The readings other than the usual ones, as ', places=max', for a table's notes."""
    return "".join(f", {name}={given}" for name, given in reading.departures().items())


def own_scale(config: TrainConfig) -> int:
    """The size at which a run is tested unless told otherwise: that of its training images, the middle one if it was drawn."""
    scales = list(config.train_scale) or [config.data.size]
    return round((scales[0] + scales[-1]) / 2)


def around(config: TrainConfig) -> list[int]:
    """The three sizes of a test at several: S and a seventh of the crop to either side; the ends and the middle of a range
    (VGG, section 3.2: S - 32, S, S + 32 for crops of 224 px; 256, 384, 512)."""
    scales = list(config.train_scale) or [config.data.size]
    if len(scales) == 2:
        return [scales[0], own_scale(config), scales[1]]
    step = round(config.model.input_size / 7)
    return [scales[0] - step, scales[0], scales[0] + step]


def most_images(method: str, crop: int, smaller: int, batch: int) -> int:
    """How many images make `batch` crops, or as many pixels where images are taken whole, with their mirror images."""
    views = {"centre": 1, "ten_crop": 10, "dense": 0}.get(method, 2 * GRID**2)
    return max(1, batch * crop**2 // max(views * crop**2, 2 * smaller**2))


def batches(split: Split, rows: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Positions in `rows` of at most `most` images of one shape at a time; every position comes once."""
    shapes = np.array([split.images[row].shape[:2] for row in rows.tolist()]).reshape(-1, 2)
    for shape in np.unique(shapes, axis=0):
        alike = np.flatnonzero((shapes == shape).all(1))
        for start in range(0, len(alike), most):
            yield alike[start : start + most]
