"""PASCAL VOC: JPEGImages/, Annotations/*.xml, ImageSets/; twenty classes, several in an image; actions of people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zfrepro.data.annotations import Box, Thing, gathered, read_voc
from zfrepro.data.packed import Boxes
from zfrepro.data.sources import Listing, Source, first_present, from_files
from zfrepro.errors import UserError
from zfrepro.lists import read_lines
from zfrepro.options.shared import DataConfig

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
ACTIONS = (
    "jumping", "phoning", "playinginstrument", "reading", "ridingbike", "ridinghorse", "running", "takingphoto",
    "usingcomputer", "walking", "other",
)  # fmt: skip


def voc2012(config: DataConfig, base: Path) -> Source:
    """ImageSets/Main/{train,val}.txt."""
    train, val = (_objects(config, base, split) for split in ("train", "val"))
    notes = {"val": "the official validation split (the test labels are withheld)"}
    return Source(CLASSES, CLASSES, train, val, notes=notes)


def voc2007(config: DataConfig, base: Path) -> Source:
    """ImageSets/Main/{trainval,test}.txt; {train,val}.txt where the test images were not fetched."""
    if (base / "ImageSets" / "Main" / "test.txt").exists():
        splits, notes = ("trainval", "test"), {"val": "the official test set"}
    else:
        splits, notes = ("train", "val"), {"val": "the official validation split (the test images are not here)"}
    train, val = (_objects(config, base, split) for split in splits)
    return Source(CLASSES, CLASSES, train, val, notes=notes)


def _objects(config: DataConfig, base: Path, split: str) -> Listing:
    stems = [line.split()[0] for line in read_lines(base / "ImageSets" / "Main" / f"{split}.txt")]
    paths = [base / "Annotations" / f"{stem}.xml" for stem in stems]
    things = [read_voc(path) for path in paths]
    multi = np.stack([_marks(own, path) for own, path in zip(things, paths, strict=True)])
    boxes = {
        stem: [Box(_half_open(one, path), CLASSES.index(one.name), str(path)) for one in own if one.corners]
        for stem, own, path in zip(stems, things, paths, strict=True)
    }
    labels = first_present(multi)
    return from_files(config, base, _files(stems), labels, multi, gathered(boxes, stems, labels))


def _files(stems: Sequence[str]) -> list[str]:
    return [f"JPEGImages/{stem}.jpg" for stem in stems]


def _marks(things: Sequence[Thing], path: Path) -> np.ndarray:
    """(20,) int8: 1 present, 0 absent, -1 only as objects marked 'difficult'."""
    marks = np.zeros(len(CLASSES), np.int8)
    for thing in things:
        if thing.name not in CLASSES:
            raise UserError(f"{path}: {thing.name!r} is no class of VOC; extract the archive again")
        label = CLASSES.index(thing.name)
        marks[label] = -1 if thing.difficult and marks[label] != 1 else 1
    return marks


def _half_open(thing: Thing, path: Path) -> tuple[float, float, float, float]:
    """VOC counts pixels from 1 and both corners belong to the box."""
    if thing.corners is None:
        raise UserError(f"{path}: {thing.name} has no box; extract the archive again")
    x0, y0, x1, y1 = thing.corners
    return x0 - 1, y0 - 1, x1, y1


def actions(config: DataConfig, base: Path) -> Source:
    """ImageSets/Action/{train,val}.txt, a line for each person: the image and which of its objects. A row for each person,
    its box the person's; an image with several people comes as often."""
    train, val = (_people(config, base, split) for split in ("train", "val"))
    notes = {"val": "the official validation split (the test labels are withheld)"}
    return Source(ACTIONS, ACTIONS, train, val, notes=notes)


def _people(config: DataConfig, base: Path, split: str) -> Listing:
    lines = [line.split() for line in read_lines(base / "ImageSets" / "Action" / f"{split}.txt")]
    paths = [base / "Annotations" / f"{line[0]}.xml" for line in lines]
    people = [_person(path, line) for path, line in zip(paths, lines, strict=True)]
    multi = np.array([[one.actions.get(action, False) for action in ACTIONS] for one in people], np.int8)
    labels = first_present(multi)
    corners = [Box(_half_open(one, path), None, str(path)).corners for one, path in zip(people, paths, strict=True)]
    boxes = Boxes.of([[own] for own in corners], labels[:, None].tolist())
    return from_files(config, base, _files([line[0] for line in lines]), labels, multi, boxes)


def _person(path: Path, line: Sequence[str]) -> Thing:
    """The object of an annotation that a line of ImageSets/Action names, counted from 1."""
    things = read_voc(path)
    number = int(line[1]) if len(line) > 1 and line[1].isdecimal() else 0
    if not 1 <= number <= len(things) or not things[number - 1].actions:
        raise UserError(
            f"{path}: has no person number {' '.join(line[1:2]) or '?'} with actions; extract the archive again"
        )
    return things[number - 1]
