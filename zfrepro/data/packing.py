"""Packing: every image decoded once, resized and cropped (paper, section 3), into arrays to be memory-mapped.

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
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from tqdm import tqdm

from zfrepro.data import decode, sources
from zfrepro.data.archive import check_members
from zfrepro.data.cache import cache_folder, short_hash, writable
from zfrepro.data.decode import Chunk
from zfrepro.data.identity import Identity, identify, open_source
from zfrepro.data.layouts import open_layout
from zfrepro.data.locating import locate
from zfrepro.data.packed import MANIFEST, Packed, load
from zfrepro.data.sources import Listing, Source
from zfrepro.errors import UserError
from zfrepro.files import file_hash, pending, read_json, require_space, sync_folder, waiting_lock
from zfrepro.options.declare import check_options
from zfrepro.options.shared import DataConfig
from zfrepro.workers import cpus, start_worker

PACK_VERSION = 2  # of decoding and of the folder's format: part of the folder's name
HEADER = 128  # bytes before the numbers of a .npy file here: fixed, so that a file can shrink in place


# ------------------------------------------------------------------------------------------------------------- opening


def open_data(config: DataConfig, progress: bool = True) -> Packed:
    """The packed data set, built first if it is not there yet. Raises UserError for whatever a user can mend."""
    check_options(config, "data.")
    base = locate(config)
    identity = identify(config, base)
    folder = _folder(config, identity)

    def tell() -> None:
        if progress:
            print(f"another process is packing {folder.name}; waiting for it", file=sys.stderr)

    if not (folder / MANIFEST).exists():
        with writable(folder.parent), waiting_lock(folder.with_name(f"{folder.name}.lock"), tell):
            if not (folder / MANIFEST).exists():  # another process may have built it while this one waited
                build(config, base, folder, identity.key, progress)
    return load(folder)


def packed_folder(config: DataConfig) -> Path:
    """Where the packed data set is, or would be. Raises UserError where the data set itself is missing."""
    return _folder(config, identify(config, locate(config, fetch=False)))


def _folder(config: DataConfig, identity: Identity) -> Path:
    about = [identity.key, identity.names, PACK_VERSION]
    return cache_folder(config) / f"{_prefix(config)}-{short_hash(about)[:12]}"


def _prefix(config: DataConfig) -> str:
    return f"{config.name}-{config.size}px"


def find_packed(config: DataConfig, key: str) -> Packed | None:
    """The packed data set of that key, if it is in the cache; the originals need not be there any more."""
    for manifest in sorted(cache_folder(config).glob(f"{_prefix(config)}-*/{MANIFEST}")):
        with contextlib.suppress(UserError, OSError):
            if read_json(manifest).get("key") == key:
                return load(manifest.parent)
    return None


def find_problems(config: DataConfig) -> list[str]:
    """What is wrong with a data set, without packing it: one sentence each, none if it can be packed (or is)."""
    try:
        check_options(config, "data.")
        base = locate(config, fetch=False)
        if base is None:
            sources.check_embedded(config)
        elif base.is_file():
            check_members(base)
        else:
            open_layout(config, base)
    except UserError as error:
        return [str(error)]
    return []


def read_image(path: Path, size: int) -> np.ndarray:
    """A user's picture as it would be packed, (size, size, 3) uint8. Raises UserError for what is no image."""
    try:
        return decode.read_picture(path, size)
    except Exception as error:
        raise UserError(f"{path}: cannot be read as an image ({decode.reason(error)})") from error


# ------------------------------------------------------------------------------------------------------------ building


def build(config: DataConfig, base: Path | None, folder: Path, key: str, progress: bool) -> None:
    """Pack the data set into `folder`, whole or not at all. The caller holds the lock."""
    source = sources.embedded(config) if base is None else open_source(config, base, progress)
    _check_space(folder.parent, source)
    shutil.rmtree(folder, ignore_errors=True)  # without a manifest, so never finished
    with pending(folder.parent, folder.name) as fresh:
        skipped = _write_splits(config, source, fresh, progress)
        arrays, mean = _finish_arrays(fresh)
        manifest = _manifest(config, base, source, key, arrays, mean, skipped)
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in fresh.iterdir():
            _sync(path)
        sync_folder(fresh)
        fresh.rename(folder)
        sync_folder(folder.parent)
    if skipped:
        print(
            f"warning: {len(skipped)} images cannot be read and are left out; {folder / MANIFEST} names them",
            file=sys.stderr,
        )


