"""The embedded data set: objects made of parts on textured backgrounds, drawn from signed distances, the truth known.

Nothing is downloaded and nothing is stored: an image is a function of (seed, class, id, size), so any subset can be
drawn again anywhere, at any size, and the class, mask, box and named parts are exact. `embedded_shapes` says what the
classes look like, `embedded_sketch` how parts become pixels; this module places them on backgrounds, alone (`draw`)
or several at once (`draw_scenes`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from zfrepro.data.embedded_shapes import CLASSES, FACE_CLASSES, KEYPOINTS, MIRRORED, SOURCE_CLASSES, TARGET_CLASSES
from zfrepro.data.embedded_sketch import Array, Sketch, box, hsv, mix, scramble, uniforms

__all__ = [
    "FACE_CLASSES",
    "KEYPOINTS",
    "SOURCE_CLASSES",
    "TARGET_CLASSES",
    "VERSION",
    "Drawing",
    "Scenes",
    "draw",
    "draw_scenes",
]

VERSION = 3  # of the pixels: part of the key under which packed data is kept
MIN_SIZE = 16
SCENE_SLOTS = 4  # objects in a scene, at most
HIDDEN, TINY = 0.3, 0.008  # visible share of an object, and share of the image, below which it is 'difficult'
PIXELS = 1 << 17  # drawn at once: keeps fields in the processor's cache, and all of a chunk below 200 MB
GRAIN = 1 << 16  # how many stretches of noise there are to choose from
WAVES = 24  # cosines a side in the 1/f noise


@dataclass(frozen=True)
class Drawing:
    """B images of one object each, with the truth about them."""

    images: Array  # (B, S, S, 3) uint8
    labels: Array  # (B,) int64 index into the classes
    masks: Array  # (B, S, S) uint8 coverage by the visible object, 0 to 255
    boxes: Array  # (B, 4) int16 x0, y0, x1, y1, half-open, around the pixels at least half covered
    keypoints: (
        Array  # (B, K, 2) float32 x, y in pixels (the first pixel's centre is 0.5), NaN where absent, hidden or outside
    )


@dataclass(frozen=True)
class Scenes:
    """B images of one to four objects each; O = 4 slots, the later in front of the earlier, unused ones padded."""

    images: Array  # (B, S, S, 3) uint8
    labels: Array  # (B, C) int8: 1 present, 0 absent, -1 present only as 'difficult' objects
    masks: Array  # (B, S, S) uint8 coverage by any object
    owners: Array  # (B, S, S) int8: the slot seen at the pixel, -1 for the background
    object_labels: Array  # (B, O) int64, -1 where the slot is unused
    boxes: Array  # (B, O, 4) int16, half-open, around the visible pixels; zeros where there are none
    visible: Array  # (B, O) float32: visible share of the object's pixels inside the image
    difficult: Array  # (B, O) bool: mostly hidden or tiny


@dataclass(frozen=True)
class Pose:
    """Where objects sit; the image is [-1, 1] x [-1, 1], y down. Parameters are (n, 1)."""

    x: Array
    y: Array
    scale: Array  # half of the object's side
    forward: Array  # (n, 2, 2): the object's frame to the image, without the shift
    flip: Array  # -1 mirrored, 1 not

    def inverse(self) -> Array:
        """(n, 2, 2): the image to the object's frame, without the shift (the determinant of `forward` is `flip`)."""
        (a, b), (c, d) = self.forward.transpose(1, 2, 0)
        adjugate = np.stack([d, -b, -c, a], axis=1).reshape(-1, 2, 2)
        return adjugate * (self.flip / self.scale)[:, :, None]


@dataclass(frozen=True)
class Layer:
    """n painted objects: colours premultiplied by coverage."""

    colour: Array  # (n, 3, P)
    cover: Array  # (n, P)
    shadow: Array  # (n, P) in [0, 1], what it takes from the background
    keypoints: Array  # (n, K, 2) pixels, NaN where absent


