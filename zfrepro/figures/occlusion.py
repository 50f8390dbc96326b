"""Fig. 7: what an occluder does to a class and to a feature map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from zfrepro.figures.style import COLOURS, INK, bare, label, new_figure, styled, symmetric, tile

MAX_CLASSES = 7  # in panel (e); the rest share a colour
PALE = "#d8d8d8"


@dataclass(frozen=True)
class Example:
    """One image's row of the figure; images are (s, s, 3), maps (P, P) for the positions starts x starts."""

    title: str
    image: np.ndarray  # uint8
    covered: np.ndarray  # uint8, with a square at `corner`
    corner: tuple[int, int]  # y, x
    square: int
    starts: Sequence[int]
    map: int
    activity: np.ndarray
    probability: np.ndarray
    top_class: np.ndarray
    projection: np.ndarray  # both signs
    others: list[np.ndarray]


SIDE = 1.75  # inches of a panel
LEFTS = (0.35, 2.42, 4.95, 6.88, 9.38)  # of the five panels, inches
WIDTH, TOP, STEP = 12.75, 0.62, SIDE + 0.16


@styled
def draw_occlusion(examples: Sequence[Example], class_names: Sequence[str], layer: int) -> Figure:
    """A row an image, the paper's five panels a row; without probabilities (NaN) the first three."""
    answers = not all(np.isnan(one.probability).all() for one in examples)
    lefts, whole = (LEFTS, WIDTH) if answers else (LEFTS[:3], LEFTS[3])
    height = TOP + STEP * len(examples)
    figure = new_figure(whole, height, layout=None)
    heads = ("(a) input, square where it\nhurts most", f"(b) layer {layer}, strongest map:\ntotal activation",
             f"(c) layer {layer}, strongest map:\nprojections", "(d) classifier: probability\nof the true class",
             "(e) classifier:\nmost probable class")  # fmt: skip
    for row, one in enumerate(examples):
        bottom = height - TOP - STEP * row - SIDE

        def place(left: float, width: float = SIDE, bottom: float = bottom) -> Axes:
            return figure.add_axes((left / whole, bottom / height, width / whole, SIDE / height))

        panels = [place(left) for left in lefts]
        _input(panels[0], one)
        _heat(figure, panels[1], place(LEFTS[1] + SIDE + 0.07, 0.09), one, one.activity, float(one.activity.min()))
        _projections(panels[2], one)
        if answers:
            _heat(figure, panels[3], place(LEFTS[3] + SIDE + 0.07, 0.09), one, one.probability, 0.0)
            _classes(panels[4], one, class_names)
        panels[0].set_ylabel(label(one.title), fontsize=11)
        panels[1].set_ylabel(f"map {one.map}", color="#8a8a8a", fontsize=8)
        if row == 0:
            for axes, head in zip(panels, heads):
                axes.set_title(head, fontsize=9.5)
    return figure


def _input(axes: Axes, one: Example) -> None:
    axes.imshow(one.covered, interpolation="nearest")
    y, x = one.corner
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), one.square, one.square, fill=False, edgecolor="white", linewidth=1.2))
    bare(axes)


def _extent(one: Example) -> tuple[float, float, float, float]:
    """Where the positions' centres lie in the image, a cell around each: left, right, bottom, top."""
    step = (one.starts[-1] - one.starts[0]) / max(1, len(one.starts) - 1) or 1
    low = one.starts[0] + (one.square - 1) / 2 - step / 2
    high = one.starts[-1] + (one.square - 1) / 2 + step / 2
    return low, high, high, low


def _over(axes: Axes, one: Example, values: np.ndarray, **colours: Any) -> AxesImage:
    """A map over the image, at the places of the square's centre; the image faded and grey, so that one sees where a place is."""
    grey, size = 255 - (255 - one.image.mean(2)) * 0.45, len(one.image)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    drawn = axes.imshow(values, extent=_extent(one), interpolation="nearest", **colours)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    bare(axes)
    return drawn


def _heat(figure: Figure, axes: Axes, beside: Axes, one: Example, values: np.ndarray, low: float) -> None:
    """A map over the image, with its colour bar."""
    drawn = _over(axes, one, values, cmap="viridis", vmin=low, vmax=max(float(values.max()), low + 1e-12))
    bar = figure.colorbar(drawn, cax=beside)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.locator = MaxNLocator(5)
    bar.update_ticks()


def _projections(axes: Axes, one: Example) -> None:
    """This image's projection, framed, and the same map's for other images, two by two."""
    drawn = [symmetric(pixels) for pixels in (one.projection, *one.others)][:4]
    columns = 1 if len(drawn) == 1 else 2
    axes.imshow(tile(np.stack(drawn), columns, gap=2), interpolation="nearest")
    size = len(one.projection)
    axes.add_patch(Rectangle((0.5, 0.5), size + 2, size + 2, fill=False, edgecolor=INK, linewidth=2))
    bare(axes)


def _classes(axes: Axes, one: Example, class_names: Sequence[str]) -> None:
    """The most probable class at each position, the frequent ones coloured and named."""
    found, counts = np.unique(one.top_class, return_counts=True)
    order = found[np.argsort(-counts, kind="stable")][:MAX_CLASSES]
    index = np.full(one.top_class.shape, len(order))
    for number, one_class in enumerate(order):
        index[one.top_class == one_class] = number
    colours = [*COLOURS[:MAX_CLASSES][: len(order)], PALE]
    palette = ListedColormap([to_rgb(colour) for colour in colours])
    _over(axes, one, index, cmap=palette, vmin=-0.5, vmax=len(order) + 0.5)
    names = [Patch(color=colour, label=label(class_names[one_class])) for colour, one_class in zip(colours, order)]
    if len(found) > len(order):
        names.append(Patch(color=PALE, label=f"{len(found) - len(order)} others"))
    axes.legend(
        handles=names, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, handlelength=0.9, handleheight=0.9
    )


@styled
def draw_claims(claims: dict[str, Any]) -> Figure:
    """The two claims over many images: the measures beside their controls."""
    names = {
        "activity_falls_where_the_projection_is": "activity drop ~ projection's\nenergy below the square",
        "probability_falls_where_the_object_is": "probability drop ~ share of\nthe square on the object",
        "drop_inside_mask_percent": "probability drop\ninside the object's mask",
        "pointing_accuracy_percent": "largest drop lies\non the object",
    }
    present = [key for key in names if key in claims]
    figure = new_figure(1.2 + 2.3 * len(present), 3.0)
    for axes, key in zip(np.atleast_1d(figure.subplots(1, len(present))), present):
        value = claims[key]
        scale = "%" if key.endswith("percent") else "mean correlation"
        bars = axes.bar(
            ["its own", "another's"], [value["mean"], value["control"]], color=[COLOURS[0], PALE], width=0.62
        )
        axes.errorbar(0, value["mean"], yerr=1.96 * value.get("standard_error", 0.0), color=INK, capsize=4, linewidth=1)
        axes.bar_label(bars, fmt="%.0f" if scale == "%" else "%.2f", label_type="center", fontsize=11, color=INK)
        axes.set_title(names[key], fontsize=9)
        axes.set_ylabel(scale)
        axes.set_ylim(min(0, value["control"], value["mean"]) * 1.1, 100 if scale == "%" else 1)
        axes.grid(axis="x", visible=False)
    figure.supxlabel(
        f"{claims['images']} validation images; each against its own projection or mask, and against another image's; "
        "bars: 95 % confidence",
        fontsize=8,
    )
    return figure
