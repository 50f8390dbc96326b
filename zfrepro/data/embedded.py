"""The embedded data set: objects made of parts on textured backgrounds, drawn from signed distances, the truth known.

Nothing is downloaded and nothing is stored: an image is a function of (seed, class, id, size), so any subset can be
drawn again anywhere, at any size, and the class, mask, box and named parts are exact. `embedded_kinds` has the classes and
the stock that they are made of, `embedded_sketch` turns parts into pixels, `embedded_scenery` draws what is around them,
`embedded_portrait` puts the two together.

Every picture is a rectangle between 1:1 and 3:2, lying or standing, of which `draw` and `draw_scenes` show the middle square
or all. The objects are placed in the square.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zfrepro.data.embedded_kinds import KEYPOINTS
from zfrepro.data.embedded_portrait import SCENE_SLOTS, cast, chunks, group_portrait, portraits
from zfrepro.data.embedded_scenery import Canvas, longest, proportions
from zfrepro.data.embedded_sketch import Array, scramble

VERSION = 6  # of the pixels: part of the key under which packed data is kept
MIN_SIZE = 16
HIDDEN, TINY = 0.3, 0.008  # visible share of an object, and share of the image, below which it is 'difficult'


Pictures = Array | list[Array]  # (B, S, S, ...); drawn whole, B of (h, w, ...)


@dataclass(frozen=True)
class Drawing:
    """B images of one object each, with the truth about them. Boxes and key points count from the image's own corner."""

    images: Pictures  # (B, S, S, 3) uint8
    labels: Array  # (B,) int64 index into the classes
    shapes: Array  # (B, 2) int64 h, w; the smaller is S
    masks: Pictures  # (B, S, S) uint8 coverage by the visible object, 0 to 255
    boxes: Array  # (B, 4) int16 x0, y0, x1, y1, half-open, around the pixels at least half covered
    # (B, K, 2) float32 x, y in pixels (the first pixel's centre is 0.5), NaN where absent, hidden or outside
    keypoints: Array


@dataclass(frozen=True)
class Scenes:
    """B images of one to four objects each; O = 4 slots, the later in front of the earlier, unused ones padded."""

    images: Pictures  # (B, S, S, 3) uint8
    shapes: Array  # (B, 2) int64 h, w
    labels: Array  # (B, C) int8: 1 present, 0 absent, -1 present only as 'difficult' objects
    owners: Pictures  # (B, S, S) int8: the slot seen at the pixel, -1 for the background
    object_labels: Array  # (B, O) int64, -1 where the slot is unused
    boxes: Array  # (B, O, 4) int16, half-open, around the visible pixels; zeros where there are none
    difficult: Array  # (B, O) bool: mostly hidden or tiny


# -------------------------------------------------------------------------------- single objects
def draw(classes: Sequence[str], labels: Array, ids: Array, size: int, seed: int, fit: str = "square") -> Drawing:
    """Draws image ids[i] of class classes[labels[i]] for every i: its middle square of size x size pixels, or, fit=whole, the
    rectangle whose smaller side has `size` pixels.

    Image i depends only on (seed, classes[labels[i]], ids[i], size), bit for bit; another size shows the same picture.
    """
    keys = _class_keys(classes, labels, ids, seed)
    shapes = _shapes(keys, size) if fit == "whole" else np.full((len(labels), 2), size)
    images, masks, *truth = _drawn(classes, labels, keys, shapes, size)
    if fit == "whole":
        return Drawing(images, labels, shapes, masks, *truth)
    return Drawing(_stack(images, (size, size, 3)), labels, shapes, _stack(masks, (size, size)), *truth)


def whole_shapes(classes: Sequence[str], labels: Array, ids: Array, size: int, seed: int) -> Array:
    """(B, 2) int64: height and width of `draw`'s whole images, without drawing them."""
    return _shapes(_class_keys(classes, labels, ids, seed), size)


