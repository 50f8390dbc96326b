"""Claims as intervals against their thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zfrepro.figures.style import INK, new_figure, styled

COLOURS = {"reproduced": "#1f7448", "contradicted": "#a63f24", "undecided": "#a87b12"}
SOFT, LINE = "#6d7178", "#dfdcd4"
LEFT, RIGHT = -1.6, 2.6  # of the axis: what lies beyond is drawn to its end, with an arrow


@styled
def draw_claims(
    names: Sequence[str], says: Sequence[str], ends: np.ndarray, verdicts: Sequence[str], numbers: Sequence[str],
    narrow: bool = False,
) -> Figure:  # fmt: skip
    """A row for each part of a claim: its interval on an axis where 0 is the threshold and 1 what the paper reports.

    names: the claim that each of the R parts belongs to; says: the parts; ends: (R, 3) low, value and high, an infinite end
    where no spread is known; verdicts: reproduced | contradicted | undecided, of each part; numbers: the measurements in
    words. narrow: for a small screen, words above the bars.
    """
    count = len(names)
    width, height = (4.3, 0.56 * count + 0.45) if narrow else (10.6, 0.29 * count + 0.45)
    figure = new_figure(width, height, layout=None)
    below = 0.3 / height
    axes = figure.add_axes((0.01, below, 0.7, 0.995 - below) if narrow else (0.475, below, 0.315, 0.99 - below))
    half = 0.2 if narrow else 0.5  # of a row's height
    for row, (low, value, high) in enumerate(ends):
        _row(axes, row, half)
        _interval(axes, row, low, value, high, COLOURS[verdicts[row]])
        first = row == 0 or names[row] != names[row - 1]
        if row and first and not narrow:
            axes.axhline(row - 0.5, color=LINE, lw=0.7)
        (_words_above if narrow else _words_beside)(axes, row, names[row] if first else "", says[row], numbers[row])
    axes.set(xlim=(LEFT, RIGHT), ylim=(count - 1 + half, -0.75 if narrow else -0.5), yticks=[])
    axes.set_xticks([0, 1], ["threshold", "as in the paper"], color=SOFT)
    below_bound, below_paper = axes.get_xticklabels()
    below_bound.set_horizontalalignment("right")
    below_paper.set_horizontalalignment("left")
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def _row(axes: Axes, row: int, half: float) -> None:
    """The ground that an interval stands on: short of the threshold, beyond it, and what the paper reports."""
    axes.fill_betweenx([row - half, row + half], LEFT, 0, color="#faf0ec", lw=0)
    axes.fill_betweenx([row - half, row + half], 0, RIGHT, color="#e9f4ee", lw=0)
    axes.vlines(0, row - half, row + half, color=INK, lw=1.1)
    axes.vlines(1, row - half, row + half, color=SOFT, lw=0.8, ls=(0, (2, 3)))


def _interval(axes: Axes, row: int, low: float, value: float, high: float, colour: str) -> None:
    known = np.isfinite(low) and np.isfinite(high)
    start, middle, end = np.clip([low, value, high], LEFT + 0.04, RIGHT - 0.04)
    if known and low == high:
        axes.plot(middle, row, "D", color=colour, ms=5)
    else:
        line: dict[str, Any] = {"lw": 2.6, "solid_capstyle": "butt"} if known else {"lw": 1, "ls": (0, (1, 2))}
        axes.plot([start, end], [row, row], color=colour, **line)
        axes.plot(middle, row, "o", color=colour, mec="white", mew=0.8, ms=6.5)
    if low < LEFT:
        axes.plot(start, row, "<", color=colour, ms=5)
    if high > RIGHT:
        axes.plot(end, row, ">", color=colour, ms=5)


def _words_beside(axes: Axes, row: int, name: str, part: str, number: str) -> None:
    """The claim and its part to the left, the number to the right."""
    beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
    axes.text(-1.5, row, name, ha="left", weight="bold", **beside)
    axes.text(-0.02, row, part, ha="right", color=SOFT, **beside)
    axes.text(1.02, row, number, ha="left", **beside)


def _words_above(axes: Axes, row: int, name: str, part: str, number: str) -> None:
    """The claim and its part above the bar, the number behind it."""
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 7.5}
    said = shorten(part, 62 - len(name), placeholder=" ...")
    heading = axes.text(
        0, row - 0.47, name or said, weight="bold" if name else "normal", color=INK if name else SOFT, **place
    )
    if name:
        axes.annotate("  " + said, (1, 0.5), xycoords=heading, va="center", fontsize=7.5, color=SOFT)
    axes.text(1.02, row, number.partition(" (")[0], ha="left", weight="bold", **place)
