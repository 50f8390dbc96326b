"""A cheap mark of a file's content: its size and both of its ends, or all of it where it is small or not compressed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from zfrepro.errors import is_of_machine, named

END = 4096  # bytes
# In these formats a change in the middle changes the size or a check sum at the end, or all that follows.
COMPRESSED = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".avif"}
BITMAPS = (b"BM", b"II*\x00", b"MM\x00*", b"P5", b"P6")  # whatever they are called, of these all is read
READERS = 8  # threads: most of the time is waiting for the disk
BATCH = 512


def mark_files(base: Path, files: Sequence[str]) -> tuple[str, np.ndarray]:
    """A hash of the contents' marks of `files`, named relative to `base`, in their order; and (N,) uint64: equal ones are of
    equal contents."""
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    digest, own = hashlib.sha256(), [np.zeros(0, np.uint64)]
    with ThreadPoolExecutor(READERS) as readers:
        for found, each in readers.map(partial(_mark_batch, str(base)), batches):
            digest.update(found)
            own.append(each)
    return digest.hexdigest(), np.concatenate(own)


def _mark_batch(base: str, files: Sequence[str]) -> tuple[bytes, np.ndarray]:
    digest, own = hashlib.sha256(), b""
    for name in files:
        each = hashlib.sha256()
        for piece in mark_file(os.path.join(base, name)):  # noqa: PTH118 - a million of them
            digest.update(piece)
            each.update(piece)
        own += each.digest()[:8]
    return digest.digest(), np.frombuffer(own, np.uint64)


def mark_file(path: str) -> Iterator[bytes]:
    """What a file's mark is a hash of. What cannot be read is marked as such: the packing will say it."""
    try:
        if not stat.S_ISREG((status := os.stat(path)).st_mode):  # noqa: PTH116
            yield b"no file"  # a named pipe would wait forever
            return
        whole = status.st_size <= 2 * END or os.path.splitext(path)[1].lower() not in COMPRESSED  # noqa: PTH122
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            yield b"%d " % status.st_size
            if not whole:
                yield (head := file.read(END))
                if not head.startswith(BITMAPS):
                    file.seek(-END, os.SEEK_END)
            while block := file.read(1 << 20):
                yield block
    except OSError as error:
        if is_of_machine(error):  # it may be read the next time, and a key that is remembered would be another's
            raise named(error, path) from None
        yield b"unreadable %d" % (error.errno or 0)
