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

from zfrepro.data import embedded as drawn
from zfrepro.data.decode import Chunk, measure_files, read_arrays, read_files, rescaled_shape
from zfrepro.data.embedded_kinds import KEYPOINTS, SOURCE_CLASSES, TARGET_CLASSES
from zfrepro.data.marks import mark_files
from zfrepro.data.packed import Boxes
from zfrepro.errors import listed, require
from zfrepro.files import digest
from zfrepro.options.shared import DataConfig

VAL_IDS = 1_000_000  # numbers of the drawn validation images start here, those of the training images at 0
# name of an array -> dtype and shape of one row; -1, -1: the image's own
Fields = dict[str, tuple[str, tuple[int, ...]]]
WHOLE = (-1, -1)


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
    # A hash of what the images are made from, and (N,) uint64 by which equal files know each other; drawn ones are made
    # from nothing.
    content: Callable[[], tuple[str, np.ndarray | None]] = lambda: ("", None)
    measure: Callable[[int, int], Callable[[], np.ndarray]] | None = None  # (n, 2) shapes of whole images, likewise
    boxes: Boxes | None = None  # in pixels of the pictures themselves, upright


@dataclass(frozen=True)
class Source:
    """A data set, ready to be packed."""

    class_names: Sequence[str]
    class_ids: Sequence[str]
    train: Listing
    val: Listing
    keypoint_names: Sequence[str] = ()
    notes: dict[str, Any] = field(default_factory=dict)  # for the manifest
    passed_over: Sequence[str] = ()  # what lies among the pictures and is none

    @property
    def told(self) -> list[str]:
        """What of it is not used, a line for each kind."""
        told, count = [], len(self.passed_over)
        if count:
            what = f"{count} file{'s' * (count > 1)} or folders that are no pictures of a class"
            told.append(f"{what} are passed over: {listed(self.passed_over, 5)}")
        return told + [self.notes[note] for note in ("boxes", "unseen") if note in self.notes]


def image_fields(config: DataConfig) -> Fields:
    """The fields of photographs: the image, and the picture's own height and width."""
    shape = WHOLE if config.fit == "whole" else (config.size, config.size)
    return {"images": ("uint8", (*shape, 3)), "sizes": ("int32", (2,))}


def from_files(
    config: DataConfig,
    base: Path,
    files: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    multi: np.ndarray | None = None,
    boxes: Boxes | None = None,
) -> Listing:
    """Picture files, named relative to `base`."""

    def paths(start: int, stop: int) -> list[str]:
        return [str(base / name) for name in files[start:stop]]

    return Listing(
        files,
        np.asarray(labels, np.int64),
        recipe=lambda start, stop: partial(read_files, paths(start, stop), config.size, config.fit),
        fields=image_fields(config),
        multi=multi,
        content=partial(mark_files, base, files),
        measure=lambda start, stop: partial(measure_files, paths(start, stop), config.size),
        boxes=boxes,
    )


def from_arrays(
    config: DataConfig, files: Sequence[str], pictures: np.ndarray, labels: Sequence[int] | np.ndarray
) -> Listing:
    """Pictures that are decoded already, (N, h, w, 3) uint8."""
    height, width = pictures.shape[1:3]
    shape = rescaled_shape(height, width, config.size)
    return Listing(
        files,
        np.asarray(labels, np.int64),
        recipe=lambda start, stop: partial(read_arrays, pictures[start:stop], config.size, config.fit),
        fields=image_fields(config),
        in_process=True,
        content=lambda: (digest(pictures), None),
        measure=lambda start, stop: partial(np.tile, np.array(shape), (stop - start, 1)),
    )


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
    classes = TARGET_CLASSES if config.part == "target" else SOURCE_CLASSES
    listing = _scenes if config.part == "scenes" else _objects
    counts = (config.train_per_class, config.val_per_class)
    splits = zip((0, VAL_IDS), counts, strict=True)
    train, val = (listing(config, classes, first, count * len(classes)) for first, count in splits)
    keypoints = () if config.part == "scenes" else KEYPOINTS
    names = [name.replace("_", " ") for name in classes]
    return Source(names, classes, train, val, keypoints, {"part": config.part, "drawing_version": drawn.VERSION})


