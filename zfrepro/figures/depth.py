"""Errors of rows of networks beside the paper's (VGG, Tables 3 to 6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from zfrepro.figures.style import COLOURS, INK, new_figure, rows, styled


@styled
def draw_rows(names: Sequence[str], errors: np.ndarray, paper: np.ndarray, title: str) -> Figure:
    """A line a row: every net as a dot, their mean as a bar, top-1 and top-5; the paper's numbers as diamonds.

    errors: (R, k, 2) in percent, NaN where there is no net; paper: (R, 2), NaN where the paper has no such row.
    """
    figure = new_figure(9, 0.36 * len(names) + 1.5)
    axes = figure.subplots()
    place = np.arange(len(names))
    for kind, (name, height) in enumerate((("top-1", 0.62), ("top-5", 0.34))):
        own = errors[:, :, kind]
        axes.barh(
            place, np.nanmean(own, axis=1), height, color=COLOURS[0], alpha=(0.4, 0.9)[kind], label=f"{name}, ours"
        )
        row, net = np.nonzero(~np.isnan(own))
        axes.plot(own[row, net], place[row], "o", color=INK, markersize=2.5)
        axes.plot(
            paper[:, kind], place, "D", color=COLOURS[1], alpha=(0.6, 1)[kind], markersize=5,
            label=f"{name}, the paper's (ImageNet)",
        )  # fmt: skip
    axes.set(xlabel="error (%)", xlim=(0, None), title=title)
    rows(axes, names)
    figure.legend(loc="outside lower center", ncols=4)
    return figure
