"""Figures: the user's matplotlib settings and odd class names do not reach them, and ours do not reach the user's."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from zfrepro import figures
from zfrepro.figures import filters, invariance, occlusion
from zfrepro.figures.correspondence import draw_masks
from zfrepro.figures.style import MISSING, label, new_figure
from zfrepro.figures.training import draw_curves
from zfrepro.figures.transfer import draw_classes

HOSTILE = {"text.usetex": True, "font.size": 40, "savefig.dpi": 7, "axes.facecolor": "red", "savefig.bbox": "tight"}
CODE = """
import sys, numpy as np
from zfrepro.figures.training import draw_curves, draw_filters
draw_filters(np.random.default_rng(0).normal(size=(4, 3, 7, 7))).savefig(sys.argv[1], dpi=50)
"""


def picture(path: Path, names: list[str]) -> np.ndarray:
    draw_classes(names, np.array([30.0, 60.0]), 45.0, None, "Table 6").savefig(path, dpi=60)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_the_users_settings_do_not_reach_our_figures(tmp_path: Path) -> None:
    plain = picture(tmp_path / "a.png", ["cat", "dog"])
    with matplotlib.rc_context(HOSTILE):
        assert np.array_equal(picture(tmp_path / "b.png", ["cat", "dog"]), plain)
        assert matplotlib.rcParams["font.size"] == 40  # and ours have not changed theirs
    with matplotlib.rc_context({"font.size": 11}):
        picture(tmp_path / "c.png", ["cat", "dog"])
        assert matplotlib.rcParams["font.size"] == 11


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "TkAgg", "nonsense"])
def test_any_backend_in_the_environment(tmp_path: Path, backend: str) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: No Such Font\nthis line: is none\n")
    surroundings = {**os.environ, "MPLBACKEND": backend, "MATPLOTLIBRC": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", CODE, str(tmp_path / "a.png")], env=surroundings, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "a.png").stat().st_size > 500


def test_every_drawing_function_is_styled() -> None:
    modules = [
        importlib.import_module(f"zfrepro.figures.{module.name}") for module in pkgutil.iter_modules(figures.__path__)
    ]
    drawing = [
        function
        for module in modules
        for name, function in vars(module).items()
        if name.startswith("draw_") and function.__annotations__.get("return") == "Figure"
    ]
    assert len(drawing) > 10
    assert not [function.__name__ for function in drawing if not hasattr(function, "__wrapped__")]


@pytest.mark.parametrize("name", ["$x^2", "a_b", "50 % \\alpha", "{", "$\\frac{", "100$ bill $"])
def test_class_names_are_text(tmp_path: Path, name: str) -> None:
    assert label(name, 40) == name
    drawn = picture(tmp_path / "a.png", [name, "dog"])
    assert not np.array_equal(drawn, picture(tmp_path / "b.png", ["", "dog"]))


def test_letters_that_no_font_has_are_replaced_in_every_text(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Of parts, runs and networks too, whose names are a user's as well as those of classes."""
    letter = "\U000e0041"  # an invisible one, which no font has
    figure = draw_masks(*_masked(), parts=[f"a{letter}", "b"])
    figure.suptitle(f"run={letter}")
    figure.axes[0].set_ylabel(letter)
    figure.savefig(tmp_path / "a.png")
    assert not recwarn.list and [text.get_text() for text in figure.axes[0].get_xticklabels()][1] == f"a{MISSING}"


def _masked() -> tuple[np.ndarray, ...]:
    """One picture with two parts and two random places."""
    boxes = np.array([[[1, 1, 5, 5], [5, 5, 9, 9]]])
    return np.zeros((1, 16, 16, 3), np.uint8), boxes, boxes, np.full((16, 16, 3), 128, np.uint8)