def _check_space(cache: Path, source: Source) -> None:
    """Refuse to start what cannot fit: the arrays, and 2 % for the names and labels beside them."""
    need = sum(_row_bytes(listing) * len(listing.files) for listing in (source.train, source.val)) * 1.02
    require_space(cache, need, "packed images", "make room or give data.cache=<folder>")


def _row_bytes(listing: Listing) -> int:
    return sum(int(np.dtype(dtype).itemsize * np.prod(shape)) for dtype, shape in listing.fields.values())


def _write_splits(config: DataConfig, source: Source, folder: Path, progress: bool) -> list[dict[str, str]]:
    """All arrays but the mean; returns what was skipped. Raises UserError for unreadable images unless told to skip."""
    splits = {"train": source.train, "val": source.val}
    total = sum(len(listing.files) for listing in splits.values())
    failures: dict[str, dict[int, str]] = {}
    with tqdm(total=total, desc=f"packing {config.name}", unit=" images", disable=not progress, smoothing=0.1) as bar:
        for split, listing in splits.items():
            failures[split] = _write_rows(folder, split, listing, config.workers, bar.update)
    _check_failures(config, source, failures, total)
    for split, listing in splits.items():
        _write_labels(folder, split, listing, failures[split])
    names = ((listing.files[row], why) for split, listing in splits.items() for row, why in failures[split].items())
    return [{"file": name, "why": why} for name, why in names]


def _check_failures(config: DataConfig, source: Source, failures: dict[str, dict[int, str]], total: int) -> None:
    count = sum(map(len, failures.values()))
    if count == 0:
        return
    split = "train" if failures["train"] else "val"
    row, why = next(iter(failures[split].items()))
    listing = source.train if split == "train" else source.val
    first = f"{count} of {total} images cannot be read, the first: {listing.files[row]} ({why})"
    if config.on_error == "raise":
        raise UserError(f"{first}; mend them or give data.on_error=skip")
    if len(failures["train"]) == len(source.train.files) or len(failures["val"]) == len(source.val.files):
        raise UserError(f"{first}; nothing would be left of a split")


# ------------------------------------------------------------------------------------------------- rows, in parallel


@dataclass(frozen=True)
class Task:
    """Make one chunk and write its rows; runs in a worker process."""

    make: Callable[[], Chunk]
    folder: str
    split: str
    start: int  # the chunk's first row

    def __call__(self) -> tuple[int, dict[int, str]]:
        """Rows written, and of those that cannot be read the number and why."""
        chunk = self.make()
        for name, rows in chunk.arrays.items():
            data = np.ascontiguousarray(rows)
            _write_at(_path(self.folder, self.split, name), HEADER + self.start * data[0].nbytes, data)
        return len(chunk.arrays["images"]), {self.start + row: why for row, why in chunk.failures}


def _path(folder: str | Path, split: str, name: str) -> Path:
    return Path(folder) / f"{split}_{name}.npy"


