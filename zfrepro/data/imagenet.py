"""ImageNet (ILSVRC2012): the classes' names, the validation images' classes and the boxes, from whatever lies beside it."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from zfrepro.data.annotations import Box, faults, gathered, read_voc
from zfrepro.data.packed import Boxes
from zfrepro.data.sources import Source, from_files
from zfrepro.data.trees import class_tree, given_split, pictures, subfolders
from zfrepro.errors import UserError, words_of
from zfrepro.lists import read_lines, read_text
from zfrepro.options.shared import DataConfig

FILES = (
    "LOC_synset_mapping.txt", "LOC_train_solution.csv", "LOC_val_solution.csv", "meta.mat", "meta.bin",
    "ILSVRC2012_validation_ground_truth.txt",
)  # fmt: skip
ANNOTATIONS = "Annotations/CLS-LOC"
BEYOND = 1.0  # pixels by which a box may leave its image: the last row may be counted in or out
FAULTY = 0.05  # share of the boxes: the published ones have slips; if there are more, they are not of these images


def imagenet(config: DataConfig, base: Path) -> Source:
    """train/<wnid>/, and val/<wnid>/ or a flat val/ with the truth of the devkit, Kaggle or torchvision (meta.bin)."""
    ids = subfolders(base / "train")
    if not ids:
        raise UserError(
            f"{base / 'train'}: has no class folders; extract each of its archives into a folder of its own: "
            'for f in n*.tar; do mkdir "${f%.tar}" && tar -xf "$f" -C "${f%.tar}"; done'
        )
    words = synset_words(base)
    names = [words.get(wnid, wnid) for wnid in ids]
    reader = BoxReader(base, ids)
    if subfolders(base / "val"):
        source = given_split(config, base, ids, names, boxes=reader)
    else:
        source = _flat_val(config, base, ids, names, reader)
    if reader.faults:
        source.notes["boxes"] = f"{len(reader.faults)} boxes are cut or left out, the first: {reader.faults[0]}"
    return source


def _flat_val(config: DataConfig, base: Path, ids: list[str], names: list[str], reader: BoxReader) -> Source:
    flat, others = pictures(base, base / "val")
    truth = validation_truth(base, flat)
    label_of = {wnid: label for label, wnid in enumerate(ids)}
    kept = [(file, label_of[truth[Path(file).stem]]) for file in flat if truth.get(Path(file).stem) in label_of]
    if not kept:
        raise UserError(f"{base / 'val'}: holds no picture of the {len(ids)} classes in {base / 'train'}")
    own, more = class_tree(base, base / "train", ids)
    held = [file for file, _ in kept], [label for _, label in kept]
    train, val = (from_files(config, base, *part, boxes=reader(*part)) for part in (own, held))
    return Source(names, ids, train, val, passed_over=more + others)


def companions(base: Path) -> list[Path]:
    """The files and folders beside ImageNet's own that are read."""
    return [path for name in (*FILES, ANNOTATIONS) if (path := beside(base, name))]


def beside(base: Path, name: str) -> Path | None:
    """A file of the devkit or of Kaggle's archive, in the folder, its devkit, or up to three folders above."""
    for folder in (base, *list(base.parents)[:3]):
        for place in (folder, folder / "ILSVRC2012_devkit_t12" / "data", folder / "data"):
            if (place / name).exists():
                return place / name
    return None


# ---------------------------------------------------------------------------------------------------------------- names


def devkit_synsets(path: Path) -> list[tuple[int, str, str]]:
    """(number, wnid, words) of the leaves in the devkit's meta.mat; ground-truth numbers refer to them."""
    import scipy.io

    with _reading(path):
        synsets = scipy.io.loadmat(path, squeeze_me=True)["synsets"]
        leaves = [s for s in synsets if int(s["num_children"]) == 0]
        return [(int(s["ILSVRC2012_ID"]), str(s["WNID"]), str(s["words"])) for s in leaves]


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """A file of the devkit; UserError in place of the dozen kinds that a damaged one raises."""
    try:
        yield
    except Exception as error:
        raise UserError(f"{path}: damaged, or not the devkit's ({words_of(error)}); fetch it again") from error


def synset_words(base: Path) -> dict[str, str]:
    """wnid -> first synonym, from whatever is there; else empty."""
    if mapping := beside(base, "LOC_synset_mapping.txt"):
        words = dict(line.split(" ", 1) for line in read_lines(mapping) if " " in line)
    elif meta := beside(base, "meta.mat"):
        words = {wnid: text for _, wnid, text in devkit_synsets(meta)}
    elif meta := beside(base, "meta.bin"):
        words = {wnid: names[0] for wnid, names in torchvision_meta(meta)[0].items()}
    else:
        words = {}
    return {wnid: text.split(",")[0].strip() for wnid, text in words.items()}


def torchvision_meta(path: Path) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """What torchvision's ImageNet leaves behind: wnid -> synonyms, and the validation images' wnids in order."""
    import torch

    with _reading(path):
        words, wnids = torch.load(path, weights_only=True)
        return {str(wnid): tuple(names) for wnid, names in words.items()}, [str(wnid) for wnid in wnids]


# ------------------------------------------------------------------------------------------------------------ the truth


