"""Packing: every image decoded once and resized (ZF and VGG papers, section 3), into arrays to be memory-mapped.

A folder of packed data is named by a hash of what determines its content. It is built under a lock, in a folder beside
it that is renamed once complete and on the disk: whatever is killed, whoever packs the same, a folder of that name is
whole. Workers write their rows straight into the files, so the memory in use does not grow with the data set.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from tqdm import tqdm

from zfrepro.data import decode, rows, sources
from zfrepro.data.archive import check_members
from zfrepro.data.cache import short_hash, writable
from zfrepro.data.decode import frame
from zfrepro.data.identity import Identity, identify, read_originals, told_of
from zfrepro.data.layouts import open_layout
from zfrepro.data.locating import locate
from zfrepro.data.packed import MANIFEST, Boxes, Packed, load
from zfrepro.data.rows import Written, path_of
from zfrepro.data.sources import Listing, Source
from zfrepro.errors import UserError, listed
from zfrepro.files import (
    file_hash,
    move,
    nearest_existing,
    pending,
    read_json,
    require_space,
    sync_path,
    waiting_lock,
)
from zfrepro.options.declare import check_options
from zfrepro.options.shared import DataConfig

PACK_VERSION = 3  # of decoding and of the folder's format: part of the folder's name
PALE = 5.0  # standard deviation of pixels below which there is hardly a picture; photographs have 50 to 80
MEAN_BYTES = 1 << 24  # of images in memory at a time while their mean is computed


# ------------------------------------------------------------------------------------------------------------- opening


def open_data(config: DataConfig, progress: bool = True) -> Packed:
    """The packed data set, built first if it is not there yet. Raises UserError for whatever a user can mend."""
    check_options(config, "data.")
    base = locate(config)
    identity = identify(config, base, progress)
    folder = _folder(config, identity)
    if not (folder / MANIFEST).exists():
        _refuse_halfway()
        notice = f"another process is packing {folder.name}; waiting for it" * progress
        with writable(folder.parent), waiting_lock(folder.with_name(f"{folder.name}.lock"), notice):
            if not (folder / MANIFEST).exists():  # another process may have built it while this one waited
                build(config, base, folder, identity, progress)
    return load(folder)


def _refuse_halfway() -> None:
    """Refuse to pack in a worker that runs its parent's script again, as they begin off Linux: it would wait for its parent, and
    that for it."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(
            'packing starts processes, which run this script again: put its statements below `if __name__ == "__main__":`'
        )


def packed_folder(config: DataConfig) -> Path:
    """Where the packed data set is, or would be. Raises UserError where the data set itself is missing."""
    return _folder(config, identify(config, locate(config, fetch=False)))


def not_used(config: DataConfig) -> Sequence[str]:
    """What lies in the data set's folder now and is not packed, a line for each kind."""
    return identify(config, locate(config, fetch=False)).told


def _folder(config: DataConfig, identity: Identity) -> Path:
    about = [identity.key, identity.names, PACK_VERSION]
    return config.cache_folder / f"{_prefix(config)}-{short_hash(about)[:12]}"


def _prefix(config: DataConfig) -> str:
    return f"{config.name}-{config.size}px" + ("-whole" if config.fit == "whole" else "")


def find_packed(config: DataConfig, key: str) -> Packed | None:
    """The packed data set of that key, if it is in the cache; the originals need not be there any more."""
    for manifest in sorted(config.cache_folder.glob(f"{_prefix(config)}-*/{MANIFEST}")):
        with contextlib.suppress(UserError, OSError):
            if read_json(manifest).get("key") == key:
                return load(manifest.parent)
    return None


def examine(config: DataConfig) -> tuple[list[str], list[str]]:
    """What is wrong with a data set, without packing it, one sentence each, none if it can be packed (or is); and what is only to
    be known."""
    try:
        _check_cache(config.cache_folder)
        base = locate(config, fetch=False)
        if base is None:
            sources.check_embedded(config)
        elif base.is_file():
            check_members(base)
        else:
            return [], told_of(open_layout(config, base))
    except UserError as error:
        return [str(error)], []
    return [], []


def _check_cache(cache: Path) -> None:
    """Refuse a cache that cannot be written, without making it."""
    there = nearest_existing(cache)
    if there is None or not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise UserError(f"data.cache={cache}: cannot be written; set ZFREPRO_CACHE=<folder>")


def read_image(path: Path, size: int) -> np.ndarray:
    """A user's picture as it would be packed, (size, size, 3) uint8. Raises UserError for what is no image."""
    image: np.ndarray = read_images([path], size)[0]
    return image


def read_images(paths: Sequence[Path], size: int) -> np.ndarray:
    """The same of several, (N, size, size, 3)."""
    found, several = [], []
    for path in paths:
        try:
            image, more = decode.read_first(path)
            found.append(decode.fitted(image, size, "square"))
        except Exception as error:
            raise UserError(f"{path}: cannot be read as an image ({decode.reason(error)})") from error
        several += [path.name] * more
    for note in _told_of_several(several):
        print(f"note: {note}", file=sys.stderr)
    return np.stack(found)


