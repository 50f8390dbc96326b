"""A run's network and its training, as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zfrepro.checkpoints import checkpoint_of, load_checkpoint
from zfrepro.files import read_lines
from zfrepro.models import summary
from zfrepro.options.commands import IMPORTED, TrainConfig
from zfrepro.report.page import attempt, duration
from zfrepro.report.pieces import Picture, Table, make_table, picture
from zfrepro.run import load_config
from zfrepro.statistics import has_top5

ERRORS = ("val_top1_error", "val_top5_error")  # in metrics.jsonl, of a network of classes
BOXES = ("val_localisation_error",)


@dataclass
class Run:
    """The network on the page."""

    name: str
    command: str
    model: str = ""
    imported: bool = False
    data: str = ""  # on what, in a few words
    classes: int = 0  # that it tells apart; 0: none, or not known
    sentence: str = ""
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)  # files that cannot be read


def describe(folder: Path, name: str) -> Run:
    """The network and its training; without `facts` where it is not trained, or its files cannot be read."""
    run = Run(name, f"zfrepro train run={name}")
    train, checkpoint = folder / "train", checkpoint_of(folder)
    if not checkpoint.exists():
        return run
    config = attempt(run.damaged, train / "config.yaml", lambda _: load_config(folder, name))
    if config is None:
        return run
    run.model, run.imported = config.model.name, config.preset == IMPORTED
    how = "import" if run.imported else "train"
    of = f"model={config.model.name}" if run.imported else f"preset={config.preset}"
    run.command = f"zfrepro {how} {of} run={name}"
    run.data = f"the {config.data.name.replace('_', ' ')} data set at {config.data.size} px"
    attempt(run.damaged, checkpoint, lambda path: _describe_weights(run, config, load_checkpoint(path)))
    _describe_training(run, train)
    return run


def _describe_weights(run: Run, config: TrainConfig, state: dict[str, Any]) -> None:
    count = sum(tensor.numel() for tensor in state["model"].values())
    run.classes = len(state["class_names"])
    classes = f"{run.classes} classes of {run.data}"  # which are those of its data set unless it was trained elsewhere
    if run.imported:
        own = f"{run.classes:,} classes" if run.classes else "no classifier"
        classes = f"{own}, trained elsewhere, looked at on {run.data}"
    layers = summary.describe(summary.on_paper(config.model, run.classes))
    run.tables = [make_table("The layers", summary.COLUMNS, layers, "")]
    run.sentence = f"{config.model.name}, {count / 1e6:.1f} million weights, {classes}."
    how = "trained elsewhere, imported" if run.imported else recipe(config)
    run.facts = [("Model", config.model.name), ("Weights", f"{count:,}"), ("Data", classes), ("Recipe", how)]


def _describe_training(run: Run, train: Path) -> None:
    epochs = read_epochs(run.damaged, train / "metrics.jsonl")
    if epochs and run.facts:
        run.sentence += f" {best_errors(epochs, run.classes)}"
        run.facts += [("Epochs", f"{epochs[-1]['epoch']:.0f}"), ("Took", duration(epochs[-1]["seconds"]))]
    for name, text in (("curves.png", "Training curves"), ("filters.png", "First-layer filters")):
        if (path := train / name).exists():
            alt = f"{text} of the run {run.name}"
            if found := attempt(run.damaged, path, lambda path, alt=alt: picture(path, alt)):  # type: ignore[misc]
                run.pictures.append(found)


def best_errors(epochs: Sequence[dict[str, Any]], classes: int = 0) -> str:
    """The best epoch's validation errors in a sentence. classes: see `Run`."""
    key = (BOXES if BOXES[0] in epochs[-1] else ERRORS)[0]
    best = min((line for line in epochs if key in line), key=lambda line: line[key])
    if key == BOXES[0]:
        return f"Localisation error {best[key]:.1f} %, the true class given."
    top5 = f", {best['val_top5_error']:.1f} % top-5" if not classes or has_top5(classes) else ""
    return f"Validation error {best[key]:.1f} % top-1{top5}."


def read_epochs(damaged: list[str], path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that are whole, those of networks of classes or of boxes."""
    found, lines = [], attempt(damaged, path, read_lines) or []
    for epoch in lines:
        try:
            keys = {"epoch", "seconds", *(BOXES if epoch and BOXES[0] in epoch else ERRORS)}
            found.append({**(epoch or {}), **{key: float((epoch or {})[key]) for key in keys}})
        except (ValueError, KeyError, TypeError):
            continue
    if broken := len(lines) - len(found):
        damaged.append(f"{path.name} ({broken} of its lines cannot be read)")
    return found


def recipe(config: TrainConfig) -> str:
    kept = "" if config.renorm_radius is None else f", filters kept within an RMS of {config.renorm_radius:g}"
    rate = f"learning rate {config.lr:g} ({config.schedule})"
    return f"{config.epochs} epochs, batches of {config.batch_size}, {rate}{kept}"
