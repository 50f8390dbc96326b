"""The official layouts of the photographic data sets: where their files are, and what they say.

torchvision's own data sets fetch what can be fetched (`locating.py`) and read CIFAR-10, whose pickles they verify.
Photographs are listed from the tree itself: torchvision's Caltech classes presume consecutive file names, and its
Caltech256 keeps the clutter folder as a class.
"""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np

from zfrepro.data import sources
from zfrepro.data.sources import Source, from_arrays, from_files, split_by_class
from zfrepro.errors import UserError
from zfrepro.options.shared import DataConfig

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm"}
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def is_picture(path: Path) -> bool:
    """A file by its name: no hidden one, and with a suffix of an image format."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in it, sorted; hidden ones left out, and those that hold our own runs."""
    folders = (child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    return sorted(child.name for child in folders if not holds_runs(child))


def holds_runs(folder: Path) -> bool:
    """An outputs folder, as `data.root=.` finds it among the classes."""
    marks = ("*/train/config.yaml", "*/*/train/config.yaml", "*/.lock", "*/*/.lock")
    return any(any(folder.glob(mark)) for mark in marks)


def pictures(base: Path, folder: Path) -> list[str]:
    """Pictures directly in `folder`, sorted, named relative to `base`."""
    return sorted(path.relative_to(base).as_posix() for path in folder.iterdir() if is_picture(path))


def class_tree(base: Path, folder: Path, classes: list[str]) -> tuple[list[str], np.ndarray]:
    """Files (relative to `base`) and labels of `<folder>/<class>/<picture>`."""
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = pictures(base, folder / name) if (folder / name).is_dir() else []
        if not found and (folder / name).is_dir() and any((folder / name).iterdir()):
            raise UserError(
                f"{folder / name}: there are no pictures directly in this class folder ({', '.join(sorted(SUFFIXES))})"
            )
        files += found
        labels += [label] * len(found)
    if not files:
        raise UserError(f"{folder}: there are no pictures in its class folders ({', '.join(sorted(SUFFIXES))})")
    return files, np.array(labels)


def drawn_split(config: DataConfig, base: Path, folder: Path, ids: list[str], names: list[str], notes: dict) -> Source:
    """A class tree without a validation split: a share of each class is drawn with the seed."""
    files, labels = class_tree(base, folder, ids)
    val = split_by_class(files, labels, config.val_fraction, config.split_seed)
    parts = [([files[i] for i in np.flatnonzero(rows)], labels[rows]) for rows in (~val, val)]
    listings = [from_files(config, base, *part) for part in parts]
    notes = notes | {"split": f"drawn: {config.val_fraction:g} of each class, seed {config.split_seed}"}
    return Source(names, ids, listings[0], listings[1], notes=notes)


def given_split(config: DataConfig, base: Path, ids: list[str], names: list[str], notes: dict | None = None) -> Source:
    """`train/<class>/` and `val/<class>/` below `base`."""
    if extra := sorted(set(subfolders(base / "val")) - set(ids)):
        raise UserError(f"{base / 'val'}: its class {extra[0]!r} is not in {base / 'train'}")
    train, val = (from_files(config, base, *class_tree(base, base / split, ids)) for split in ("train", "val"))
    return Source(names, ids, train, val, notes=notes or {})


# ------------------------------------------------------------------------------------------------------------- layouts


def tiny_imagenet(config: DataConfig, base: Path) -> Source:
    """wnids.txt, words.txt, train/<wnid>/images/, val/images/ with val/val_annotations.txt."""
    ids = (base / "wnids.txt").read_text().split()
    lines = (base / "words.txt").read_text().splitlines() if (base / "words.txt").exists() else []
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    names = [words.get(wnid, wnid).split(",")[0].strip() for wnid in ids]
    files: list[str] = []
    labels: list[int] = []
    for label, wnid in enumerate(ids):
        if not (folder := base / "train" / wnid / "images").is_dir():
            raise UserError(f"{folder}: missing, though wnids.txt names the class; extract the archive again")
        found = pictures(base, folder)
        files += found
        labels += [label] * len(found)
    annotations = base / "val" / "val_annotations.txt"
    rows = [line.split("\t")[:2] for line in annotations.read_text().splitlines() if line.strip()]
    if unknown := [row for row in rows if len(row) < 2 or row[1] not in words.keys() | set(ids)]:
        raise UserError(f"{annotations}: not '<file> TAB <wnid>': {unknown[0]}")
    label_of = {wnid: label for label, wnid in enumerate(ids)}
    kept = [(f"val/images/{file}", label_of[wnid]) for file, wnid in rows if wnid in label_of]
    if not files or not kept:
        raise UserError(f"{base}: no training or no validation pictures of the classes in wnids.txt; extract it again")
    val = from_files(config, base, [file for file, _ in kept], [label for _, label in kept])
    return Source(names, ids, from_files(config, base, files, labels), val)


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
    """101_ObjectCategories/<class>/: 101 classes, 'Faces' and 'Faces_easy' both kept, BACKGROUND_Google not a class."""
    ids = [name for name in subfolders(base) if name != "BACKGROUND_Google"]
    notes = {"left_out": "BACKGROUND_Google: no class, as in torchvision"}
    return drawn_split(config, base, base, ids, [name.replace("_", " ") for name in ids], notes)


def caltech256(config: DataConfig, base: Path) -> Source:
    """256_ObjectCategories/<number>.<class>/: 256 classes, the 257th folder ('clutter') not a class."""
    ids = [name for name in subfolders(base) if name != "257.clutter"]
    names = [re.sub(r"^\d+\.", "", name).replace("-", " ") for name in ids]
    notes = {"left_out": "257.clutter: no class (torchvision keeps it as a 257th)"}
    return drawn_split(config, base, base, ids, names, notes)


def voc2012(config: DataConfig, base: Path) -> Source:
    """JPEGImages/, Annotations/*.xml, ImageSets/Main/{train,val}.txt: 20 classes, several in an image."""
    listings = []
    for split in ("train", "val"):
        stems = (base / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
        multi = np.stack([voc_objects(base / "Annotations" / f"{stem}.xml") for stem in stems])
        files = [f"JPEGImages/{stem}.jpg" for stem in stems]
        listings.append(from_files(config, base, files, sources.first_present(multi), multi))
    notes = {"val": "the official validation split (the test labels are withheld)"}
    return Source(VOC_CLASSES, VOC_CLASSES, listings[0], listings[1], notes=notes)


def voc_objects(annotation: Path) -> np.ndarray:
    """(20,) int8: 1 present, 0 absent, -1 only as objects marked 'difficult'."""
    marks = np.zeros(len(VOC_CLASSES), np.int8)
    try:
        for thing in ElementTree.parse(annotation).getroot().iterfind("object"):
            label = VOC_CLASSES.index(thing.findtext("name", "").strip())
            difficult = thing.findtext("difficult", "0").strip() == "1"
            marks[label] = -1 if difficult and marks[label] != 1 else 1
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{annotation}: no VOC annotation ({error}); extract the archive again") from error
    return marks


def imagenet(config: DataConfig, base: Path) -> Source:
    """train/<wnid>/, and val/<wnid>/ or a flat val/ with the truth of the devkit, Kaggle or torchvision (meta.bin)."""
    ids = subfolders(base / "train")
    words = imagenet_words(base)
    names = [words.get(wnid, wnid) for wnid in ids]
    if subfolders(base / "val"):
        return given_split(config, base, ids, names)
    flat = pictures(base, base / "val")
    truth = imagenet_truth(base, flat)
    label_of = {wnid: label for label, wnid in enumerate(ids)}
    kept = [(file, label_of[truth[Path(file).stem]]) for file in flat if truth.get(Path(file).stem) in label_of]
    if not kept:
        raise UserError(f"{base / 'val'}: holds no picture of the {len(ids)} classes in {base / 'train'}")
    val = from_files(config, base, [file for file, _ in kept], [label for _, label in kept])
    return Source(names, ids, from_files(config, base, *class_tree(base, base / "train", ids)), val)


COMPANIONS = (
    "LOC_synset_mapping.txt", "LOC_val_solution.csv", "meta.mat", "meta.bin", "ILSVRC2012_validation_ground_truth.txt",
)  # fmt: skip


def companions(base: Path) -> list[Path]:
    """The files of the devkit or of Kaggle's archive that may lie beside ImageNet's folder."""
    return [path for name in COMPANIONS if (path := beside(base, name))]


def beside(base: Path, name: str) -> Path | None:
    """A file of the devkit or of Kaggle's archive, in the folder, its devkit, or up to three folders above."""
    for folder in (base, *list(base.parents)[:3]):
        for place in (folder, folder / "ILSVRC2012_devkit_t12" / "data", folder / "data"):
            if (place / name).is_file():
                return place / name
    return None


def devkit_synsets(path: Path) -> list[tuple[int, str, str]]:
    """(number, wnid, words) of the leaves in the devkit's meta.mat; ground-truth numbers refer to them."""
    import scipy.io

    synsets = scipy.io.loadmat(path, squeeze_me=True)["synsets"]
    return [(int(s["ILSVRC2012_ID"]), str(s["WNID"]), str(s["words"])) for s in synsets if int(s["num_children"]) == 0]


def imagenet_words(base: Path) -> dict[str, str]:
    """wnid -> first synonym, from whatever is there; else empty."""
    if mapping := beside(base, "LOC_synset_mapping.txt"):
        words = dict(line.split(" ", 1) for line in mapping.read_text().splitlines() if " " in line)
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

    meta: tuple[dict[str, tuple[str, ...]], list[str]] = torch.load(path, weights_only=True)
    return meta


def imagenet_truth(base: Path, flat: list[str]) -> dict[str, str]:
    """Stem of a flat validation file -> wnid."""
    if solution := beside(base, "LOC_val_solution.csv"):
        with solution.open(newline="") as file:
            return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
    ground, meta = beside(base, "ILSVRC2012_validation_ground_truth.txt"), beside(base, "meta.mat")
    if ground and meta:
        wnid_of = {number: wnid for number, wnid, _ in devkit_synsets(meta)}
        wnids = [wnid_of[int(number)] for number in ground.read_text().split()]
    elif left := beside(base, "meta.bin"):
        wnids = torchvision_meta(left)[1]
    else:
        raise UserError(
            f"{base / 'val'}: flat, and nothing says which picture is of which class: sort it into val/<wnid>/, or put "
            f"the devkit's folder ILSVRC2012_devkit_t12 or Kaggle's LOC_val_solution.csv into {base}"
        )
    if len(wnids) != len(flat):
        raise UserError(f"{base / 'val'}: {len(flat)} pictures, but the ground truth is of {len(wnids)}")
    return {Path(file).stem: wnid for file, wnid in zip(sorted(flat), wnids, strict=True)}


def folder(config: DataConfig, base: Path) -> Source:
    """<class>/<picture>, or train/<class>/<picture> and val/<class>/<picture>."""
    if (base / "train").is_dir() and subfolders(base / "train"):
        ids = subfolders(base / "train")
        names = [name.replace("_", " ") for name in ids]
        if (base / "val").is_dir():
            return given_split(config, base, ids, names)
        return drawn_split(config, base, base / "train", ids, names, {})
    ids = subfolders(base)
    return drawn_split(config, base, base, ids, [name.replace("_", " ") for name in ids], {})


READERS: dict[str, Callable[[DataConfig, Path], Source]] = {
    "tiny_imagenet": tiny_imagenet, "cifar10": cifar10, "imagenette": imagenette, "caltech101": caltech101,
    "caltech256": caltech256, "voc2012": voc2012, "imagenet": imagenet, "folder": folder,
}  # fmt: skip


def open_layout(config: DataConfig, base: Path) -> Source:
    """The data set in the folder that `locating.find_base` found."""
    try:
        source = READERS[config.name](config, base)
    except (OSError, ValueError, LookupError) as error:
        raise UserError(f"{base}: the data set cannot be read ({type(error).__name__}: {error})") from error
    if len(source.class_names) < 2:
        raise UserError(f"{base}: {len(source.class_names)} class(es) found, at least 2 are needed")
    for split, listing in (("training", source.train), ("validation", source.val)):
        if not len(listing.files):
            raise UserError(
                f"{base}: no {split} picture is left; every class needs two or more, or a folder of each split"
            )
    return source
