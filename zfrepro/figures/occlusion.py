"""Fig. 7: what an occluder does to a class and to a feature map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


SIDE = 1.75  # inches of a panel
LEFTS = (0.35, 2.42, 4.95, 6.88, 9.38)  # of the five panels, inches
WIDTH, TOP, STEP = 12.75, 0.62, SIDE + 0.16


Arrays = Mapping[str, np.ndarray]  # as in evaluator/occlusion's `arrays.npz`


@styled
def draw_occlusion(arrays: Arrays, titles: Sequence[str], class_names: Sequence[str]) -> Figure:
    """A row an image, the paper's five panels a row; without probabilities (NaN) the first three."""
    answers = not np.isnan(arrays["probability"]).all()
    lefts, whole = (LEFTS, WIDTH) if answers else (LEFTS[:3], LEFTS[3])
    height, layer = TOP + STEP * len(titles), arrays["layer"]
    figure = new_figure(whole, height, layout=None)
    heads = ("(a) input, square where it\nhurts most", f"(b) layer {layer}, strongest map:\ntotal activation",
             f"(c) layer {layer}, strongest map:\nprojections", "(d) classifier: probability\nof the true class",
             "(e) classifier:\nmost probable class")  # fmt: skip
    for row, title in enumerate(titles):
        bottom = height - TOP - STEP * row - SIDE

        def place(left: float, width: float = SIDE, bottom: float = bottom) -> Axes:
            return figure.add_axes((left / whole, bottom / height, width / whole, SIDE / height))

        panels = [place(left) for left in lefts]
        _input(panels[0], arrays, row, arrays["probability" if answers else "activity"][row])
        activity = arrays["activity"][row]
        drawn = _over(panels[1], arrays, row, activity, cmap="viridis", **_range(activity, float(activity.min())))
        _bar(figure, drawn, place(LEFTS[1] + SIDE + 0.07, 0.09))
        _projections(panels[2], [arrays["projections"][row], *arrays["others"][row]])
        if answers:
            probability = arrays["probability"][row]
            drawn = _over(panels[3], arrays, row, probability, cmap="viridis", **_range(probability, 0.0))
            _bar(figure, drawn, place(LEFTS[3] + SIDE + 0.07, 0.09))
            _classes(panels[4], arrays, row, class_names)
        panels[0].set_ylabel(label(title), fontsize=11)
        panels[1].set_ylabel(f"map {arrays['maps'][row]}", color="#8a8a8a", fontsize=8)
        if row == 0:
            for axes, head in zip(panels, heads):
                axes.set_title(head, fontsize=9.5)
    return figure


def _input(axes: Axes, arrays: Arrays, row: int, watched: np.ndarray) -> None:
    """The image with the square where what is `watched` (P, P) is lowest."""
    square, starts, covered = int(arrays["square"]), arrays["ys"], arrays["images"][row].copy()
    y, x = starts[list(np.unravel_index(watched.argmin(), watched.shape))]
    covered[y : y + square, x : x + square] = arrays["fill_pixels"][y : y + square, x : x + square]
    axes.imshow(covered, interpolation="nearest")
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), square, square, fill=False, edgecolor="white", linewidth=1.2))
    bare(axes)


def _over(axes: Axes, arrays: Arrays, row: int, values: np.ndarray, **colours: Any) -> AxesImage:
    """A map over the image, a cell around the place of the square's centre at each of its positions; the image faded and grey, so
    that one sees where a place is."""
    starts, image = arrays["ys"], arrays["images"][row]
    step = (starts[-1] - starts[0]) / max(1, len(starts) - 1) or 1
    low, high = (end + (arrays["square"] - 1) / 2 for end in (starts[0] - step / 2, starts[-1] + step / 2))
    grey, size = 255 - (255 - image.mean(2)) * 0.45, len(image)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    drawn = axes.imshow(values, extent=(low, high, high, low), interpolation="nearest", **colours)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    bare(axes)
    return drawn


def _range(values: np.ndarray, low: float) -> dict[str, float]:
    """From `low` to the largest, which may be no larger; differences below a thousandth, of rounding say, have one colour."""
    return {"vmin": low, "vmax": max(float(values.max()), low + 1e-3 * abs(low) + 1e-12)}


def _bar(figure: Figure, drawn: AxesImage, beside: Axes) -> None:
    bar = figure.colorbar(drawn, cax=beside)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.locator = MaxNLocator(5)
    bar.update_ticks()


def _projections(axes: Axes, images: Sequence[np.ndarray]) -> None:
    """This image's projection, framed, and the same map's for other images, two by two."""
    drawn = [symmetric(pixels) for pixels in images][:4]
    columns = 1 if len(drawn) == 1 else 2
    axes.imshow(tile(np.stack(drawn), columns, gap=2), interpolation="nearest")
    size = len(images[0])
    axes.add_patch(Rectangle((0.5, 0.5), size + 2, size + 2, fill=False, edgecolor=INK, linewidth=2))
    bare(axes)


def _classes(axes: Axes, arrays: Arrays, row: int, class_names: Sequence[str]) -> None:
    """The most probable class at each position, the frequent ones coloured and named."""
    classes = arrays["top_class"][row]
    found, counts = np.unique(classes, return_counts=True)
    order = found[np.argsort(-counts, kind="stable")][:MAX_CLASSES]
    index = np.full(classes.shape, len(order))
    for number, one_class in enumerate(order):
        index[classes == one_class] = number
    colours = [*COLOURS[:MAX_CLASSES][: len(order)], PALE]
    palette = ListedColormap([to_rgb(colour) for colour in colours])
    _over(axes, arrays, row, index, cmap=palette, vmin=-0.5, vmax=len(order) + 0.5)
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
