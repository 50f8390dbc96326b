"""The official layouts of the photographic data sets: where their files are, and what they say.

torchvision's own data sets fetch what can be fetched (`locating.py`) and read CIFAR-10, whose pickles they verify.
Photographs are listed from the tree itself: torchvision's Caltech classes presume consecutive file names, and its
Caltech256 keeps the clutter folder as a class.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from zfrepro.data import pascal
from zfrepro.data.annotations import Box, check_boxes, folder_boxes, gathered
from zfrepro.data.imagenet import imagenet
from zfrepro.data.packed import Boxes
from zfrepro.data.sources import Source, from_arrays, from_files
from zfrepro.data.trees import (
    drawn_split,
    given_split,
    pictures,
    require_classes,
    require_distinct,
    split_folders,
    subfolders,
)
from zfrepro.errors import UserError
from zfrepro.lists import read_lines
from zfrepro.options.shared import DataConfig


def tiny_imagenet(config: DataConfig, base: Path) -> Source:
    """wnids.txt, words.txt, train/<wnid>/images/ with <wnid>_boxes.txt, val/images/ with val/val_annotations.txt."""
    ids = [wnid for line in read_lines(base / "wnids.txt") for wnid in line.split()]
    lines = read_lines(base / "words.txt") if (base / "words.txt").exists() else []
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    names = [words.get(wnid, wnid).split(",")[0].strip() for wnid in ids]
    files: list[str] = []
    labels: list[int] = []
    passed_over: list[str] = []
    boxes: dict[str, list[Box]] = {}
    for label, wnid in enumerate(ids):
        if not (folder := base / "train" / wnid / "images").is_dir():
            raise UserError(f"{folder}: missing, though wnids.txt names the class; extract the archive again")
        found, others = pictures(base, folder)
        files += found
        labels += [label] * len(found)
        passed_over += others
        if (table := folder.parent / f"{wnid}_boxes.txt").exists():
            boxes |= _tiny_boxes(table, f"train/{wnid}/images", 1)
    annotations = base / "val" / "val_annotations.txt"
    rows = [line.split("\t")[:2] for line in read_lines(annotations)]
    if unknown := [row for row in rows if len(row) < 2 or row[1] not in words.keys() | set(ids)]:
        raise UserError(f"{annotations}: not '<file> TAB <wnid>': {unknown[0]}")
    label_of = {wnid: label for label, wnid in enumerate(ids)}
    kept = [(f"val/images/{file}", label_of[wnid]) for file, wnid in rows if wnid in label_of]
    if not files or not kept:
        raise UserError(f"{base}: no training or no validation pictures of the classes in wnids.txt; extract it again")
    boxes |= _tiny_boxes(annotations, "val/images", 2)
    wanted = {*files, *(file for file, _ in kept)}
    check_boxes(base, {name: own for name, own in boxes.items() if name in wanted})
    splits = ((files, labels), ([file for file, _ in kept], [label for _, label in kept]))
    train, val = (
        from_files(config, base, *split, boxes=gathered(boxes, *split) if boxes else None) for split in splits
    )
    return Source(names, ids, train, val, passed_over=passed_over)


def _tiny_boxes(path: Path, folder: str, first: int) -> dict[str, list[Box]]:
    """By picture, from lines of fields apart by tabs: the file, and from field `first` on the box, both corners inside."""
    found: dict[str, list[Box]] = {}
    for number, line in enumerate(read_lines(path), 1):
        fields, where = line.split("\t"), f"{path}, line {number}"
        try:
            x0, y0, x1, y1 = map(float, fields[first : first + 4])
        except ValueError as error:
            if first == 2 and len(fields) == 2:  # a list of classes alone
                continue
            raise UserError(
                f"{where}: not a file and a box; the file may be cut off: extract the archive again"
            ) from error
        found.setdefault(f"{folder}/{fields[0]}", []).append(
            Box((x0, y0, x1 + 1, y1 + 1), None, where, (x0, y0, x1, y1))
        )
    return found


def cifar10(config: DataConfig, base: Path) -> Source:
    """cifar-10-batches-py/: pickles that torchvision opens once it has checked their MD5. Validation: the test set."""
    from zfrepro.vision import torchvision

    try:
        train, val = (torchvision.datasets.CIFAR10(str(base.parent), train=train) for train in (True, False))
    except RuntimeError as error:
        raise UserError(f"{base}: a file is missing or is not the official one; fetch CIFAR-10 again") from error
    listings = [
        from_arrays(config, [f"{name}/{row}" for row in range(len(part.targets))], part.data, part.targets)
        for name, part in (("train", train), ("test", val))
    ]
    return Source(train.classes, train.classes, listings[0], listings[1], notes={"val": "the official test set"})


def imagenette(config: DataConfig, base: Path) -> Source:
    """train/<wnid>/ and val/<wnid>/ of ten ImageNet classes."""
    from zfrepro.vision import torchvision

    ids = subfolders(base / "train")
    known = torchvision.datasets.Imagenette._WNID_TO_CLASS
    return given_split(config, base, ids, [known[wnid][0] if wnid in known else wnid for wnid in ids])


def caltech101(config: DataConfig, base: Path) -> Source:
    """101_ObjectCategories/<class>/: 101 classes, 'Faces' and 'Faces_easy' both kept; BACKGROUND_Google is a class only where
    `data.background` says so (ZFNet's paper and torchvision have 101, VGG's has 102)."""
    return _caltech(config, base, "BACKGROUND_Google", lambda name: name.replace("_", " "))


def caltech256(config: DataConfig, base: Path) -> Source:
    """256_ObjectCategories/<number>.<class>/: 256 classes, likewise without '257.clutter' (torchvision keeps it)."""
    return _caltech(config, base, "257.clutter", lambda name: re.sub(r"^\d+\.", "", name).replace("-", " "))


def _caltech(config: DataConfig, base: Path, background: str, readable: Callable[[str], str]) -> Source:
    ids = [name for name in subfolders(base) if name != background or config.background]
    source = drawn_split(config, base, base, ids, [readable(name) for name in ids])
    if not config.background:
        source.notes["left_out"] = f"{background}: no class unless data.background=true"
    return source


def folder(config: DataConfig, base: Path) -> Source:
    """<class>/<picture>, or the same in train/ and val/ (valid, validation, test); boxes.csv if there is one."""
    splits = split_folders(base)
    loose, _ = pictures(base, base)
    if splits is None:
        ids, passed_over = subfolders(base), loose
        require_classes(base, ids)
    else:
        ids, passed_over = subfolders(base / splits[0]), [*loose, *splits[2]]
    require_distinct(base, ids)
    names = [name.replace("_", " ") for name in ids]
    tables = folder_boxes(base, ids, names)

    def boxes(files: Sequence[str], labels: Sequence[int] | np.ndarray) -> Boxes | None:
        return gathered(tables, files, labels) if tables else None

    if splits is None or splits[1] is None:
        source = drawn_split(config, base, base if splits is None else base / splits[0], ids, names, boxes)
    else:
        source = given_split(config, base, ids, names, (splits[0], splits[1]), boxes)
    files = {*source.train.files, *source.val.files}
    for name in tables.keys() - files:
        raise UserError(f"{tables[name][0].where}: there is no image {name} in the class folders of {base}")
    check_boxes(base, tables)
    return dataclasses.replace(source, passed_over=[*source.passed_over, *passed_over])


READERS: dict[str, Callable[[DataConfig, Path], Source]] = {
    "tiny_imagenet": tiny_imagenet, "cifar10": cifar10, "imagenette": imagenette, "caltech101": caltech101,
    "caltech256": caltech256, "voc2007": pascal.voc2007, "voc2012": pascal.voc2012, "voc2012_actions": pascal.actions,
    "imagenet": imagenet, "folder": folder,
}  # fmt: skip


def open_layout(config: DataConfig, base: Path) -> Source:
    """The data set in the folder that `locating.find_base` found."""
    try:
        source = READERS[config.name](config, base)
    except (OSError, ValueError, LookupError) as error:
        raise UserError(f"{base}: the data set cannot be read ({type(error).__name__}: {error})") from error
    if len(source.class_names) < 2:
        raise UserError(f"{base}: {len(source.class_names)} class(es) found, at least 2 are needed: a folder for each")
    for split, listing in (("training", source.train), ("validation", source.val)):
        if not len(listing.files):
            raise UserError(
                f"{base}: no {split} picture is left; every class needs two or more, or a folder of each split"
            )
    return source