# ------------------------------------------------------------------------------------------------------------ building


def build(config: DataConfig, base: Path | None, folder: Path, identity: Identity, progress: bool) -> None:
    """Pack the data set into `folder`, whole or not at all. The caller holds the lock."""
    source = sources.embedded(config) if base is None else identity.source or read_originals(config, base, progress)
    splits = {"train": source.train, "val": source.val}
    shapes = {split: rows.measure(listing, config.workers) for split, listing in splits.items()}
    need = sum(rows.row_bytes(listing, shapes[split]) for split, listing in splits.items())
    require_space(folder.parent, 1.02 * need, "packed images", "make room or give data.cache=<folder>")
    shutil.rmtree(folder, ignore_errors=True)  # without a manifest, so never finished
    with pending(folder.parent, folder.name) as fresh:
        written = _write_splits(config, splits, shapes, fresh, progress)
        _write_colours(config, fresh, written["train"])
        skipped = [
            {"file": splits[split].files[row], "why": why}
            for split, own in written.items()
            for row, why in own.failures.items()
        ]
        several = [listing.files[row] for split, listing in splits.items() for row in written[split].several]
        manifest = _manifest(config, base, source, identity, _entries(fresh), skipped, several)
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in fresh.iterdir():
            sync_path(path)
        sync_path(fresh)
        move(fresh, folder)
        sync_path(folder.parent)
    contrast = _told_of_contrast(np.load(folder / "covariance.npy"))
    for note in [*identity.told, *_told_of_several(several), *contrast]:
        print(f"note: {note}", file=sys.stderr)
    if skipped:
        print(
            f"warning: {len(skipped)} images cannot be read and are left out; {folder / MANIFEST} names them",
            file=sys.stderr,
        )


def _write_splits(
    config: DataConfig, splits: dict[str, Listing], shapes: dict[str, np.ndarray | None], folder: Path, progress: bool
) -> dict[str, Written]:
    """All arrays of the splits. Raises UserError for unreadable images unless told to skip."""
    total = sum(len(listing.files) for listing in splits.values())
    quiet = None if progress else True  # None: no bar where stderr is no terminal
    with tqdm(total=total, desc=f"packing {config.name}", unit=" images", disable=quiet, smoothing=0.1) as bar:
        written = {
            split: rows.write_rows(folder, split, listing, shapes[split], config.workers, bar.update)
            for split, listing in splits.items()
        }
    _check_failures(config, splits, written)
    for split, listing in splits.items():
        _write_labels(config, folder, split, listing, list(written[split].failures))
    return written


def _check_failures(config: DataConfig, splits: dict[str, Listing], written: dict[str, Written]) -> None:
    failed = [(split, row, why) for split, own in written.items() for row, why in own.failures.items()]
    if not failed:
        return
    split, row, why = failed[0]
    total = sum(len(listing.files) for listing in splits.values())
    first = f"{len(failed)} of {total} images cannot be read, the first: {splits[split].files[row]} ({why})"
    if config.on_error == "raise":
        raise UserError(f"{first}; mend them or give data.on_error=skip")
    if any(len(own.failures) == len(splits[name].files) for name, own in written.items()):
        raise UserError(f"{first}; nothing would be left of a split")
    training = splits["train"]
    if training.multi is not None:
        return
    left = np.delete(training.labels, list(written["train"].failures))
    for label in np.setdiff1d(training.labels, left)[:1]:
        example = training.files[int(np.flatnonzero(training.labels == label)[0])]
        raise UserError(
            f"{first}; nothing would be left to train on of the class of {example}: mend it, or take its folder away"
        )


# ---------------------------------------------------------------------------------------------- the rest of the folder


def _write_labels(config: DataConfig, folder: Path, split: str, listing: Listing, dropped: list[int]) -> None:
    """Labels, names, boxes and, where there are any, several labels an image, all without the dropped rows."""
    kept = np.delete(np.arange(len(listing.files)), dropped)
    labels = listing.labels[kept]
    if listing.multi is not None:
        np.save(path_of(folder, split, "multi"), listing.multi[kept])
    if "multi" in listing.fields:  # drawn with the images
        labels = sources.first_present(np.load(path_of(folder, split, "multi")))
    np.save(path_of(folder, split, "labels"), labels.astype(np.int64))
    names = [listing.files[row].encode("utf-8", "surrogateescape") for row in kept.tolist()]
    np.save(path_of(folder, split, "files"), np.array(names, dtype=np.bytes_))
    if (boxes := _boxes(config, folder, split, listing, kept, labels)) is not None:
        for part in ("starts", "corners", "labels"):
            np.save(path_of(folder, split, f"box_{part}"), getattr(boxes, part))


