"""Tables 4-7 and Fig. 9 as pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from zfrepro.figures.style import COLOURS, label, new_figure, rows, shortened, styled


@dataclass(frozen=True)
class Curve:
    """Accuracies in percent against something; standard deviations where they are known."""

    label: str
    x: Sequence[int]
    mean: Sequence[float]
    std: Sequence[float | None]
    paper: bool = False
    marker: str = "o"


@styled
def draw_curves(curves: Sequence[Curve], title: str, xlabel: str, size: tuple[float, float], **scale: Any) -> Figure:
    """Accuracy against the number of training images per class (paper, Fig. 9) or depth (Table 7), with error bars; the paper's
    dashed. size: in inches; scale: more of the axes."""
    figure = new_figure(*size)
    axes = figure.subplots()
    for index, one in enumerate(curves):
        line: dict[str, Any] = (
            {"linestyle": "--", "linewidth": 1} if one.paper else {"linestyle": "-", "linewidth": 1.8}
        )
        line |= {"color": COLOURS[index % len(COLOURS)], "marker": one.marker, "markersize": 4, "capsize": 3}
        axes.errorbar(one.x, one.mean, yerr=[std or 0.0 for std in one.std], label=one.label, **line)
    axes.set(title=title, xlabel=xlabel, ylabel="accuracy (%)", ylim=(0, 100), **scale)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


@styled
def draw_classes(
    names: Sequence[str], values: np.ndarray, mean: float, paper: Sequence[float] | None, title: str
) -> Figure:
    """Average precision per class in percent, best first; the paper's as dots where the classes are the same."""
    order = np.argsort(-np.nan_to_num(values))
    figure = new_figure(8, 0.22 * len(names) + 1.2)
    axes = figure.subplots()
    axes.barh(np.arange(len(names)), values[order], color=COLOURS[0], height=0.7, label="ours")
    if paper is not None:
        axes.plot(np.array(paper)[order], np.arange(len(names)), "o", color=COLOURS[1], label="the paper's (ImageNet)")
    axes.axvline(mean, color=COLOURS[7], linestyle="--", label=f"our mean, {mean:.1f} %")
    axes.set(xlabel="average precision (%)", title=title, xlim=(0, 100))
    rows(axes, [label(names[i], 40) for i in order])
    axes.legend(loc="lower right", frameon=True)
    return figure


@dataclass(frozen=True)
class Bar:
    """A number in percent with its standard deviation, if it is known."""

    label: str
    mean: float
    std: float | None
    paper: bool


@styled
def draw_bars(bars: Sequence[Bar], title: str, measured: str) -> Figure:
    """A bar a method, in the table's order; the paper's pale."""
    figure = new_figure(9, 0.3 * len(bars) + 1.2)
    axes = figure.subplots()
    place = np.arange(len(bars))
    colours = ["#d8d8d8" if bar.paper else COLOURS[0] for bar in bars]
    drawn = axes.barh(
        place, [bar.mean for bar in bars], xerr=[bar.std or 0.0 for bar in bars], color=colours, height=0.7
    )
    axes.bar_label(drawn, fmt="%.1f", padding=3, fontsize=8)
    axes.set(xlim=(0, 100), xlabel=measured, title=title)
    rows(axes, [textwrap.fill(shortened(bar.label, 120), 60) for bar in bars])
    return figure
