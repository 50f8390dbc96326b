"""Packing: every image decoded once, resized and cropped (paper, section 3), into arrays to be memory-mapped.

A folder of packed data is named by a hash of what determines its content. It is built under a lock, in a folder beside
it that is renamed once complete and on the disk: whatever is killed, whoever packs the same, a folder of that name is
whole. Workers write their rows straight into the files, so the memory in use does not grow with the data set.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from tqdm import tqdm

from zfrepro.data import decode, sources
from zfrepro.data.archive import check_members, extract
from zfrepro.data.decode import Chunk
from zfrepro.data.layouts import open_layout
from zfrepro.data.locating import cache_folder, find_base, how_to_get, locate
from zfrepro.data.packed import MANIFEST, Packed, file_digest, load
from zfrepro.data.sources import Listing, Source
from zfrepro.errors import UserError
from zfrepro.options.checks import check_data
from zfrepro.options.shared import DataConfig
from zfrepro.workers import cpus, start_worker

PACK_VERSION = 1  # of decoding and of the folder's format: part of the key
HEADER = 128  # bytes before the numbers of a .npy file here: fixed, so that a file can shrink in place


# ------------------------------------------------------------------------------------------------------------- opening


def open_data(config: DataConfig, progress: bool = True) -> Packed:
    """The packed data set, built first if it is not there yet. Raises UserError for whatever a user can mend."""
    check_data(config)
    base = locate(config)
    if config.name == "embedded":
        sources.check_embedded(config)
    folder, key = _name(config, base)
    if not (folder / MANIFEST).exists():
        with writable(folder.parent), lock(folder, progress):
            if not (folder / MANIFEST).exists():  # another process may have built it while this one waited
                build(config, base, folder, key, progress)
    return load(folder)


def packed_folder(config: DataConfig) -> Path:
    """Where the packed data set is, or would be. Raises UserError where the data set itself is missing."""
    return _name(config, locate(config, fetch=False))[0]


def _name(config: DataConfig, base: Path | None) -> tuple[Path, str]:
    """Folder and key, a hash of all that determines the content (so not of `workers`, `per_class`, `cache`)."""
    identity = sources.identify(config, base) | {"pack_version": PACK_VERSION}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return cache_folder(config) / f"{config.name}-{config.size}px-{key[:12]}", key


def find_problems(config: DataConfig) -> list[str]:
    """What is wrong with a data set, without packing it: one sentence each, none if it can be packed (or is)."""
    try:
        check_data(config)
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


# ------------------------------------------------------------------------------------------------ locks and folders


@contextmanager
def writable(cache: Path) -> Iterator[None]:
    """Make the cache folder, and say plainly if it cannot be written or is full."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"data.cache={cache}: the disk is full; make room, or set ZFREPRO_CACHE=<folder>"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UserError(
                f"data.cache={cache}: cannot be written ({error.strerror}); set ZFREPRO_CACHE=<folder>"
            ) from error
        raise


@contextmanager
def lock(folder: Path, progress: bool) -> Iterator[None]:
    """Only one process builds `folder`; others wait here. A lock of a dead process is no lock."""
    # A POSIX record lock, unlike flock's, is not inherited by workers, which outlive a killed build by a moment.
    with folder.with_name(f"{folder.name}.lock").open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if progress:
                print(f"another process is packing {folder.name}; waiting for it", file=sys.stderr)
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def remove_leftovers(cache: Path, own: Path) -> None:
    """Remove what killed builds left behind: temporary folders whose lock nobody holds (we hold our own)."""
    for leftover in cache.glob("*.tmp-*"):
        name = leftover.name.rpartition(".tmp-")[0]
        if name == own.name:
            shutil.rmtree(leftover, ignore_errors=True)
            continue
        with (cache / f"{name}.lock").open("a") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # someone is at it
            shutil.rmtree(leftover, ignore_errors=True)


# ------------------------------------------------------------------------------------------------------------ building


def build(config: DataConfig, base: Path | None, folder: Path, key: str, progress: bool) -> None:
    """Pack the data set into `folder`, whole or not at all. The caller holds the lock."""
    remove_leftovers(folder.parent, folder)
    source = _open_source(config, base, progress)
    _check_space(folder.parent, source)
    fresh = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)  # without a manifest, so never finished
    try:
        fresh.mkdir()
        skipped = _write_splits(config, source, fresh, progress)
        arrays, mean = _finish_arrays(fresh)
        manifest = _manifest(config, base, source, key, arrays, mean, skipped)
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1))
        for path in [*fresh.iterdir(), fresh]:
            _sync(path)
        fresh.rename(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    if skipped:
        print(
            f"warning: {len(skipped)} images cannot be read and are left out; {folder / MANIFEST} names them",
            file=sys.stderr,
        )


def _open_source(config: DataConfig, base: Path | None, progress: bool) -> Source:
    if base is None:
        return sources.embedded(config)
    if base.is_dir():
        return open_layout(config, base)
    name = hashlib.sha256(f"{base} {sources.fingerprint(base)}".encode()).hexdigest()[:12]
    target = cache_folder(config) / "extracted" / f"{base.stem}-{name}"
    target.parent.mkdir(exist_ok=True)
    with lock(target, progress):
        found = find_base(config, extract(base, target))
    if found is None:
        raise UserError(f"data.root={config.root}: does not hold {config.name}: {how_to_get(config)}")
    return open_layout(config, found)


def _check_space(cache: Path, source: Source) -> None:
    """Refuse to start what cannot fit: the arrays, and 2 % for the names and labels beside them."""
    need = sum(_row_bytes(listing) * len(listing.files) for listing in (source.train, source.val)) * 1.02
    free = shutil.disk_usage(cache).free
    if need > free:
        raise UserError(
            f"data.cache={cache}: packing needs {need / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; make room or give "
            "data.cache=<folder>"
        )


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
    left = data.reshape(-1).view(np.uint8).data
    handle = os.open(path, os.O_WRONLY)
    try:
        while left:
            written = os.pwrite(handle, left, offset)
            left, offset = left[written:], offset + written
    finally:
        os.close(handle)


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
        entries[path.name] = {"dtype": str(array.dtype), "shape": list(array.shape), "sha256": file_digest(path)}
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
        "source": {"root": str(base) if base else None, **sources.identify(config, base), **source.notes},
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
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
