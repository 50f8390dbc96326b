"""The look that all figures share."""

from __future__ import annotations

from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from cycler import cycler
from matplotlib.figure import Figure

COLOURS = ("#3b6fb6", "#d1603d", "#4a9d6e", "#8a5fb0", "#c9a227", "#5aa9c4", "#b0486c", "#6b6b6b")
INK = "#2b2b2b"

matplotlib.rcParams.update(
    {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.edgecolor": "#8a8a8a",
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=COLOURS),
        "grid.color": "#e3e3e3",
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
    }
)


def new_figure(width: float, height: float, **kwargs: Any) -> Figure:
    """An empty figure of width x height inches with a constrained layout; outside pyplot, so that none is left open."""
    return Figure(figsize=(width, height), layout="constrained", **kwargs)


def symmetric(values: np.ndarray, limit: float | None = None) -> np.ndarray:
    """Signed values as displayable ones in [0, 1]: 0 becomes mid-grey, +-limit (default: the largest magnitude) the ends."""
    limit = float(np.abs(values).max()) if limit is None else limit
    return np.clip(0.5 + 0.5 * values / max(limit, 1e-12), 0, 1)


def tile(images: np.ndarray, columns: int, gap: int = 1, fill: float = 1.0) -> np.ndarray:
    """(N, h, w, 3) images in [0, 1] -> one mosaic, row by row, `gap` pixels of `fill` between and around them."""
    count, h, w, channels = images.shape
    rows = -(-count // columns)
    mosaic = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, channels), fill, dtype=np.float32)
    for index, image in enumerate(images):
        y, x = gap + index // columns * (h + gap), gap + index % columns * (w + gap)
        mosaic[y : y + h, x : x + w] = image
    return mosaic