def _drawn(
    classes: Sequence[str], labels: Array, keys: Array, shapes: Array, size: int
) -> tuple[list[Array], list[Array], Array, Array]:
    """Images and masks cut to `shapes` (B, 2), their boxes and key points."""
    names = [classes[label] for label in labels.tolist()]
    count = len(labels)
    images, masks = [np.empty(0)] * count, [np.empty(0)] * count
    boxes, keypoints = np.empty((count, 4), np.int16), np.empty((count, len(KEYPOINTS), 2), np.float32)
    for canvas, mine in _canvases(shapes, size):
        for rows, pictures, cover, points in portraits(names, mine, keys, canvas):
            kept = _kept(shapes[rows], canvas)
            corner = _corners(shapes[rows], canvas)
            visible = (cover.reshape(kept.shape) > 0.5) & kept
            boxes[rows] = _boxes(visible, corner)
            keypoints[rows] = _seen(points, visible) - corner[:, None]
            covers = (cover * 255.0 + 0.5).astype(np.uint8).reshape(kept.shape)
            for row, picture, mask in zip(rows, pictures, covers, strict=True):
                images[row], masks[row] = (_cut(whole, shapes[row]) for whole in (picture, mask))
    return images, masks, boxes, keypoints


# -------------------------------------------------------------------------------- several objects
def draw_scenes(classes: Sequence[str], ids: Array, size: int, seed: int, fit: str = "square") -> Scenes:
    """Draws scene ids[i] with one to four objects of the classes, as `draw` does, for every i.

    Scene i depends only on (seed, classes, ids[i], size).
    """
    if fit == "whole":
        return _scenes(classes, ids, scene_shapes(ids, size, seed), size, seed)
    whole, square = _scenes(classes, ids, np.full((len(ids), 2), size), size, seed), (size, size)
    images, owners = _stack(whole.images, (*square, 3)), _stack(whole.owners, square, np.int8)
    return dataclasses.replace(whole, images=images, owners=owners)


def scene_shapes(ids: Array, size: int, seed: int) -> Array:
    """(B, 2) int64: height and width of `draw_scenes`' whole images, without drawing them."""
    return _shapes(_keys(seed, "a scene", ids), size)


