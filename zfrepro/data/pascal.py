"""PASCAL VOC: JPEGImages/, Annotations/*.xml, ImageSets/; twenty classes, several in an image; actions of people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zfrepro.data.annotations import Box, Thing, check_boxes, gathered, read_voc
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

WITHHELD = "the official validation split (the test labels are withheld)"
BEYOND = 1.0  # pixels by which a box may leave its image, to be clipped: of a tool that counts pixels from 0


def voc2012(config: DataConfig, base: Path) -> Source:
    """ImageSets/Main/{train,val}.txt."""
    return _source(CLASSES, [_objects(config, base, split) for split in ("train", "val")], WITHHELD)


def voc2007(config: DataConfig, base: Path) -> Source:
    """ImageSets/Main/{trainval,test}.txt; {train,val}.txt where the test images were not fetched."""
    splits, note = ("trainval", "test"), "the official test set"
    if not (base / "ImageSets" / "Main" / "test.txt").exists():
        splits, note = ("train", "val"), "the official validation split (the test images are not here)"
    return _source(CLASSES, [_objects(config, base, split) for split in splits], note)


def _source(classes: Sequence[str], splits: Sequence[Listing], note: str) -> Source:
    train, val = splits
    return Source(classes, classes, train, val, notes={"val": note})


def _objects(config: DataConfig, base: Path, split: str) -> Listing:
    stems = [line.split()[0] for line in read_lines(base / "ImageSets" / "Main" / f"{split}.txt")]
    paths = [base / "Annotations" / f"{stem}.xml" for stem in stems]
    things = [read_voc(path) for path in paths]
    multi = np.stack([_marks(own, path) for own, path in zip(things, paths, strict=True)])
    files, labels = _files(stems), first_present(multi)
    boxes = {
        file: [_box(one, path, CLASSES.index(one.name)) for one in own if one.corners]
        for file, own, path in zip(files, things, paths, strict=True)
    }
    check_boxes(base, boxes, BEYOND)
    return from_files(config, base, files, labels, multi, gathered(boxes, files, labels))


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


def _box(thing: Thing, path: Path, label: int | None) -> Box:
    """VOC counts pixels from 1 and both corners belong to the box."""
    if thing.corners is None:
        raise UserError(f"{path}: {thing.name} has no box; extract the archive again")
    x0, y0, x1, y1 = thing.corners
    return Box((x0 - 1, y0 - 1, x1, y1), label, str(path), thing.corners)


def actions(config: DataConfig, base: Path) -> Source:
    """ImageSets/Action/{train,val}.txt, a line for each person: the image and which of its objects. A row for each person,
    its box the person's; an image with several people comes as often."""
    return _source(ACTIONS, [_people(config, base, split) for split in ("train", "val")], WITHHELD)


def _people(config: DataConfig, base: Path, split: str) -> Listing:
    lines = [line.split() for line in read_lines(base / "ImageSets" / "Action" / f"{split}.txt")]
    paths = [base / "Annotations" / f"{line[0]}.xml" for line in lines]
    people = [_person(path, line) for path, line in zip(paths, lines, strict=True)]
    multi = np.array([[one.actions.get(action, False) for action in ACTIONS] for one in people], np.int8)
    labels = first_present(multi)
    files, own = _files([line[0] for line in lines]), [_box(*pair, None) for pair in zip(people, paths, strict=True)]
    of_file: dict[str, list[Box]] = {}
    for file, box in zip(files, own, strict=True):
        of_file.setdefault(file, []).append(box)
    check_boxes(base, of_file, BEYOND)
    boxes = Boxes.of([[box.corners] for box in own], labels[:, None].tolist())
    return from_files(config, base, files, labels, multi, boxes)


def _person(path: Path, line: Sequence[str]) -> Thing:
    """The object of an annotation that a line of ImageSets/Action names, counted from 1."""
    things = read_voc(path)
    number = int(line[1]) if len(line) > 1 and line[1].isdecimal() else 0
    if not 1 <= number <= len(things) or not things[number - 1].actions:
        raise UserError(
            f"{path}: has no person number {' '.join(line[1:2]) or '?'} with actions; extract the archive again"
        )
    return things[number - 1]
