"""Class folders as people have them: which files are pictures, which folders are classes, and what is neither."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zfrepro.data.annotations import BoxLines
from zfrepro.data.sources import Source, from_files, split_by_class
from zfrepro.errors import UserError, listed
from zfrepro.options.shared import DataConfig

SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif", ".ppm", ".pgm", ".pbm",
    ".pnm",
}  # fmt: skip
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\x00", b"MM\x00*")
ARCHIVES = (".tar", ".zip", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
# what systems leave behind
NOT_OURS = {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", "Icon\r"}
TRAIN, VAL = ("train", "training"), ("val", "valid", "validation", "test", "testing")
NO_CLASSES = ("train", "val", "test", "image", "mask", "label", "annotation")  # as the names of all folders begin


# ------------------------------------------------------------------------------------------------- files and folders


def is_picture(path: str) -> bool:
    """A file by its suffix, or, where that is none of a picture, by how it begins."""
    if os.path.splitext(path)[1].lower() in SUFFIXES:  # noqa: PTH122 - a million of them
        return True
    try:
        if not Path(path).is_file():  # a named pipe would wait forever
            return False
        with Path(path).open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    if head.startswith(BEGINNINGS) or (head[:2] == b"BM" and head[6:10] == bytes(4)):
        return True
    return (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[4:12] in (b"ftypavif", b"ftypavis")


def pictures(base: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Pictures directly in `folder`, and what else is there (folders with a '/'), sorted, named relative to `base`; hidden
    files left out."""
    prefix = "" if folder == base else f"{folder.relative_to(base).as_posix()}/"
    found, others = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name in NOT_OURS:
                continue
            if is_picture(entry.path):
                found.append(prefix + entry.name)
            else:
                others.append(prefix + entry.name + "/" * entry.is_dir())
    return sorted(found), sorted(others)


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in it, sorted; hidden ones left out, those of systems, and those that hold our own runs."""
    folders = (child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    return sorted(child.name for child in folders if child.name not in NOT_OURS and not holds_runs(child))


def holds_runs(folder: Path) -> bool:
    """An outputs folder, as `data.root=.` finds it among the classes."""
    return any(_is_run(child) or any(map(_is_run, _folders(child))) for child in _folders(folder))


def _is_run(folder: Path) -> bool:
    """Also one that begins: its lock is there first."""
    return (folder / "train" / "config.yaml").exists() or (folder / ".lock").exists()


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir()]


def innermost(root: Path) -> Path:
    """The folder of the classes, where `root` holds nothing but a folder that holds it, as an archive's often does."""
    while split_folders(root) is None and len(names := subfolders(root)) == 1 and subfolders(root / names[0]):
        root = root / names[0]
    return root


def split_folders(base: Path) -> tuple[str, str | None, list[str]] | None:
    """The names of the training folder and of the validation folder (or None) with classes in them, and of what else is
    beside them; None where there is no training folder. Raises UserError for a validation folder without classes (a test folder
    often has none: it is passed over)."""
    names = subfolders(base)
    by_name = {name.lower(): name for name in names if subfolders(base / name)}
    train = next((by_name[name] for name in TRAIN if name in by_name), None)
    if train is None:
        return None
    val = next((by_name[name] for name in VAL if name in by_name), None)
    flat = [name for name in names if name.lower() in VAL[:3]]
    if val is None and flat:
        raise UserError(
            f"{base / flat[0]}: has no class folders, as {train}/ has; sort its pictures into <class>/, or take it away"
        )
    return train, val, [f"{name}/" for name in names if name not in (train, val)]


# -------------------------------------------------------------------------------------------------------------- classes


def class_tree(
    base: Path, folder: Path, classes: Sequence[str], all_filled: bool = True
) -> tuple[tuple[list[str], list[int]], list[str]]:
    """Pictures of `<folder>/<class>/<picture>`, named relative to `base`, with their labels; and what lies among them and is
    passed over. Raises UserError for a class folder without pictures (unless it may be missing)."""
    files: list[str] = []
    labels: list[int] = []
    passed_over: list[str] = []
    for label, name in enumerate(classes):
        if not (folder / name).is_dir() and not all_filled:
            continue
        found, others = pictures(base, folder / name)
        if not found and (others or all_filled):
            raise UserError(f"{folder / name}: {_why_empty(others)}")
        files += found
        labels += [label] * len(found)
        passed_over += others
    if not files:
        raise UserError(f"{folder}: there are no pictures in its class folders")
    return (files, labels), passed_over


