"""A run's claims: read, judged, and as rows of the page and entries of `claims.json`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zfrepro.errors import UserError
from zfrepro.figures.claims import draw_claims
from zfrepro.files import read_json
from zfrepro.papers import PAPERS, paper_of
from zfrepro.papers.paper import Claim, Item, Paper
from zfrepro.papers.verdicts import NOT_MEASURED, UNREADABLE, VERDICTS, Finding, Half, judge_all, short, standardised
from zfrepro.report.network import Run
from zfrepro.report.pieces import Picture, png_picture
from zfrepro.statistics import Estimate, to_data


@dataclass(frozen=True)
class Judged:
    """A paper with the verdicts on its claims by one run."""

    paper: Paper
    findings: list[Finding]


def tally(judged: Sequence[Judged]) -> list[tuple[str, int]]:
    """How many claims of all these papers have each verdict."""
    findings = [finding for one in judged for finding in one.findings]
    return [(verdict, sum(finding.verdict == verdict for finding in findings)) for verdict in VERDICTS]


def judged(folder: Path, model: str) -> list[Judged]:
    """The papers on a run's page: those of which it has something, its network's own first; its own, where it has nothing.
    model: the network's name."""
    own, found = paper_of(model), []
    for paper in sorted(PAPERS, key=lambda paper: paper is not own):
        if metrics := read_metrics(folder, paper):
            found.append(Judged(paper, judge_all(paper, metrics)))
    return found or [Judged(own, judge_all(own, {}))]


def read_metrics(folder: Path, paper: Paper) -> dict[str, dict[str, Any]]:
    """The metrics of every figure and table that was made."""
    found: dict[str, dict[str, Any]] = {}
    for item in paper.items:
        path = folder / item.folder / "metrics.json"
        if not item.folder or not path.exists():
            continue
        try:
            found[item.id] = read_json(path)
        except UserError as error:
            print(error)
            found[item.id] = {"unreadable": True}
    return found


def item_of(claim: Claim, paper: Paper) -> Item:
    """The figure or table that decides a claim."""
    return next(item for item in paper.items if item.id == claim.item)


def why_not(finding: Finding, paper: Paper, run: Run) -> tuple[str, str]:
    """Why a claim is not measured, and the command that measures it; empty where none can, and where it was run and itself says
    what it lacked."""
    claim, item = finding.claim, item_of(finding.claim, paper)
    if item.trains and run.imported and not finding.halves:
        return f"not for this network: {item.trains}", ""
    command = f"zfrepro {item.command} run={run.name}{item.options}{claim.options.format(run=run.name)}"
    lacked = finding.halves and UNREADABLE not in finding.why and not claim.options
    return finding.why or "not measured yet", "" if lacked else command


def claim_row(finding: Finding, paper: Paper, run: Run) -> dict[str, Any]:
    """A row of the page's first table."""
    claim, missing = finding.claim, finding.verdict == NOT_MEASURED
    why, command = why_not(finding, paper, run) if missing else ("", "")
    return {
        "id": claim.id,
        "item": claim.item,
        "place": item_of(claim, paper).title,
        "sentence": claim.sentence,
        "statistic": claim.statistic,
        "threshold": claim.threshold,
        "reason": claim.reason,
        "verdict": finding.verdict,
        "halves": () if missing else finding.halves,
        "remark": finding.remark,
        "why": why,
        "command": command,
    }


def claim_data(finding: Finding, paper: Paper, run: Run) -> dict[str, Any]:
    """An entry of claims.json."""
    row = claim_row(finding, paper, run)
    why = row["why"] + (f": run {row['command']}" if row["command"] else "")
    same = {key: row[key] for key in ("id", "item", "statistic", "threshold", "reason", "verdict", "remark")}
    return same | {
        "paper": paper.id,
        "claim": row["sentence"],
        "measured": finding.measured if row["halves"] else why,
        "parts": [_part_data(half) for half in finding.halves],
    }


def picture_of(findings: Sequence[Finding], narrow: bool) -> Picture | None:
    """The measured claims as intervals against their thresholds; None where none is measured."""
    rows = [
        (finding.claim.id.replace("_", " "), half, ends)
        for finding in findings
        for half in finding.halves
        if finding.verdict != NOT_MEASURED and (ends := standardised(half))
    ]
    if not rows:
        return None
    figure = draw_claims(
        [name for name, _, _ in rows],
        [half.says for _, half, _ in rows],
        np.array([ends for _, _, ends in rows]),
        [half.verdict for _, half, _ in rows],
        [short(half.measure) for _, half, _ in rows if isinstance(half.measure, Estimate)],
        narrow,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=170)
    return png_picture(buffer.getvalue(), "The claims' intervals against their thresholds")


def _part_data(half: Half) -> dict[str, Any]:
    """A part of an entry: its estimate, its bound and its verdict."""
    data = {key: getattr(half.part, key) for key in ("estimate", "says", "relation", "bound")}
    data |= {"verdict": half.verdict, **({"where": half.where} if half.where else {})}
    return data | (to_data(half.measure) if isinstance(half.measure, Estimate) else {"why": half.measure.why})
