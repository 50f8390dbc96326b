"""A network that says where an object is, applied to whole pictures (VGG paper, Appendix A).

Protocol 1: one crop at the centre, one box. Protocol 2: at every place of the picture, at several sizes, by several networks;
the boxes of a class are merged, each with the confidence that the classification network has at its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zfrepro.boxes import best, decode, dense_crops, merge
from zfrepro.data import Split
from zfrepro.errors import require
from zfrepro.evaluator.testing import BATCH, batches, most_images
from zfrepro.models.table import ops_of, receptive_field
from zfrepro.options.commands import LocalizeConfig
from zfrepro.run import TrainedRun


@dataclass(frozen=True)
class Localiser:
    """A network of boxes, and those of classes that say, averaged, how sure one may be at a place: the one that it was started
    from, or all that name the classes."""

    boxes: TrainedRun
    classes: Sequence[TrainedRun]


class Places(NamedTuple):
    """A network's outputs at P places of B pictures of one size."""

    outputs: Tensor  # (B, P, outputs) float32
    crops: Tensor  # (P, 4) float64: what each place sees of the picture as packed


@torch.no_grad()
def places(run: TrainedRun, images: np.ndarray, scale: int, centre: bool = False) -> Places:
    """The top layer on packed pictures (B, h, w, 3) resized to a smaller side of `scale` pixels: everywhere, or on the crop
    at the centre. Raises UserError where they are then smaller than the network's input."""
    network, size, step = run.network, run.network.input_size, stride(run)
    require("scales", scale, scale >= size, f"at least the network's input, {size} pixels")
    pictures = run.whole(images, scale)
    height, width = pictures.shape[2:]
    ratio = torch.tensor([width / images.shape[2], height / images.shape[1]], dtype=torch.float64)
    (top, tall), (left, wide) = (seen(side, size, side if centre else step) for side in (height, width))
    pictures = pictures[:, :, top : top + tall, left : left + wide]
    with run.autocast():
        found = network(pictures.contiguous(memory_format=torch.channels_last)).float().cpu()
    maps = found[:, :, None, None] if found.ndim == 2 else found
    crops = dense_crops(maps.shape[2], maps.shape[3], step, size, ratio, (top, left)).flatten(0, 1)
    return Places(maps.flatten(2).transpose(1, 2), crops)


def seen(side: int, crop: int, step: int) -> tuple[int, int]:
    """The first pixel and the number of pixels of a side that windows of `crop` pixels see, `step` apart, as many as there is
    room for. They lie in its middle: were all that is left over at the far end, the boxes' mean would lean to the near one."""
    left_over = (side - crop) % step
    return left_over // 2, side - left_over


def stride(run: TrainedRun) -> int:
    """Pixels between two places of a score map."""
    network = run.network
    return receptive_field(ops_of(network.layers, network.conv_layers[-1])).stride


def boxes_at(found: Places, classes: Tensor) -> Tensor:
    """The boxes (B, K, P, 4) that a localiser's outputs give for the classes (B, K), in pixels of the pictures as packed."""
    values = found.outputs.double().unflatten(2, (-1, 4))  # (B, P, classes or 1, 4)
    which = classes if values.shape[2] > 1 else torch.zeros_like(classes)
    chosen = values.transpose(1, 2).gather(1, which[:, :, None, None].expand(-1, -1, values.shape[1], 4))
    return decode(chosen, found.crops)


def ratings_at(found: Places, classes: Tensor) -> Tensor:
    """The posteriors (B, K, P) of the classes (B, K) at every place."""
    posteriors = found.outputs.double().softmax(2).transpose(1, 2)
    return posteriors.gather(1, classes[:, :, None].expand(-1, -1, posteriors.shape[2]))


@dataclass(frozen=True)
class Proposals:
    """The boxes of all places, sizes and networks for K classes of B pictures, and what came of them by merging."""

    boxes: Tensor  # (B, K, n, 4)
    confidence: Tensor  # (B, K, n)
    merged: Tensor  # (B, K, n, 4), of which only those with members are there
    merged_confidence: Tensor  # (B, K, n)
    members: Tensor  # (B, K, n)

    @property
    def best(self) -> Tensor:
        """(B, K, 4): the most confident box of each class."""
        groups = (values.flatten(0, 1) for values in (self.merged, self.merged_confidence, self.members))
        return best(*groups).unflatten(0, self.boxes.shape[:2])


def propose(
    nets: Sequence[tuple[Localiser, Sequence[int]]], images: np.ndarray, classes: Tensor, config: LocalizeConfig
) -> Proposals:
    """Protocol 2 on packed pictures (B, h, w, 3): each localiser at its sizes, all their boxes merged by class (B, K)."""
    boxes, confidence = [], []
    for flip in (False, True)[: 1 + config.test_flips]:
        view = np.ascontiguousarray(images[:, :, ::-1]) if flip else images
        for net, scales in nets:
            for scale in scales:
                given = boxes_at(places(net.boxes, view, scale), classes)
                boxes.append(mirrored(given, images.shape[2]) if flip else given)
                rated = [ratings_at(places(run, view, scale), classes) for run in net.classes]
                confidence.append(torch.stack(rated).mean(0))
    every, sure = torch.cat(boxes, 2), torch.cat(confidence, 2)
    groups = merge(every.flatten(0, 1), sure.flatten(0, 1), config.threshold, config.match, config.mean)
    return Proposals(every, sure, *(values.unflatten(0, classes.shape) for values in groups))


def mirrored(boxes: Tensor, width: int) -> Tensor:
    """Boxes (..., 4) of a picture of so many columns where they lie in its mirror image."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([width - x1, y0, width - x0, y1], -1)


def clip(boxes: Tensor, images: np.ndarray) -> Tensor:
    """Boxes (..., 4) cut off at the border of packed pictures (B, h, w, 3), beyond which no object is known."""
    height, width = images.shape[1:3]
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def alike(split: Split, crop: int, scale: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows (n,) and their images (n, h, w, 3), of one shape at a time."""
    rows = np.arange(len(split))
    for group in batches(split, rows, most_images("dense", crop, scale, BATCH)):
        yield group, np.stack([split.images[row] for row in group.tolist()])


def dense_boxes(
    nets: Sequence[tuple[Localiser, Sequence[int]]], split: Split, classes: np.ndarray, config: LocalizeConfig
) -> np.ndarray:
    """Protocol 2: the best box of each of the classes (N, K) in all pictures, (N, K, 4) in pixels as packed."""
    found = np.empty((*classes.shape, 4))
    size = nets[0][0].boxes.network.input_size
    for rows, images in alike(split, size, max(scale for _, scales in nets for scale in scales)):
        proposals = propose(nets, images, torch.from_numpy(classes[rows]), config)
        found[rows] = clip(proposals.best, images)
    return found


def centre_boxes(run: TrainedRun, split: Split, classes: np.ndarray, scale: int) -> np.ndarray:
    """Protocol 1: the box of each of the classes (N, K) from the crop at the centre, (N, K, 4) in pixels as packed."""
    found = np.empty((*classes.shape, 4))
    for rows, images in alike(split, run.network.input_size, scale):
        given = boxes_at(places(run, images, scale, centre=True), torch.from_numpy(classes[rows]))
        found[rows] = clip(given[:, :, 0], images)
    return found
