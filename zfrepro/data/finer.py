"""The same pictures at a higher resolution than they are packed at, where their source has one.

A picture that is to be moved by a fraction of a pixel, or magnified, must not be resampled at the network's own resolution: that
blurs, and features answer to the blur. Drawn pictures can be had at any size, photographs at that of their files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zfrepro.data import embedded
from zfrepro.data.decode import picture_size, read_picture
from zfrepro.data.packed import Packed, Split
from zfrepro.options.shared import DataConfig

ALIKE = 10.0  # of 255: mean difference up to which two readings are of one picture


def finest(factors: Sequence[int], size: int, paths: Sequence[Path]) -> int:
    """The largest of the `factors` by which every picture file is at least as fine as packed pictures of `size` pixels; 1 where
    there is none, and where a file is missing or unreadable."""
    try:
        smallest = min(min(picture_size(path)) for path in paths)
    except OSError:
        return 1
    return max([factor for factor in factors if factor * size <= smallest], default=1)


def finer(config: DataConfig, data: Packed, split: Split, rows: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """(n, f S, f S, 3) uint8: rows of a split of packed squares (n, S, S, 3), f times as fine, f the largest of `factors` that
    the source allows; f = 1, the packed pictures themselves, where it allows none (scenes, archives, files that are gone or
    are others now)."""
    packed = np.stack([split.images[row] for row in rows.tolist()])
    names, size = [split.files[row] for row in rows.tolist()], packed.shape[1]
    if config.name == "embedded":
        return packed if config.part == "scenes" else _drawn(config, data, names, size * max(factors))
    root = Path(data.manifest["source"].get("root") or "")
    paths = [root / name for name in names]
    factor = finest(factors, size, paths)
    if factor == 1 or not all(map(_alike, paths, packed)):
        return packed
    return np.stack([read_picture(path, factor * size) for path in paths])


def _alike(path: Path, packed: np.ndarray) -> bool:
    """Whether a file is still the picture that was packed, (S, S, 3) uint8, up to how it is resized."""
    now = read_picture(path, len(packed)).astype(np.float32)
    return float(np.abs(now - packed).mean()) < ALIKE


def _drawn(config: DataConfig, data: Packed, names: Sequence[str], size: int) -> np.ndarray:
    """Drawn pictures at another size; their names hold their class and number."""
    classes, ids = zip(*(name.rsplit("/", 1) for name in names))
    labels = np.array([data.class_ids.index(one) for one in classes])
    return np.asarray(embedded.draw(data.class_ids, labels, np.array(ids, np.int64), size, config.split_seed).images)