def _seen(name: str) -> str:
    """A name without the difference between an accented letter and a letter with an accent, which nobody sees."""
    return unicodedata.normalize("NFC", name)


def require_distinct(base: Path, classes: Sequence[str]) -> None:
    """Refuse two class folders whose names look the same: one class, copied from a Mac and from elsewhere."""
    first: dict[str, str] = {}
    for name in classes:
        if (other := first.setdefault(_seen(name), name)) != name:
            raise UserError(
                f"{base}: its class folders {other!a} and {name!a} are both seen as {name}; put the pictures into one"
            )


def require_classes(base: Path, names: Sequence[str]) -> None:
    """Refuse a training and a validation folder with pictures right in them, or images and masks, as two classes."""
    if len(names) > 1 and all(name.lower().startswith(NO_CLASSES) for name in names):
        raise UserError(
            f"{base}: {listed([f'{name}/' for name in names], 5)} are no classes, and hold no class folders; sort the pictures "
            "into <class>/, or train/<class>/ and val/<class>/"
        )


def _why_empty(others: list[str]) -> str:
    archives = [name for name in others if name.lower().endswith(ARCHIVES)]
    if archives:
        first = Path(archives[0]).name
        return f"its {len(archives)} archives ({first}...) are not extracted; extract each into a folder of its own"
    where = f" ({listed(others, 3)})" if others else ""
    return f"there are no pictures directly in this class folder{where}; put some there, or take the folder away"


def drawn_split(
    config: DataConfig, base: Path, folder: Path, ids: list[str], names: list[str], boxes: BoxLines | None = None
) -> Source:
    """A class tree without a validation split: a share of each class is drawn with the seed."""
    (files, numbers), others = class_tree(base, folder, ids)
    labels = np.array(numbers)
    val = split_by_class(files, labels, config.val_fraction, config.split_seed)
    parts = [([files[i] for i in np.flatnonzero(rows)], labels[rows]) for rows in (~val, val)]
    train, held = (from_files(config, base, *part, boxes=boxes and boxes(*part)) for part in parts)
    notes = {"split": f"drawn: {config.val_fraction:g} of each class, seed {config.split_seed}"}
    notes |= without_pictures(names, labels[val].tolist())
    return Source(names, ids, train, held, notes=notes, passed_over=others)


def given_split(
    config: DataConfig,
    base: Path,
    ids: list[str],
    names: list[str],
    folders: tuple[str, str] = ("train", "val"),
    boxes: BoxLines | None = None,
) -> Source:
    """Classes in a training and in a validation folder below `base`."""
    if extra := sorted(set(subfolders(base / folders[1])) - set(ids)):
        alike = [name for name in ids if _seen(name).casefold().strip() == _seen(extra[0]).casefold().strip()]
        hint = f", where there is {alike[0]!a} for {extra[0]!a}: give both one name" if alike else ""
        raise UserError(f"{base / folders[1]}: its class {extra[0]!r} is not in {base / folders[0]}{hint}")
    own, others = class_tree(base, base / folders[0], ids)
    held, more = class_tree(base, base / folders[1], ids, all_filled=False)
    train, val = (from_files(config, base, *part, boxes=boxes and boxes(*part)) for part in (own, held))
    return Source(names, ids, train, val, notes=without_pictures(names, held[1]), passed_over=others + more)


def without_pictures(names: Sequence[str], labels: Sequence[int]) -> dict[str, str]:
    """A note on the classes that have no validation picture; none where all have one."""
    missing = [names[label] for label in sorted(set(range(len(names))) - set(labels))]
    if not missing:
        return {}
    which = f"{len(missing)} of the classes ({listed(missing, 5)})"
    return {"unseen": f"no validation picture, so that errors say nothing of them: {which}"}