def _objects(config: DataConfig, classes: Sequence[str], first: int, count: int) -> Listing:
    """Classes take turns, so that any beginning of the rows is balanced."""
    labels, ids = np.arange(count) % len(classes), np.arange(first, first + count)
    how, (kind, shape) = (config.size, config.split_seed), image_fields(config)["images"]
    fields: Fields = {"images": (kind, shape), "masks": (kind, shape[:2]), "boxes": ("int16", (4,))}
    return Listing(
        [f"{classes[label]}/{number}" for label, number in zip(labels.tolist(), ids.tolist(), strict=True)],
        labels,
        recipe=lambda start, stop: partial(
            draw_objects, classes, labels[start:stop], ids[start:stop], *how, config.fit
        ),
        fields=fields | {"keypoints": ("float32", (len(KEYPOINTS), 2))},
        chunk=drawing_chunk(config.size),
        measure=lambda start, stop: partial(drawn.whole_shapes, classes, labels[start:stop], ids[start:stop], *how),
    )


def _scenes(config: DataConfig, classes: Sequence[str], first: int, count: int) -> Listing:
    """What is in a scene is known once it is drawn: labels follow from the chunks' 'multi'."""
    ids, how = np.arange(first, first + count), (config.size, config.split_seed)
    fields: Fields = {"images": image_fields(config)["images"], "multi": ("int8", (len(classes),))}
    fields |= {"object_boxes": ("int16", (drawn.SCENE_SLOTS, 4)), "object_labels": ("int64", (drawn.SCENE_SLOTS,))}
    return Listing(
        [f"scene/{number}" for number in ids],
        np.zeros(count, np.int64),
        recipe=lambda start, stop: partial(draw_scenes, classes, ids[start:stop], *how, config.fit),
        fields=fields,
        chunk=drawing_chunk(config.size),
        measure=lambda start, stop: partial(drawn.scene_shapes, ids[start:stop], *how),
    )


def drawing_chunk(size: int) -> int:
    """Images drawn at a time: many, since a class's are drawn together, but few enough to keep all processes busy."""
    return int(np.clip((8 << 20) // (3 * size * size), 16, 640))


def draw_objects(classes: Sequence[str], labels: np.ndarray, ids: np.ndarray, size: int, seed: int, fit: str) -> Chunk:
    d = drawn.draw(classes, labels, ids, size, seed, fit)
    return Chunk({"images": d.images, "masks": d.masks, "boxes": d.boxes, "keypoints": d.keypoints})


def draw_scenes(classes: Sequence[str], ids: np.ndarray, size: int, seed: int, fit: str) -> Chunk:
    """Several objects an image; 'multi' is (n, C) int8 as in Split.multi."""
    scenes = drawn.draw_scenes(classes, ids, size, seed, fit)
    objects = {"object_boxes": scenes.boxes, "object_labels": scenes.object_labels}
    return Chunk({"images": scenes.images, "multi": scenes.labels, **objects})


def first_present(multi: np.ndarray) -> np.ndarray:
    """(N,) int64: the first class marked 1; where there is none the first 'difficult' one, or class 0."""
    present = multi == 1
    return np.where(present.any(1), present.argmax(1), (multi == -1).argmax(1)).astype(np.int64)


def drawn_from(config: DataConfig) -> dict[str, Any]:
    """What determines the embedded data set's images, but for their size."""
    own = {"name": config.name, "part": config.part, "split_seed": config.split_seed, "drawing_version": drawn.VERSION}
    return own | {"train_per_class": config.train_per_class, "val_per_class": config.val_per_class}


def check_embedded(config: DataConfig) -> None:
    """Refuse sizes and numbers that the drawing board cannot do."""
    require("data.size", config.size, config.size >= drawn.MIN_SIZE, f"{drawn.MIN_SIZE} or more, as it is drawn")
    most = VAL_IDS // len(TARGET_CLASSES if config.part == "target" else SOURCE_CLASSES)
    for key in ("train_per_class", "val_per_class"):
        given = getattr(config, key)
        require(f"data.{key}", given, given <= most, f"at most {most}, else train and val overlap")
