"""How the embedded data set's objects get into the picture: poses, light and shadow, what stands in front of them.

n images; P = height * width pixels of the canvas. The middle square of the canvas is [-1, 1] x [-1, 1], y down, and
objects are placed within it: a rectangle shows the same objects as the square, and more of what is around them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zfrepro.data.embedded_kinds import CLASSES, KEYPOINTS, KINDS, MIRRORED, Kind
from zfrepro.data.embedded_scenery import Canvas, affine, background, develop, light_of, pattern, proportions
from zfrepro.data.embedded_sketch import Array, Sketch, box, hsv, scramble, uniforms

SCENE_SLOTS = 4  # objects in a scene, at most
PIXELS = 1 << 17  # drawn at once: keeps fields in the processor's cache, and all of a chunk below 200 MB


@dataclass(frozen=True)
class Pose:
    """Where objects sit. Parameters are (n, 1)."""

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


# -------------------------------------------------------------------------------- single objects
def portraits(names: Sequence[str], rows: Array, keys: Array, canvas: Canvas) -> Iterator[tuple[Array, ...]]:
    """Draws image `rows[i]`, an object of class names[rows[i]] under keys[rows[i]], for all i in chunks of one kind.

    -> rows (n,), images (n, H, W, 3) uint8, coverage by the visible object (n, P), key points (n, K, 2) in pixels
    """
    kinds, shifts = _told(names)
    for kind in np.unique(kinds[rows]):
        for part in chunks(rows[kinds[rows] == kind], canvas.pixels):
            yield part, *_portrait(_KINDS[kind], shifts[part, None], keys[part], canvas)


def _portrait(kind: Kind, shift: Array, keys: Array, canvas: Canvas) -> tuple[Array, Array, Array]:
    chance = uniforms(scramble(keys ^ np.uint64(1)), 16)
    scale = chance[:, 0:1] * 0.36 + 0.56
    room = 1.04 - scale
    pose = _pose(keys, room * (2.0 * chance[:, 1:2] - 1.0), room * (2.0 * chance[:, 2:3] - 1.0), scale)
    light = light_of(keys)
    picture = background(keys, light, proportions(keys)[1], canvas)
    colour, cover, shadow, keypoints = _paint(kind, shift, keys, pose, light, canvas)
    _lay(picture, colour, cover, shadow)
    veil = _occluder(picture, pose, chance[:, 3:], canvas)
    return develop(picture, keys, canvas), cover * (1.0 - veil), keypoints


def _paint(
    kind: Kind, shift: Array, keys: Array, pose: Pose, light: Array, canvas: Canvas
) -> tuple[Array, Array, Array, Array]:
    """Draws the kind once per key in the arrangement `shift` (n, 1), in its pose, lit from `light` (n, 2).

    -> colours premultiplied by coverage (n, 3, P), coverage (n, P), the shadow (n, P) in [0, 1] that it takes from the
    background, key points (n, K, 2) in pixels, NaN where absent
    """
    sketch = Sketch(*_frame(pose, canvas), 2.0 / (canvas.size * pose.scale), uniforms(keys, 96))
    kind.draw(sketch, shift)
    colour, strength, cover = sketch.layer()
    worn, marking = pattern(keys, pose.inverse(), canvas)
    strength *= worn
    colour += strength[:, None] * (marking[:, :, None] - colour)
    chance = uniforms(scramble(keys ^ np.uint64(2)), 4)
    relief = sketch.relief(light, canvas.height)
    relief *= chance[:, 0:1] * 0.3 + 0.3
    gloss = np.maximum(relief - 0.25, 0.0) * (chance[:, 1:2] * 1.2) * cover
    lx, ly = 0.16 / pose.scale * light[:, :1], 0.16 / pose.scale * light[:, 1:]
    relief += affine(lx, ly, 1.0 - lx * pose.x - ly * pose.y, canvas)  # the side that faces the light is brighter
    colour *= relief[:, None]
    colour += gloss[:, None]
    shadow = _shadow(sketch.outline, light, chance[:, 2:3], canvas)
    return colour, cover, shadow, _keypoints(sketch, pose, canvas)


def _lay(picture: Array, colour: Array, cover: Array, shadow: Array) -> None:
    """Puts painted objects and their shadows onto the picture (n, 3, P), in place."""
    picture *= ((1.0 - shadow) * (1.0 - cover))[:, None]
    picture += colour


def _shadow(outline: Array, light: Array, strength: Array, canvas: Canvas) -> Array:
    """The object's outline moved away from the light and softened: (n, P) in [0, 0.6]."""
    field, (h, w) = outline.reshape(-1, canvas.height, canvas.width), (canvas.height, canvas.width)
    moved = np.full_like(field, 9.0)
    for one, there, (dx, dy) in zip(moved, field, np.rint(-0.04 * canvas.size * light).astype(int), strict=True):
        one[max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)] = there[
            max(-dy, 0) : h + min(-dy, 0), max(-dx, 0) : w + min(-dx, 0)
        ]
    return np.clip(0.6 - 5.0 * moved.reshape(outline.shape), 0.0, 1.0) * (0.25 + 0.35 * strength)


