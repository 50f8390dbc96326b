"""The pictures that Figures 5, 7 and 8 are about: chosen from a run's data set, or a user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zfrepro.data import read_images
from zfrepro.data.decode import read_picture
from zfrepro.data.finer import finer, finest
from zfrepro.data.matching import Classes, candidates
from zfrepro.errors import UserError, listed, nearest, require
from zfrepro.forward import forward, logits
from zfrepro.run import TrainedRun

POOL = 2000  # validation images that are looked at, at most, when images are chosen
ENOUGH = 3  # images for a claim to be measured
NO_SOFTMAX = "the network has no softmax: its weights came without a classifier"
NO_CLASS = "no class of the data set is one of the network's: what is true is not known"


@dataclass(frozen=True)
class Pictures:
    """N pictures as packed, with their classes."""

    images: np.ndarray  # (N, S, S, 3) uint8
    labels: np.ndarray  # (N,) int64; -1: of no class that is known
    rows: np.ndarray  # (N,) int64: rows of the validation split, -1 for a user's own
    names: list[str]  # file names
    titles: list[str]  # what their classes are called


@dataclass(frozen=True)
class Survey:
    """What the network makes of N validation images, in an order drawn by seed."""

    rows: np.ndarray  # (N,) int64, rows of the validation split
    labels: np.ndarray  # (N,) int64
    predicted: np.ndarray  # (N,) int64, most probable class; -1: the network has no softmax
    probability: np.ndarray  # (N,) float32, of the true class; NaN likewise
    strongest: Tensor  # (N, maps) float32: maximum of each map of the layer
    places: Tensor  # (N, maps) int64: its flat place, row * side + column

    @property
    def wrong(self) -> np.ndarray | None:
        """(N,) whether the most probable class is another than the true one; None: see `unknown`."""
        return None if self.unknown else self.predicted != self.labels

    @property
    def unknown(self) -> str:
        """Why the network is neither right nor wrong on any of them: it has no probabilities, or none of their classes."""
        if (self.predicted < 0).all():
            return NO_SOFTMAX
        return NO_CLASS if (self.labels < 0).all() else ""


def survey(run: TrainedRun, layer: int, seed: int) -> Survey:
    """Up to POOL validation images, drawn by seed: predictions, and the maxima of a convolutional layer's maps. Images of
    classes that the network does not have are left out, unless there are no others; their label is -1."""
    split, top = run.squares.val, run.network.softmax
    true = run.labels_of(split)
    known = np.flatnonzero(true >= 0)
    rows = np.random.default_rng(seed).permutation(known if len(known) else len(split))[:POOL]
    softmax, peaks = [], []
    for part, found in forward(run, split.images, [layer, *([top] if top else [])], rows, "looking at images"):
        peaks.append([one.cpu() for one in found[layer].float().flatten(2).max(2)])
        softmax.append(found[top].float().softmax(1).cpu() if top else torch.full((len(part), 1), torch.nan))
    strongest, places = (torch.cat(parts) for parts in zip(*peaks))
    answers, labels = torch.cat(softmax), true[rows]
    return Survey(
        rows=rows,
        labels=labels,
        predicted=answers.argmax(1).numpy() if top else np.full(len(rows), -1),
        probability=answers.gather(1, torch.from_numpy(labels.clip(0) if top else 0 * labels)[:, None])[:, 0].numpy(),
        strongest=strongest,
        places=places,
    )


def correct(seen: Survey) -> np.ndarray:
    """Numbers (into the survey) of the images whose most probable class is the true one."""
    return np.flatnonzero(seen.predicted == seen.labels)


def measured_on(seen: Survey, count: int) -> tuple[np.ndarray, str]:
    """Numbers (into the survey) of at most `count` images on which claims are measured: classified correctly. Where these are
    too few, any, for what needs no probabilities; and then why there are none of these, else ''."""
    right = correct(seen)
    if seen.wrong is not None and len(right) >= ENOUGH:
        return right[:count], ""
    why = f"only {len(right)} of {len(seen.rows)} validation images are classified correctly; {ENOUGH} are needed"
    return np.arange(len(seen.rows))[:count], seen.unknown or why


def of_different_classes(labels: np.ndarray, count: int) -> np.ndarray:
    """Numbers of the first `count` images in the given order, each of another class while classes last."""
    turn = [
        (labels[:place] == label).sum() for place, label in enumerate(labels)
    ]  # those of its class that come before it
    return np.argsort(turn, kind="stable")[:count]


def chosen(run: TrainedRun, seen: Survey, count: int, wrong_ones: bool = False) -> Pictures:
    """Correctly classified validation images of different classes, or any where nothing is known to be correct. Where none is
    classified correctly, `wrong_ones` will do; else that raises UserError."""
    right = correct(seen)
    if not len(right):
        if not wrong_ones and not seen.unknown:
            raise UserError(f"run={run.config.run}: no validation image is classified correctly; train it longer")
        right = np.arange(len(seen.rows))
    return take(run, seen.rows[right[of_different_classes(seen.labels[right], count)]])


def take(run: TrainedRun, rows: np.ndarray) -> Pictures:
    """Rows of the validation images, in the given order. Where the network does not have a picture's class, the one that it
    takes it for."""
    data, split = run.squares, run.squares.val
    images, labels, files = split.images[rows], run.labels_of(split)[rows], [split.files[int(row)] for row in rows]
    titles = [data.class_names[label] for label in split.labels[rows].tolist()]
    if (labels < 0).any():
        labels = np.where(labels < 0, answers(run, images), labels)
    return Pictures(images, labels, rows, files, titles)


def own_pictures(run: TrainedRun, images: Sequence[str], labels: Sequence[str]) -> Pictures:
    """A user's pictures. labels: class names, one a picture; none at all: the network's most probable class. Where the
    network has no softmax, they are titles.

    Raises UserError for a file that is no image, an address, and a label that is no class.
    """
    for path in images:
        require("images", path, "://" not in path, "a file; fetch the picture first")
    try:
        pixels = read_images([Path(path).expanduser() for path in images], run.mean.shape[0])
    except UserError as error:
        raise UserError(f"images={error}") from error
    names = [Path(path).name for path in images]
    if run.network.softmax is None:
        numbers, titles = np.full(len(pixels), -1), list(labels) or names
    else:
        classes = Classes(run.class_ids, run.class_names)
        numbers = np.array([class_number(classes, name) for name in labels]) if labels else answers(run, pixels)
        titles = [run.class_names[number] for number in numbers.tolist()]
    return Pictures(pixels, numbers, np.full(len(pixels), -1), names, titles)


def answers(run: TrainedRun, pixels: np.ndarray) -> np.ndarray:
    """(N,) the most probable classes of pictures, a few at a time."""
    found: np.ndarray = logits(run, pixels, np.arange(len(pixels))).argmax(1)
    return found


def finely(run: TrainedRun, pictures: Pictures, files: Sequence[str], factors: Sequence[int]) -> np.ndarray:
    """(N, f S, f S, 3) uint8: the same pictures f times as fine, the largest f of `factors` that their source allows, or 1.

    files: paths of a user's own pictures; none: rows of the validation split.
    """
    if not files:
        return finer(run.config.data, run.squares, run.squares.val, pictures.rows, factors)
    paths, size = [Path(path).expanduser() for path in files], pictures.images.shape[1]
    factor = finest(factors, size, paths)
    return pictures.images if factor == 1 else np.stack([read_picture(path, factor * size) for path in paths])


def class_number(classes: Classes, name: str, key: str = "labels") -> int:
    """The number of the class `name`: a name, an id, or that number itself, unless classes are called by numbers. key: the
    option that gives it. Raises UserError, with the nearest, where there is none, and with what tells them apart where there
    are several."""
    found = candidates(classes, name)
    called = any(known.isdecimal() for known in (*classes.ids, *classes.names))
    if not found and name.isdecimal() and int(name) < len(classes.names) and not called:
        return int(name)
    if len(found) == 1:
        return found[0]
    if found:
        unique = len({classes.names[one] for one in found}) == len(found)
        by = classes.ids or (classes.names if unique else [str(number) for number in range(len(classes.names))])
        raise UserError(f"{key}={name}: may be any of {', '.join(by[one] for one in found)}; give one of these")
    lower = [known.lower() for known in classes.names]
    hint = nearest(name.lower(), lower) or f"; known are {listed(classes.names, 8)}"
    raise UserError(f"{key}={name}: no class of this run{hint}")


def fill_input(run: TrainedRun, kind: str, seed: int) -> Tensor:
    """What an occluder shows, as a network input (3, s, s): mid-grey pixels (the paper's square), the mean image,
    black, or uniform noise drawn by seed."""
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
    pixels = fill.permute(1, 2, 0) / run.scale + run.crops(run.mean[None])[0]
    return pixels.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
