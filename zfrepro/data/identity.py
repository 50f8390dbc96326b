"""What a data set is: a key from names, sizes and contents relative to its folder. It may move, but not change.

To read a mark of every file takes a while where there are a million, so the key is kept in the cache with a stamp: names,
sizes, times and inodes of all that lies there. Whatever touches a file changes the stamp; then the marks are read again. (But
for Windows, which keeps no time of such a change: what is given its old size and its old time there counts as it was.)
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zfrepro.data import sources
from zfrepro.data.archive import archive_mark, extract
from zfrepro.data.cache import remembered, short_hash, writable
from zfrepro.data.imagenet import companions
from zfrepro.data.layouts import open_layout
from zfrepro.data.locating import find_base, how_to_get
from zfrepro.data.marks import COMPRESSED
from zfrepro.data.sources import Source
from zfrepro.data.trees import holds_runs
from zfrepro.errors import UserError
from zfrepro.options.shared import DataConfig

KEY_VERSION = 3  # of what a layout is read as, and of the key itself
FEW = 50_000  # files
# seconds: what is younger than the coarsest clock of a file system may change without a change of its times
SETTLED = 2.0


@dataclass(frozen=True)
class Identity:
    """What decides the content of a packed data set."""

    key: str  # hash of names, labels and contents, and of how the images are packed; not of where they lie
    names: str  # hash of the classes' readable names, which may become known later
    source: Source | None = None  # if it had to be read: to be packed at once
    told: Sequence[str] = ()  # what is to be known of it, such as what lies there and is not used: a line for each kind
    copies: int = 0  # validation images that are training images too


def identify(config: DataConfig, base: Path | None, progress: bool = True) -> Identity:
    """The identity of the data set in `base`, as `locating.locate` found it. Raises UserError for whatever it lacks."""
    if base is None:
        sources.check_embedded(config)
        return Identity(_packed_as(config, short_hash(sources.drawn_from(config))), "")
    cache = config.cache_folder
    options: list[object] = [KEY_VERSION, config.name, config.val_fraction, config.split_seed, config.on_error]
    options += [config.background]
    stamp: str | None
    if base.is_file():
        mark = _mark(config, base)  # says all
        about, stamp = [*options, mark], mark
    else:
        about, stamp = [*options, str(base)], stamp_of(base)
    read: list[Source] = []

    def content() -> dict[str, Any]:
        read.append(read_originals(config, base, progress))
        return _content(config, read[0])

    found = remembered(cache, about, stamp, content)
    source, told, copies = read[0] if read else None, found.get("told", []), found.get("copies", 0)
    return Identity(_packed_as(config, found["content"]), found["names"], source, told, copies)


def _packed_as(config: DataConfig, content: str) -> str:
    return short_hash([content, config.size, config.fit])


def _content(config: DataConfig, source: Source) -> dict[str, Any]:
    digest = hashlib.sha256(short_hash([config.name, config.on_error, list(source.class_ids)]).encode())
    marks: list[np.ndarray | None] = []
    for listing in (source.train, source.val):
        for array in (listing.labels, listing.multi):
            digest.update(b"" if array is None else f"{array.shape}".encode() + array.tobytes())
        if listing.boxes is not None:
            for array in vars(listing.boxes).values():
                digest.update(f"{array.shape}".encode() + array.tobytes())
        content, own = listing.content()
        marks.append(own)
        digest.update(short_hash(list(listing.files)).encode() + content.encode())
    about = {"told": [*source.told, *told_of_copies(source, *marks)], "copies": len(copies_in(*marks))}
    return {"content": digest.hexdigest(), "names": short_hash(list(source.class_names)), **about}


def copies_in(train: np.ndarray | None, val: np.ndarray | None) -> list[tuple[int, int]]:
    """Pairs of a validation row and a training row whose files have equal marks, as of `mark_files`; a pair for each such
    validation row."""
    if train is None or val is None:
        return []
    rows = {mark: row for row, mark in enumerate(train.tolist())}
    return [(row, rows[mark]) for row, mark in enumerate(val.tolist()) if mark in rows]


def told_of(source: Source) -> list[str]:
    """What is to be known of a data set that is not packed, a line for each kind: its copies too, where it takes seconds to look
    for them, into the ends of not too many files."""
    splits = (source.train, source.val)
    files = [name for listing in splits for name in listing.files]
    if len(files) > FEW or not all(name.lower().endswith(tuple(COMPRESSED)) for name in files):
        return source.told
    return [*source.told, *told_of_copies(source, *(listing.content()[1] for listing in splits))]


def told_of_copies(source: Source, train: np.ndarray | None, val: np.ndarray | None) -> list[str]:
    """A line on validation images that are training images too, and on training images of two classes, by their files' marks."""
    told, copies = [], copies_in(train, val)
    if copies:
        (row, of), rows = copies[0], np.array(copies)
        others = int((source.val.labels[rows[:, 0]] != source.train.labels[rows[:, 1]]).sum())
        told += [
            f"{len(copies)} of {len(source.val.files)} validation images are copies of training images"
            + (f", {others} of another class" if others else "")
            + f", the first: {source.val.files[row]} of {source.train.files[of]}; their errors say nothing of new images"
        ]
    if train is not None and len(pairs := _contradictions(train, source.train.labels)):
        one, other = (source.train.files[row] for row in pairs[0])
        told += [
            f"{len(pairs)} training images are copies of others of another class, the first: {other} of {one}; take out "
            "what is wrong"
        ]
    return told


