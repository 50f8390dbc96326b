"""The files of a training, `outputs/<run>/train/`; only the process that leads writes them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from zfrepro.checkpoints import save_checkpoint
from zfrepro.data import placed
from zfrepro.errors import UserError, words_of
from zfrepro.figures.training import draw_curves, draw_filters
from zfrepro.files import atomic_write, read_lines, shown, write_text
from zfrepro.options.commands import TrainConfig
from zfrepro.options.identity import differing, flatten, write_config
from zfrepro.run import load_config

WRITTEN_LAST = ("metrics.jsonl", "curves.png", "filters.png")


class Folder:
    """`train/` of the run that a config names."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.path = config.folder / "train"
        self.checkpoints = self.path / "checkpoints"
        self.last = self.checkpoints / "last.pt"

    def prepare(self, config: TrainConfig) -> None:
        """Make the folder, unless there is a training to go on with. A start that never came to a checkpoint binds nobody."""
        if not config.resume and self.path.exists():
            shutil.rmtree(self.path)
        for leftover in self.path.rglob(".*.tmp"):  # of a process that was killed: the lock is ours
            leftover.unlink(missing_ok=True)
        if not self.begun:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            write_config(self.path / "config.yaml", dataclasses.replace(config, data=placed(config.data)))

    def require_same(self, config: TrainConfig) -> None:
        """Refuse to go on with what was begun with other options."""
        saved = load_config(self.config.folder)
        new, old, changed = flatten(config), flatten(saved), differing(config, saved)
        if changed == ["init_hash"]:
            raise UserError(
                f"init_from={config.init_from} has other weights than when run={config.run} was begun; give run=<another "
                "name>, or resume=false to start it over"
            )
        if changed:
            shown_keys = ", ".join(_change(key, new.get(key), old.get(key)) for key in changed[:6])
            more = f" and {len(changed) - 6} more" if len(changed) > 6 else ""
            raise UserError(
                f"run={config.run}: was begun with another config: {shown_keys}{more}; give run=<another name>, the old "
                "options, or resume=false to start it over"
            )

    def forget(self) -> None:
        """Remove the traces of a start that came to no checkpoint: refused, or stopped before."""
        if not self.begun and not any(self.checkpoints.glob("*.pt")):
            shutil.rmtree(self.path, ignore_errors=True)

    @property
    def begun(self) -> bool:
        """Whether there is a training to go on with."""
        return (self.path / "config.yaml").exists() and self.last.exists()

    @property
    def ended(self) -> bool:
        """Whether the training has come to its last epoch."""
        lines = read_lines(self.path / "metrics.jsonl")
        return len(lines) >= self.config.epochs or bool(lines and lines[-1] and lines[-1].get("ended"))

    def noted(self, key: str) -> float:
        """A number of the last epoch's metrics. Raises UserError where they cannot be read."""
        lines = read_lines(self.path / "metrics.jsonl")
        value = (lines[-1] or {}).get(key) if lines else None
        if isinstance(value, int | float):
            return float(value)
        where = shown(self.path)
        raise UserError(
            f"{where}/metrics.jsonl: its last line cannot be read ({key}); delete {where} and give the command again"
        )

    @property
    def whole(self) -> bool:
        """Whether a finished training's metrics and pictures are there."""
        return all((self.path / name).exists() for name in WRITTEN_LAST)

    def epoch(self, epoch: int, weights: dict[str, Any], best: bool) -> None:
        """A finished epoch's weights where they are the best or a snapshot."""
        if best:
            save_checkpoint(self.checkpoints / "best.pt", weights)
        if epoch in self.config.snapshot_epochs:
            save_checkpoint(self.checkpoints / f"epoch_{epoch}.pt", weights)

    def note(self, metrics: list[dict[str, Any]]) -> None:
        """The lines of metrics of the finished epochs, whose checkpoints are all there."""
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in metrics))
        _tensorboard(self.path / "tensorboard", metrics[-1])

    def pictures(self, metrics: list[dict[str, Any]], filters: np.ndarray) -> None:
        """The training's curves, and its first layer's filters (N, 3, k, k)."""
        drawn = {"curves.png": draw_curves(metrics, self.config.model.name), "filters.png": draw_filters(filters)}
        for name, figure in drawn.items():
            with atomic_write(self.path / name) as file:
                figure.savefig(file, dpi=150)

    def written(self, epochs: int) -> str:
        """The line that says what is there after so many epochs."""
        names = "config.yaml, metrics.jsonl, curves.png, filters.png, checkpoints/{best,last}.pt"
        kept = [epoch for epoch in self.config.snapshot_epochs if epoch <= epochs]
        return f"wrote {shown(self.path)}{os.sep}: {names}" + (f", snapshots of epochs {kept}" if kept else "")


def _change(key: str, new: object, old: object) -> str:
    """What became of an option; a table of layers would fill the screen."""
    text = f"{key}={new} (was {old})"
    return text if len(text) <= 80 else f"{key} (another)"


def _tensorboard(folder: Path, line: dict[str, Any]) -> None:
    """Add an epoch's numbers as TensorBoard events, where tensorboard is installed."""
    if (writer_of := _summary_writer()) is None:
        return
    with writer_of(str(folder), purge_step=line["epoch"]) as writer:
        for key, value in line.items():
            if isinstance(value, float):
                writer.add_scalar(key, value, line["epoch"])


@cache
def _summary_writer() -> Any:
    """TensorBoard's class; None where it is not installed, or is broken, as it is by a protobuf of another version."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    except Exception as error:
        broken = f"tensorboard is broken here and gets no events ({words_of(error)})"
        print(f"note: {broken}; `pip install -U tensorboard`", file=sys.stderr)
        return None
    return SummaryWriter
