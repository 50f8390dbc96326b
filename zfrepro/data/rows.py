"""The rows of a split: made in parallel, and written straight into the .npy files that will be memory-mapped.

Images of one shape lie in an array (N, S, S, 3). Images of many shapes lie one behind the other in a flat array of bytes;
`shapes` and `offsets` (in pixels) say where, and are known before the first image is decoded.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from zfrepro.data.decode import Chunk
from zfrepro.data.sources import WHOLE, Fields, Listing
from zfrepro.errors import UserError
from zfrepro.workers import at_once, cpus, start_worker, unheard

HEADER = 128  # bytes before the numbers of a .npy file here: fixed, so that a file can shrink in place
COLOUR_BLOCK = 1 << 18  # pixels summed at a time

T = TypeVar("T")


def path_of(folder: str | Path, split: str, name: str) -> Path:
    return Path(folder) / f"{split}_{name}.npy"


def measure(listing: Listing, workers: int) -> np.ndarray | None:
    """(N, 2) int64: heights and widths of the images as they will be packed; None where all have one shape."""
    shapes, count = listing.measure, len(listing.files)
    if listing.fields["images"][1][:2] != WHOLE or shapes is None:
        return None
    tasks = (shapes(start, min(start + listing.chunk, count)) for start in range(0, count, listing.chunk))
    return np.concatenate([np.empty((0, 2), np.int64), *run_tasks(tasks, _processes(listing, workers))])


def row_bytes(listing: Listing, shapes: np.ndarray | None) -> int:
    pixels = 0 if shapes is None else int(shapes.prod(1).sum())
    fields = listing.fields.values()
    return sum(_width(dtype, shape) * (pixels if shape[:2] == WHOLE else len(listing.files)) for dtype, shape in fields)


def _width(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a row, or of a pixel where rows have many shapes."""
    return np.dtype(dtype).itemsize * math.prod(shape[2:] if shape[:2] == WHOLE else shape)


@dataclass
class Written:
    """What became of rows, of a chunk or of all of a split's; both lists of them rise."""

    failures: dict[int, str] = field(default_factory=dict)  # row -> why it cannot be read
    several: list[int] = field(default_factory=list)  # whose files hold more pictures than the one
    colours: np.ndarray = field(default_factory=lambda: np.zeros((4, 3)))  # see `colour_sums`
    pixels: int = 0


def write_rows(
    folder: Path,
    split: str,
    listing: Listing,
    shapes: np.ndarray | None,
    workers: int,
    advance: Callable[[int], object],
) -> Written:
    """The fields of a split, closed up over the rows that cannot be read (of images of many shapes a hole stays)."""
    count = len(listing.files)
    offsets = None if shapes is None else np.concatenate([[0], shapes.prod(1).cumsum()])
    for name, (dtype, shape) in listing.fields.items():
        _create(path_of(folder, split, name), dtype, shape, count if offsets is None else int(offsets[-1]), count)

    def task(start: int) -> Callable[[], Written]:
        stop = min(start + listing.chunk, count)
        own = None if shapes is None or offsets is None else (shapes[start:stop], int(offsets[start]))
        return partial(write_chunk, listing.recipe(start, stop), folder, split, start, listing.fields, own)

    written, starts = Written(), range(0, count, listing.chunk)
    for done, start in zip(run_tasks(map(task, starts), _processes(listing, workers)), starts):
        advance(min(listing.chunk, count - start))
        written.failures |= done.failures
        written.several += done.several
        written.colours += done.colours
        written.pixels += done.pixels
    dropped = list(written.failures)
    for name, (_, shape) in listing.fields.items():
        if dropped and shape[:2] != WHOLE:
            _close_up(path_of(folder, split, name), dropped)
    if shapes is not None and offsets is not None:
        np.save(path_of(folder, split, "shapes"), np.delete(shapes, dropped, 0).astype(np.int32))
        np.save(path_of(folder, split, "offsets"), np.delete(offsets[:-1], dropped))
    return written


