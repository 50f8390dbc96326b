"""What a data set consists of, before it is packed: class names, and for each split labels and how to get the images.

`locating.py` finds (or fetches) the files, `layouts.py` reads the official layouts, `identity.py` tells one from another.
The embedded data set, which has no files, is here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zfrepro.data.decode import Chunk, read_arrays, read_files
from zfrepro.data.marks import mark_files
from zfrepro.errors import UserError
from zfrepro.files import digest
from zfrepro.options.shared import DataConfig

VAL_IDS = 1_000_000  # numbers of the drawn validation images start here, those of the training images at 0
Fields = dict[str, tuple[str, tuple[int, ...]]]  # name of an array -> dtype and shape of one row


@dataclass(frozen=True)
class Listing:
    """One split: N rows, and a picklable recipe for any stretch of them."""

    files: Sequence[str]  # (N,) names of the sources
    labels: np.ndarray  # (N,) int64
    recipe: Callable[[int, int], Callable[[], Chunk]]  # (first row, row behind the last) -> what makes the chunk
    fields: Fields  # what the chunks hold
    chunk: int = 64  # rows to a chunk
    multi: np.ndarray | None = None  # (N, C) int8, where it is known before the images are
    in_process: bool = False  # the pictures are in this process's memory: do not send them to others
    content: Callable[[], str] = str  # a hash of what the images are made from; drawn ones are made from nothing


@dataclass(frozen=True)
class Source:
    """A data set, ready to be packed."""

    class_names: Sequence[str]
    class_ids: Sequence[str]
    train: Listing
    val: Listing
    keypoint_names: Sequence[str] = ()
    notes: dict[str, Any] = field(default_factory=dict)  # for the manifest


def image_fields(size: int) -> Fields:
    """The fields of photographs: nothing but the image."""
    return {"images": ("uint8", (size, size, 3))}


def from_files(
    base: Path, files: Sequence[str], labels: Sequence[int] | np.ndarray, size: int, multi: np.ndarray | None = None
) -> Listing:
    """Picture files, named relative to `base`."""

    def recipe(start: int, stop: int) -> Callable[[], Chunk]:
        return partial(read_files, [str(base / name) for name in files[start:stop]], size)

    content = partial(mark_files, base, files)
    return Listing(files, np.asarray(labels, np.int64), recipe, image_fields(size), multi=multi, content=content)


def from_arrays(files: Sequence[str], pictures: np.ndarray, labels: Sequence[int] | np.ndarray, size: int) -> Listing:
    """Pictures that are decoded already, (N, h, w, 3) uint8."""

    def recipe(start: int, stop: int) -> Callable[[], Chunk]:
        return partial(read_arrays, pictures[start:stop], size)

    content, numbers = partial(digest, pictures), np.asarray(labels, np.int64)
    return Listing(files, numbers, recipe, image_fields(size), in_process=True, content=content)


def split_by_class(files: Sequence[str], labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """(N,) bool: True for validation rows. Of each class the fraction, at least one image and never all of them.

    Those whose names have the smallest hashes: with another picture more or less, the others stay where they were (but for
    one, where the rounded fraction changes).
    """
    rank = np.array([hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest() for name in files])
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        chosen[rows[np.argsort(rank[rows], kind="stable")[:count]]] = True
    return chosen


# ------------------------------------------------------------------------------------------------------------ embedded


def embedded(config: DataConfig) -> Source:
    """The drawn data set: source or target classes, one object an image, or scenes of several source objects."""
    from zfrepro.data import embedded as drawn

    classes = drawn.TARGET_CLASSES if config.part == "target" else drawn.SOURCE_CLASSES
    listing = _scenes if config.part == "scenes" else _objects
    counts = (config.train_per_class, config.val_per_class)
    splits = zip((0, VAL_IDS), counts, strict=True)
    train, val = (listing(config, classes, first, count * len(classes)) for first, count in splits)
    keypoints = () if config.part == "scenes" else drawn.KEYPOINTS
    names = [name.replace("_", " ") for name in classes]
    return Source(names, classes, train, val, keypoints, {"part": config.part, "drawing_version": drawn.VERSION})


def _objects(config: DataConfig, classes: Sequence[str], first: int, count: int) -> Listing:
    """Classes take turns, so that any beginning of the rows is balanced."""
    from zfrepro.data import embedded as drawn

    labels, side = np.arange(count) % len(classes), config.size
    ids = np.arange(first, first + count)

    def recipe(start: int, stop: int) -> Callable[[], Chunk]:
        rows = slice(start, stop)
        return partial(draw_objects, classes, labels[rows], ids[rows], config.size, config.split_seed)

    keypoints = ("float32", (len(drawn.KEYPOINTS), 2))
    fields = image_fields(side) | {"masks": ("uint8", (side, side)), "boxes": ("int16", (4,)), "keypoints": keypoints}
    files = [f"{classes[label]}/{number}" for label, number in zip(labels.tolist(), ids.tolist(), strict=True)]
    return Listing(files, labels, recipe, fields, chunk=drawing_chunk(side))


def _scenes(config: DataConfig, classes: Sequence[str], first: int, count: int) -> Listing:
    """What is in a scene is known once it is drawn: labels follow from the chunks' 'multi'."""
    ids = np.arange(first, first + count)

    def recipe(start: int, stop: int) -> Callable[[], Chunk]:
        return partial(draw_scenes, classes, ids[start:stop], config.size, config.split_seed)

    fields = image_fields(config.size) | {"multi": ("int8", (len(classes),))}
    files = [f"scene/{number}" for number in ids]
    return Listing(files, np.zeros(count, np.int64), recipe, fields, chunk=drawing_chunk(config.size))


