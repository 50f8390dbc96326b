"""A packed data set: a folder of plain .npy arrays and a manifest, memory-mapped and indexed by rows.

<cache>/<name>-<size>px-<key>/manifest.json, mean.npy, {train,val}_{images,labels,files,...}.npy
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from zfrepro.errors import UserError
from zfrepro.files import file_hash

MANIFEST = "manifest.json"

# Packed arrays are mapped read-only, and only ever read; torch warns of every tensor made of one.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


class Names(Sequence[str]):
    """The sources' names, read from a memory-mapped (N,) array of UTF-8 bytes as they are asked for."""

    def __init__(self, encoded: np.ndarray) -> None:
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.encoded)

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> Names: ...

    def __getitem__(self, row: int | slice) -> str | Names:
        if isinstance(row, slice):
            return Names(self.encoded[row])
        return bytes(self.encoded[row]).decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Truth:
    """What the embedded data set knows of its images."""

    masks: np.ndarray  # (N, S, S) uint8: coverage of each pixel by the object, 0..255
    boxes: np.ndarray  # (N, 4) int16
    keypoints: np.ndarray  # (N, K, 2) float32, see Packed.keypoint_names


@dataclass(frozen=True)
class Split:
    """Rows of one split; arrays are memory-mapped, read-only."""

    name: str  # train | val
    images: np.ndarray  # (N, S, S, 3) uint8
    labels: np.ndarray  # (N,) int64; of several labels the first class that is present
    files: Sequence[str]  # (N,) names of the sources, relative to the data set's folder
    multi: np.ndarray | None = None  # (N, C) int8: 1 present, 0 absent, -1 only 'difficult' objects of the class
    truth: Truth | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def per_class(self, n: int | None) -> np.ndarray:
        """Rows, sorted int64, of the first n images of each class; of all images where n is None."""
        if n is None:
            return np.arange(len(self))
        order = np.argsort(self.labels, kind="stable")
        _, starts, counts = np.unique(self.labels[order], return_index=True, return_counts=True)
        rank = np.arange(len(order)) - np.repeat(starts, counts)  # of each image within its class
        return np.sort(order[rank < n])


@dataclass(frozen=True)
class Packed:
    """A packed data set, opened by `zfrepro.data.open_data`."""

    folder: Path
    manifest: dict[str, Any]
    key: str  # hash of what determines the content
    class_names: tuple[str, ...]  # readable: 'goldfish'
    class_ids: tuple[str, ...]  # the data set's own: 'n01443537'
    keypoint_names: tuple[str, ...]  # empty for photographs
    mean: np.ndarray  # (S, S, 3) float32: per-pixel mean of the training split
    train: Split
    val: Split

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def size(self) -> int:
        """Side of the images in pixels."""
        return int(self.mean.shape[0])


def load(folder: Path) -> Packed:
    """The packed data set in `folder`. Raises UserError where a file is missing or not as the manifest says."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        arrays = {name: _open_array(folder, name, entry["shape"]) for name, entry in manifest["arrays"].items()}
        return Packed(
            folder=folder,
            manifest=manifest,
            key=manifest["key"],
            class_names=tuple(manifest["class_names"]),
            class_ids=tuple(manifest["class_ids"]),
            keypoint_names=tuple(manifest["keypoint_names"]),
            mean=np.array(arrays["mean.npy"]),
            train=_split("train", arrays),
            val=_split("val", arrays),
        )
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"the packed data set {folder} is damaged ({why}): delete that folder and run again") from error


def _open_array(folder: Path, name: str, shape: list[int]) -> np.ndarray:
    array: np.ndarray = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    if list(array.shape) != shape:
        raise ValueError(f"{name} has the shape {array.shape}, not {tuple(shape)}")
    return array


def _split(name: str, arrays: dict[str, np.ndarray]) -> Split:
    own = {key.removeprefix(f"{name}_").removesuffix(".npy"): array for key, array in arrays.items()}
    truth = Truth(own["masks"], own["boxes"], own["keypoints"]) if "masks" in own else None
    return Split(name, own["images"], np.array(own["labels"]), Names(own["files"]), own.get("multi"), truth)


def changed_files(packed: Packed) -> list[str]:
    """The arrays whose bytes are no longer those that were packed (reads all of them)."""
    entries = packed.manifest["arrays"].items()
    return [name for name, entry in entries if file_hash(packed.folder / name) != entry["sha256"]]