def _contradictions(marks: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n, 2): rows of equal marks and different labels; n others would have to go."""
    order = np.lexsort((labels, marks))
    found = np.flatnonzero((marks[order[1:]] == marks[order[:-1]]) & (labels[order[1:]] != labels[order[:-1]]))
    return np.stack([order[found], order[found + 1]], 1)


def _mark(config: DataConfig, archive: Path) -> str:
    """An archive's mark; read again where its size or times have changed."""
    found = remembered(config.cache_folder, str(archive), stamp_of(archive), lambda: {"mark": archive_mark(archive)})
    return str(found["mark"])


def read_originals(config: DataConfig, base: Path, progress: bool = True) -> Source:
    """The data set in a folder, or in an archive, which is unpacked into the cache first."""
    if base.is_dir():
        return open_layout(config, base)
    cache = config.cache_folder
    with writable(cache):
        found = find_base(config, extract(base, cache / "extracted", _mark(config, base), progress))
    if found is None:
        raise UserError(f"data.root={config.root}: does not hold {config.name}: {how_to_get(config)}")
    return open_layout(config, found)


# ------------------------------------------------------------------------------------------------------------------ stamps


def stamp_of(base: Path) -> str | None:
    """A hash of names, sizes, times and inodes of a file, or of all that lies in a folder and is not hidden; no file is
    opened. None where something is so young that another change might not show."""
    digest, newest = hashlib.sha256(), 0
    for folder, entries in _folders(base):
        found = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in entries]
        digest.update(repr((folder, found)).encode("utf-8", "surrogateescape"))
        newest = max([newest, *(max(entry[2:4]) for entry in found)])
    young = time.time_ns() - newest < SETTLED * 1e9
    return None if young else digest.hexdigest()


def _folders(base: Path) -> Iterator[tuple[str, list[tuple[str, os.stat_result]]]]:
    """Folders, named relative to `base`, with their files, in a fixed order; runs that were written there are no data."""
    if base.is_file():
        yield "", [("", base.stat())]
        return
    beside = companions(base)
    yield "beside", [(path.name, path.stat()) for path in beside]
    waiting, seen = [str(base), *(str(path) for path in beside if path.is_dir())], set()
    while waiting:
        folder = waiting.pop()
        if (real := os.path.realpath(folder)) in seen:
            continue  # links may lead in circles
        seen.add(real)
        files = []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                if not entry.is_dir():
                    files.append((entry.name, entry.stat(follow_symlinks=entry.is_file())))  # a dangling link's own
                elif not holds_runs(Path(entry.path)):
                    waiting.append(entry.path)
        yield os.path.relpath(folder, base), files
