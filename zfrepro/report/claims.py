"""A run's claims: read, judged, and as rows of the page and entries of `claims.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zfrepro.errors import UserError
from zfrepro.files import read_json
from zfrepro.papers import PAPERS, Item, Paper, paper_of
from zfrepro.papers.verdicts import NOT_MEASURED, VERDICTS, Finding, Half, judge_all
from zfrepro.statistics import Estimate, to_data


@dataclass(frozen=True)
class Judged:
    """A paper with the verdicts on its claims by one run."""

    paper: Paper
    findings: list[Finding]
    own: bool  # the paper that the run's network comes from
    present: bool  # the run has something of it

    @property
    def tally(self) -> list[tuple[str, int]]:
        """How many claims have each verdict."""
        return tally(self.findings)


def tally(findings: Sequence[Finding]) -> list[tuple[str, int]]:
    """How many claims have each verdict."""
    return [(verdict, sum(finding.verdict == verdict for finding in findings)) for verdict in VERDICTS]


def judged(folder: Path, model: str) -> list[Judged]:
    """The papers on a run's page: its network's own first, and every other of which it has something. model: its name."""
    own = paper_of(model)
    found = []
    for paper in sorted(PAPERS, key=lambda paper: paper is not own):
        metrics, present = read_metrics(folder, paper)
        if paper is own or present:
            found.append(Judged(paper, judge_all(paper, metrics), paper is own, present))
    return found


def read_metrics(folder: Path, paper: Paper) -> tuple[dict[str, dict[str, Any] | None], bool]:
    """The metrics of every figure and table, None where it was not made or cannot be read; and whether any was made."""
    found: dict[str, dict[str, Any] | None] = {}
    present = False
    for item in paper.items:
        path = folder / item.folder / "metrics.json"
        if not item.folder or not path.exists():
            continue
        present = True
        try:
            found[item.id] = read_json(path)
        except UserError as error:
            print(error)
            found[item.id] = {}
    return found, present


def item_of(finding: Finding, paper: Paper) -> Item:
    """The figure or table that decides a claim."""
    return next(item for item in paper.items if item.id == finding.claim.item)


def command_of(finding: Finding, paper: Paper, run: str) -> str:
    """What measures a claim."""
    item = item_of(finding, paper)
    return f"zfrepro {item.command} run={run}{item.options}{finding.claim.options.format(run=run)}"


def claim_row(finding: Finding, paper: Paper, run: str) -> dict[str, Any]:
    """A row of the page's first table."""
    claim, item = finding.claim, item_of(finding, paper)
    missing = finding.verdict == NOT_MEASURED
    return {
        "id": claim.id,
        "item": item.id,
        "place": item.title,
        "sentence": claim.sentence,
        "statistic": claim.statistic,
        "threshold": claim.threshold,
        "reason": claim.reason,
        "verdict": finding.verdict,
        "halves": [] if missing else [_half(half) for half in finding.halves],
        "remark": finding.remark,
        "why": (finding.why or "not measured yet") if missing else "",
        "command": command_of(finding, paper, run) if missing else "",
    }


def _half(half: Half) -> dict[str, str]:
    """A part of a claim on the page."""
    return {
        "says": half.part.says + (f" ({half.where})" if half.where else ""),
        "threshold": half.part.threshold,
        "measured": half.measured,
        "verdict": half.verdict,
    }


def claim_data(finding: Finding, paper: Paper, run: str) -> dict[str, Any]:
    """An entry of claims.json."""
    row = claim_row(finding, paper, run)
    return {
        "id": row["id"],
        "paper": paper.id,
        "item": row["item"],
        "claim": row["sentence"],
        "statistic": row["statistic"],
        "threshold": row["threshold"],
        "reason": row["reason"],
        "verdict": row["verdict"],
        "measured": finding.measured if row["halves"] else f"{row['why']}: run {row['command']}",
        "remark": row["remark"],
        "parts": [_part_data(half) for half in finding.halves],
    }


def _part_data(half: Half) -> dict[str, Any]:
    """A part of an entry: its estimate, its bound and its verdict."""
    data = {
        "estimate": half.part.estimate,
        "says": half.part.says,
        "relation": half.part.relation,
        "bound": half.part.bound,
        "verdict": half.verdict,
    }
    if half.where:
        data["where"] = half.where
    return data | (to_data(half.measure) if isinstance(half.measure, Estimate) else {"why": half.measure.why})
