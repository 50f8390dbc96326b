"""Boxes that need no network: what a localiser must beat (VGG paper, Appendix A)."""

from __future__ import annotations

import numpy as np

from zfrepro.data import Split
from zfrepro.data.rescaling import rescaled_shapes, shapes_of

NAMES = ("whole image", "centre crop", "median training box", "class mean box")


def sizes(split: Split) -> np.ndarray:
    """(N, 4) float64: width, height, width, height of the packed images."""
    shapes = shapes_of(split.images, np.arange(len(split)))
    return np.tile(shapes[:, ::-1], 2).astype(np.float64)


def constant_boxes(train: Split, val: Split, classes: np.ndarray, scale: int, crop: int) -> dict[str, np.ndarray]:
    """By name, the box of each of the classes (N, K) in the validation images, (N, K, 4) in their pixels.

    Median and mean of the training boxes' corners as shares of their image's sides; the mean of all where a class has none.
    scale, crop: the centre crop is what a network with inputs of `crop` pixels sees of an image rescaled to `scale`.
    """
    assert train.boxes is not None
    shares = train.boxes.corners / sizes(train)[train.boxes.images]
    means = np.tile(shares.mean(0), (int(max(classes.max(), train.boxes.labels.max())) + 1, 1))
    for label in np.unique(train.boxes.labels):
        means[label] = shares[train.boxes.labels == label].mean(0)
    full = sizes(val)[:, None]
    everywhere = np.ones((*classes.shape, 1))
    return {
        "whole image": everywhere * full * [0, 0, 1, 1],
        "centre crop": everywhere * centre_crops(val, scale, crop)[:, None],
        "median training box": everywhere * full * np.median(shares, axis=0),
        "class mean box": means[classes] * full,
    }


def centre_crops(split: Split, scale: int, crop: int) -> np.ndarray:
    """(N, 4): what the crop at the centre shows of the packed images."""
    shapes = shapes_of(split.images, np.arange(len(split)))
    rescaled = rescaled_shapes(shapes, scale)
    start = (rescaled - crop) // 2
    edges = np.concatenate([start[:, ::-1], start[:, ::-1] + crop], 1)
    return edges * np.tile(shapes[:, ::-1] / rescaled[:, ::-1], 2)