def _boxes(
    config: DataConfig, folder: Path, split: str, listing: Listing, kept: np.ndarray, labels: np.ndarray
) -> Boxes | None:
    """Boxes in pixels of the packed images; those of which nothing is left are left out."""
    if listing.boxes is not None:
        sizes = np.load(path_of(folder, split, "sizes"))
        found = listing.boxes.take(kept)
        frames = np.array([frame(height, width, config.size, config.fit) for height, width in sizes.tolist()])
        return fit_boxes(found, frames.reshape(-1, 6))
    if "boxes" in listing.fields:  # drawn: one object an image
        return _drawn_boxes(np.load(path_of(folder, split, "boxes"))[:, None], labels[:, None])
    if "object_boxes" in listing.fields:
        return _drawn_boxes(*(np.load(path_of(folder, split, f"object_{part}")) for part in ("boxes", "labels")))
    return None


def _drawn_boxes(corners: np.ndarray, labels: np.ndarray) -> Boxes:
    """Of N images with K places each: (N, K, 4), (N, K); a box without an area is of an object that is not seen."""
    starts = np.arange(len(corners) + 1) * corners.shape[1]
    every = Boxes(starts, corners.reshape(-1, 4).astype(np.float32), labels.reshape(-1).astype(np.int64))
    return every.only(np.all(every.corners[:, 2:] > every.corners[:, :2], axis=1))


def fit_boxes(boxes: Boxes, frames: np.ndarray) -> Boxes:
    """Boxes of pictures as boxes of the packed images, clipped to them. frames (N, 6): see `decode.frame`."""
    scale, shift, extent = np.split(frames[boxes.images], 3, axis=1)
    corners = boxes.corners.reshape(-1, 2, 2) * scale[:, None] - shift[:, None]
    corners = np.clip(corners, 0, extent[:, None]).astype(np.float32)
    fitted = Boxes(boxes.starts, corners.reshape(-1, 4), boxes.labels)
    return fitted.only(np.all(corners[:, 1] > corners[:, 0], axis=1))


def _write_colours(config: DataConfig, folder: Path, train: Written) -> None:
    """Mean colour, covariance of the colours, and for squares the mean image, of the training images."""
    colour = train.colours[0] / train.pixels
    np.save(folder / "colour.npy", colour)
    np.save(folder / "covariance.npy", train.colours[1:] / train.pixels - np.outer(colour, colour))
    if config.fit == "whole":
        return
    images = path_of(folder, "train", "images")
    count, *shape = np.load(images, mmap_mode="r").shape
    total = np.zeros(shape, np.int64)  # whole numbers: exact, whatever the order
    with images.open("rb") as file:  # read, not mapped: mapped pages would count as memory in use
        file.seek(rows.HEADER)
        while block := file.read(max(1, MEAN_BYTES // total.size) * total.size):
            total += np.frombuffer(block, np.uint8).reshape(-1, *shape).sum(0, dtype=np.uint32)
    np.save(folder / "mean.npy", (total / count).astype(np.float32))


def _told_of_several(files: Sequence[str]) -> list[str]:
    """A line where files hold several pictures."""
    if not files:
        return []
    what = f"{len(files)} of the files hold" if len(files) > 1 else "1 of the files holds"
    return [f"{what} several frames or pages, of which the first is taken: {listed(files, 5)}"]


def _told_of_contrast(covariance: np.ndarray) -> list[str]:
    """A line where the training pixels, whose colours' covariance this is, hardly differ."""
    deviation = float(np.sqrt(np.trace(covariance).clip(0) / 3))
    if deviation >= PALE:
        return []
    return [
        f"the training images are nearly of one colour (standard deviation {deviation:.1f} of 255): are they 12-bit values "
        "stored as 16 bits, values of 0 to 1 stored as bytes, or transparent?"
    ]


def _entries(folder: Path) -> dict[str, dict[str, Any]]:
    """The manifest's entry for every array."""
    entries = {}
    for path in sorted(folder.glob("*.npy")):
        array = np.load(path, mmap_mode="r")
        entries[path.name] = {"dtype": str(array.dtype), "shape": list(array.shape), "sha256": file_hash(path)}
    return entries


def _manifest(
    config: DataConfig,
    base: Path | None,
    source: Source,
    identity: Identity,
    arrays: dict[str, dict[str, Any]],
    skipped: list[dict[str, str]],
    several: Sequence[str],
) -> dict[str, Any]:
    return {
        "name": config.name,
        "size": config.size,
        "fit": config.fit,
        "key": identity.key,
        "copies": identity.copies,
        "source": {"root": str(base) if base else None, **source.notes},
        "passed_over": list(source.passed_over),
        "counts": {split: arrays[f"{split}_labels.npy"]["shape"][0] for split in ("train", "val")},
        "class_names": list(source.class_names),
        "class_ids": list(source.class_ids),
        "keypoint_names": list(source.keypoint_names),
        "skipped_count": len(skipped),
        "skipped": skipped,
        "several_frames": list(several),
        "arrays": arrays,
        "versions": {"pack": PACK_VERSION, "numpy": np.__version__, "pillow": PIL.__version__},
    }
