"""Images that two data sets share, by the normalised correlation of small grey versions (paper, section 5.2)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zfrepro.data import Packed
from zfrepro.data.matching import Classes, match_classes
from zfrepro.data.squares import squared
from zfrepro.errors import UserError
from zfrepro.evaluator.target import Target
from zfrepro.options.commands import IMPORTED, TransferConfig
from zfrepro.run import TrainedRun

SIDE = 16  # pixels of the small grey versions: enough to tell photographs apart, few enough to forgive recompression
CHUNK = 4096  # images at a time that are compared
PIXELS = 1 << 24  # of images that are made small at a time
MOST = 10  # classes that are named


def small_grey(images: np.ndarray) -> Tensor:
    """(N, S, S, 3) uint8 -> (N, 256) float32 of mean 0 and length 1; zeros for an image of one grey."""
    found = torch.empty(len(images), SIDE * SIDE)
    chunk = max(1, PIXELS // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), chunk):
        rows = slice(start, start + chunk)
        grey = torch.from_numpy(np.array(images[rows])).float().mean(3)
        small = F.adaptive_avg_pool2d(grey[:, None], SIDE).flatten(1)
        centred = small - small.mean(1, keepdim=True)
        length = centred.norm(dim=1, keepdim=True)
        found[rows] = torch.where(length > 1e-3 * SIDE, centred / length.clamp(min=1e-6), torch.zeros(()))
    return found


def best_matches(targets: Tensor, sources: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """For every target (N, D) the largest correlation with any source (M, D), in [-1, 1], and that source's row. Both (N,)."""
    best, row = torch.full((len(targets),), -1.0), torch.zeros(len(targets), dtype=torch.int64)
    for start in range(0, len(sources), CHUNK):
        for first in range(0, len(targets), CHUNK):
            rows = slice(first, first + CHUNK)
            value, index = (targets[rows] @ sources[start : start + CHUNK].T).max(1)
            better = value > best[rows]
            best[rows] = torch.where(better, value, best[rows])
            row[rows] = torch.where(better, index + start, row[rows])
    return best.numpy(), row.numpy()


def compare_with_source(config: TransferConfig, run: TrainedRun, target: Target) -> tuple[Target, dict[str, Any]]:
    """The target without the images that the source was trained on, if `drop_overlap`, and what was found.

    Found: 'checked', and then 'threshold', 'images' (how many reach it), 'largest' correlation, 'dropped', and for each of
    the first 100 'pairs' the target's file, the source's file and their correlation.
    """
    if config.overlap is None:
        return target, {"checked": False, "why": "overlap=null"}
    try:
        if why := elsewhere(run, target.data):
            raise UserError(why)
        source = run.squares.train
    except UserError as error:
        print(f"overlap of source and target not checked: {error}")
        return target, {"checked": False, "why": str(error)}
    own = squared(target.data, run.side) if target.data.fit == "whole" else target.data
    pool = np.concatenate([small_grey(own.train.images), small_grey(own.val.images)])
    best, match = best_matches(torch.from_numpy(pool), small_grey(source.images))
    rows = np.flatnonzero(best >= config.overlap)
    pairs = [
        {"target": name, "source": source.files[int(match[row])], "correlation": float(best[row])}
        for name, row in zip(target.files(rows[:100]), rows[:100])
    ]
    found = {
        "checked": True,
        "threshold": config.overlap,
        "images": len(rows),
        "largest": float(best.max()),
        "pairs": pairs,
    }
    if config.drop_overlap:
        target = dataclasses.replace(target, rows=np.setdiff1d(target.rows, rows))
    found["dropped"] = len(rows) if config.drop_overlap else 0
    if len(rows):
        what = "left out" if config.drop_overlap else "kept; drop_overlap=true leaves them out"
        print(
            f"{len(rows)} of {len(best)} target images correlate by {config.overlap} or more with a source image ({what})"
        )
    return target, found


def elsewhere(run: TrainedRun, data: Packed) -> str:
    """Of an imported network, whose training images are not here: which of a target's classes it has learned already; '' for
    one that was trained here."""
    if run.config.preset != IMPORTED:
        return ""
    known = (
        match_classes(Classes(run.class_ids, run.class_names), Classes(data.class_ids, data.class_names)).numbers >= 0
    )
    shared = [name for name, found in zip(data.class_names, known) if found]
    listed = f" ({', '.join(shared[:MOST])}{', ...' * (len(shared) > MOST)})" if shared else ""
    classes = (
        f"{len(shared)} of the {len(known)} classes are its own{listed}"
        if run.class_names
        else "its classes are not known"
    )
    return f"the network was trained elsewhere, on images that may be among these; {classes}"


def remark(found: dict[str, Any]) -> str:
    """What `compare_with_source` found, as a sentence below a table."""
    if not found["checked"]:
        return f"Overlap of source and target not checked: {found['why']}."
    what = "left out" if found["dropped"] else "kept"
    return f"{found['images']} target images correlate by {found['threshold']:g} or more with a source image" + (
        f" ({what})." if found["images"] else "."
    )