def _occluder(picture: Array, pose: Pose, chance: Array, canvas: Canvas) -> Array:
    """Puts a bar or block in front of two objects in five, in place -> its coverage (n, P)."""
    veil = np.zeros((len(picture), canvas.pixels), np.float32)
    chosen = np.flatnonzero(chance[:, 0] < 0.4)
    u = [chance[chosen, i : i + 1] for i in range(1, 8)]
    c, s = np.cos(6.2832 * u[0]), np.sin(6.2832 * u[0])
    x, y, scale = pose.x[chosen], pose.y[chosen], pose.scale[chosen]
    along = affine(c, s, -c * x - s * y - scale * (0.45 + 0.45 * u[1]), canvas)
    d = box(along, affine(-s, c, s * x - c * y, canvas), 0.05 + 0.17 * u[2], 0.2 + 0.9 * u[3], 0.03)
    part = np.clip(0.5 - d * (canvas.size / 2.0), 0.0, 1.0)
    colour = hsv(u[4], 0.7 * u[5], 0.2 + 0.7 * u[6])
    picture[chosen] += (colour[:, :, None] - picture[chosen]) * part[:, None]
    veil[chosen] = part
    return veil


# -------------------------------------------------------------------------------- several objects
def cast(keys: Array, classes: int) -> Array:
    """Who plays: (n, O) int64 labels, -1 for an empty slot."""
    chance = uniforms(scramble(keys ^ np.uint64(8)), 1 + SCENE_SLOTS)
    labels = np.minimum((chance[:, 1:] * classes).astype(np.int64), classes - 1)
    count = 1 + (chance[:, :1] * SCENE_SLOTS).astype(np.int64)
    return np.where(np.arange(SCENE_SLOTS) < count, labels, -1)


def group_portrait(
    classes: Sequence[str], labels: Array, keys: Array, canvas: Canvas, seen_in: Array
) -> tuple[Array, Array, Array]:
    """Objects `labels` (n, O) together -> images (n, H, W, 3) uint8, visible coverage by slot (n, O, P), and by slot
    the area (n, O) in pixels that the object would cover alone within `seen_in` (n, P), the part that is kept."""
    light = light_of(keys)
    picture = background(keys, light, proportions(keys)[1], canvas)
    slot_keys = scramble(keys[:, None] + np.arange(1, SCENE_SLOTS + 1, dtype=np.uint64))
    seen = np.zeros((len(keys), SCENE_SLOTS, canvas.pixels), np.float32)
    colour = np.zeros((len(keys), SCENE_SLOTS, 3, canvas.pixels), np.float32)
    shadow = np.zeros_like(seen)
    kinds, shifts = _told(classes)
    kind_of = np.where(labels >= 0, kinds[labels], -1)
    for kind in np.unique(kind_of[kind_of >= 0]):
        pairs = np.argwhere(kind_of == kind)
        for part in chunks(np.arange(len(pairs)), canvas.pixels):
            at = (pairs[part, 0], pairs[part, 1])
            own, shift = slot_keys[at], shifts[labels[at], None]
            chance = uniforms(scramble(own ^ np.uint64(1)), 3)
            pose = _pose(own, chance[:, 0:1] * 1.4 - 0.7, chance[:, 1:2] * 1.4 - 0.7, 0.2 + 0.4 * chance[:, 2:3])
            colour[at], seen[at], shadow[at], _ = _paint(_KINDS[kind], shift, own, pose, light[at[0]], canvas)
    whole = np.stack([(seen[:, j] * seen_in).sum(axis=1) for j in range(SCENE_SLOTS)], axis=1)
    for j in range(SCENE_SLOTS):
        _lay(picture, colour[:, j], seen[:, j], shadow[:, j])
        for behind in range(j):
            seen[:, behind] *= 1.0 - seen[:, j]
    return develop(picture, keys, canvas), seen * seen_in[:, None], whole


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


def _frame(pose: Pose, canvas: Canvas) -> tuple[Array, Array]:
    """The object's coordinates at every pixel, two fields (n, P)."""
    inverse = pose.inverse()
    rows = [(inverse[:, i, 0:1], inverse[:, i, 1:2]) for i in range(2)]
    x, y = (affine(a, b, -a * pose.x - b * pose.y, canvas) for a, b in rows)
    return x, y


def _keypoints(sketch: Sketch, pose: Pose, canvas: Canvas) -> Array:
    """The sketch's marks in pixels (n, K, 2); a mirror image's right and left change places: they stay its own."""
    points = np.full((len(pose.x), len(KEYPOINTS), 2), np.nan, np.float32)
    for name, mark in sketch.marks.items():
        at = np.concatenate([np.broadcast_to(np.asarray(m, np.float32), pose.x.shape) for m in mark], axis=1)
        points[:, KEYPOINTS.index(name)] = (pose.forward @ at[:, :, None])[:, :, 0] * pose.scale
    points[:, :, 0] = (points[:, :, 0] + pose.x) * (canvas.size / 2.0) + canvas.width / 2.0
    points[:, :, 1] = (points[:, :, 1] + pose.y) * (canvas.size / 2.0) + canvas.height / 2.0
    mirrored = pose.flip[:, 0] < 0
    for pair in MIRRORED.items():
        one, other = (KEYPOINTS.index(name) for name in pair)
        points[mirrored, one], points[mirrored, other] = points[mirrored, other], points[mirrored, one]
    return points


# -------------------------------------------------------------------------------- bookkeeping
_KINDS = tuple(KINDS.values())


def _told(names: Sequence[str]) -> tuple[Array, Array]:
    """(n,) int64 numbers of the names' kinds and of their arrangements."""
    both = np.array([(_KINDS.index(CLASSES[name][0]), CLASSES[name][1]) for name in names], np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def chunks(rows: Array, pixels: int) -> Iterator[Array]:
    """Stretches of the rows of as many images of so many pixels as are drawn at once."""
    length = max(1, PIXELS // pixels)
    return (rows[i : i + length] for i in range(0, len(rows), length))
