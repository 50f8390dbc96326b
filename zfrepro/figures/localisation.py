"""Boxes on images: what a network proposes, what is left after merging, what is true (VGG paper, Appendix A)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from zfrepro.figures.style import COLOURS, INK, bare, label, new_figure, styled

TRUE, FOUND, MISSED = "#ffffff", COLOURS[2], COLOURS[1]
MOST = 60  # boxes of places that are drawn, the most confident


@dataclass(frozen=True)
class Example:
    """One image (h, w, 3) uint8 with boxes (n, 4) in its pixels."""

    title: str
    image: np.ndarray
    true: np.ndarray
    places: np.ndarray  # before merging
    confidence: np.ndarray  # (n,) of those
    merged: np.ndarray
    merged_confidence: np.ndarray
    best: np.ndarray  # (4,)
    overlap: float  # IoU of the best with the true box


@styled
def draw_examples(examples: Sequence[Example], title: str) -> Figure:
    """Three panels an image, two images a row: the answer, the boxes of all places, what is left of them."""
    rows = -(-len(examples) // 2)
    figure = new_figure(11, 2.05 * rows + 0.7)
    panels = np.atleast_2d(figure.subplots(rows, 6))
    heads = ("true (white) and found", "boxes of all places", "merged")
    for axes, head in zip(panels[0], heads * 2):
        axes.set_title(head, fontsize=9)
    for number, one in enumerate(examples):
        answer, before, after = panels[number // 2, number % 2 * 3 : number % 2 * 3 + 3]
        _answer(answer, one)
        _boxes(before, one.image, one.places, one.confidence)
        _boxes(after, one.image, one.merged, one.merged_confidence)
    for axes in panels.flat[3 * len(examples) :]:
        axes.set_visible(False)
    figure.suptitle(title, fontsize=10)
    return figure


def _answer(axes: Axes, one: Example) -> None:
    _show(axes, one.image)
    colour = FOUND if one.overlap >= 0.5 else MISSED
    for box in one.true:
        _rectangle(axes, box, INK, 3.2)
        _rectangle(axes, box, TRUE, 1.8)
    _rectangle(axes, one.best, colour, 1.8)
    axes.set_xlabel(f"{label(one.title)}\nIoU {one.overlap:.2f}", fontsize=8, color=colour)


def _boxes(axes: Axes, image: np.ndarray, boxes: np.ndarray, confidence: np.ndarray) -> None:
    """The most confident last, and the stronger."""
    _show(axes, 255 - (255 - image.mean(2, keepdims=True).repeat(3, 2)) * 0.55)
    order = np.argsort(confidence)[-MOST:]
    high = max(float(confidence.max(initial=0)), 1e-12)
    for index in order:
        share = float(confidence[index]) / high
        _rectangle(axes, boxes[index], to_rgba(COLOURS[0], 0.15 + 0.85 * share), 0.6 + 1.4 * share)
    axes.set_xlabel(f"{len(boxes)} box{'' if len(boxes) == 1 else 'es'}", fontsize=8)


def _rectangle(axes: Axes, box: np.ndarray, colour: object, width: float) -> None:
    x0, y0, x1, y1 = (box - 0.5).tolist()  # the first pixel's centre is at 0 in the picture
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=width, clip_on=True))


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image.astype(np.uint8), interpolation="nearest")
    height, width = image.shape[:2]
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    bare(axes)
