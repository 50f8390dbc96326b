"""The look that all figures share, whatever the user's own matplotlib settings are.

A function that draws is `styled`: it runs under our settings alone and leaves everybody else's as they were.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.font_manager import findfont as find_font
from matplotlib.text import Text

COLOURS = ("#3b6fb6", "#d1603d", "#4a9d6e", "#8a5fb0", "#c9a227", "#5aa9c4", "#b0486c", "#6b6b6b")
INK = "#2b2b2b"
MOST = 40_000  # pixels along a picture's side

# DejaVu comes with matplotlib and has Latin, Greek, Cyrillic, Arabic and Hebrew; the others are used where they are installed.
FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Micro Hei", "Microsoft YaHei", "SimHei",
    "Yu Gothic", "Hiragino Sans", "PingFang SC", "Malgun Gothic", "Apple SD Gothic Neo", "Noto Sans Devanagari",
    "Noto Sans Thai", "Nirmala UI", "Arial Unicode MS", "Unifont",
)  # fmt: skip
MISSING = "\N{WHITE SQUARE}"  # in place of a letter that no font has


def installed_fonts() -> list[str]:
    """Those of FONTS that are there; DejaVu always is."""
    there = {entry.name for entry in fontManager.ttflist}
    return [name for name in FONTS if name in there]


def style() -> dict[Any, Any]:
    """All of matplotlib's settings: its own defaults, and ours over them. Text is text: no sign in it is a command."""
    return dict(matplotlib.rcParamsDefault) | {
        "font.family": installed_fonts(),
        "font.size": 9,
        "text.usetex": False,
        "text.parse_math": False,
        "axes.titlesize": 10,
        "axes.edgecolor": "#8a8a8a",
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.useoffset": False,  # it would stand in the title
        "axes.prop_cycle": cycler(color=COLOURS),
        "grid.color": "#e3e3e3",
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
    }


class Sheet(Figure):
    """A figure outside pyplot, so that none is left open and no window system is asked for; saved as it was drawn."""

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        """As matplotlib's, under our settings; of hundreds of rows more coarsely, since it draws no more than 65,535 pixels."""
        kwargs["dpi"] = min(kwargs.get("dpi", self.dpi), MOST / max(self.get_size_inches()))
        with settings():
            self._replace_missing_letters()
            super().savefig(fname, **kwargs)

    def _replace_missing_letters(self) -> None:
        """In all texts, those at the axes' marks included."""
        for text in self.findobj(Text):
            text.set_text(drawable(text.get_text()))
        for axis in (axis for axes in self.axes for axis in (axes.xaxis, axes.yaxis)):
            texts = [text.get_text() for text in axis.get_ticklabels()]
            if texts != (drawn := [drawable(text) for text in texts]):
                axis.set_ticklabels(drawn)


def settings() -> Any:
    """Our settings, for a block."""
    changed = {key: value for key, value in style().items() if key != "backend"}
    return matplotlib.rc_context(changed)


P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """A drawing function under our settings."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with settings():
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float, layout: Any = "constrained") -> Figure:
    """An empty figure of width x height inches."""
    return Sheet(figsize=(width, height), layout=layout)


def bare(axes: Axes) -> None:
    """A picture without marks, lines and frame around it."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def rows(axes: Axes, names: Sequence[str]) -> None:
    """A row for each name, the first on top."""
    axes.set(yticks=np.arange(len(names)), yticklabels=names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)


def label(name: str, longest: int = 18) -> str:
    """A class's name below a picture: its first synonym, shortened, every letter one that a font here can draw."""
    return shortened(" ".join(name.split(",")[0].split()), longest)


def shortened(text: str, longest: int) -> str:
    """At most so many letters of a text, every one that a font here can draw."""
    text = drawable(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def drawable(text: str) -> str:
    """Text with MISSING for every letter that no font here can draw."""
    text = text.encode("utf-8", "replace").decode()
    return "".join(sign if sign.isspace() or _drawable(sign) else MISSING for sign in text)


@functools.lru_cache(4096)
def _drawable(sign: str) -> bool:
    """Whether some font here has the letter."""
    return any(get_font(find_font(FontProperties(family=name))).get_char_index(ord(sign)) for name in installed_fonts())


def symmetric(values: np.ndarray, limit: float | None = None) -> np.ndarray:
    """Signed values as displayable ones in [0, 1]: 0 becomes mid-grey, +-limit (default: the largest magnitude) the ends."""
    limit = float(np.abs(values).max()) if limit is None else limit
    return np.clip(0.5 + 0.5 * values / max(limit, 1e-12), 0, 1)


def tile(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """(N, h, w, 3) images in [0, 1] -> one mosaic, row by row, `gap` white pixels between and around them."""
    count, h, w, channels = images.shape
    rows = -(-count // columns)
    mosaic = np.ones((rows * (h + gap) + gap, columns * (w + gap) + gap, channels), dtype=np.float32)
    for index, image in enumerate(images):
        y, x = gap + index // columns * (h + gap), gap + index % columns * (w + gap)
        mosaic[y : y + h, x : x + w] = image
    return mosaic