def test_letters_that_no_font_has_and_names_that_are_not_utf8() -> None:
    assert label("Ärger ежик") == "Ärger ежик"
    assert label("a\U0001f9ff\U000e0041b") == f"a{MISSING}{MISSING}b" or "\U0001f9ff" in label("\U0001f9ff")
    assert label(b"caf\xe9".decode("utf-8", "surrogateescape")) == "caf?"
    assert label("n01440764, tench, a fish with a long name") == "n01440764"
    assert label("abcdefghijklmnopqrstuvwxyz", 10) == "abcdefghi…"


def test_a_picture_of_hundreds_of_rows_is_drawn_more_coarsely(tmp_path: Path) -> None:
    """matplotlib refuses 65,536 pixels, after all that was measured for them."""
    new_figure(0.1, 500, layout=None).savefig(tmp_path / "tall.png", dpi=150)
    new_figure(1, 2).savefig(tmp_path / "usual.png", dpi=150)
    assert Image.open(tmp_path / "tall.png").height == pytest.approx(40_000, abs=1)
    assert Image.open(tmp_path / "usual.png").size == (150, 300)


def test_the_spectrum_s_axis_is_numbers() -> None:
    """No formulas: texts of figures are drawn as they are."""
    kinds = {f"{kind}{end}": 1.0 for kind in ("low", "middle", "high") for end in ("", "_error")}
    arrays = {
        "filters_own": np.ones((2, 3, 4, 4)),
        "frequencies_own": np.array([0.1, 0.2]),
        "power_own": np.array([1e-3, 0.5]),
    }
    figure = filters.draw_spectra(arrays, {"own": kinds}, {"own": "ours"}, {"own": 2}, (0.17, 0.33))
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[2].get_yticklabels()]
    assert any(labels) and all(float(label.replace("−", "-")) > 0 for label in labels if label)


@pytest.mark.parametrize(("counts", "panels"), [([0, 0], 2), ([0, 3], 3)])
def test_filters_scaled_back_are_drawn_where_there_were_any(counts: list[int], panels: int) -> None:
    lines = [
        {"epoch": i, "train_loss": 1.0, "val_top1_error": 50.0, "filters_renormalized": {"1": count, "2": 0}}
        for i, count in enumerate(counts)
    ]
    figure = draw_curves(lines, "a")
    assert len(figure.axes) == panels
    if panels == 3:
        assert [line.get_ydata().tolist() for line in figure.axes[2].lines] == [[0, 3], [0, 0]]  # type: ignore[union-attr]


def test_as_many_layers_as_a_network_has(tmp_path: Path) -> None:
    """`zfrepro invariance layers=[1,...,18]` on VGG: more than there are colours, each layer's curve told from the others'."""
    steps, layers = np.stack([np.linspace(-3, 3, 5)] * 3), list(range(1, 19))
    figure = invariance.draw_claims(steps, np.ones((2, 3, 5, 18)), np.full((2, 3, 5), np.nan), layers)
    looks = [(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()]
    assert len(set(looks)) == 18
    figure.savefig(tmp_path / "claims.png")


def test_rounding_is_not_drawn_as_a_difference() -> None:
    """A map that the square never reaches: 8.5 everywhere, but for the last figures of its sums."""
    black, rounded = np.zeros((1, 32, 32, 3), np.uint8), 8.5 + 1e-7 * np.arange(9.0).reshape(1, 3, 3)
    arrays = {
        "images": black, "fill_pixels": black[0], "square": np.array(8), "ys": np.array([0, 12, 24]), "layer": np.array(5),
        "maps": np.array([0]), "activity": rounded, "probability": np.full((1, 3, 3), np.nan), "projections": black / 1.0,
        "others": np.zeros((1, 0, 32, 32, 3)),
    }  # fmt: skip
    figure = occlusion.draw_occlusion(arrays, ["a"], [])
    figure.canvas.draw()
    shown = figure.axes[1].get_images()[1].to_rgba(rounded[0]).reshape(9, 4)
    assert np.abs(shown - shown[0]).max() < 0.01
    assert not any(axis.get_offset_text().get_text() for axes in figure.axes for axis in (axes.xaxis, axes.yaxis))
