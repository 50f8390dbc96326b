"""Boxes: overlap, their numbers in the frame of a crop, OverFeat's merging, the error of localisation (VGG paper, Appendix A).

A box is (x0, y0, x1, y1), half-open, in pixels of an image whose first pixel reaches from 0 to 1. A data set's inclusive
corners become such a box by adding 1 to x1 and y1; the overlap of two boxes is then what routines for inclusive corners say.
A crop is a box as well: what it shows of the image, whatever the size at which the network sees it, mirrored or not.
"""

from __future__ import annotations

import torch
from torch import Tensor

RIGHT = 0.5  # IoU from which a box is right; the official routine's, which counts below 0.5 as wrong
MERGE_CELLS = 1 << 22  # match scores in memory at a time


def sides(boxes: Tensor) -> Tensor:
    """Widths and heights (..., 2) of boxes (..., 4); 0 where corners are swapped."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """The area that both boxes cover, (...) for boxes (..., 4), which broadcast."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    return (high - low).clamp(min=0).prod(-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (...) of boxes (..., 4), which broadcast; 0 where neither has an area."""
    shared = intersection(a, b)
    union = sides(a).prod(-1) + sides(b).prod(-1) - shared
    return torch.where(union > 0, shared / union, torch.zeros_like(union))


def share_inside(boxes: Tensor, crops: Tensor) -> Tensor:
    """The share (...) of the area of boxes (..., 4) that lies in the crops (..., 4); 0 for boxes without area."""
    area = sides(boxes).prod(-1)
    return torch.where(area > 0, intersection(boxes, crops) / area, torch.zeros_like(area))


# ------------------------------------------------------------------------------------------------ in the frame of a crop


def encode(boxes: Tensor, crops: Tensor, flip: Tensor | None = None) -> Tensor:
    """Centre x, centre y, width, height (..., 4) of boxes (..., 4) as shares of the sides of the crops (..., 4), from their
    upper left corner; of the mirrored crop where `flip` (...). Not clipped: what leaves the crop is below 0 or above 1."""
    origin, extent = crops[..., :2], crops[..., 2:] - crops[..., :2]
    centre = ((boxes[..., :2] + boxes[..., 2:]) / 2 - origin) / extent
    if flip is not None:
        centre = torch.stack([torch.where(flip.bool(), 1 - centre[..., 0], centre[..., 0]), centre[..., 1]], -1)
    return torch.cat([centre, (boxes[..., 2:] - boxes[..., :2]) / extent], -1)


def decode(values: Tensor, crops: Tensor) -> Tensor:
    """The boxes (..., 4) whose `encode` in the same crops, not mirrored, is `values` (..., 4)."""
    origin, extent = crops[..., :2], crops[..., 2:] - crops[..., :2]
    centre, half = origin + values[..., :2] * extent, values[..., 2:] * extent / 2
    return torch.cat([centre - half, centre + half], -1)


def crop_boxes(y: Tensor, x: Tensor, crop: int, ratio: Tensor) -> Tensor:
    """What crops of `crop` pixels with their upper left corners at y (...), x (...) of a rescaled image show of the image
    itself: (..., 4). ratio: pixels of the rescaled image to one of the image, (2,) or (..., 2), along x and y."""
    corner = torch.stack([x, y], -1).to(ratio.dtype)
    return torch.cat([corner, corner + crop], -1) / torch.cat([ratio, ratio], -1)


def dense_crops(
    rows: int, columns: int, stride: int, crop: int, ratio: Tensor, corner: tuple[int, int] = (0, 0)
) -> Tensor:
    """What the places of a dense score map (VGG paper, section 3.2) see of the image: (rows, columns, 4).

    Place (i, j) is the crop of the network's input size at (i, j) times `stride`, the rescaled image's pixels between two
    cells of the map below the first fully connected layer, from `corner` (y, x) on.
    """
    down, across = (start + torch.arange(count) * stride for start, count in zip(corner, (rows, columns)))
    y, x = torch.meshgrid(down, across, indexing="ij")
    return crop_boxes(y, x, crop, ratio)


# --------------------------------------------------------------------------------------------------------------- merging


