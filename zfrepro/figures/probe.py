"""Table 7 as a plot of accuracy against depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from zfrepro.figures.style import curve, new_figure, styled


@styled
def draw_depth(curves: Mapping[str, tuple[Sequence[int], Sequence[float], Sequence[float]]], title: str) -> Figure:
    """Label -> layers, accuracies and standard deviations in percent; labels that begin with "the paper's" dashed."""
    figure = new_figure(8.5, 4)
    axes = figure.subplots()
    for index, (label, (layers, means, spread)) in enumerate(curves.items()):
        theirs = label.startswith("the paper's")
        curve(axes, index, layers, means, spread, label, theirs, "s" if "softmax" in label else "o")
    layers = sorted({layer for own, _, _ in curves.values() for layer in own})
    axes.set(title=title, xlabel="layer", ylabel="accuracy (%)", ylim=(0, 100), xticks=layers)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
