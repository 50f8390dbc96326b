"""Fig. 8 and Table 1: masked parts and how alike features answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from zfrepro.figures.style import COLOURS, new_figure, styled, tile

MUTED = "#9a9a9a"


@styled
def draw_masks(
    images: np.ndarray, boxes: np.ndarray, random: np.ndarray, fill: np.ndarray, parts: Sequence[str]
) -> Figure:
    """A row an image: itself, each part masked, two random places masked.

    images: (N, s, s, 3) uint8; boxes: (N, P, 4); random: (N, 2, 4): y0, x0, y1, x1; fill: (s, s, 3) uint8.
    """
    every = np.concatenate([boxes, random], 1)
    rows = []
    for image, own in zip(images, every):
        rows.append(image)
        for y0, x0, y1, x1 in own:
            masked = image.copy()
            masked[y0:y1, x0:x1] = fill[y0:y1, x0:x1]
            rows.append(masked)
    columns = 1 + every.shape[1]
    gap = max(1, images.shape[1] // 28)
    figure = new_figure(1.45 * columns, 1.45 * len(images) + 0.3)
    axes = figure.subplots()
    axes.imshow(tile(np.stack(rows) / 255.0, columns, gap=gap), interpolation="nearest")
    names = ["original", *(part.replace("_", " ") for part in parts), *["random"] * random.shape[1]]
    step = images.shape[2] + gap
    axes.set_xticks([gap + step * i + images.shape[2] / 2 for i in range(columns)], names, fontsize=11)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return figure


@styled
def draw_scores(
    names: Sequence[str],
    layers: Sequence[int],
    table: Sequence[tuple[np.ndarray, np.ndarray]],
    draws: np.ndarray,
    reported: Sequence[Sequence[tuple[float, float] | None]],
) -> Figure:
    """Table 1 as a picture: per layer, our draw (mean and std over pairs), 95 % of all draws, the paper's mean and std.

    table: per layer means and stds (P + 1,); draws: (L, draws, P + 1); reported: per layer and name mean, std or None.
    """
    figure = new_figure(4.0 * len(layers) + 0.4, 3.7)
    panels = figure.subplots(1, len(layers), squeeze=False, sharey=True)[0]
    place = np.arange(len(names))
    for i, (axes, layer) in enumerate(zip(panels, layers)):
        low, high = np.percentile(draws[i], [2.5, 97.5], axis=0)
        axes.vlines(place, low, high, color=COLOURS[0], linewidth=9, alpha=0.22, label="ours, 95 % of draws")
        axes.errorbar(
            place, *table[i], fmt="o", color=COLOURS[0], capsize=3, markersize=5, label="ours, the images shown"
        )
        theirs = [(p + 0.22, *value) for p, value in zip(place, reported[i]) if value is not None]
        if theirs:
            x, mean, std = zip(*theirs)
            axes.errorbar(x, mean, std, fmt="s", color=MUTED, capsize=3, markersize=4, label="paper")
        axes.set_xticks(place, [name.replace("_", "\n") for name in names])
        axes.set_title(f"layer {layer}")
        axes.set_ylim(0, None)
        axes.grid(axis="x", visible=False)
    panels[0].set_ylabel("normalised Hamming distance")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return figure
