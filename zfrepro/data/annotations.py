"""Boxes as data sets write them down, brought to one form: half-open corners in pixels of the upright picture."""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zfrepro.data.decode import picture_size
from zfrepro.data.matching import Classes, candidates
from zfrepro.data.packed import Boxes
from zfrepro.errors import UserError
from zfrepro.files import as_named
from zfrepro.lists import read_table

FOLDER_COLUMNS = ("image", "left", "top", "right", "bottom")
# files and labels of a split -> their boxes
BoxLines = Callable[[Sequence[str], Sequence[int] | np.ndarray], "Boxes | None"]


@dataclass(frozen=True)
class Box:
    corners: tuple[float, float, float, float]  # x0, y0, x1, y1, half-open
    label: int | None = None  # None: the picture's own class
    where: str = ""  # file and line, for messages
    written: tuple[float, ...] | None = None  # corners as the file has them, where they are other numbers

    @property
    def shown(self) -> str:
        return ",".join(f"{value:g}" for value in self.written or self.corners)


def gathered(found: Mapping[str, Iterable[Box]], names: Sequence[str], labels: Sequence[int] | np.ndarray) -> Boxes:
    """The boxes of some pictures, in their order. found: by the pictures' names."""
    own = [list(found.get(name, ())) for name in names]
    classes = [
        [int(label) if box.label is None else box.label for box in boxes]
        for boxes, label in zip(own, labels, strict=True)
    ]
    return Boxes.of([[box.corners for box in boxes] for boxes in own], classes)


def fault(box: Box, name: str, size: tuple[int, int] | None, beyond: float) -> str:
    """Why it is no box of the picture `name`, which has this height and width (None: unknown) and which it may leave by
    `beyond` pixels; '' if it is one."""
    x0, y0, x1, y1 = box.corners
    if not (x0 < x1 and y0 < y1):  # also where one is no number
        return "has no area, or its corners are swapped"
    if size is None:
        return ""
    height, width = size
    outside = min(width - x0, height - y0, x1, y1) <= 0
    if not outside and max(-x0, -y0, x1 - width, y1 - height) <= beyond:
        return ""
    return f"{'lies outside' if outside else 'leaves'} its image {name}, which has {width} x {height} pixels"


def faults(base: Path, found: Mapping[str, Sequence[Box]], beyond: float = 0) -> Iterator[str]:
    """Of each box that is none of its picture, a line that says why. Opens the headers of all pictures with boxes."""
    for name, boxes in found.items():
        size = None
        with contextlib.suppress(Exception):  # the packing will say that it cannot be read
            size = picture_size(base / name) if boxes else None
        for box in boxes:
            if why := fault(box, name, size, beyond):
                yield f"{box.where}: the box {box.shown} {why}"


def check_boxes(base: Path, found: Mapping[str, Sequence[Box]], beyond: float = 0) -> None:
    """Refuse a box that is none of its picture, or reaches more than `beyond` pixels out of it."""
    for why in faults(base, found, beyond):
        raise UserError(f"{why}; mend it, or take it out")


# --------------------------------------------------------------------------------------------------------- a user's table


def folder_boxes(base: Path, ids: Sequence[str], names: Sequence[str]) -> dict[str, list[Box]]:
    """By picture, from <base>/boxes.csv: image,left,top,right,bottom[,class]; empty where there is no such file.

    image: relative to `base`. Corners in pixels, right and bottom outside the box. class: null for the picture's own.
    """
    path = base / "boxes.csv"
    if not path.exists():
        return {}
    found: dict[str, list[Box]] = {}
    classes = Classes(ids, names)
    for row in read_table(path, FOLDER_COLUMNS, "data.root", optional=("class",)):
        name, given = as_named(base, row["image"].replace("\\", "/").removeprefix("./")), row["class"]
        meant = candidates(classes, given) if given else []
        if given and len(meant) != 1:
            several = f", which may be any of {', '.join(ids[label] for label in meant)}" if meant else ""
            raise UserError(f"{row.where}: there is no class {given}{several}")
        left, top, right, bottom = row.pixels(*FOLDER_COLUMNS[1:])
        box = Box((left, top, right, bottom), meant[0] if given else None, row.where)
        own = found.setdefault(name, [])
        if any((box.corners, box.label) == (other.corners, other.label) for other in own):
            raise UserError(f"{row.where}: the box {box.shown} of {name} stands there twice; take one out")
        own.append(box)
    return found


# -------------------------------------------------------------------------------------------------------- PASCAL's XML


@dataclass(frozen=True)
class Thing:
    """An object of a VOC annotation."""

    name: str
    difficult: bool
    corners: tuple[float, float, float, float] | None  # as written
    actions: Mapping[str, bool]


def read_voc(path: Path) -> list[Thing]:
    """The objects in a PASCAL VOC annotation (also ImageNet's). Raises UserError where it is none, or is cut off."""
    try:
        root = ElementTree.parse(path).getroot()
        return [_thing(node) for node in root.iterfind("object")]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path}: no VOC annotation ({error}); extract the archive again") from error


def _thing(node: ElementTree.Element) -> Thing:
    box = node.find("bndbox")
    corners = None
    if box is not None:
        x0, y0, x1, y1 = (float(box.findtext(tag, "nan")) for tag in ("xmin", "ymin", "xmax", "ymax"))
        corners = (x0, y0, x1, y1)
    actions = node.find("actions")
    return Thing(
        node.findtext("name", "").strip(),
        node.findtext("difficult", "0").strip() == "1",
        corners,
        {} if actions is None else {action.tag: (action.text or "0").strip() == "1" for action in actions},
    )
