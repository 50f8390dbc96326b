"""The paper: its figures and tables, and the numbers that it reports.

*Visualizing and Understanding Convolutional Networks*, M. Zeiler and R. Fergus, ECCV 2014; numbered as in arXiv
1311.2901 v3. Reported numbers are percent unless a column says otherwise; an empty cell (None) was not reported.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Item:
    """A figure or table: the command that makes it and the sub-folder of the run that it is written to."""

    id: str
    title: str
    command: str
    folder: str
    caption: str


ITEMS = (
    Item("fig2", "Figure 2", "visualize", "fig2_features", "Features of layers 1-5, projected to pixels, and the image patches that they come from"),
    Item("fig4", "Figure 4", "evolve", "fig4_evolution", "Evolution of features through training"),
    Item("fig5", "Figure 5", "invariance", "fig5_invariance", "Invariance to vertical translation, scale and rotation"),
    Item("fig6", "Figure 6", "filters", "fig6_filters", "First-layer filters with and without renormalisation, and second-layer projections, of AlexNet and ZFNet"),
    Item("fig7", "Figure 7", "occlude", "fig7_occlusion", "Sensitivity to occlusion"),
    Item("table1", "Table 1, Figure 8", "correspond", "table1_correspondence", "Correspondence of object parts"),
    Item("table2", "Table 2", "evaluate", "table2_imagenet", "Classification errors"),
    Item("table3", "Table 3", "ablate", "table3_ablation", "Errors after removing or resizing layers"),
    Item("table4", "Table 4", "transfer", "table4_caltech101", "Caltech-101 accuracy"),
    Item("table5", "Table 5", "transfer", "table5_caltech256", "Caltech-256 accuracy"),
    Item("table6", "Table 6", "transfer", "table6_pascal2012", "PASCAL VOC 2012 average precision"),
    Item("fig9", "Figure 9", "transfer", "fig9_few_shot", "Caltech-256 accuracy against the number of training images per class"),
    Item("table7", "Table 7", "probe", "table7_layers", "Discriminative power of the features of each layer"),
)  # fmt: skip


def reported(name: str) -> list[dict[str, str | float | None]]:
    """The rows of `reference/<name>.csv`, numbers as floats, empty cells as None."""
    with (Path(__file__).parent / "reference" / f"{name}.csv").open(newline="") as file:
        return [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _number(text: str) -> str | float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return text
