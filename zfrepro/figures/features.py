"""Pictures of features: projections beside the patches that they come from (paper, Figs. 2, 4 and 6)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from zfrepro.figures.style import new_figure, styled, symmetric, tile

# of a map's magnitudes: what is larger is clipped, so that one bright pixel does not grey out the rest
QUANTILE = 0.997


def contrast(projections: np.ndarray) -> float:
    """The magnitude that becomes black or white, one for a map: its projections (n, h, w, 3) share the scale."""
    magnitudes = np.abs(projections[projections != 0])
    return float(np.quantile(magnitudes, QUANTILE)) if magnitudes.size else 1.0


def block(images: np.ndarray, gap: int) -> np.ndarray:
    """(n, h, w, 3) in [0, 1] -> a square mosaic."""
    return tile(images, int(np.ceil(np.sqrt(len(images)))), gap)


@styled
def draw_features(arrays: Mapping[str, np.ndarray], title: str) -> Figure:
    """Per map its block of projections beside its block of patches (paper, Fig. 2); arrays as in visualizer/features."""
    maps, activations, projections, patches = (
        arrays[name] for name in ("maps", "activations", "projections", "patches")
    )
    side = projections.shape[2]
    gap = max(1, round(side / 50))
    columns = 1 if len(maps) == 1 else 2 if len(maps) <= 4 else 4
    rows = -(-len(maps) // columns)
    figure = new_figure(3.35 * columns, 1.85 * rows + 0.3)
    figure.suptitle(title, fontsize=9)
    for axes in (grid := figure.subplots(rows, columns, squeeze=False)).flat:
        axes.axis("off")
    for axes, number, values, own, seen in zip(grid.flat, maps, activations, projections, patches):
        left = block(symmetric(own, contrast(own)), gap)
        right = block(seen / 255, gap)
        pair = np.concatenate([left, np.ones((left.shape[0], 2 * gap, 3)), right], axis=1)
        axes.imshow(pair, interpolation="nearest" if side < 100 else "antialiased")
        axes.set_title(f"map {number}   {values[0]:.3g} … {values[-1]:.3g}", fontsize=6.5, loc="left", pad=1.5)
    return figure
