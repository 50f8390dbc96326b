"""The pictures that Figures 5, 7 and 8 are about: chosen from a run's data set, or a user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zfrepro.data import Split, read_image
from zfrepro.data.finer import finer, finest
from zfrepro.errors import UserError, nearest, require_choice
from zfrepro.run import TrainedRun

POOL = 2000  # validation images that are looked at, at most, when images are chosen


@dataclass(frozen=True)
class Pictures:
    """N pictures as packed, with their classes."""

    images: np.ndarray  # (N, S, S, 3) uint8
    labels: np.ndarray  # (N,) int64
    rows: np.ndarray  # (N,) int64: rows of the validation split, -1 for a user's own
    names: list[str]  # file names

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Survey:
    """What the network makes of N validation images, in an order drawn by seed."""

    rows: np.ndarray  # (N,) int64, rows of the validation split
    labels: np.ndarray  # (N,) int64
    predicted: np.ndarray  # (N,) int64, most probable class
    probability: np.ndarray  # (N,) float32, of the true class
    strongest: Tensor  # (N, maps) float32: maximum of each map of the layer
    places: Tensor  # (N, maps) int64: its flat place, row * side + column


@torch.no_grad()
def survey(run: TrainedRun, layer: int, seed: int, batch: int = 128) -> Survey:
    """Up to POOL validation images, drawn by seed: predictions, and the maxima of a convolutional layer's maps."""
    split = run.squares.val
    rows = np.random.default_rng(seed).permutation(len(split))[:POOL]
    predicted, probability, strongest, places = [], [], [], []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        found = run.network.features(run.inputs(split.images[part]), [layer, run.network.top])
        softmax = found[run.network.top].softmax(1).cpu()
        values, where = found[layer].flatten(2).max(2)
        predicted.append(softmax.argmax(1))
        probability.append(softmax.gather(1, torch.from_numpy(split.labels[part])[:, None])[:, 0])
        strongest.append(values.cpu())
        places.append(where.cpu())
    return Survey(
        rows=rows,
        labels=split.labels[rows],
        predicted=torch.cat(predicted).numpy(),
        probability=torch.cat(probability).numpy(),
        strongest=torch.cat(strongest),
        places=torch.cat(places),
    )


def correct(seen: Survey) -> np.ndarray:
    """Numbers (into the survey) of the images whose most probable class is the true one."""
    return np.flatnonzero(seen.predicted == seen.labels)


def of_different_classes(labels: np.ndarray, count: int) -> np.ndarray:
    """Numbers of the first `count` images in the given order, each of another class while classes last."""
    seen: dict[int, int] = {}
    turn = []  # how many images of its class come before it
    for label in labels.tolist():
        turn.append(seen.get(label, 0))
        seen[label] = seen.get(label, 0) + 1
    return np.argsort(turn, kind="stable")[:count]


def chosen(run: TrainedRun, seen: Survey, count: int) -> Pictures:
    """Correctly classified validation images of different classes. Raises UserError where there is none."""
    right = correct(seen)
    if not len(right):
        raise UserError(f"run={run.folder.name}: no validation image is classified correctly; train it longer")
    return take(run.squares.val, seen.rows[right[of_different_classes(seen.labels[right], count)]])


def take(split: Split, rows: np.ndarray) -> Pictures:
    """Rows of a split, in the given order."""
    return Pictures(
        np.stack([split.images[row] for row in rows]), split.labels[rows], rows, [split.files[int(row)] for row in rows]
    )


def own_pictures(run: TrainedRun, images: Sequence[str], labels: Sequence[str]) -> Pictures:
    """A user's pictures. labels: class names, one a picture; none at all: the network's most probable class.

    Raises UserError for a file that is no image and a label that is no class.
    """
    pixels = np.stack([read_image(Path(path).expanduser(), run.mean.shape[0]) for path in images])
    if labels:
        numbers = np.array([class_number(run.class_names, name) for name in labels])
    else:
        with torch.no_grad():
            numbers = run.network(run.inputs(pixels)).argmax(1).cpu().numpy()
    return Pictures(pixels, numbers, np.full(len(pixels), -1), [Path(path).name for path in images])


def finely(run: TrainedRun, pictures: Pictures, files: Sequence[str], factors: Sequence[int]) -> np.ndarray:
    """(N, f S, f S, 3) uint8: the same pictures f times as fine, the largest f of `factors` that their source allows, or 1.

    files: paths of a user's own pictures; none: rows of the validation split.
    """
    if not files:
        return finer(run.config.data, run.squares, run.squares.val, pictures.rows, factors)
    paths, size = [Path(path).expanduser() for path in files], pictures.images.shape[1]
    factor = finest(factors, size, paths)
    return pictures.images if factor == 1 else np.stack([read_image(path, factor * size) for path in paths])


def class_number(class_names: Sequence[str], name: str) -> int:
    """The number of the class `name`, case aside. Raises UserError, with the nearest, where there is none."""
    lower = [known.lower() for known in class_names]
    if name.lower() in lower:
        return lower.index(name.lower())
    hint = nearest(name.lower(), lower) or f"; known are {', '.join(class_names[:8])}{'...' * (len(lower) > 8)}"
    raise UserError(f"labels={name}: no class of this run{hint}")


FILLS = ("grey", "mean", "black", "noise")


def fill_input(run: TrainedRun, kind: str, seed: int) -> Tensor:
    """What an occluder shows, as a network input (3, s, s): mid-grey pixels (the paper's square), the mean image,
    black, or uniform noise drawn by seed."""
    require_choice("fill", kind, FILLS)
    size = run.mean.shape[0]
    if kind == "mean":
        return torch.zeros(3, run.network.input_size, run.network.input_size, device=run.device)
    if kind == "noise":
        pixels = np.random.default_rng(seed).integers(0, 256, (1, size, size, 3)).astype(np.uint8)
    else:
        pixels = np.full((1, size, size, 3), {"grey": 128, "black": 0}[kind], dtype=np.uint8)
    return run.inputs(pixels)[0]


def fill_pixels(run: TrainedRun, fill: Tensor) -> np.ndarray:
    """A network input (3, s, s) as displayable pixels (s, s, 3) uint8."""
    start = (run.mean.shape[0] - run.network.input_size) // 2
    place = slice(start, start + run.network.input_size)
    pixels = fill.permute(1, 2, 0) / run.scale + run.mean[place, place]
    return pixels.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
