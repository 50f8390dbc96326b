"""Pictures of filters and second-layer features (paper, Fig. 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullFormatter

from zfrepro.figures.features import contrast
from zfrepro.figures.style import COLOURS, new_figure, styled, symmetric, tile


@styled
def draw_figure(arrays: Mapping[str, np.ndarray], titles: Mapping[str, str]) -> Figure:
    """(a) without renormalisation, (b) the sibling, (c) the run; (d, e) second layers projected; arrays as in
    visualizer/filters. Panels whose network is not there are left out."""
    first = [name for name in ("without", "with", "sibling", "own") if f"filters_{name}" in arrays]
    second = [name for name in ("sibling", "own") if f"projections_{name}" in arrays]
    columns = max(len(first), 2)
    figure = new_figure(3.2 * columns, 8.6 if second else 3.6)
    parts = figure.subfigures(2 if second else 1, 1, squeeze=False, height_ratios=[3.6, 5] if second else [1])[:, 0]
    upper, lower = parts[0], parts[1] if second else None
    letters = {"without": "(a)", "with": "(a')", "sibling": "(b)", "own": "(c)"}
    for axes, name in zip(upper.subplots(1, columns, squeeze=False).flat, first):
        filters = arrays[f"filters_{name}"].transpose(0, 2, 3, 1)
        draw_mosaic(axes, filters, f"{letters[name]} {titles[name]}, layer 1", True)
    if lower is not None:
        letters = {"sibling": "(d)", "own": "(e)"}
        for axes, name in zip(lower.subplots(1, 2, squeeze=False).flat, second):
            draw_mosaic(
                axes, arrays[f"projections_{name}"], f"{letters[name]} {titles[name]}, layer 2 projected", False
            )
    for axes in [*upper.axes, *(lower.axes if lower is not None else [])]:
        axes.axis("off")
    return figure


def draw_mosaic(axes: Axes, images: np.ndarray, title: str, together: bool) -> None:
    """Signed images (N, h, w, 3) about mid-grey: `together` with the strongest one's scale, else each with its own."""
    shown = symmetric(images) if together else np.stack([symmetric(image, contrast(image)) for image in images])
    mosaic = tile(shown, int(np.ceil(np.sqrt(len(images)))), max(1, images.shape[1] // 20))
    axes.imshow(mosaic, interpolation="nearest" if images.shape[1] < 100 else "antialiased")
    axes.set_title(title, fontsize=8.5, loc="left")


@styled
def draw_spectra(
    arrays: Mapping[str, np.ndarray],
    metrics: Mapping[str, Any],
    titles: Mapping[str, str],
    strides: Mapping[str, int],
    bands: tuple[float, float],
) -> Figure:
    """The claims measured: filters' RMS, their power by band, and the second layer's spectrum with the strides' grids."""
    figure = new_figure(12, 3.3)
    strength, spectrum, second = figure.subplots(1, 3)
    names = [name for name in ("without", "with", "sibling", "own") if name in metrics]
    colours = dict(zip(names, COLOURS, strict=False))
    for name in names:
        rms = np.sort(np.sqrt((arrays[f"filters_{name}"] ** 2).mean((1, 2, 3))))[::-1]
        strength.plot(np.linspace(0, 100, len(rms)), rms / np.median(rms), color=colours[name], label=titles[name])
    strength.set(title="RMS of the first layer's filters", ylabel="RMS / median", ylim=(0, None))
    strength.set_xlabel("filters, strongest first (%)")
    strength.legend(fontsize=7)
    kinds = ("low", "middle", "high")
    for number, name in enumerate(shown := [name for name in ("sibling", "own") if name in metrics]):
        heights, errors = ([metrics[name][f"{kind}{end}"] for kind in kinds] for end in ("", "_error"))
        places = np.arange(3) + 0.4 * number - 0.2 * (len(shown) - 1)
        spectrum.bar(places, heights, 0.36, yerr=errors, color=colours[name], label=titles[name])
    spectrum.set_xticks(range(3), [f"low\n< {bands[0]:.2f}", "middle", f"high\n≥ {bands[1]:.2f}"])
    spectrum.set(title="power of a first-layer filter by band", ylabel="% (bands in cycles per pixel)")
    spectrum.legend(fontsize=7)
    for name in shown:
        if f"power_{name}" in arrays:
            second.semilogy(
                arrays[f"frequencies_{name}"], arrays[f"power_{name}"], color=colours[name], label=titles[name]
            )
            second.axvline(1 / strides[name], color=colours[name], linestyle=":", linewidth=1)
    # matplotlib's own writes formulas, which our texts are not read as
    second.yaxis.set_major_formatter(LogFormatter())
    second.yaxis.set_minor_formatter(NullFormatter())
    second.set(title="second layer projected: spectrum", xlabel="cycles per pixel (dotted: 1 / first stride)")
    second.legend(fontsize=7)
    return figure
