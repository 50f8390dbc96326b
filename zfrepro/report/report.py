"""`zfrepro report`: everything that a run has measured, on one page, and the verdicts on the paper's claims as data."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zfrepro import __version__
from zfrepro.checkpoints import load_checkpoint
from zfrepro.errors import UserError, nearest
from zfrepro.files import shown, write_json, write_text
from zfrepro.models import summary
from zfrepro.options.commands import ReportConfig, TrainConfig
from zfrepro.options.shared import ModelConfig
from zfrepro.provenance import provenance
from zfrepro.report import page
from zfrepro.report.claims import Judged, claim_data, claim_row, judged, tally
from zfrepro.run import load_config, runs_in


def report(config: ReportConfig) -> None:
    """Write `report/index.html` and `report/claims.json`. Raises UserError where there is no such run."""
    started, folder = time.monotonic(), config.folder
    if not folder.is_dir():
        outputs = Path(config.outputs).expanduser().resolve()
        runs = runs_in(outputs)
        raise UserError(
            f"run={config.run}: no such run in {shown(outputs)}{nearest(config.run, runs)}; "
            f"train it with `zfrepro train run={config.run}`"
        )
    run = describe(folder, config.run)
    papers = judged(folder, run.model)
    findings = [(judged.paper, finding) for judged in papers for finding in judged.findings]
    html = page.render(
        run=run,
        chapters=[chapter(folder, config.run, judged) for judged in papers],
        written=time.strftime("%d %B %Y, %H:%M"),
        version=__version__,
    )
    out = folder / "report"
    write_text(out / "index.html", html)
    origin = provenance(config, None, time.monotonic() - started)
    counts = dict(tally([finding for _, finding in findings]))
    entries = [claim_data(finding, paper, config.run) for paper, finding in findings]
    write_json(out / "claims.json", {"claims": entries, "tally": counts, "provenance": origin})
    for _, finding in findings:
        print(f"  {finding.verdict:<13}  {finding.claim.sentence}")
    print(
        f"wrote {shown(out / 'index.html')} ({len(html.encode()) / 1e6:.1f} MB) and claims.json: "
        + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    )


def chapter(folder: Path, run: str, judged: Judged) -> dict[str, Any]:
    """A paper on the page: its claims, then its figures and tables."""
    return {
        "paper": judged.paper,
        "tally": judged.tally,
        "claims": [claim_row(finding, judged.paper, run) for finding in judged.findings],
        "sections": page.read_sections(folder, run, judged.paper),
    }


# -------------------------------------------------------------------------------------------------------------- the run


@dataclass
class Run:
    """The network on the page."""

    name: str
    command: str
    model: str = ""
    sentence: str = ""
    pictures: list[page.Picture] = field(default_factory=list)
    tables: list[page.Table] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)


def describe(folder: Path, name: str) -> Run:
    """The network and its training; without `facts` where it is not trained."""
    run = Run(name, f"zfrepro train run={name}")
    checkpoint = folder / "train" / "checkpoints" / "best.pt"
    if not checkpoint.exists():
        return run
    try:
        config, state = load_config(folder), load_checkpoint(checkpoint)
    except UserError as error:
        print(error)
        return run
    run.model = config.model.name
    count = sum(tensor.numel() for tensor in state["model"].values())
    lines = folder / "train" / "metrics.jsonl"
    epochs = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    data = config.data
    classes = f"{len(state['class_names'])} classes of the {data.name.replace('_', ' ')} data set at {data.size} px"
    run.sentence = f"{config.model.name}, {count / 1e6:.1f} million weights, {classes}."
    imported = config.preset == "imported"
    how = "trained elsewhere, imported" if imported else recipe(config)
    run.facts = [("Model", config.model.name), ("Weights", f"{count:,}"), ("Data", classes), ("Recipe", how)]
    if epochs:
        best = min(epochs, key=lambda line: line["val_top1_error"])
        run.sentence += f" Validation error {best['val_top1_error']:.1f} % top-1, {best['val_top5_error']:.1f} % top-5."
        run.facts += [("Epochs", str(epochs[-1]["epoch"])), ("Took", page.duration(epochs[-1]["seconds"]))]
    run.tables = [layer_table(config.model, len(state["class_names"]))]
    run.pictures = [
        page.picture(path, f"{text} of the run {name}")
        for path, text in (
            (folder / "train" / "curves.png", "Training curves"),
            (folder / "train" / "filters.png", "First-layer filters"),
        )
        if path.exists()
    ]
    if imported:
        run.command = f"zfrepro import model={config.model.name} run={name}"
    else:
        run.command = f"zfrepro train preset={config.preset} run={name}"
    return run


def recipe(config: TrainConfig) -> str:
    """The training in a line."""
    radius = "off" if config.renorm_radius is None else f"{config.renorm_radius:g}"
    return (
        f"{config.epochs} epochs, batches of {config.batch_size}, learning rate {config.lr:g} ({config.schedule}), "
        f"filters kept within an RMS of {radius}"
    )


def layer_table(model: ModelConfig, classes: int) -> page.Table:
    """Figure 3 as a table."""
    columns = ["layer", "name", "what", "output", "receptive field / stride", "parameters", "multiply-adds"]
    rows: list[Sequence[str]] = [
        [str(row.number), row.name, row.what, row.output, row.field, f"{row.parameters:,}", f"{row.multiply_adds:,}"]
        for row in summary.describe(summary.on_paper(model, classes))
    ]
    return page.make_table("Figure 3: the layers", columns, rows, "")