def _write_at(path: Path, offset: int, data: np.ndarray) -> None:
    """Plain writes rather than a memory map: a full disk is then an error, and not a SIGBUS."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data.reshape(-1).view(np.uint8).data)


def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The .npy format's header, version 1.0, padded to HEADER bytes."""
    text = repr({"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape})
    return b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11).encode() + b"\n"


def _write_rows(
    folder: Path, split: str, listing: Listing, workers: int, advance: Callable[[int], object]
) -> dict[int, str]:
    """Images (and drawn truth) of a split, closed up over the unreadable rows. Returns those: row -> why, in order."""
    count = len(listing.files)
    for name, (dtype, shape) in listing.fields.items():
        with _path(folder, split, name).open("wb") as file:
            file.write(_header(dtype, (count, *shape)))
            file.truncate(HEADER + count * int(np.dtype(dtype).itemsize * np.prod(shape)))
    starts = range(0, count, listing.chunk)
    tasks = (
        Task(listing.recipe(start, min(start + listing.chunk, count)), str(folder), split, start) for start in starts
    )
    failures: dict[int, str] = {}
    for done, failed in run_tasks(tasks, 1 if listing.in_process else min(workers or cpus(), len(starts))):
        advance(done)
        failures |= failed
    if failures:
        for name, (dtype, shape) in listing.fields.items():
            _close_up(_path(folder, split, name), dtype, (count, *shape), sorted(failures))
    return dict(sorted(failures.items()))


def run_tasks(tasks: Iterator[Task], workers: int) -> Iterator[tuple[int, dict[int, str]]]:
    """Results as they come. Only a few tasks are in flight, however many there are."""
    if workers == 1:
        yield from (task() for task in tasks)
        return
    # Forked workers start at once and import nothing; they run NumPy and PIL only. Off Linux, forking is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, context, initializer=start_worker, initargs=(os.getpid(),)) as pool:
        waiting: set[Future[tuple[int, dict[int, str]]]] = set()
        try:
            for task in tasks:
                if len(waiting) >= 4 * workers:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
                waiting.add(pool.submit(task))
            yield from (future.result() for future in waiting)
        except BrokenProcessPool as error:
            why = "a decoding process was killed, perhaps for lack of memory: give data.workers=1"
            raise UserError(f"packing stopped: {why}") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _close_up(path: Path, dtype: str, shape: tuple[int, ...], dropped: list[int]) -> None:
    """Move rows down over the dropped ones and shorten the file, in place."""
    width = int(np.dtype(dtype).itemsize * np.prod(shape[1:]))  # bytes of a row
    to = dropped[0]
    with path.open("r+b") as file:
        for gap, end in zip(dropped, [*dropped[1:], shape[0]], strict=True):
            for start in range(gap + 1, end, 256):
                count = min(256, end - start)
                file.seek(HEADER + start * width)
                block = file.read(count * width)
                file.seek(HEADER + to * width)
                file.write(block)
                to += count
        file.seek(0)
        file.write(_header(dtype, (to, *shape[1:])))
        file.truncate(HEADER + to * width)


# ---------------------------------------------------------------------------------------------- the rest of the folder


def _write_labels(folder: Path, split: str, listing: Listing, dropped: dict[int, str]) -> None:
    """Labels, names and, where there are any, several labels an image, all without the dropped rows."""
    kept = np.ones(len(listing.files), bool)
    kept[list(dropped)] = False
    labels = listing.labels[kept]
    if listing.multi is not None:
        np.save(_path(folder, split, "multi"), listing.multi[kept])
    if "multi" in listing.fields:  # drawn with the images
        labels = sources.first_present(np.load(_path(folder, split, "multi")))
    np.save(_path(folder, split, "labels"), labels.astype(np.int64))
    names = [name.encode("utf-8", "surrogateescape") for name, keep in zip(listing.files, kept, strict=True) if keep]
    np.save(_path(folder, split, "files"), np.array(names, dtype=np.bytes_))


def _finish_arrays(folder: Path) -> tuple[dict[str, dict[str, Any]], np.ndarray]:
    """Write the mean image; return the manifest's entry for every array, and the mean."""
    images = _path(folder, "train", "images")
    count, *shape = np.load(images, mmap_mode="r").shape
    total = np.zeros(shape, np.int64)  # whole numbers: exact, whatever the order
    with images.open("rb") as file:  # read, not mapped: mapped pages would count as memory in use
        file.seek(HEADER)
        while block := file.read(256 * total.size):
            total += np.frombuffer(block, np.uint8).reshape(-1, *shape).sum(0, dtype=np.uint32)
    mean = (total / count).astype(np.float32)
    np.save(folder / "mean.npy", mean)
    entries = {}
    for path in sorted(folder.glob("*.npy")):
        array = np.load(path, mmap_mode="r")
        entries[path.name] = {"dtype": str(array.dtype), "shape": list(array.shape), "sha256": file_hash(path)}
    return entries, mean


def _manifest(
    config: DataConfig,
    base: Path | None,
    source: Source,
    key: str,
    arrays: dict[str, dict[str, Any]],
    mean: np.ndarray,
    skipped: list[dict[str, str]],
) -> dict[str, Any]:
    return {
        "name": config.name,
        "size": config.size,
        "key": key,
        "source": {"root": str(base) if base else None, **source.notes},
        "counts": {split: arrays[f"{split}_images.npy"]["shape"][0] for split in ("train", "val")},
        "class_names": list(source.class_names),
        "class_ids": list(source.class_ids),
        "keypoint_names": list(source.keypoint_names),
        "mean_colour": [round(float(value), 4) for value in mean.mean((0, 1))],
        "skipped_count": len(skipped),
        "skipped": skipped,
        "arrays": arrays,
        "versions": {"pack": PACK_VERSION, "numpy": np.__version__, "pillow": PIL.__version__},
    }


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
