"""A packed data set: a folder of plain .npy arrays and a manifest, memory-mapped and indexed by rows.

<cache>/<name>-<size>px-<key>/manifest.json, mean.npy, {train,val}_{images,labels,files,...}.npy; packed whole, images.npy is
flat and {shapes,offsets}.npy say where an image lies in it.
"""

from __future__ import annotations

import errno
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zfrepro.errors import UserError, is_of_machine, named, words_of

MANIFEST = "manifest.json"
NOT_HERE = (
    errno.EACCES,
    errno.EPERM,
    errno.ENODEV,
)  # somebody else's, or on a file system that maps no files into memory

# Packed arrays are mapped read-only, and only ever read; torch warns of every tensor made of one.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


class Names(Sequence[str]):
    """The sources' names, read from a memory-mapped (N,) array of UTF-8 bytes as they are asked for."""

    def __init__(self, encoded: np.ndarray) -> None:
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, row: Any) -> Any:
        return bytes(self.encoded[row]).decode("utf-8", "surrogateescape")


class Whole:
    """N images of many shapes, (h, w, channels) or (h, w) each, views of a flat memory-mapped array.

    One at a time: a batch needs one shape, which `rescaling` gives it.
    """

    def __init__(self, flat: np.ndarray, shapes: np.ndarray, offsets: np.ndarray, channels: int | None) -> None:
        self.flat, self.shapes, self.offsets, self.channels = flat, shapes, offsets, channels

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, row: int) -> np.ndarray:
        height, width = self.shapes[row].tolist()
        channels = self.channels or 1
        begin = int(self.offsets[row]) * channels
        pixels = self.flat[begin : begin + height * width * channels]
        return pixels.reshape((height, width, self.channels) if self.channels else (height, width))