def _scenes(classes: Sequence[str], ids: Array, shapes: Array, size: int, seed: int) -> Scenes:
    count, keys = len(ids), _keys(seed, "a scene", ids)
    blank = [np.empty(0)] * count
    out = Scenes(
        images=blank.copy(),
        shapes=shapes,
        labels=np.zeros((count, len(classes)), np.int8),
        owners=blank.copy(),
        object_labels=cast(keys, len(classes)),
        boxes=np.empty((count, SCENE_SLOTS, 4), np.int16),
        difficult=np.empty((count, SCENE_SLOTS), bool),
    )
    for canvas, mine in _canvases(shapes, size):
        for rows in chunks(mine, canvas.pixels // 2):
            kept = _kept(shapes[rows], canvas)
            labels, inside = out.object_labels[rows], kept.reshape(len(rows), -1)
            pictures, seen, whole = group_portrait(classes, labels, keys[rows], canvas, inside)
            for row, picture in zip(rows, pictures, strict=True):
                out.images[row] = _cut(picture, shapes[row])
            _describe(out, rows, seen.reshape(len(rows), SCENE_SLOTS, *kept.shape[1:]), whole, canvas)
    return out


def _describe(out: Scenes, rows: Array, seen: Array, whole: Array, canvas: Canvas) -> None:
    """Fills the truth of `rows` from the visible coverage (n, O, H, W) and the whole areas (n, O)."""
    used = out.object_labels[rows] >= 0
    total = seen.sum(axis=1)
    owners = np.where(total >= 0.5, seen.argmax(axis=1), -1).astype(np.int8)
    for row, owner in zip(rows, owners, strict=True):
        out.owners[row] = _cut(owner, out.shapes[row])
    area, image_area = seen.sum(axis=(2, 3)), out.shapes[rows].prod(axis=1, keepdims=True)
    visible = (area / np.maximum(whole, 1e-6)).astype(np.float32)
    difficult = used & ((visible < HIDDEN) | (area < TINY * image_area))
    out.difficult[rows] = difficult
    corner = _corners(out.shapes[rows], canvas)
    for j in range(SCENE_SLOTS):
        out.boxes[rows, j] = _boxes(owners == j, corner)
    for hard in (True, False):  # an easy object overrules a difficult one of its class
        image, slot = np.nonzero(used & (difficult == hard))
        out.labels[rows[image], out.object_labels[rows[image], slot]] = -1 if hard else 1


# -------------------------------------------------------------------------------- rectangles
def _shapes(keys: Array, size: int) -> Array:
    """(B, 2) int64 h, w: on the long side as many pixels more at either end of the square."""
    aspect, wide = proportions(keys)
    longer = size + 2 * np.rint((aspect - 1.0) * (size / 2)).astype(np.int64)
    return np.where(np.concatenate([~wide, wide], axis=1), longer, size)


def _canvases(shapes: Array, size: int) -> Iterator[tuple[Canvas, Array]]:
    """The canvases that hold images of these shapes, each with the rows that are drawn on it."""
    long = longest(size)
    for height, width in ((size, size), (size, long), (long, size)):
        rows = np.flatnonzero(((shapes > size) == np.array([height > size, width > size])).all(axis=1))
        if len(rows):
            yield Canvas(height, width, size), rows


def _corners(shapes: Array, canvas: Canvas) -> Array:
    """(n, 2) int64 x, y of the upper left corner on the canvas."""
    return (np.array([canvas.width, canvas.height]) - shapes[:, ::-1]) // 2


def _cut(picture: Array, shape: Array) -> Array:
    """The middle of one canvas (H, W, ...): (h, w, ...)."""
    top, left = (np.array(picture.shape[:2]) - shape) // 2
    return picture[top : top + shape[0], left : left + shape[1]].copy()


def _kept(shapes: Array, canvas: Canvas) -> Array:
    """(n, H, W) bool: the pixels of the canvas that stay."""
    y, x = (np.abs(np.arange(side) + 0.5 - side / 2)[None] for side in (canvas.height, canvas.width))
    rows: Array = np.asarray(2 * y < shapes[:, :1])
    columns: Array = np.asarray(2 * x < shapes[:, 1:])
    return rows[:, :, None] & columns[:, None]


# -------------------------------------------------------------------------------- truth
def _seen(points: Array, visible: Array) -> Array:
    """Replaces by NaN the points (n, K, 2) that are not on a visible pixel (n, H, W) of the object."""
    height, width = visible.shape[1:]
    x, y = points[:, :, 0], points[:, :, 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)  # NaN compares false
    cell = np.where(inside[:, :, None], points, 0.0).astype(np.int64)
    shown = inside & visible[np.arange(len(points))[:, None], cell[:, :, 1], cell[:, :, 0]]
    return np.where(shown[:, :, None], points, np.float32(np.nan))


def _boxes(visible: Array, corner: Array) -> Array:
    """(n, H, W) bool -> (n, 4) int16 half-open boxes x0, y0, x1, y1, counted from `corner` (n, 2) x, y; zeros where
    nothing is visible."""
    columns, rows = visible.max(axis=1), visible.max(axis=2)
    low = np.stack([columns.argmax(1), rows.argmax(1)], axis=1)
    high = np.stack([one.shape[1] - one[:, ::-1].argmax(1) for one in (columns, rows)], axis=1)
    return (np.concatenate([low - corner, high - corner], axis=1) * columns.max(axis=1)[:, None]).astype(np.int16)


def _stack(pictures: Pictures, shape: tuple[int, ...], dtype: type = np.uint8) -> Array:
    """(B, *shape); B may be 0."""
    return np.stack(list(pictures)) if len(pictures) else np.empty((0, *shape), dtype)


# -------------------------------------------------------------------------------- bookkeeping
def _keys(seed: int, name: str, ids: Array) -> Array:
    """(n,) uint64: one key an image, from all that it may depend on."""
    stem = scramble(np.array([seed % 2**64], np.uint64)) + np.uint64(zlib.crc32(name.encode()))
    return scramble(scramble(stem) ^ scramble(ids.astype(np.uint64)))


def _class_keys(classes: Sequence[str], labels: Array, ids: Array, seed: int) -> Array:
    """(B,) uint64 keys of images ids[i] of class classes[labels[i]]."""
    keys = np.empty(len(labels), np.uint64)
    for label in np.unique(labels):
        keys[labels == label] = _keys(seed, classes[int(label)], ids[labels == label])
    return keys
