"""Classification errors beside the paper's."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from matplotlib.figure import Figure

from zfrepro.figures.style import COLOURS, label, new_figure, rows, styled

# row -> top-1 and top-5 in percent, None: not reported
Errors = Mapping[str, tuple[float | str | None, float | str | None]]


@styled
def draw_errors(ours: Errors, theirs: Errors, title: str) -> Figure:
    """A bar a row, the paper's paler above ours: top-1 with top-5 in it."""
    shown = [*((name, values, True) for name, values in theirs.items()), *((n, v, False) for n, v in ours.items())]
    shown = [(name, values, paper) for name, values, paper in shown if values[0] is not None]
    figure = new_figure(8, 0.36 * len(shown) + 1.1)
    axes = figure.subplots()
    for kind, (word, height) in enumerate((("top-1", 0.72), ("top-5", 0.4))):
        lengths = [float(values[kind] or 0) for _, values, _ in shown]
        for paper, whose in ((True, "the paper's (ImageNet)"), (False, "ours")):
            own = [i for i, row in enumerate(shown) if row[2] == paper]
            axes.barh(
                own, [lengths[i] for i in own], height, color=COLOURS[paper], alpha=(0.45, 1)[kind], label=f"{whose}, {word}",
            )  # fmt: skip
    for i, (_, values, _) in enumerate(shown):
        axes.annotate(
            f"{float(values[0] or 0):.1f}", (float(values[0] or 0), i), (3, 0), textcoords="offset points", va="center"
        )
    axes.set(xlabel="error (%)", title=title, xlim=(0, None))
    rows(axes, [textwrap.fill(label(name, 76), 40) for name, _, _ in shown])
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
