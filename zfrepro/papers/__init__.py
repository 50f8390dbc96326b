"""The papers that are reproduced. Each is a folder: items, claims with what decides them, reported numbers (reference/*.csv).

To add a paper, add its folder and its line in PAPERS. Reported numbers are percent unless a column says otherwise; an empty
cell (None) was not reported.
"""

from __future__ import annotations

import csv
from pathlib import Path

from zfrepro.papers import vgg, zfnet
from zfrepro.papers.paper import Item, Paper

PAPERS: tuple[Paper, ...] = (zfnet.PAPER, vgg.PAPER)


def find_item(id: str) -> Item:
    """A figure or table of any paper."""
    return next(item for paper in PAPERS for item in paper.items if item.id == id)


def items_in(folder: str) -> list[Item]:
    """The items that are written to a sub-folder of a run."""
    return [item for paper in PAPERS for item in paper.items if item.folder == folder]


def estimates_in(folder: str) -> set[str]:
    """The names of the estimates on which the claims about a sub-folder of a run rest."""
    known = {item.id for item in items_in(folder)}
    claims = [claim for paper in PAPERS for claim in paper.claims if claim.item in known]
    return {part.estimate for claim in claims for part in claim.parts}


def paper_of(model: str) -> Paper:
    """The paper that a network comes from: the first one for networks of none."""
    return next((paper for paper in PAPERS if paper.is_about(model)), PAPERS[0])


def reference(paper: Paper) -> Path:
    """The folder of a paper's reported numbers."""
    return Path(__file__).parent / paper.id / "reference"


def reported(name: str) -> list[dict[str, str | float | None]]:
    """The rows of `reference/<name>.csv` of whichever paper has it, numbers as floats, empty cells as None."""
    path = next(path for paper in PAPERS if (path := reference(paper) / f"{name}.csv").exists())
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _number(text: str) -> str | float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return text