def drawing_chunk(size: int) -> int:
    """Images drawn at a time: many, since a class's are drawn together, but few enough to keep all processes busy."""
    return int(np.clip((8 << 20) // (3 * size * size), 16, 640))


def draw_objects(classes: Sequence[str], labels: np.ndarray, ids: np.ndarray, size: int, seed: int) -> Chunk:
    """One object an image, with its truth."""
    from zfrepro.data import embedded as drawn

    d = drawn.draw(classes, labels, ids, size, seed)
    return Chunk({"images": d.images, "masks": d.masks, "boxes": d.boxes, "keypoints": d.keypoints})


def draw_scenes(classes: Sequence[str], ids: np.ndarray, size: int, seed: int) -> Chunk:
    """Several objects an image; 'multi' is (n, C) int8 as in Split.multi."""
    from zfrepro.data import embedded as drawn

    scenes = drawn.draw_scenes(classes, ids, size, seed)
    return Chunk({"images": scenes.images, "multi": scenes.labels})


def first_present(multi: np.ndarray) -> np.ndarray:
    """(N,) int64: the first class marked 1; where there is none the first 'difficult' one, or class 0."""
    present = multi == 1
    return np.where(present.any(1), present.argmax(1), (multi == -1).argmax(1)).astype(np.int64)


def drawn_from(config: DataConfig) -> dict[str, Any]:
    """What determines the embedded data set's images, but for their size."""
    from zfrepro.data import embedded as drawn

    own = {"name": config.name, "part": config.part, "split_seed": config.split_seed, "drawing_version": drawn.VERSION}
    return own | {"train_per_class": config.train_per_class, "val_per_class": config.val_per_class}


def check_embedded(config: DataConfig) -> None:
    """Refuse sizes and numbers that the drawing board cannot do."""
    from zfrepro.data import embedded as drawn

    if config.size < drawn.MIN_SIZE:
        raise UserError(f"data.size={config.size}: the embedded data set is drawn at {drawn.MIN_SIZE} pixels or more")
    classes = drawn.TARGET_CLASSES if config.part == "target" else drawn.SOURCE_CLASSES
    most = VAL_IDS // len(classes)
    if max(config.train_per_class, config.val_per_class) > most:
        raise UserError(
            f"data.train_per_class={config.train_per_class}: must be at most {most}, else train and val overlap"
        )
