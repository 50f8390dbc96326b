"""Pictures of features through training (paper, Fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from zfrepro.figures.features import contrast
from zfrepro.figures.style import COLOURS, new_figure, styled, symmetric, tile

CELL = 0.65  # inches


@styled
def draw_evolution(arrays: Mapping[str, np.ndarray], layers: Sequence[int], title: str) -> Figure:
    """A block a layer: a row a map, a column a snapshot, a mark where another image became the strongest.

    arrays: as in visualizer/evolution. Contrast is set for every projection by itself: early ones are much weaker.
    """
    epochs, columns = arrays["epochs"], min(3, len(layers))
    rows = -(-len(layers) // columns)
    height = CELL * max(len(arrays[f"maps_{layer}"]) for layer in layers) + 0.4
    figure = new_figure(columns * (CELL * len(epochs) + 0.15), 0.5 + rows * height)
    described = "strongest training image of random maps, projected, by epoch; red: another image than before"
    figure.suptitle(f"{title}: {described}", fontsize=9, wrap=True)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, layer in zip(grid.flat, layers):
        projections, images = arrays[f"projections_{layer}"], arrays[f"images_{layer}"]
        side = projections.shape[2]
        gap = max(1, round(side / 20))
        cells = projections.reshape(-1, *projections.shape[2:])
        shown = np.stack([symmetric(cell, contrast(cell)) for cell in cells])
        axes.imshow(tile(shown, len(epochs), gap), interpolation="nearest" if side < 100 else "antialiased")
        axes.set_title(f"layer {layer}", loc="left", pad=10)
        step = side + gap
        for column, epoch in enumerate(epochs):
            axes.text(gap + column * step + side / 2, -gap / 2, str(epoch), ha="center", va="bottom", fontsize=6.5)
        for row, column in np.argwhere(images[:, 1:] != images[:, :-1]):
            corner = (gap / 2 + (column + 1) * step - 0.5, gap / 2 + row * step - 0.5)
            axes.add_patch(Rectangle(corner, step, step, fill=False, edgecolor="#d1322d", linewidth=0.9))
    return figure


@styled
def draw_alike(arrays: Mapping[str, np.ndarray], layers: Sequence[int], title: str) -> Figure:
    """How alike consecutive snapshots are, a curve a layer: their projections of one image, and their nine strongest."""
    figure = new_figure(9, 3.2)
    epochs = arrays["epochs"]
    panels = {
        "alike": "correlation of projections of the same image\n(dotted: of different maps)",
        "common": "share of the nine strongest images in common",
    }
    for axes, (name, label) in zip(figure.subplots(1, 2), panels.items()):
        for number, layer in enumerate(layers):
            values = arrays[f"{name}_{layer}"]
            error = values.std(0) / np.sqrt(len(values))
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(range(1, len(epochs)), values.mean(0), marker="o", ms=3, color=colour, label=f"layer {layer}")
            band = values.mean(0) - error, values.mean(0) + error
            axes.fill_between(range(1, len(epochs)), *band, color=colour, alpha=0.15)
            if name == "alike":
                floor = arrays[f"floor_{layer}"].mean(0)
                axes.plot(range(1, len(epochs)), floor, color=colour, linestyle=":", linewidth=1)
        axes.set(title=label, xlabel="consecutive snapshots (epochs)", ylim=(min(0, axes.get_ylim()[0]), 1))
        axes.set_xticks(range(1, len(epochs)), [f"{a}→{b}" for a, b in pairwise(epochs)], fontsize=7)
        axes.legend(fontsize=7)
    figure.suptitle(f"{title}: how alike consecutive snapshots are (mean and standard error over maps)", fontsize=10)
    return figure
