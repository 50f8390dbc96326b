"""Does a network know its task? What networks learn cannot be seen in one that is no better than chance."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from zfrepro.errors import UserError
from zfrepro.files import read_lines
from zfrepro.run import TrainedRun
from zfrepro.statistics import below_chance


def knows_its_task(run: TrainedRun, wrong: np.ndarray | None = None) -> dict[str, Any]:
    """For a result's `task`: 'known' (True, False, None where nothing was measured), 'error' in percent, 'chance', 'why'.

    Known: the validation error is clearly below that of always naming the commonest class (95 % interval of a proportion).
    wrong: (N,), True where the network was wrong on a validation image, if that was measured; else the error that training
    noted. An imported network has none, and counts as one that knows its task until it is measured.
    """
    noted = _noted_error(run) if wrong is None else 100 * float(np.mean(wrong))
    if noted is None:
        return {"known": None}
    try:
        labels = run.data.val.labels
    except UserError:  # the data set has gone
        return {"known": None, "error": noted}
    images = len(labels) if wrong is None else len(wrong)
    return verdict(noted, images, chance(labels))


def verdict(error: float, images: int, chance: float) -> dict[str, Any]:
    """What is to be said of an error in percent on so many validation images, where guessing has the error `chance`: nothing
    where all are of one class."""
    known = below_chance(error, images, chance) if chance else None
    found: dict[str, Any] = {"known": known, "error": error, "chance": chance, "images": images}
    if known is False:
        found["why"] = (
            f"the network is at chance: {error:.1f} % error on {images:,} validation images, guessing gives {chance:.1f} %"
        )
    return found


def chance(labels: np.ndarray) -> float:
    """The error in percent of always naming the commonest class. labels: (N,)."""
    return 100 * (1 - float(np.bincount(labels).max()) / len(labels))


def _noted_error(run: TrainedRun) -> float | None:
    """The validation error of the epoch behind the checkpoint, as train/metrics.jsonl has it."""
    for noted in read_lines(run.folder / "train" / "metrics.jsonl"):
        if noted and noted.get("epoch") == run.epoch:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                return float(noted["val_top1_error"])
    return None
