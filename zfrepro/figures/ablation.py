"""Table 3 as a bar chart."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure

from zfrepro.figures.style import COLOURS, new_figure, rows, styled


@styled
def draw_ablation(labels: Sequence[str], errors: np.ndarray, paper: np.ndarray, title: str) -> Figure:
    """One row a variant, errors in percent.

    errors: (R, 3, 2) means and standard deviations of training top-1, validation top-1 and top-5 error, NaN where a variant
    has no result. paper: (R, 3) as reported on ImageNet, drawn as dots.
    """
    names = ("train top-1", "val top-1", "val top-5")
    figure = new_figure(9, 0.62 * len(labels) + 1.2)
    axes = figure.subplots()
    place = np.arange(len(labels))
    for index, name in enumerate(names):
        y = place + (index - 1) * 0.26
        mean, spread = errors[:, index].T
        axes.barh(y, mean, height=0.24, xerr=spread, color=COLOURS[index], label=f"{name}, ours", error_kw={"lw": 1})
        axes.plot(paper[:, index], y, "o", color=COLOURS[index], markeredgecolor="black", markersize=5)
    axes.plot([], [], "o", color="white", markeredgecolor="black", label="the paper's (ImageNet)")
    axes.set(xlabel="error (%)", xlim=(0, 100), title=title)
    rows(axes, [fill(label, 36) for label in labels])
    figure.legend(loc="outside lower center", ncols=4)
    return figure
