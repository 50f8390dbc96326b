"""Where a data set's files are: `data.root`, an archive, or what torchvision fetched; else how to get them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from zfrepro.data.trees import innermost
from zfrepro.errors import UserError, words_of
from zfrepro.options.shared import DataConfig

CALTECH = "https://data.caltech.edu/records/"
FAST_AI = "https://s3.amazonaws.com/fast-ai-imageclas/"
PASCAL = "http://host.robots.ox.ac.uk/pascal/VOC/"
GET = {  # what to fetch by hand, and what of it data.root may be
    "tiny_imagenet": "http://cs231n.stanford.edu/tiny-imagenet-200.zip (237 MB; the zip itself, or extracted)",
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz (170 MB), extracted: cifar-10-batches-py/",
    "imagenette": f"{FAST_AI}imagenette2-320.tgz (326 MB; the archive itself, or extracted: imagenette2-320/)",
    "caltech101": f"{CALTECH}mzrjq-6wc02/files/caltech-101.zip (137 MB), and extract its 101_ObjectCategories.tar.gz",
    "caltech256": f"{CALTECH}nyy15-4j048/files/256_ObjectCategories.tar (1.2 GB; the tar itself, or extracted)",
    "voc2012": f"{PASCAL}voc2012/VOCtrainval_11-May-2012.tar (2 GB; the tar itself, or extracted: VOCdevkit/)",
    "voc2007": f"{PASCAL}voc2007/VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar (900 MB), extracted: VOCdevkit/",
    "voc2012_actions": f"{PASCAL}voc2012/VOCtrainval_11-May-2012.tar (2 GB; the tar itself, or extracted: VOCdevkit/)",
    "imagenet": "ILSVRC2012 from https://image-net.org (register; 145 GB), arranged as train/<wnid>/ and val/<wnid>/",
    "folder": "pictures of your own as <class>/<picture>, or train/<class>/<picture> and val/<class>/<picture>",
}


def voc_places(year: int) -> tuple[str, ...]:
    """Where the devkit of a year may be."""
    own = f"VOC{year}"
    return "", own, f"VOCdevkit/{own}", f"*/{own}", f"*/VOCdevkit/{own}"


PLACES = {  # where the data set's own folder may be below data.root, nearest first; the folder, and what tells it
    "tiny_imagenet": (("", "*"), ("wnids.txt", "train", "val/val_annotations.txt")),
    "cifar10": (("", "cifar-10-batches-py"), ("batches.meta", "data_batch_1", "test_batch")),
    "imagenette": (("", "imagenette2*", "*"), ("train/n0*", "val/n0*")),
    "caltech101": (("", "101_ObjectCategories", "*/101_ObjectCategories"), ("*/image_0001.jpg",)),
    "caltech256": (("", "256_ObjectCategories", "*/256_ObjectCategories"), ("[0-9][0-9][0-9].*/*.jpg",)),
    "voc2007": (voc_places(2007), ("JPEGImages", "Annotations", "ImageSets/Main/trainval.txt")),
    "voc2012": (
        voc_places(2012),
        ("JPEGImages", "Annotations", "ImageSets/Main/train.txt", "ImageSets/Main/val.txt"),
    ),
    "voc2012_actions": (
        voc_places(2012),
        ("JPEGImages", "Annotations", "ImageSets/Action/train.txt", "ImageSets/Action/val.txt"),
    ),
    "imagenet": (("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "*"), ("train/n*", "val/*")),
    "folder": (("",), ("*/*",)),
}
FETCHABLE = ("cifar10", "imagenette", "caltech101", "caltech256", "voc2007", "voc2012", "voc2012_actions")


def placed(config: DataConfig) -> DataConfig:
    """With an absolute root, so that a run finds its data from other working directories too."""
    root = config.root and str(Path(config.root).expanduser().resolve())
    return dataclasses.replace(config, root=root)


def how_to_get(config: DataConfig) -> str:
    """What a user does to have the data set here."""
    fetch = "; or give data.download=true" if config.name in FETCHABLE else ""
    verb = "arrange" if config.name == "folder" else "fetch"
    return f"{verb} {GET[config.name]}, and give data.root=<where it is>{fetch}"


def locate(config: DataConfig, fetch: bool = True) -> Path | None:
    """The data set's own folder or its zip archive; None for the embedded one, which has no files.

    Fetches where `fetch` and `data.download` say so. Raises UserError with what to fetch by hand and where to put it.
    """
    if config.name == "embedded":
        return None
    downloads = config.cache_folder / "downloads" / config.name
    root = Path(config.root).expanduser().resolve() if config.root else downloads
    if root.is_file():
        return root  # looked into when it is unpacked
    base = find_base(config, root)
    if base is None and config.download and fetch:
        _download(config, root)
        base = find_base(config, root)
    if base is not None:
        return base
    if config.root is None:
        raise UserError(f"data.root is not given, and {config.name} has to come from somewhere: {how_to_get(config)}")
    missing = f"is not laid out as {config.name}" if root.exists() else "does not exist"
    raise UserError(f"data.root={config.root}: {missing}: {how_to_get(config)}")


def find_base(config: DataConfig, root: Path) -> Path | None:
    """The folder that looks like the data set, at `root` or below it; None if there is none."""
    places, marks = PLACES[config.name]
    for place in places:
        folders = [root] if not place else sorted(path for path in root.glob(place) if path.is_dir())
        found = [folder for folder in folders if all(any(folder.glob(mark)) for mark in marks)]
        if len(found) > 1:
            raise UserError(f"data.root={root}: holds several: give one, such as data.root={found[0]}")
        if found:
            return innermost(found[0]) if config.name == "folder" else found[0]
    return None


def _download(config: DataConfig, root: Path) -> None:
    """Have torchvision fetch the data set into `root`."""
    if config.name not in FETCHABLE:
        raise UserError(f"data.download=true: {config.name} cannot be fetched for you: {how_to_get(config)}")
    from zfrepro.vision import torchvision

    sets = torchvision.datasets
    width = next((name for name, side in (("160px", 160), ("320px", 320)) if config.size <= side), "full")
    calls: dict[str, Callable[[], object]] = {
        "cifar10": lambda: sets.CIFAR10(str(root), download=True),
        "imagenette": lambda: sets.Imagenette(str(root), size=width, download=True),
        "caltech101": lambda: sets.Caltech101(str(root), download=True),
        "caltech256": lambda: sets.Caltech256(str(root), download=True),
        "voc2007": lambda: [
            sets.VOCDetection(str(root), year="2007", image_set=split, download=True) for split in ("trainval", "test")
        ],
        "voc2012": lambda: sets.VOCDetection(str(root), year="2012", download=True),
        "voc2012_actions": lambda: sets.VOCDetection(str(root), year="2012", download=True),
    }
    try:
        root.mkdir(parents=True, exist_ok=True)
        calls[config.name]()
    except Exception as error:  # hosts, proxies, checksums, archives, disks: all end in the same advice
        advice = f"fetch {GET[config.name]}, put it into {root} and give data.root={root}"
        raise UserError(f"{config.name} could not be fetched ({words_of(error)}): {advice}") from error
