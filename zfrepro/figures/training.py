"""Pictures of a training: its curves and its first-layer filters."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from zfrepro.figures.style import new_figure, styled, symmetric, tile


@styled
def draw_curves(metrics: list[dict[str, Any]], title: str) -> Figure:
    """Loss, errors and, where filters were scaled back, how many per epoch; from the lines of metrics.jsonl."""
    renormalised = any(any(m["filters_renormalized"].values()) for m in metrics)
    figure = new_figure(11 if renormalised else 7.4, 3.2)
    loss, error, *rest = figure.subplots(1, 3 if renormalised else 2)
    epochs = [m["epoch"] for m in metrics]
    marker = "o" if len(epochs) < 3 else None
    loss.plot(epochs, [m["train_loss"] for m in metrics], marker=marker)
    loss.set(title=f"{title}: training loss", xlabel="epoch", ylabel="loss")
    for key in [key for key in metrics[0] if key.endswith("_error")]:
        name = key.removesuffix("_error").replace("_", " ").replace("top", "top-")
        error.plot(epochs, [m[key] for m in metrics], label=name, marker=marker)
    error.set(title="error", xlabel="epoch", ylabel="%", ylim=(0, None))
    error.legend()
    for scaled in rest:
        for layer in metrics[0]["filters_renormalized"]:
            counts = [m["filters_renormalized"][layer] for m in metrics]
            scaled.plot(epochs, counts, label=f"layer {layer}", marker=marker)
        scaled.set(title="filters scaled back to the radius", xlabel="epoch", ylabel="times per epoch")
        scaled.legend()
    return figure


@styled
def draw_filters(filters: np.ndarray) -> Figure:
    """First-layer filters (N, 3, k, k), symmetric about mid-grey with one scale for all (paper, Fig. 6)."""
    count = len(filters)
    columns = 12 if count > 48 else 8
    mosaic = tile(symmetric(filters.transpose(0, 2, 3, 1)), columns)
    figure = new_figure(0.5 * columns, 0.5 * -(-count // columns))
    axes = figure.subplots()
    axes.imshow(mosaic, interpolation="nearest")
    axes.axis("off")
    return figure