@dataclass(frozen=True)
class Boxes:
    """Objects in N images; an image may have none, one or many."""

    starts: np.ndarray  # (N + 1,) int64: the boxes of image i are the rows starts[i] to starts[i + 1]
    corners: np.ndarray  # (M, 4) float32 x0, y0, x1, y1, half-open, in pixels of the image
    labels: np.ndarray  # (M,) int64: their classes

    @classmethod
    def of(cls, boxes: Sequence[Sequence[tuple[float, ...]]], labels: Sequence[Sequence[int]]) -> Boxes:
        """From a list of boxes and one of their classes for each image."""
        counts = [len(own) for own in boxes]
        corners = np.array([box for own in boxes for box in own], np.float32).reshape(-1, 4)
        return cls(
            np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
            corners,
            np.array([label for own in labels for label in own], np.int64),
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """(n, 4) corners and (n,) classes of the boxes of one image."""
        own = slice(int(self.starts[row]), int(self.starts[row + 1]))
        return self.corners[own], self.labels[own]

    @property
    def images(self) -> np.ndarray:
        """(M,) int64: the image of each box."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def only(self, keep: np.ndarray) -> Boxes:
        """Without the boxes where keep (M,) is False."""
        counts = np.bincount(self.images[keep], minlength=len(self))
        starts = np.concatenate([[0], counts.cumsum()])
        return Boxes(starts, self.corners[keep], self.labels[keep])

    def take(self, rows: np.ndarray) -> Boxes:
        counts = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], counts.cumsum()])
        picked = np.arange(starts[-1]) - np.repeat(starts[:-1] - self.starts[rows], counts)
        return Boxes(starts, self.corners[picked], self.labels[picked])


@dataclass(frozen=True)
class Truth:
    """What the embedded data set knows of its images."""

    masks: np.ndarray  # (N, S, S) uint8: coverage of each pixel by the object, 0..255; packed whole, a `Whole`
    boxes: np.ndarray  # (N, 4) int16
    keypoints: np.ndarray  # (N, K, 2) float32, see Packed.keypoint_names


@dataclass(frozen=True)
class Split:
    """Rows of one split; arrays are memory-mapped, read-only."""

    name: str  # train | val
    images: np.ndarray  # (N, S, S, 3) uint8; packed whole, a `Whole` whose rows are (h, w, 3)
    labels: np.ndarray  # (N,) int64; of several labels the first class that is present
    files: Sequence[str]  # (N,) names of the sources, relative to the data set's folder
    multi: np.ndarray | None = None  # (N, C) int8: 1 present, 0 absent, -1 only 'difficult' objects of the class
    truth: Truth | None = None
    boxes: Boxes | None = None  # where the data set knows any: in pixels of the packed images, clipped to them

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
    # (S, S, 3) float32: per-pixel mean of the training split; packed whole, the mean colour everywhere
    mean: np.ndarray
    colour: np.ndarray  # (3,) float64: mean colour of the training pixels
    covariance: np.ndarray  # (3, 3) float64: of the training pixels' colours
    train: Split
    val: Split

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def size(self) -> int:
        """Smaller side of the images in pixels."""
        return int(self.mean.shape[0])

    @property
    def fit(self) -> str:
        """square: all images are size x size | whole: each has its own shape."""
        return str(self.manifest.get("fit", "square"))


def load(folder: Path) -> Packed:
    """The packed data set in `folder`. Raises UserError where a file is missing or not as the manifest says."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        size = int(manifest["size"])
        arrays = {name: np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in manifest["arrays"]}
        for name, array in arrays.items():
            if list(array.shape) != manifest["arrays"][name]["shape"]:
                raise ValueError(f"{name} has the shape {array.shape}, not {manifest['arrays'][name]['shape']}")
        return Packed(
            folder=folder,
            manifest=manifest,
            key=manifest["key"],
            class_names=tuple(manifest["class_names"]),
            class_ids=tuple(manifest["class_ids"]),
            keypoint_names=tuple(manifest["keypoint_names"]),
            **_colours(arrays, size),
            train=_split("train", arrays),
            val=_split("val", arrays),
        )
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError) as error:
        if is_of_machine(error):
            raise named(error, folder) from None
        if isinstance(error, OSError) and error.errno in NOT_HERE:
            raise UserError(
                f"the packed data set {folder} cannot be read here ({error.strerror}): ask its owner to share it, or give "
                "data.cache=<a folder of your own, on a disk of this machine>"
            ) from error
        damaged = f"the packed data set {folder} is damaged ({words_of(error)})"
        raise UserError(f"{damaged}: delete that folder and run again") from error


def _colours(arrays: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Mean image, mean colour, covariance. Earlier versions packed the first alone; nothing of theirs needs the last."""
    if "colour.npy" not in arrays:
        mean = np.array(arrays["mean.npy"])
        return {"mean": mean, "colour": mean.mean((0, 1), np.float64), "covariance": np.full((3, 3), np.nan)}
    colour = np.array(arrays["colour.npy"])
    image = arrays.get("mean.npy", np.broadcast_to(colour.astype(np.float32), (size, size, 3)))
    return {"mean": np.array(image), "colour": colour, "covariance": np.array(arrays["covariance.npy"])}


def _split(name: str, arrays: dict[str, np.ndarray]) -> Split:
    own = {key.removeprefix(f"{name}_").removesuffix(".npy"): array for key, array in arrays.items()}
    if "shapes" in own:
        shapes, offsets = np.array(own["shapes"]), np.array(own["offsets"])
        for part, channels in (("images", 3), ("masks", None)):
            if part in own:
                own[part] = Whole(own[part], shapes, offsets, channels)  # type: ignore[assignment]
    truth = Truth(own["masks"], own["boxes"], own["keypoints"]) if "masks" in own else None
    boxes = None
    if "box_starts" in own:
        boxes = Boxes(*(np.array(own[f"box_{part}"]) for part in ("starts", "corners", "labels")))
    return Split(name, own["images"], np.array(own["labels"]), Names(own["files"]), own.get("multi"), truth, boxes)
