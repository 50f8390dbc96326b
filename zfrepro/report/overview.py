"""Pages above the runs: claims down the side and runs across, and the list of all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from zfrepro.errors import UserError
from zfrepro.files import read_json, write_json, write_text
from zfrepro.papers import PAPERS, Paper
from zfrepro.papers.verdicts import NOT_MEASURED, VERDICTS, Finding, judge_all
from zfrepro.report import page
from zfrepro.report.claims import Judged, claim_data, item_of, tally, why_not
from zfrepro.report.network import Run
from zfrepro.run import load_config, runs_in

SIGNS = dict(zip(VERDICTS, "✓✕?–"))


def write_overview(outputs: Path, runs: Sequence[tuple[Run, Sequence[Judged]]], origin: Mapping[str, Any]) -> None:
    """`report/index.html`, `report/claims.md` and `report/claims.json` beside the runs."""
    papers = [paper for paper in PAPERS if any(one.paper is paper for _, judged in runs for one in judged)]
    html = page.render(
        "overview.html.j2",
        runs=[
            {"name": run.name, "model": run.model, "data": run.data, "link": link(run.name), "tally": tally(judged)}
            for run, judged in runs
        ],
        papers=[{"paper": paper, "rows": rows(paper, runs)} for paper in papers],
        signs=SIGNS,
    )
    write_text(outputs / "report" / "index.html", html)
    write_text(outputs / "report" / "claims.md", "\n".join(markdown(papers, runs)))
    claims = [
        {**{key: entry[key] for key in ("id", "paper", "item", "claim", "threshold")}, "runs": {}}
        for entry in entries(runs[0][0], [Judged(paper, judge_all(paper, {})) for paper in papers])
    ]
    for run, judged in runs:
        found = {entry["id"]: entry for entry in entries(run, judged)}
        for claim in claims:
            if entry := found.get(claim["id"]):
                claim["runs"][run.name] = {key: entry[key] for key in ("verdict", "measured", "remark")}
    tallies = {run.name: dict(tally(judged)) for run, judged in runs}
    write_json(outputs / "report" / "claims.json", {"claims": claims, "tally": tallies, "provenance": origin})


def entries(run: Run, judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """A run's claims as `claims.json` has them."""
    return [claim_data(finding, one.paper, run) for one in judged for finding in one.findings]


def link(run: str, anchor: str = "", root: str = "../") -> str:
    """From a page in outputs/report/ to a run's own."""
    return f"{root}{quote(run)}/report/index.html" + (f"#{anchor}" if anchor else "")


def markdown(papers: Sequence[Paper], runs: Sequence[tuple[Run, Sequence[Judged]]]) -> list[str]:
    """The same table in lines of Markdown; where a run says nothing of a claim, the cell is empty."""
    head = ["claim", "of", *(f"{run.name}: {run.model} on {run.data}" if run.model else run.name for run, _ in runs)]
    lines = [head, ["---"] * len(head)]
    for paper in papers:
        for row in rows(paper, runs):
            verdicts = ["" if one is None or one["verdict"] == NOT_MEASURED else one["verdict"] for one in row["cells"]]
            lines.append([row["sentence"], f"{paper.id}, {row['place']}", *verdicts])
    return [*(f"| {' | '.join(cells)} |" for cells in lines), ""]


def rows(paper: Paper, runs: Sequence[tuple[Run, Sequence[Judged]]]) -> list[dict[str, Any]]:
    """A row for each claim of a paper: a cell for each run, None where a run has nothing of the paper."""
    findings = [next((one.findings for one in judged if one.paper is paper), None) for _, judged in runs]
    made = []
    for number, claim in enumerate(paper.claims):
        cells = [None if found is None else cell(run, paper, found[number]) for (run, _), found in zip(runs, findings)]
        made.append({"sentence": claim.sentence, "place": item_of(claim, paper).title, "cells": cells})
    return made


def cell(run: Run, paper: Paper, finding: Finding) -> dict[str, str]:
    """A verdict, its number to be shown on hover, and the page behind it."""
    said = why_not(finding, paper, run)[0] if finding.verdict == NOT_MEASURED else finding.measured
    title = f"{run.name}, {finding.verdict}: {said}" + (f". {finding.remark}" if finding.remark else "")
    return {"verdict": finding.verdict, "title": title, "link": link(run.name, f"claim-{finding.claim.id}")}


# -------------------------------------------------------------------------------------------------------- list of runs


def write_index(outputs: Path) -> None:
    """`index.html` beside the runs: all of them, with their pages."""
    names = sorted({*runs_in(outputs), *(path.parent.parent.name for path in outputs.glob("*/report/claims.json"))})
    html = page.render(
        "index.html.j2",
        runs=[entry(outputs, name) for name in names],
        claims=(outputs / "report" / "index.html").exists(),
    )
    write_text(outputs / "index.html", html)


def entry(outputs: Path, name: str) -> dict[str, Any]:
    """What the list says of a run: as its page has it, or from its config where it has no page yet."""
    there = outputs / name / "report"
    found: dict[str, Any] = {"name": name, "link": "", "sentence": "", "tally": []}
    try:
        stored = read_json(there / "claims.json") if (there / "claims.json").exists() else {}
    except UserError:
        stored = {}
    about, counts = stored.get("run"), stored.get("tally")
    if (there / "index.html").exists():
        found["link"] = link(name, root="")
    if isinstance(about, Mapping) and isinstance(counts, Mapping):
        found["sentence"] = str(about.get("sentence", ""))
        found["tally"] = [(verdict, counts[verdict]) for verdict in VERDICTS if counts.get(verdict)]
    if not found["sentence"]:
        try:
            config = load_config(outputs / name, name)
            found["sentence"] = f"{config.model.name} on {config.data.name.replace('_', ' ')}."
        except UserError as error:
            found["sentence"] = str(error)
    return found
