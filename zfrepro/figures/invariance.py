"""Fig. 5: translation, scale and rotation against features and output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from zfrepro.figures.style import COLOURS, label, new_figure, styled, tile

TITLES = ("vertical translation", "scale", "rotation")
UNITS = ("pixels down", "factor", "degrees")


@styled
def draw_invariance(
    names: Sequence[str], pictures: np.ndarray, at: np.ndarray, steps: np.ndarray, distance: np.ndarray,
    probability: np.ndarray, layers: Sequence[int],
) -> Figure:  # fmt: skip
    """The paper's panel: a row a transformation; examples, distance at each layer, probability of the true class.

    pictures: (N, T, 5, s, s, 3) uint8 at the steps `at` (T, 5); steps (T, K); distance (N, T, K, L);
    probability (N, T, K), NaN: there is none, and no panel.
    """
    answers = not np.isnan(probability).all()
    columns = 1 + len(layers) + answers
    figure = new_figure(2.75 * columns + 1.0, 2.65 * len(steps))
    grid = figure.add_gridspec(len(steps), columns, width_ratios=[1.25] + [1] * (columns - 1))
    for t, values in enumerate(steps):
        strip = figure.add_subplot(grid[t, 0])
        count = pictures.shape[2]
        strip.imshow(tile(pictures[:, t].reshape(-1, *pictures.shape[3:]) / 255.0, count, gap=2), aspect="equal")
        side = pictures.shape[3] + 2
        strip.set_xticks([2 + side * (i + 0.5) for i in range(count)], [f"{value:.3g}" for value in at[t]], fontsize=7)
        strip.set_yticks(
            [2 + side * (i + 0.5) for i in range(len(names))], [label(name, 14) for name in names], fontsize=8
        )
        for tick, colour in zip(strip.get_yticklabels(), COLOURS):
            tick.set_color(colour)
        strip.tick_params(length=0)
        strip.grid(False)
        strip.spines[:].set_visible(False)
        strip.set_title(TITLES[t] + ("" if t else "\nexamples"))
        panels = [(f"layer {layer}: distance", distance[:, t, :, i]) for i, layer in enumerate(layers)]
        if answers:
            panels.append(("probability of the true class", probability[:, t]))
        for c, (title, curves) in enumerate(panels, start=1):
            axes = figure.add_subplot(grid[t, c])
            for curve in curves:
                axes.plot(values, curve, linewidth=1.6)
            axes.set_xlabel(UNITS[t])
            axes.set_xlim(values[0], values[-1])
            axes.set_ylim(0, 1.02 if answers and c == len(panels) else None)
            if t == 0:
                axes.set_title(title)
    return figure


@styled
def draw_claims(steps: np.ndarray, relative: np.ndarray, probability: np.ndarray, layers: Sequence[int]) -> Figure:
    """Mean and spread (10th to 90th percentile) over many images: distances relative to the features' norm above,
    probability below. relative: (N, T, K, L); probability: (N, T, K), NaN: there is none, and no panel."""
    answers = not np.isnan(probability).all()
    figure = new_figure(3.2 * len(steps), 5.0 if answers else 2.8)
    panels = figure.subplots(1 + answers, len(steps), squeeze=False, sharey="row")
    for t, values in enumerate(steps):
        for i, layer in enumerate(layers):
            _band(panels[0, t], values, relative[:, t, :, i], f"layer {layer}", i)
        if answers:
            _band(panels[1, t], values, probability[:, t], "true class", 2)
        panels[0, t].set_title(TITLES[t])
        panels[-1, t].set_xlabel(UNITS[t])
        for axes in panels[:, t]:
            axes.set_xlim(values[0], values[-1])
            axes.set_ylim(0, None)
    panels[0, 0].set_ylabel("distance / norm of the features")
    if answers:
        panels[1, 0].set_ylabel("probability of the true class")
        panels[1, 0].set_ylim(0, 1)
    if len(layers) > 3:
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    else:
        panels[0, 0].legend(loc="upper center", ncols=len(layers), fontsize=8)
    figure.supxlabel(f"mean of {len(relative)} validation images; shaded: 10th to 90th percentile", fontsize=8)
    return figure


def _band(axes: object, x: np.ndarray, curves: np.ndarray, label: str, number: int) -> None:
    """number: which of the axes' curves it is; where the colours come again, it is dashed, and dotted where they come thrice."""
    again, number = divmod(number, len(COLOURS))
    colour, line = COLOURS[number], ("-", "--", ":")[min(again, 2)]
    low, high = np.percentile(curves, [10, 90], axis=0)
    axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)  # type: ignore[attr-defined]
    axes.plot(x, curves.mean(0), color=colour, label=label, linewidth=2, linestyle=line)  # type: ignore[attr-defined]