def draw(classes: Sequence[str], labels: Array, ids: Array, size: int, seed: int) -> Drawing:
    """Draws image ids[i] of class classes[labels[i]], size x size pixels, for every i.

    Image i depends only on (seed, classes[labels[i]], ids[i], size), bit for bit; another size shows the same picture.
    Raises ValueError for an unknown class, a label outside the classes, ids unlike the labels, or size < 16.
    """
    labels, ids = _checked(classes, labels, ids, size)
    count = len(labels)
    out = Drawing(
        images=np.empty((count, size, size, 3), np.uint8),
        labels=labels,
        masks=np.empty((count, size, size), np.uint8),
        boxes=np.empty((count, 4), np.int16),
        keypoints=np.empty((count, len(KEYPOINTS), 2), np.float32),
    )
    for label in np.unique(labels):
        name = classes[int(label)]
        for rows in _chunks(np.flatnonzero(labels == label), PIXELS // size**2):
            keys = _keys(seed, name, ids[rows])
            out.images[rows], cover, points = _portrait(name, keys, size)
            out.masks[rows] = (cover * 255.0 + 0.5).astype(np.uint8).reshape(-1, size, size)
            visible = (cover > 0.5).reshape(-1, size, size)
            out.boxes[rows], out.keypoints[rows] = _boxes(visible), _seen(points, visible)
    return out


def draw_scenes(classes: Sequence[str], ids: Array, size: int, seed: int) -> Scenes:
    """Draws scene ids[i] with one to four objects of the classes, size x size pixels, for every i.

    Scene i depends only on (seed, classes, ids[i], size). Raises ValueError as `draw` does.
    """
    _, ids = _checked(classes, np.zeros(len(ids), np.int64), ids, size)
    count, area = len(ids), (size, size)
    out = Scenes(
        images=np.empty((count, *area, 3), np.uint8),
        labels=np.zeros((count, len(classes)), np.int8),
        masks=np.empty((count, *area), np.uint8),
        owners=np.empty((count, *area), np.int8),
        object_labels=np.empty((count, SCENE_SLOTS), np.int64),
        boxes=np.empty((count, SCENE_SLOTS, 4), np.int16),
        visible=np.empty((count, SCENE_SLOTS), np.float32),
        difficult=np.empty((count, SCENE_SLOTS), bool),
    )
    for rows in _chunks(np.arange(count), 2 * PIXELS // size**2):
        keys = _keys(seed, "a scene", ids[rows])
        labels = _cast(keys, len(classes))
        out.images[rows], seen, whole = _group_portrait(classes, labels, keys, size)
        out.object_labels[rows] = labels
        _describe(out, rows, seen.reshape(-1, SCENE_SLOTS, *area), whole)
    return out


# -------------------------------------------------------------------------------- single objects
def _portrait(name: str, keys: Array, size: int) -> tuple[Array, Array, Array]:
    """-> images (n, S, S, 3) uint8, coverage by the visible object (n, P), key points (n, K, 2) in pixels."""
    chance = uniforms(scramble(keys ^ np.uint64(1)), 16)
    scale = chance[:, 0:1] * 0.42 + 0.42
    room = 1.04 - scale
    pose = _pose(keys, room * (2.0 * chance[:, 1:2] - 1.0), room * (2.0 * chance[:, 2:3] - 1.0), scale)
    light = _light(keys)
    picture = _background(keys, light, size)
    layer = _paint(name, keys, pose, light, size)
    _lay(picture, layer)
    veil = _occluder(picture, pose, chance[:, 3:], size)
    return _develop(picture, keys, size), layer.cover * (1.0 - veil), layer.keypoints


def _paint(name: str, keys: Array, pose: Pose, light: Array, size: int) -> Layer:
    """Draws the class once per key, in its pose, lit from `light` (n, 2)."""
    x, y = _frame(pose, size)
    sketch = Sketch(x, y, 2.0 / (size * pose.scale), uniforms(keys, 96))
    CLASSES[name](sketch)
    colour, strength, cover = sketch.layer()
    pattern, marking = _pattern(keys, pose, size)
    strength *= pattern
    colour += strength[:, None] * (marking[:, :, None] - colour)
    chance = uniforms(scramble(keys ^ np.uint64(2)), 4)
    relief = sketch.relief(light, size)
    relief *= chance[:, 0:1] * 0.3 + 0.3
    gloss = np.maximum(relief - 0.25, 0.0) * (chance[:, 1:2] * 1.2) * cover
    lx, ly = 0.16 / pose.scale * light[:, :1], 0.16 / pose.scale * light[:, 1:]
    relief += _affine(
        lx, ly, 1.0 - lx * pose.x - ly * pose.y, size
    )  # the side that faces the light is brighter as a whole
    colour *= relief[:, None]
    colour += gloss[:, None]
    shadow = _shadow(sketch.outline, light, chance[:, 2:3], size)
    return Layer(colour, cover, shadow, _keypoints(sketch, pose, size))


def _lay(picture: Array, layer: Layer) -> None:
    """Puts the layer and its shadow onto the picture (n, 3, P), in place."""
    picture *= ((1.0 - layer.shadow) * (1.0 - layer.cover))[:, None]
    picture += layer.colour


def _shadow(outline: Array, light: Array, strength: Array, size: int) -> Array:
    """The object's outline moved away from the light and softened: (n, P) in [0, 0.6]."""
    field = outline.reshape(-1, size, size)
    moved = np.full_like(field, 9.0)
    for one, there, (dx, dy) in zip(moved, field, np.rint(-0.04 * size * light).astype(int), strict=True):
        one[max(dy, 0) : size + min(dy, 0), max(dx, 0) : size + min(dx, 0)] = there[
            max(-dy, 0) : size + min(-dy, 0), max(-dx, 0) : size + min(-dx, 0)
        ]
    return np.clip(0.6 - 5.0 * moved.reshape(outline.shape), 0.0, 1.0) * (0.25 + 0.35 * strength)


def _occluder(picture: Array, pose: Pose, chance: Array, size: int) -> Array:
    """Puts a bar or block in front of two objects in five, in place -> its coverage (n, P)."""
    veil = np.zeros((len(picture), size * size), np.float32)
    chosen = np.flatnonzero(chance[:, 0] < 0.4)
    u = [chance[chosen, i : i + 1] for i in range(1, 8)]
    c, s = np.cos(6.2832 * u[0]), np.sin(6.2832 * u[0])
    x, y, scale = pose.x[chosen], pose.y[chosen], pose.scale[chosen]
    along = _affine(c, s, -c * x - s * y - scale * (0.45 + 0.45 * u[1]), size)
    d = box(along, _affine(-s, c, s * x - c * y, size), 0.05 + 0.17 * u[2], 0.2 + 0.9 * u[3], 0.03)
    part = np.clip(0.5 - d * (size / 2.0), 0.0, 1.0)
    colour = hsv(u[4], 0.7 * u[5], 0.2 + 0.7 * u[6])
    picture[chosen] += (colour[:, :, None] - picture[chosen]) * part[:, None]
    veil[chosen] = part
    return veil


# -------------------------------------------------------------------------------- several objects
def _cast(keys: Array, classes: int) -> Array:
    """Who plays: (n, O) int64 labels, -1 for an empty slot."""
    chance = uniforms(scramble(keys ^ np.uint64(8)), 1 + SCENE_SLOTS)
    labels = np.minimum((chance[:, 1:] * classes).astype(np.int64), classes - 1)
    count = 1 + (chance[:, :1] * SCENE_SLOTS).astype(np.int64)
    return np.where(np.arange(SCENE_SLOTS) < count, labels, -1)


def _group_portrait(classes: Sequence[str], labels: Array, keys: Array, size: int) -> tuple[Array, Array, Array]:
    """-> images (n, S, S, 3) uint8, visible coverage by slot (n, O, P), whole area by slot (n, O) in pixels."""
    light = _light(keys)
    picture = _background(keys, light, size)
    slot_keys = scramble(keys[:, None] + np.arange(1, SCENE_SLOTS + 1, dtype=np.uint64))
    seen = np.zeros((len(keys), SCENE_SLOTS, size * size), np.float32)
    colour = np.zeros((len(keys), SCENE_SLOTS, 3, size * size), np.float32)
    shadow = np.zeros_like(seen)
    for label in np.unique(labels[labels >= 0]):
        pairs = np.argwhere(labels == label)
        for part in _chunks(np.arange(len(pairs)), PIXELS // size**2):
            at = (pairs[part, 0], pairs[part, 1])
            layer = _paint(classes[int(label)], slot_keys[at], _scene_pose(slot_keys[at]), light[at[0]], size)
            colour[at], seen[at], shadow[at] = layer.colour, layer.cover, layer.shadow
    whole = np.stack([seen[:, j].sum(axis=1) for j in range(SCENE_SLOTS)], axis=1)
    for j in range(SCENE_SLOTS):
        _lay(picture, Layer(colour[:, j], seen[:, j], shadow[:, j], np.empty(0)))
        for behind in range(j):
            seen[:, behind] *= 1.0 - seen[:, j]
    return _develop(picture, keys, size), seen, whole


def _scene_pose(keys: Array) -> Pose:
    chance = uniforms(scramble(keys ^ np.uint64(1)), 3)
    return _pose(keys, chance[:, 0:1] * 1.4 - 0.7, chance[:, 1:2] * 1.4 - 0.7, 0.2 + 0.4 * chance[:, 2:3])


def _describe(out: Scenes, rows: Array, seen: Array, whole: Array) -> None:
    """Fills the truth of `rows` from the visible coverage (n, O, S, S) and the whole areas (n, O)."""
    used = out.object_labels[rows] >= 0
    total = seen.sum(axis=1)
    out.masks[rows] = np.rint(np.clip(total, 0.0, 1.0) * 255.0)
    out.owners[rows] = np.where(total >= 0.5, seen.argmax(axis=1), -1)
    area = seen.sum(axis=(2, 3))
    out.visible[rows] = np.where(used, area / np.maximum(whole, 1e-6), 0.0)
    difficult = used & ((out.visible[rows] < HIDDEN) | (area < TINY * seen.shape[-1] ** 2))
    out.difficult[rows] = difficult
    slots = np.arange(SCENE_SLOTS)[None, :, None, None]
    out.boxes[rows] = _boxes((out.owners[rows][:, None] == slots).reshape(-1, *seen.shape[2:])).reshape(
        len(rows), SCENE_SLOTS, 4
    )
    for hard in (True, False):  # an easy object overrules a difficult one of its class
        image, slot = np.nonzero(used & (difficult == hard))
        out.labels[rows[image], out.object_labels[rows[image], slot]] = -1 if hard else 1


# -------------------------------------------------------------------------------- surroundings
def _background(keys: Array, light: Array, size: int) -> Array:
    """(n, 3, P): a gradient, two clouds of 1/f noise, a wave, and before them a clutter of blocks, discs and lines."""
    keys = scramble(keys ^ np.uint64(3))
    x, y = _grid(size)
    sketch = Sketch(
        np.broadcast_to(x, (len(keys), size * size)),
        y,
        np.full((len(keys), 1), 2.0 / size, np.float32),
        uniforms(keys, 112),
    )
    s = sketch
    fields = np.empty((len(keys), 7, size * size), np.float32)
    fields[:, 0], fields[:, 1], fields[:, 2], fields[:, 3] = 1.0, x, y, x * x + y * y - 0.67
    fields[:, 4:6] = _clouds(keys, 2, size)
    fields[:, 6] = _wave(s.u(8.0, 30.0), s.u(0.0, 6.28), s.u(0.0, 6.28), size)
    low, high = (hsv(s.hue + s.u(-0.15, 0.15), s.u(0.05, 0.65), s.u(0.2, 0.95)) for _ in range(2))
    grey = s.u(0.3, 1.0)
    tints = [hsv(s.u(), s.u(0.0, 0.5), s.u(0.3, 1.0)) * s.u(0.04, 0.16) for _ in range(3)]
    slope = (high - low) * 0.5
    angle, bend = s.u(0.0, 6.28), s.u(-0.6, 0.6)
    sway = s.coin(0.3)
    parts = [
        (low + high) * 0.5,
        slope * np.cos(angle),
        slope * np.sin(angle),
        slope * bend,
        tints[0] * grey,
        tints[1],
        tints[2] * sway,
    ]
    picture = np.stack(parts, axis=2) @ fields
    _clutter(s, low, high, size)
    colour, _, cover = s.layer()
    picture *= (1.0 - cover)[:, None]
    shade = s.relief(light, size)
    shade *= 0.5
    shade += 0.3 * fields[:, 4]
    shade += 1.0
    colour *= shade[:, None]
    picture += colour
    return picture


def _clutter(s: Sketch, low: Array, high: Array, size: int) -> None:
    """Five rounded blocks of any proportions: walls, planks, stones, wires. Most are small: only the rows of pixels that
    a block can touch are drawn."""
    crowd = s.u(0.1, 0.9)
    t = _axis(size)
    for _ in range(5):
        angle = s.u(0.0, 3.1416)
        c, si = np.cos(angle), np.sin(angle)
        x, y = s.u(-1.1, 1.1), s.u(-1.1, 1.1)
        a, b = 0.04 + s.u() ** 2 * 0.9, 0.03 + s.u() ** 3 * 0.7
        r = np.minimum(a, b) * s.u(0.05, 1.0)
        colour = mix(mix(low, high, s.u(-0.4, 1.4)), s.vivid(0.5), s.u(0.0, 0.6)) * s.u(0.7, 1.2)
        reach = a * si + b * np.abs(c) + 2.0 / size
        one, row = np.nonzero((np.abs(t - y) <= reach) & (s.u() < crowd))
        along, across = (
            (ky[one] * t[row, None] + shift[one]) + kx[one] * t
            for kx, ky, shift in ((c, si, -c * x - si * y), (-si, c, si * x - c * y))
        )
        s.fill_rows(one * size + row, box(along, across, a[one], b[one], r[one]), colour, 0.1)


def _pattern(keys: Array, pose: Pose, size: int) -> tuple[Array, Array]:
    """What textured parts wear: stripes, spots or clouds, 0 to how strongly they show (n, P); their colour (n, 3)."""
    keys = scramble(keys ^ np.uint64(4))
    u = uniforms(keys, 12)
    inverse = pose.inverse()
    waves = []
    for i in range(2):
        angle = 3.1416 * u[:, 0:1] + 1.5708 * i
        way = (
            np.concatenate([np.cos(angle), np.sin(angle)], axis=1)[:, None] @ inverse
        )  # (n, 1, 2): along the object's axes
        rate = 6.0 + 14.0 * u[:, 1:2]
        kx, ky = rate * way[:, 0, 0:1], rate * way[:, 0, 1:2]
        waves.append(_plane_wave(kx, ky, 6.28 * u[:, 2 + i : 3 + i], size))
    kind = (u[:, 4:5] * 4.0).astype(np.int32)
    value = np.where(kind == 0, waves[0], np.where(kind == 1, waves[0] * waves[1], _clouds(keys, 1, size)[:, 0] * 0.7))
    value *= 0.5 + 3.0 * u[:, 5:6]
    value += 0.5 - 0.6 * u[:, 6:7]
    strength = np.where(kind == 3, 0.15, 0.4 + 0.6 * u[:, 7:8]).astype(np.float32)
    return np.clip(value, 0.0, 1.0) * strength, hsv(u[:, 8:9], u[:, 9:10] * 0.8, u[:, 10:11] * 0.9 + 0.08)


def _wave(rate: Array, angle: Array, phase: Array, size: int) -> Array:
    return _plane_wave(rate * np.cos(angle), rate * np.sin(angle), phase, size)


def _plane_wave(kx: Array, ky: Array, phase: Array, size: int) -> Array:
    """sin(kx x + ky y + phase) as (n, P), by the addition theorem from sines of rows and columns only."""
    t = _axis(size)
    a, b = kx * t + phase, ky * t
    wave = np.cos(b)[:, :, None] * np.sin(a)[:, None] + np.sin(b)[:, :, None] * np.cos(a)[:, None]
    return wave.reshape(len(kx), size * size)


def _clouds(keys: Array, count: int, size: int) -> Array:
    """(n, count, P) of unit variance: random cosines whose amplitudes fall with frequency as they do in photographs."""
    n = len(keys)
    table = _falloff()
    coefficients = uniforms(scramble(keys ^ np.uint64(5)), count * (WAVES * WAVES + 1))
    steep = np.minimum((coefficients[:, :count] * len(table)).astype(np.int64), len(table) - 1)
    coefficients = (coefficients[:, count:].reshape(n, count, WAVES, WAVES) - 0.5) * table[steep]
    basis = _cosines(size)
    return (basis @ coefficients @ basis.T).reshape(n, count, size * size)


@lru_cache
def _falloff() -> Array:
    """(4, WAVES, WAVES): amplitudes from rough to smooth that give unit variance to coefficients in [-0.5, 0.5)."""
    k = np.arange(WAVES)
    radius = np.sqrt(k[:, None] ** 2 + k[None] ** 2)
    radius[0, 0] = np.inf
    tables = []
    for power in (0.8, 1.1, 1.4, 1.9):
        amplitude = radius**-power
        energy = (amplitude**2 / 12.0 * np.where(k > 0, 0.5, 1.0)[:, None] * np.where(k > 0, 0.5, 1.0)).sum()
        tables.append(amplitude / np.sqrt(energy))
    return np.stack(tables).astype(np.float32)


@lru_cache
def _cosines(size: int) -> Array:
    return np.cos(np.pi * np.arange(WAVES) * (np.arange(size)[:, None] + 0.5) / size).astype(np.float32)


@lru_cache
def _grain(size: int) -> Array:
    """Normal numbers of which an image takes a stretch."""
    return np.random.default_rng(size).standard_normal(3 * size * size + GRAIN, dtype=np.float32)


def _develop(picture: Array, keys: Array, size: int) -> Array:
    """(n, 3, P) light, consumed -> (n, S, S, 3) uint8: exposure, a colour cast and the sensor's noise."""
    u = uniforms(scramble(keys ^ np.uint64(6)), 6)
    picture *= ((0.8 + 0.3 * u[:, 0:1]) * (0.94 + 0.12 * u[:, 1:4]) * 255.0)[:, :, None]
    grain, length = _grain(size), 3 * size * size
    for one, start, amount in zip(picture, (u[:, 4] * GRAIN).astype(int), 1.0 + 7.0 * u[:, 5] ** 2, strict=True):
        one += grain[start : start + length].reshape(3, -1) * amount
    picture += 0.5
    np.clip(picture, 0.0, 255.0, out=picture)
    return picture.astype(np.uint8).transpose(0, 2, 1).reshape(-1, size, size, 3)


# -------------------------------------------------------------------------------- geometry
def _pose(keys: Array, x: Array, y: Array, scale: Array) -> Pose:
    """Adds to a place and a scale: a mirror, stretch, slant and tilt of up to 20 degrees."""
    u = uniforms(scramble(keys ^ np.uint64(7)), 4)
    flip = np.where(u[:, 0:1] < 0.5, -1.0, 1.0).astype(np.float32)
    stretch, slant, tilt = 0.9 + 0.2 * u[:, 1:2], 0.24 * (u[:, 2:3] - 0.5), 0.7 * (u[:, 3:4] - 0.5)
    c, s = np.cos(tilt), np.sin(tilt)
    # rotation (c -s; s c) @ slant (1 k; 0 1) @ diag(flip * stretch, 1 / stretch)
    entries = [c * flip * stretch, (c * slant - s) / stretch, s * flip * stretch, (s * slant + c) / stretch]
    return Pose(x, y, scale, np.concatenate(entries, axis=1).reshape(-1, 2, 2), flip)


def _frame(pose: Pose, size: int) -> tuple[Array, Array]:
    """The object's coordinates at every pixel, two fields (n, P)."""
    inverse = pose.inverse()
    rows = [(inverse[:, i, 0:1], inverse[:, i, 1:2]) for i in range(2)]
    x, y = (_affine(a, b, -a * pose.x - b * pose.y, size) for a, b in rows)
    return x, y


def _keypoints(sketch: Sketch, pose: Pose, size: int) -> Array:
    """The sketch's marks in pixels (n, K, 2); a mirror image's right and left change places: they stay its own."""
    points = np.full((len(pose.x), len(KEYPOINTS), 2), np.nan, np.float32)
    for name, mark in sketch.marks.items():
        at = np.concatenate([np.broadcast_to(np.asarray(m, np.float32), pose.x.shape) for m in mark], axis=1)
        points[:, KEYPOINTS.index(name)] = (pose.forward @ at[:, :, None])[:, :, 0] * pose.scale
    points[:, :, 0] = (points[:, :, 0] + pose.x + 1.0) * (size / 2.0)
    points[:, :, 1] = (points[:, :, 1] + pose.y + 1.0) * (size / 2.0)
    mirrored = pose.flip[:, 0] < 0
    for pair in MIRRORED.items():
        one, other = (KEYPOINTS.index(name) for name in pair)
        points[mirrored, one], points[mirrored, other] = points[mirrored, other], points[mirrored, one]
    return points


def _seen(points: Array, visible: Array) -> Array:
    """Replaces by NaN the points (n, K, 2) outside the image or not on a visible pixel of the object (n, S, S)."""
    size = visible.shape[-1]
    inside = (points >= 0).all(axis=2) & (points < size).all(axis=2)  # NaN compares false
    cell = np.where(inside[:, :, None], points, 0.0).astype(np.int64)
    shown = inside & visible[np.arange(len(points))[:, None], cell[:, :, 1], cell[:, :, 0]]
    return np.where(shown[:, :, None], points, np.float32(np.nan))


def _boxes(visible: Array) -> Array:
    """(n, S, S) bool -> (n, 4) int16 half-open boxes x0, y0, x1, y1; zeros where nothing is visible."""
    size = visible.shape[-1]
    columns, rows = visible.max(axis=1), visible.max(axis=2)
    corners = [columns.argmax(1), rows.argmax(1), size - columns[:, ::-1].argmax(1), size - rows[:, ::-1].argmax(1)]
    return (np.stack(corners, axis=1) * columns.max(axis=1)[:, None]).astype(np.int16)


@lru_cache
def _axis(size: int) -> Array:
    """(S,): pixel centres in [-1, 1]."""
    return ((np.arange(size) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)


def _affine(kx: Array, ky: Array, shift: Array, size: int) -> Array:
    """kx x + ky y + shift at every pixel, (n, P), from its values along rows and columns."""
    t = _axis(size)
    return ((ky * t + shift)[:, :, None] + (kx * t)[:, None]).reshape(len(kx), size * size)


@lru_cache
def _grid(size: int) -> tuple[Array, Array]:
    """x and y of every pixel, (1, P) each, in [-1, 1]."""
    t = _axis(size)
    return np.tile(t, size)[None], np.repeat(t, size)[None]


def _light(keys: Array) -> Array:
    """(n, 2): where the light comes from, mostly above, as a unit vector in the image."""
    angle = 2.0 * uniforms(scramble(keys ^ np.uint64(9)), 1) - 1.0
    return np.concatenate([np.sin(1.4 * angle), -np.cos(1.4 * angle)], axis=1)


# -------------------------------------------------------------------------------- bookkeeping
def _keys(seed: int, name: str, ids: Array) -> Array:
    """(n,) uint64: one key an image, from all that it may depend on."""
    stem = scramble(np.array([seed % 2**64], np.uint64)) + np.uint64(zlib.crc32(name.encode()))
    return scramble(scramble(stem) ^ scramble(ids.astype(np.uint64)))


def _chunks(rows: Array, length: int) -> Iterator[Array]:
    length = max(1, length)
    return (rows[i : i + length] for i in range(0, len(rows), length))


def _checked(classes: Sequence[str], labels: Array, ids: Array, size: int) -> tuple[Array, Array]:
    """labels and ids as (B,) int64, or a ValueError that says what is wrong with the request."""
    labels, ids = np.asarray(labels, np.int64), np.asarray(ids, np.int64)
    unknown = [name for name in classes if name not in CLASSES]
    if unknown:
        raise ValueError(f"the embedded data set cannot draw {unknown[0]!r}; it knows {', '.join(CLASSES)}")
    if not classes:
        raise ValueError("the embedded data set needs at least one class")
    if size < MIN_SIZE:
        raise ValueError(
            f"images of {size} px are too small to draw: the embedded data set needs at least {MIN_SIZE} px"
        )
    if labels.ndim != 1 or labels.shape != ids.shape:
        raise ValueError(f"labels {labels.shape} and ids {ids.shape} must be two lists of one length")
    stray = labels[(labels < 0) | (labels >= len(classes))]
    if len(stray):
        raise ValueError(f"label {stray[0]} is none of the {len(classes)} classes (0 to {len(classes) - 1})")
    return labels, ids