def validation_truth(base: Path, flat: list[str]) -> dict[str, str]:
    """Stem of a flat validation file -> wnid."""
    if solution := beside(base, "LOC_val_solution.csv"):
        return {stem: fields[0] for stem, fields in kaggle_rows(solution) if fields}
    ground, meta = beside(base, "ILSVRC2012_validation_ground_truth.txt"), beside(base, "meta.mat")
    if ground and meta:
        wnid_of = {number: wnid for number, wnid, _ in devkit_synsets(meta)}
        wnids = [wnid_of[int(number)] for number in read_lines(ground)]
    elif left := beside(base, "meta.bin"):
        wnids = torchvision_meta(left)[1]
    else:
        raise UserError(
            f"{base / 'val'}: flat, and nothing says which picture is of which class: sort it into val/<wnid>/, or put "
            f"the devkit's folder ILSVRC2012_devkit_t12 or Kaggle's LOC_val_solution.csv into {base}"
        )
    if len(wnids) != len(flat):
        raise UserError(f"{base / 'val'}: {len(flat)} pictures, but the ground truth is of {len(wnids)}")
    stems = in_order(base / "val", [Path(file).stem for file in flat])
    return dict(zip(stems, wnids, strict=True))


def in_order(folder: Path, stems: Sequence[str]) -> list[str]:
    """Names of pictures by the number at their end, 1 to N. Raises UserError where they have other numbers: the lines of a list
    are then not theirs."""
    numbers = {stem: int(found[0]) for stem in stems if (found := re.search(r"\d+$", stem))}
    if sorted(numbers.values()) != list(range(1, len(stems) + 1)):
        raise UserError(
            f"{folder}: its {len(stems)} pictures are not numbered from 1 to {len(stems)}, so that the ground truth's lines "
            "are not theirs; extract the archive of the validation images again"
        )
    return sorted(stems, key=numbers.__getitem__)


def kaggle_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Of LOC_*_solution.csv: an image's stem, and the fields wnid, xmin, ymin, xmax, ymax, wnid, ..."""
    wrong = f"{path}: not Kaggle's table of ImageId,PredictionString, or cut off; fetch it again"
    try:
        for row in csv.DictReader(read_text(path).splitlines()):
            if not row.get("ImageId") or not isinstance(row.get("PredictionString"), str):
                raise UserError(wrong)
            yield row["ImageId"], row["PredictionString"].split()
    except csv.Error as error:
        raise UserError(wrong) from error


class BoxReader:
    """The boxes of ImageNet's images: from Kaggle's LOC_*_solution.csv, or a file of XML each in Annotations/CLS-LOC.

    Both write pixels from 0 and the right and lower edges as the first pixels outside, which is how they are taken. Some of
    the published boxes leave their image, lie outside of it, or have swapped corners. Packing cuts boxes to their images and
    drops what has no area then, so that these do no harm: they are counted, and refused where they are more than FAULTY.
    """

    def __init__(self, base: Path, ids: Sequence[str]) -> None:
        self.base, self.faults = base, list[str]()
        self.folder = beside(base, ANNOTATIONS)
        tables = (beside(base, f"LOC_{split}_solution.csv") for split in ("train", "val"))
        self.tables = [path for path in tables if path]
        self.label_of = {wnid: label for label, wnid in enumerate(ids)}

    def __call__(self, files: Sequence[str], labels: Sequence[int] | np.ndarray) -> Boxes | None:
        """Of some pictures; None where there is nothing to read. Raises UserError where too many are none of their images."""
        if not self.tables and self.folder is None:
            return None
        wanted, tables = {Path(file).stem for file in files}, dict[str, list[Box]]()
        for path in self.tables:
            for stem, fields in kaggle_rows(path):
                if stem in wanted:
                    tables[stem] = list(self._boxes(fields, f"{path}, {stem}"))
        found = {file: tables.get(Path(file).stem, []) for file in files}
        for file in files:
            if self.folder is not None and Path(file).stem not in tables:
                found[file] = self._from_xml(file)
        wrong = list(faults(self.base, found, BEYOND))
        if len(wrong) > FAULTY * sum(map(len, found.values())):
            more = f" (and {len(wrong) - 1} more)" * (len(wrong) > 1)
            raise UserError(f"{wrong[0]}{more}; mend it, take it out, or fetch the annotations again")
        self.faults += wrong
        return gathered(found, files, labels)

    def _boxes(self, fields: list[str], where: str) -> Iterator[Box]:
        if len(fields) % 5:
            raise UserError(f"{where}: not five fields a box, or cut off; fetch the file again")
        for start in range(0, len(fields), 5):
            wnid, *numbers = fields[start : start + 5]
            if wnid in self.label_of:
                try:
                    x0, y0, x1, y1 = map(float, numbers)
                except ValueError as error:
                    raise UserError(
                        f"{where}: {' '.join(numbers)} are no corners of a box; fetch the file again"
                    ) from error
                yield Box((x0, y0, x1, y1), self.label_of[wnid], where)

    def _from_xml(self, file: str) -> list[Box]:
        """Of `val/<wnid>/<stem>` the annotation lies in val/; of an image without one there are none."""
        split, *_, name = Path(file).parts
        places = [Path(file).with_suffix(".xml"), Path(split, name).with_suffix(".xml")]
        path = next((self.folder / place for place in places if self.folder and (self.folder / place).is_file()), None)
        if path is None:
            return []
        things = [one for one in read_voc(path) if one.corners and one.name in self.label_of]
        return [Box(one.corners, self.label_of[one.name], str(path)) for one in things if one.corners]