def _processes(listing: Listing, workers: int) -> int:
    if listing.in_process:
        return 1
    return at_once(min(workers or cpus(), -(-len(listing.files) // listing.chunk)))


# -------------------------------------------------------------------------------------------------------------- the files


def _create(path: Path, dtype: str, shape: tuple[int, ...], pixels: int, count: int) -> None:
    whole = (pixels * math.prod(shape[2:]),) if shape[:2] == WHOLE else (count, *shape)
    with path.open("wb") as file:
        file.write(header(dtype, whole))
        file.truncate(HEADER + np.dtype(dtype).itemsize * math.prod(whole))


def header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The .npy format's header, version 1.0, padded to HEADER bytes."""
    text = repr({"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape})
    return b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11).encode() + b"\n"


def write_at(path: Path, offset: int, arrays: Iterable[np.ndarray]) -> None:
    """Plain writes rather than a memory map: a full disk is then an error, and not a SIGBUS."""
    with path.open("r+b") as file:
        file.seek(offset)
        for array in arrays:
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _close_up(path: Path, dropped: list[int]) -> None:
    """Move rows down over the dropped ones and shorten the file, in place."""
    rows = np.load(path, mmap_mode="r+")
    kept = np.delete(np.arange(len(rows)), dropped)
    for start in range(dropped[0], len(kept), 256):
        part = kept[start : start + 256]
        rows[start : start + len(part)] = rows[part]
    size, head = HEADER + rows[: len(kept)].nbytes, header(rows.dtype.str, (len(kept), *rows.shape[1:]))
    del rows  # Windows shortens no file that is mapped
    with path.open("r+b") as file:
        file.write(head)
        file.truncate(size)


# ----------------------------------------------------------------------------------------------------------- the workers


def write_chunk(
    make: Callable[[], Chunk],
    folder: Path,
    split: str,
    start: int,
    fields: Fields,
    whole: tuple[np.ndarray, int] | None,
) -> Written:
    """Make a chunk and write its rows, the first of which is row `start`; runs in a worker process.

    whole: the shapes of its images, and the pixels before the first. What cannot be read is a hole then.
    """
    chunk = make()
    images, failures = chunk.arrays["images"], dict(chunk.failures)
    shapes, before = whole or (None, 0)
    if shapes is not None:
        for row, (image, size) in enumerate(zip(images, shapes.tolist(), strict=True)):
            if row not in failures and list(image.shape[:2]) != size:
                failures[row] = "its size is not what its header says"
    for name, (dtype, shape) in fields.items():
        rows: Iterable[np.ndarray] = chunk.arrays[name]
        place = start
        if shape[:2] == WHOLE and shapes is not None:
            place, holes = before, {row: (*shapes[row], *shape[2:]) for row in failures}
            rows = (np.zeros(holes[row], dtype) if row in holes else own for row, own in enumerate(rows))
        write_at(path_of(folder, split, name), HEADER + place * _width(dtype, shape), rows)
    good = [image for row, image in enumerate(images) if row not in failures]
    colours, pixels = colour_sums(good), sum(image.shape[0] * image.shape[1] for image in good)
    own = {start + row: failures[row] for row in sorted(failures)}
    return Written(own, [start + row for row in chunk.several], colours, pixels)


def colour_sums(images: Sequence[np.ndarray]) -> np.ndarray:
    """(4, 3) float64: the sums of the colours of all pixels, and of their products. Whole numbers below 2^53, so exact."""
    total = np.zeros((4, 3))
    for image in images:
        pixels = image.reshape(-1, 3)
        for start in range(0, len(pixels), COLOUR_BLOCK):
            values = pixels[start : start + COLOUR_BLOCK].astype(np.float64)
            total[0] += values.sum(0)
            total[1:] += values.T @ values
    return total


def run_tasks(tasks: Iterable[Callable[[], T]], workers: int) -> Iterator[T]:
    """Results in the order of the tasks, of which only a few are in flight, however many there are."""
    if workers == 1:
        yield from (task() for task in tasks)
        return
    # Forked workers start at once and import nothing; they run NumPy and PIL only. Off Linux, forking is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, context, initializer=start_worker, initargs=(os.getpid(),)) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for task in tasks:
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
                with unheard():
                    waiting.append(pool.submit(task))
            yield from (future.result() for future in waiting)
        except BrokenProcessPool as error:
            why = "a decoding process was killed, perhaps for lack of memory: give data.workers=1"
            if context.get_start_method() == "spawn":
                why += "; a script of your own needs `if __name__ == '__main__':` before its statements here"
            raise UserError(f"packing stopped: {why}") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
