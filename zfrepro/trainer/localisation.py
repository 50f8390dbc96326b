"""The task of saying where the object is (VGG paper, Appendix A): a box by Euclidean loss.

The box is centre x, centre y, width and height as shares of the crop's side, from its upper left corner: no sigmoid, nothing
clipped, since true boxes leave the crop. Four outputs serve all classes (SCR), or each class has four (PCR), of which the true
class's are trained.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zfrepro.boxes import RIGHT, decode, encode, iou, share_inside, sides
from zfrepro.data import Packed, Split
from zfrepro.errors import UserError, listed
from zfrepro.options.shared import LearnedBoxes
from zfrepro.run import outputs_of

# Where every box begins, as shares of the crop's side: in its middle, half as wide and high. A class's four outputs are trained
# by its own images alone: from a box of no size in the corner, few updates would not get them out of it.
BEGIN = 0.5
UNIT = (0.0, 0.0, 1.0, 1.0)  # a crop in its own frame


class Localisation:
    """Boxes of the image's own class; K is the largest number of them in a batch."""

    wrong = "train_localisation_error"
    best = "val_localisation_error"

    def __init__(self, data: Packed, regression: str, rules: LearnedBoxes) -> None:
        self.rules, classes = rules, data.num_classes
        self.outputs = outputs_of(regression, classes)
        missing = without_boxes(data)
        if missing and (regression == "pcr" or len(missing) == classes):
            raise UserError(
                f"regression={regression}: {data.manifest['name']} has no boxes of {listed(missing, 3)} in its training images; "
                "give data that have them: a folder with a boxes.csv, say (image,left,top,right,bottom)"
                + ", or regression=scr, one box for all classes"
                * (len(missing) < classes)
            )

    def rows(self, split: Split, rows: np.ndarray) -> np.ndarray:
        """Those of some rows that have a box to learn from."""
        return rows[has_boxes(split)[rows]]

    def targets(self, split: Split, rows: np.ndarray) -> Tensor:
        """(B, K, 5) float32: class and corners of the image's boxes, NaN beyond their number."""
        boxes = torch.from_numpy(padded_boxes(split, rows))
        classes = torch.from_numpy(split.labels[rows]).float()
        return torch.cat([classes[:, None, None].expand(-1, boxes.shape[1], 1), boxes], 2)

    def seen(self, targets: Tensor, crops: Tensor, flip: Tensor, draw: Tensor) -> Tensor:
        """(B, K, 6): class, whether this box is the one to be learned (0 or 1), and its four numbers in the crop.

        It is left out where less of it lies in the crop than the rules ask for.
        """
        boxes, crops = targets[..., 1:], crops[:, None]
        enough = share_inside(boxes, crops) >= self.rules.inside
        learned = chosen_of(boxes, draw, self.rules.several) & enough
        return torch.cat([targets[..., :1], learned[..., None].to(boxes), encode(boxes, crops, flip[:, None])], 2)

    def loss(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the squared differences / (2 B), and how many images have no box with an IoU of at least 0.5."""
        given = self._own(outputs, targets)
        wanted = clipped(targets[..., 2:]) if self.rules.clip else targets[..., 2:]
        difference = given[:, None] - wanted.nan_to_num()
        return (targets[..., 1:2] * difference.square()).sum() / (2 * len(outputs)), self._missed(given, targets).sum()

    def count(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(2,): images with boxes of which none is found, the true class given; and images with boxes."""
        known = ~targets[..., 2].isnan().all(1)
        missed = self._missed(self._own(outputs, targets), targets) & known
        return torch.stack([missed.sum(), known.sum()]).double()

    def errors(self, counts: list[float], images: int) -> dict[str, float]:
        """The localisation error with the true class given, in percent of the images with boxes."""
        missed, known = counts
        return {self.best: 100 * missed / max(known, 1)}

    def _own(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(B, 4) the outputs for the image's class."""
        if outputs.shape[1] == 4:
            return outputs
        return outputs.unflatten(1, (-1, 4))[torch.arange(len(outputs)), targets[:, 0, 0].long()]

    def _missed(self, given: Tensor, targets: Tensor) -> Tensor:
        """(B,) whether no true box overlaps the given one enough. IoU is the same in every crop's frame."""
        unit = given.new_tensor(UNIT)
        overlap = iou(decode(given.detach(), unit)[:, None], decode(targets[..., 2:], unit))
        return ~(overlap >= RIGHT).any(1)  # NaN, where there is no box, is not


def chosen_of(boxes: Tensor, draw: Tensor, several: str) -> Tensor:
    """(B, K) bool: which of an image's boxes (B, K, 4), NaN beyond their number, is to be learned: one at random, by `draw`
    (B,) in [0, 1), or the largest; of equal ones the first."""
    there = ~boxes[..., 0].isnan()
    number = (draw * there.sum(1)).floor()
    if several == "largest":
        number = sides(boxes).prod(-1).nan_to_num(-1).argmax(1)
    return there & (there.cumsum(1) - 1 == number[:, None])


def clipped(values: Tensor) -> Tensor:
    """Boxes in the frame of a crop, (..., 4) as `encode` gives them, cut off at its border."""
    unit = values.new_tensor(UNIT)
    return encode(decode(values, unit).clamp(0, 1), unit)


def has_boxes(split: Split) -> np.ndarray:
    """(N,) whether an image has a box of its own class."""
    if split.boxes is None:
        return np.zeros(len(split), bool)
    images = split.boxes.images
    own = images[split.boxes.labels == split.labels[images]]
    return np.bincount(own, minlength=len(split)) > 0


def without_boxes(data: Packed) -> list[str]:
    """Names of the classes of which no training image has a box."""
    counts = np.bincount(data.train.labels[has_boxes(data.train)], minlength=data.num_classes)
    return [name for name, count in zip(data.class_names, counts) if not count]


def padded_boxes(split: Split, rows: np.ndarray) -> np.ndarray:
    """(n, K, 4) float32: the boxes of some rows that belong to the image's class, NaN beyond their number; K is at least 1."""
    if split.boxes is None:
        return np.full((len(rows), 1, 4), np.nan, np.float32)
    found = split.boxes.take(rows)
    found = found.only(found.labels == split.labels[rows][found.images])
    counts = np.diff(found.starts)
    padded = np.full((len(rows), max(1, counts.max(initial=0)), 4), np.nan, np.float32)
    padded[found.images, np.arange(len(found.corners)) - found.starts[found.images]] = found.corners
    return padded