def match_scores(a: Tensor, b: Tensor, match: str = "centre_iou") -> Tensor:
    """How unlike two boxes are, (...) for boxes (..., 4), which broadcast; the pair with the smallest is merged first.

    centre_iou: distance of the centres / mean side + (1 - IoU): 0 for equal boxes, 1 and more for disjoint ones. paper: the
    sum of the distance and the intersection's area, as OverFeat's section 4.3 has it, which merges disjoint boxes first.
    """
    distance = ((a[..., :2] + a[..., 2:]) / 2 - (b[..., :2] + b[..., 2:]) / 2).norm(dim=-1)
    if match == "paper":
        return distance + intersection(a, b)
    side = (sides(a).sum(-1) + sides(b).sum(-1)) / 4
    return distance / side.clamp(min=1e-9) + 1 - iou(a, b)


def merge(
    boxes: Tensor, confidence: Tensor, threshold: float, match: str = "centre_iou", mean: str = "members"
) -> tuple[Tensor, Tensor, Tensor]:
    """OverFeat's greedy merging (section 4.3) of G groups of n boxes: boxes (G, n, 4), confidence (G, n), members (G, n).

    The two boxes of a group with the smallest match score become one, until that score is above `threshold`. Coordinates are
    the mean over the members, or with mean=plain of the two; confidences add up. members: (G, n) int64, how many boxes became
    this one; 0 for a place that is empty then. The order of a group's boxes does not matter.
    """
    size = max(1, MERGE_CELLS // max(1, boxes.shape[1]) ** 2)
    parts = [
        _merge(*part, threshold, match, mean)
        for part in zip(boxes.double().split(size), confidence.double().split(size))
    ]
    return tuple(torch.cat(values) for values in zip(*parts))  # type: ignore[return-value]


def _merge(boxes: Tensor, confidence: Tensor, threshold: float, match: str, mean: str) -> tuple[Tensor, Tensor, Tensor]:
    boxes, confidence = _sorted(boxes, confidence)
    count, members = boxes.shape[1], torch.ones_like(confidence, dtype=torch.int64)
    scores = match_scores(boxes[:, :, None], boxes[:, None], match)
    scores.masked_fill_(torch.eye(count, dtype=torch.bool), torch.inf)
    for _ in range(count - 1):
        least, flat = scores.flatten(1).min(1)
        group = torch.nonzero((least <= threshold) & (least < torch.inf))[:, 0]
        if not len(group):
            break
        first, second = torch.div(flat[group], count, rounding_mode="floor"), flat[group] % count
        one, other = (group, first), (group, second)
        weights = torch.stack([members[one], members[other]]).double()[..., None]
        if mean == "plain":
            weights = torch.ones_like(weights)
        boxes[one] = (boxes[one] * weights[0] + boxes[other] * weights[1]) / weights.sum(0)
        confidence[one] += confidence[other]
        members[one] += members[other]
        confidence[other], members[other] = 0, 0
        fresh = match_scores(boxes[one][:, None], boxes[group], match)
        fresh = fresh.masked_fill(members[group] == 0, torch.inf).scatter(1, first[:, None], torch.inf)
        scores[group, first], scores[group, :, first] = fresh, fresh
        scores[group, second], scores[group, :, second] = torch.inf, torch.inf
    return boxes, confidence, members


def _sorted(boxes: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
    """Each group in the order of its coordinates, then confidences: of equal match scores the first pair is merged."""
    order = torch.arange(boxes.shape[1]).expand(confidence.shape)
    for key in (confidence, *boxes.flip(-1).unbind(-1)):
        order = order.gather(1, key.gather(1, order).argsort(dim=1, stable=True))
    return boxes.gather(1, order[..., None].expand_as(boxes)), confidence.gather(1, order)


def best(boxes: Tensor, confidence: Tensor, members: Tensor) -> Tensor:
    """The box of each group with the largest confidence, (G, 4), of what `merge` returned."""
    chosen = confidence.masked_fill(members == 0, -torch.inf).argmax(1)
    return boxes[torch.arange(len(boxes)), chosen]


# ----------------------------------------------------------------------------------------------------------------- error


def found(classes: Tensor, boxes: Tensor, true_boxes: Tensor, true_classes: Tensor, owners: Tensor) -> Tensor:
    """Which of N images are localised, (N,) bool: one of its K guesses, classes (N, K) with boxes (N, K, 4), has the class of
    a true box of the image and an IoU of at least 0.5 with it.

    true_boxes: (M, 4), those of all images, with their classes (M,) and images (M,), 0..N-1. An image without any is not found.
    """
    overlap = iou(boxes[owners], true_boxes[:, None])
    hits = ((classes[owners] == true_classes[:, None]) & (overlap >= RIGHT)).any(1)
    return torch.zeros(len(classes), dtype=torch.int64).index_add_(0, owners, hits.long()) > 0
