"""`zfrepro report`: everything that a run has measured, on one page, and the verdicts on the papers' claims as data; and
over several runs, one table of the claims."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zfrepro.errors import UserError, nearest
from zfrepro.files import shown, write_json, write_text
from zfrepro.options.commands import ReportConfig
from zfrepro.papers import PAPERS
from zfrepro.papers.verdicts import NOT_MEASURED
from zfrepro.provenance import provenance
from zfrepro.report import page
from zfrepro.report.claims import Judged, claim_row, judged, picture_of, tally
from zfrepro.report.network import Run, describe
from zfrepro.report.overview import entries, write_index, write_overview
from zfrepro.run import runs_in


def report(config: ReportConfig) -> None:
    """Write a run's `report/index.html` and `report/claims.json`; with `runs`, theirs, and the table of claims over all of
    them beside the runs. Raises UserError where there is no such run."""
    outputs = config.runs_folder
    if config.runs:
        for name in config.runs:
            _require_run(outputs, "runs", name)
        pages = [write_page(dataclasses.replace(config, run=name, runs=[])) for name in config.runs]
        write_overview(outputs, pages, provenance(config, None, 0))
        print(
            f"wrote {shown(outputs / 'report' / 'index.html')}, claims.md and claims.json beside it, and the pages of the runs"
        )
    else:
        _require_run(outputs, "run", config.run)
        _, papers = write_page(config)
        say(papers, config)
    write_index(outputs)


def _require_run(outputs: Path, option: str, name: str) -> None:
    """Raises UserError where there is no such run."""
    folder = outputs / name
    results = {item.folder for paper in PAPERS for item in paper.items} - {""}
    if not any((folder / place).is_dir() for place in ("train", *results)):
        raise UserError(
            f"{option}={name}: no such run in {shown(outputs)}{nearest(name, runs_in(outputs))}; "
            f"train it with `zfrepro train run={name}`"
        )


def write_page(config: ReportConfig) -> tuple[Run, list[Judged]]:
    """A run's page and its claims as data; what they are about."""
    started, folder = time.monotonic(), config.folder
    run = describe(folder, config.run)
    papers = judged(folder, run.model)
    html = page.render(
        "page.html.j2",
        run=run,
        chapters=[chapter(folder, run, one) for one in papers],
        root="../" * (1 + len(Path(config.run).parts)),
    )
    out = folder / "report"
    write_text(out / "index.html", html)
    about = {"name": run.name, "model": run.model, "sentence": run.sentence, "papers": [one.paper.id for one in papers]}
    origin = provenance(config, None, time.monotonic() - started)
    data = {"run": about, "claims": entries(run, papers), "tally": dict(tally(papers)), "provenance": origin}
    write_json(out / "claims.json", data)
    return run, papers


def chapter(folder: Path, run: Run, judged: Judged) -> dict[str, Any]:
    """A paper on the page: its claims, then its figures and tables."""
    measured = sum(finding.verdict != NOT_MEASURED for finding in judged.findings)
    return {
        "paper": judged.paper,
        "tally": tally([judged]),
        "measured": measured,
        "by_chance": max(1, round(0.05 * measured)),
        "picture": picture_of(judged.findings, narrow=False),
        "narrow_picture": picture_of(judged.findings, narrow=True),
        "claims": [claim_row(finding, judged.paper, run) for finding in judged.findings],
        "sections": [
            page.read_section(folder, run.name, judged.paper, item, run.imported) for item in judged.paper.items
        ],
    }


def say(papers: Sequence[Judged], config: ReportConfig) -> None:
    """The verdicts, a line each, and what was written."""
    for finding in (finding for one in papers for finding in one.findings):
        print(f"  {finding.verdict:<13}  {finding.claim.sentence}")
    counts = ", ".join(f"{count} {verdict}" for verdict, count in tally(papers))
    there = config.folder / "report" / "index.html"
    print(f"wrote {shown(there)} ({there.stat().st_size / 1e6:.1f} MB) and claims.json: {counts}")
