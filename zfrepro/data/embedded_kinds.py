"""What the embedded data set draws: bodies, what sticks out of them, the parts that sit in a body's three places, and the kinds
of objects that they make in three arrangements each. These are the classes.

A *kind* is a body, what sticks out of it, and three parts; all of these come from a common stock. A body has three places,
one above the other, or side by side in a long body. The kind's first class has the parts in the places in the order of the
table below, from the top down or from the rear to the front; its second and third class have them moved on by one place
and by two. So

- the three classes of a kind have the same body, the same parts, the same colours and the same places: only which part
  sits where tells them apart, and over the three every part is in every place once;
- kinds share bodies and parts: no two have more than two parts in common, and a part belongs to several kinds;
- the target classes are other kinds of the same stock.

Everything else is drawn at random, from the same distributions for all classes: colours, materials, patterns, light,
background, clutter, what stands in front, place, size, mirror image, tilt, and the play of the places.

x points right, y down, and the object fills about [-1, 1]. The subject's own right is at the image's left (x < 0).
Every body is painted from one palette (`coat`), every part in two tones that follow from what lies below (`on`: light on
dark, dark on light), whatever the part is. So colour says nothing about the part, nor a part's colour about the class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zfrepro.data.embedded_sketch import (
    Array,
    Number,
    Sketch,
    box,
    circle,
    ellipse,
    hsv,
    mix,
    polygon,
    repeat,
    ring,
    segment,
    turn,
)

MIRRORED = {
    "right_eye": "left_eye",
    "right_wing": "left_wing",
}  # named by the subject's side: a mirrored one swaps them
KEYPOINTS = (
    "right_eye", "left_eye", "nose", "front_wheel", "rear_wheel", "handle", "center", "right_wing", "left_wing", "tail", "top",
)  # fmt: skip
PLACES = 3


@dataclass(frozen=True)
class Body:
    """An outline and what has to fit it."""

    d: Array  # field: distance to the outline
    w: Number  # half width, and
    h: Number  # half height, where the things that stick out are fixed
    colour: Array  # (B, 3)


@dataclass(frozen=True)
class Cell:
    """Where a part sits: its middle (parameters), and half of the width and height that it may take."""

    x: Number
    y: Number
    a: float
    b: float


# -------------------------------------------------------------------------------- colours
def coat(s: Sketch) -> Array:
    """(B, 3): what bodies are painted with: any hue, from grey to lively, from dark to light."""
    return _any_hue(s, (0.0, 0.9), (0.2, 1.0))


def _any_hue(s: Sketch, saturation: tuple[float, float], value: tuple[float, float]) -> Array:
    return hsv(s.u(), s.u(*saturation), s.u(*value))


def on(s: Sketch, below: Array) -> Array:
    """(B, 3): a colour that can be seen on `below`: dark on light, light on dark."""
    bright = below @ np.array([[0.3], [0.59], [0.11]], np.float32) > 0.5
    dark, light = _any_hue(s, (0.1, 0.9), (0.04, 0.3)), _any_hue(s, (0.0, 0.5), (0.85, 1.0))
    return np.where(bright, dark, light)


# -------------------------------------------------------------------------------- bodies
def disc(s: Sketch) -> Body:
    w, h = s.u(0.76, 0.84), s.u(0.74, 0.8)
    return Body(ellipse(s.x, s.y, w, h), w, h, coat(s))


def egg(s: Sketch) -> Body:
    w, h = s.u(0.62, 0.68), s.u(0.8, 0.86)
    return Body(ellipse(s.x, s.y, w, h), w, h, coat(s))


def block(s: Sketch) -> Body:
    w, h = s.u(0.6, 0.68), s.u(0.7, 0.76)
    return Body(box(s.x, s.y, w, h, s.u(0.04, 0.16)), w, h, coat(s))


def dome(s: Sketch) -> Body:
    """Round above, flat below."""
    w, h = s.u(0.66, 0.74), s.u(0.76, 0.82)
    d = np.minimum(ellipse(s.x, s.y + 0.05, w, h - 0.05), box(s.x, s.y - 0.36, w, h - 0.36, 0.05))
    return Body(d, w, h, coat(s))


def shield(s: Sketch) -> Body:
    """Wide above, pointed below."""
    w, h = s.u(0.68, 0.76), s.u(0.8, 0.86)
    corners = ((-1.0, -h + 0.05), (w - 0.14, -h + 0.05), (w, -0.2), (0.5, 0.5), (0.12, h), (-1.0, h))
    return Body(polygon(np.abs(s.x), s.y, *corners, r=0.02), w, h, coat(s))


def wagon(s: Sketch) -> Body:
    w, h = s.u(0.9, 0.96), s.u(0.4, 0.46)
    return Body(box(s.x, s.y, w, h, s.u(0.04, 0.2)), w, h, coat(s))


def hull(s: Sketch) -> Body:
    """A long oval."""
    w, h = s.u(0.92, 0.98), s.u(0.46, 0.52)
    return Body(ellipse(s.x, s.y, w, h), w, h, coat(s))


# -------------------------------------------------------------------------------- what sticks out, drawn behind the body
def pointed_ears(s: Sketch, body: Body) -> None:
    x, tip = np.abs(s.x), s.u(-1.08, -0.96)
    inner = on(s, body.colour)
    for grow, colour in ((1.0, mix(body.colour, coat(s), s.coin(0.3))), (0.5, inner)):
        low, out = -0.4 * body.h, body.w * 0.82
        corners = (
            (0.16 + 0.1 * (1 - grow), low),
            (out + 0.02, (low + 0.1) + (tip - low - 0.1) * (0.3 + 0.7 * grow)),
            (out - 0.06 * (1 - grow), low + 0.1),
        )
        s.fill(polygon(x, s.y, *corners, r=0.03), colour, bevel=0.15, texture=0.3 * grow)


def round_ears(s: Sketch, body: Body) -> None:
    r = s.u(0.26, 0.32)
    d = circle(np.abs(s.x) - body.w * 0.78, s.y + body.h * 0.78, 0.0)
    s.fill(d - r, mix(body.colour, coat(s), s.coin(0.3)), texture=0.3)
    s.fill(d - 0.55 * r, on(s, body.colour), bevel=0.0)


def floppy_ears(s: Sketch, body: Body) -> None:
    x, y = turn(np.abs(s.x), s.y, body.w + 0.06, s.u(-0.3, -0.15), s.u(-0.4, -0.15))
    s.fill(ellipse(x, y, s.u(0.2, 0.26), s.u(0.5, 0.6)), mix(body.colour, coat(s), s.coin(0.6)), 0.2, texture=0.3)


def antennae(s: Sketch, body: Body) -> None:
    colour, out = on(s, body.colour), s.u(0.3, 0.5)
    s.fill(segment(np.abs(s.x), s.y, 0.2, -0.6, out, -0.95, 0.045), colour, 0.05)
    s.fill(circle(np.abs(s.x) - out, s.y + 0.95, 0.11), coat(s), 0.1)


def hat(s: Sketch, body: Body) -> None:
    top = -body.h + 0.16
    d = polygon(s.x, s.y, (-0.42, top), (s.u(-0.12, 0.12), s.u(-1.2, -1.1)), (0.42, top), r=0.03)
    s.fill(d, coat(s), 0.2, texture=0.3)
    s.fill(box(s.x, s.y - top + 0.02, 0.62, 0.06, 0.05), coat(s), 0.08)


def feet(s: Sketch, body: Body) -> None:
    d = segment(np.abs(s.x), s.y, 0.3, 0.4, s.u(0.5, 0.62), s.u(0.9, 0.96), 0.1)
    s.fill(d, mix(body.colour, coat(s), s.coin(0.7)), 0.1)


def wheels_below(s: Sketch, body: Body) -> None:
    apart, r, y = s.u(0.5, 0.6), s.u(0.22, 0.27), body.h + 0.04
    tyre, hub = coat(s), coat(s)
    d = circle(np.abs(s.x) - apart, s.y - y, 0.0)
    s.fill(d - r, mix(tyre, np.zeros_like(tyre), s.u(0.4, 1.0)), bevel=0.1)
    s.fill(d - 0.5 * r, hub, bevel=0.12, raised=True)
    s.mark("rear_wheel", -apart, y + 0.5 * r)
    s.mark("front_wheel", apart, y + 0.5 * r)


def side_handle(s: Sketch, body: Body) -> None:
    x, a = -body.w - s.u(0.0, 0.04), s.u(0.24, 0.3)
    y, b = s.u(-0.1, 0.1), s.u(0.36, 0.44)
    s.fill(ring(ellipse(s.x - x, s.y - y, a, b), 0.075), mix(body.colour, coat(s), s.coin(0.4)), bevel=0.1)
    s.mark("handle", x - a, y)


def wings(s: Sketch, body: Body) -> None:
    x, y = turn(np.abs(s.x), s.y, body.w + 0.02, s.u(-0.2, 0.0), s.u(0.5, 0.8))
    s.fill(ellipse(x, y, s.u(0.22, 0.28), s.u(0.44, 0.5)), coat(s), 0.15, texture=0.3)
    s.mark("right_wing", -body.w - 0.1, -0.1)
    s.mark("left_wing", body.w + 0.1, -0.1)


def tail(s: Sketch, body: Body) -> None:
    colour = mix(body.colour, coat(s), s.coin(0.6))
    d = polygon(s.x, s.y, (-1.12, -s.u(0.42, 0.55)), (-0.6, 0.0), (-1.12, s.u(0.42, 0.55)), r=0.03)
    s.fill(d, colour, 0.12, texture=0.3)
    s.fill(polygon(s.x, s.y, (-0.4, 0.0), (s.u(-0.35, -0.15), -body.h - 0.28), (0.4, 0.0)), colour, 0.1)
    s.mark("tail", -1.0 + 0.0 * body.h, 0.0)


def roof(s: Sketch, body: Body) -> None:
    w, low = body.w + s.u(0.1, 0.18), -body.h + 0.12
    s.fill(box(s.x - s.u(0.3, 0.4), s.y + body.h + 0.14, 0.1, 0.22), coat(s), 0.05, when=s.coin(0.5))
    s.fill(
        polygon(s.x, s.y, (-w, low), (s.u(-0.1, 0.1), s.u(-1.2, -1.08)), (w, low), r=0.02), coat(s), 0.15, texture=0.3
    )


def rays(s: Sketch, body: Body) -> None:
    """Petals, or a mane, all around."""
    n = np.rint(s.u(9.0, 14.0))
    wave = np.cos(n * np.arctan2(s.y, s.x) + s.u(0.0, 6.0))
    s.fill((circle(s.x, s.y, body.w + 0.16) - 0.1 * wave) * 0.8, coat(s), 0.3, texture=0.3)


def fins(s: Sketch, body: Body) -> None:
    x, y = np.abs(s.x), s.u(0.2, 0.35)
    d = polygon(x, s.y, (0.3, y), (body.w + 0.2, 0.8), (body.w + 0.16, 1.0), (0.25, 0.75), r=0.02)
    s.fill(d, coat(s), 0.12, texture=0.3)
    s.mark("top", 0.0, -body.h + 0.1)


def mast(s: Sketch, body: Body) -> None:
    x, top = s.u(-0.15, 0.15), s.u(-1.1, -1.0)
    s.fill(segment(s.x, s.y, x, 0.0, x, top, 0.045), coat(s), 0.05)
    d = polygon(s.x, s.y, (x + 0.04, top + 0.02), (x + s.u(0.5, 0.7), top + 0.24), (x + 0.04, top + 0.46))
    s.fill(d, coat(s), 0.1, texture=0.3)
    s.mark("top", x, top)


# -------------------------------------------------------------------------------- parts in their cells
def eyes(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    across, r = 0.54 * cell.a, min(0.42 * cell.a, 0.9 * cell.b)
    first = on(s, below)
    second = on(s, first)
    d = circle(np.abs(x) - across, y, r)
    s.fill(d, first, bevel=0.0)
    gaze = s.u(-0.2, 0.2) * r
    s.fill(circle(np.abs(x - gaze) - across, y, 0.5 * r), second, bevel=0.0)
    s.mark("right_eye", cell.x - across, cell.y)
    s.mark("left_eye", cell.x + across, cell.y)


def nose(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    first = on(s, below)
    a = 1.15 * cell.b
    s.fill(ellipse(x, y, a, 0.9 * cell.b), first, bevel=0.1, raised=True)
    s.fill(ellipse(np.abs(x) - 0.42 * a, y, 0.18 * a, 0.3 * cell.b), on(s, first), bevel=0.0)
    s.mark("nose", cell.x, cell.y)


def mouth(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    """A smile: the lower arc of a circle, and a tongue."""
    first = on(s, below)
    r = 0.95 * cell.a
    arc = np.maximum(ring(circle(x, y + r - 0.7 * cell.b, r), 0.06), -y - 0.75 * cell.b)
    s.fill(ellipse(x, y - 0.75 * cell.b, 0.32 * cell.a, 0.4 * cell.b), on(s, first), bevel=0.05)
    s.fill(arc, first, bevel=0.0)


def whiskers(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    first = on(s, below)
    x = np.abs(x)
    d = segment(x, y, 0.2 * cell.a, 0.0, cell.a, 0.0, 0.04)
    for side in (-1.0, 1.0):
        d = np.minimum(d, segment(x, y, 0.2 * cell.a, side * 0.25 * cell.b, cell.a, side * 0.9 * cell.b, 0.04))
    s.fill(d, first, bevel=0.0)


def bow(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    first = on(s, below)
    x = np.abs(x)
    a, b = 0.85 * cell.a, cell.b
    s.fill(polygon(x, y, (0.0, -0.25 * b), (a, -b), (a, b), (0.0, 0.25 * b)), first, bevel=0.1)
    s.fill(circle(x, y, 0.4 * b), on(s, first), bevel=0.05)


def zigzag(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    step = 0.9 * cell.a
    wave = np.abs(repeat(x, step, -1, 1)) * (2.6 * cell.b / step) - 0.65 * cell.b
    d = np.maximum(np.abs(y - wave) * 0.6 - 0.06, np.abs(x) - 0.95 * cell.a)
    s.fill(d, on(s, below), bevel=0.0)


def grille(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    first = on(s, below)
    a, b = 0.85 * cell.a, 0.85 * cell.b
    s.fill(box(x, y, a, b, 0.03), first, bevel=0.05)
    s.fill(box(repeat(x, 0.5 * a, -1, 1), y, 0.12 * a, 0.7 * b), on(s, first), bevel=0.0)


def buttons(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    first = on(s, below)
    d = circle(repeat(x, 0.68 * cell.a, -1, 1), y, 0.0)
    r = min(0.3 * cell.a, 0.7 * cell.b)
    s.fill(d - r, first, bevel=0.08)
    s.fill(d - 0.35 * r, on(s, first), bevel=0.0)


def heart(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    r = min(1.05 * cell.b, cell.a)
    x = np.abs(x)
    lobes = circle(x - 0.48 * r, y + 0.35 * r, 0.56 * r)
    tip = polygon(x, y, (-0.5 * r, -0.4 * r), (0.6 * r, -0.4 * r), (0.98 * r, -0.1 * r), (0.0, r), (-0.5 * r, 0.6 * r))
    s.fill(np.minimum(lobes, tip), on(s, below), bevel=0.1)


def star(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    r = min(1.15 * cell.b, cell.a)
    angle = np.abs(repeat(np.arctan2(x, -y), 2 * np.pi / 5, -3, 3))
    radius = np.sqrt(x * x + y * y)
    u, v = radius * np.cos(angle), radius * np.sin(angle)
    # one edge of the star, from its tip (r, 0) to the notch at 36 degrees
    inner = 0.48 * r
    c, w = inner * np.cos(np.float32(np.pi / 5)), inner * np.sin(np.float32(np.pi / 5))
    length = np.hypot(r - c, w)
    s.fill((w * (u - r) + (r - c) * v) / np.float32(length), on(s, below), bevel=0.1)


def flower(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    first = on(s, below)
    r = min(cell.b, cell.a)
    d = circle(x, y, 0.0)
    s.fill((d - 0.85 * r - 0.25 * r * np.cos(5.0 * np.arctan2(x, -y))) * 0.8, first, bevel=0.1)
    s.fill(d - 0.35 * r, on(s, first), bevel=0.05)


def dial(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    first = on(s, below)
    r = min(1.1 * cell.b, cell.a)
    s.fill(circle(x, y, r), first, bevel=0.06)
    hands = np.minimum(segment(x, y, 0.0, 0.0, 0.0, -0.75 * r, 0.035), segment(x, y, 0.0, 0.0, 0.55 * r, 0.0, 0.045))
    s.fill(hands, on(s, first), bevel=0.0)


def cross(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    r = min(1.05 * cell.b, cell.a)
    s.fill(np.minimum(box(x, y, r, 0.32 * r, 0.02), box(x, y, 0.32 * r, r, 0.02)), on(s, below), bevel=0.06)


def windows(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    """Two panes with a bar."""
    first = on(s, below)
    x = np.abs(x) - 0.5 * cell.a
    a, b = 0.36 * cell.a, 0.9 * cell.b
    s.fill(box(x, y, a, b, 0.02), first, bevel=0.0)
    bars = np.minimum(np.abs(x), np.abs(y)) - 0.03
    s.fill(np.maximum(bars, box(x, y, a, b)), on(s, first), bevel=0.0)


def door(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    first = on(s, below)
    a, b = 0.7 * cell.b, 1.1 * cell.b
    s.fill(np.minimum(circle(x, y + b - a, a), box(x, y - 0.5 * a, a, b - 0.5 * a)), first, bevel=0.0)
    s.fill(circle(x - 0.5 * a, y - 0.3 * b, 0.25 * a), on(s, first), bevel=0.0)
    s.mark("center", cell.x, cell.y)


def stripes(s: Sketch, x: Array, y: Array, cell: Cell, below: Array) -> None:
    y = repeat(y, 0.7 * cell.b, -1, 1)
    s.fill(box(x, y, 0.85 * cell.a, 0.18 * cell.b), on(s, below), bevel=0.0)


# -------------------------------------------------------------------------------- kinds
@dataclass(frozen=True)
class Kind:
    body: Callable[[Sketch], Body]
    outer: Callable[[Sketch, Body], None]
    parts: tuple[Callable[[Sketch, Array, Array, Cell, Array], None], ...]  # x, y: seen from the middle of their cell

    def draw(self, s: Sketch, shift: Array) -> None:
        """Sketches the kind, its parts moved on by `shift` (B, 1) places."""
        body = self.body(s)
        self.outer(s, body)
        s.fill(body.d, body.colour, 0.4, texture=0.4)
        x, y, a, b = _places(s, self.body in LONG)
        for i, part in enumerate(self.parts):
            slot = (i + shift) % PLACES
            here, there = (np.take_along_axis(one, slot, 1) for one in (x, y))
            part(s, s.x - here, s.y - there, Cell(here, there, a, b), body.colour)


LONG = (wagon, hull)  # bodies whose places lie side by side


def _places(s: Sketch, long: bool) -> tuple[Array, Array, float, float]:
    """Middles x, y (B, 3) of a body's places, and half of the width and height that a part may take there."""
    play = [(s.u(-0.04, 0.04), s.u(-0.03, 0.03)) for _ in range(PLACES)]
    x, y = (np.concatenate(one, axis=1) for one in zip(*play, strict=True))
    along = s.u(0.92, 1.05) * np.arange(-1, 2, dtype=np.float32)
    if long:
        return x + 0.58 * along, y, 0.26, 0.26
    return x + s.yaw, y + 0.47 * along, 0.5, 0.21


_SOURCE = {
    "dog": Kind(egg, floppy_ears, (eyes, nose, mouth)),
    "cat": Kind(disc, pointed_ears, (eyes, nose, whiskers)),
    "bear": Kind(disc, round_ears, (eyes, nose, bow)),
    "owl": Kind(egg, pointed_ears, (eyes, nose, zigzag)),
    "pig": Kind(disc, floppy_ears, (eyes, nose, heart)),
    "robot": Kind(block, antennae, (eyes, nose, grille)),
    "clown": Kind(egg, hat, (eyes, nose, buttons)),
    "bee": Kind(egg, wings, (eyes, flower, stripes)),
    "monster": Kind(dome, antennae, (eyes, mouth, star)),
    "sun": Kind(disc, rays, (eyes, heart, mouth)),
    "house": Kind(block, roof, (heart, windows, door)),
    "church": Kind(block, roof, (cross, dial, door)),
    "clock": Kind(disc, feet, (star, dial, buttons)),
    "mug": Kind(block, side_handle, (zigzag, heart, stripes)),
    "jug": Kind(egg, side_handle, (bow, flower, stripes)),
    "rocket": Kind(shield, fins, (star, windows, buttons)),
    "bus": Kind(wagon, wheels_below, (door, windows, dial)),
    "train": Kind(wagon, wheels_below, (grille, windows, star)),
    "fish": Kind(hull, tail, (flower, whiskers, eyes)),
    "boat": Kind(hull, mast, (cross, windows, flower)),
}
_TARGET = {
    "fox": Kind(shield, pointed_ears, (eyes, nose, star)),
    "mouse": Kind(egg, round_ears, (eyes, nose, flower)),
    "lion": Kind(disc, rays, (eyes, nose, cross)),
    "rabbit": Kind(dome, floppy_ears, (eyes, nose, stripes)),
    "castle": Kind(dome, roof, (windows, star, door)),
    "teapot": Kind(disc, side_handle, (zigzag, flower, heart)),
    "tram": Kind(wagon, wheels_below, (heart, door, grille)),
    "whale": Kind(hull, tail, (whiskers, mouth, eyes)),
    "radio": Kind(block, antennae, (dial, grille, buttons)),
    "lamp": Kind(dome, feet, (bow, star, zigzag)),
}
KINDS = _SOURCE | _TARGET


def _classes(kinds: dict[str, Kind]) -> dict[str, tuple[Kind, int]]:
    """Class name -> kind, and how far its parts have moved on: dog 0, dog_b 1, dog_c 2."""
    return {name + mark: (kind, i) for name, kind in kinds.items() for i, mark in enumerate(("", "_b", "_c"))}


CLASSES = _classes(KINDS)
SOURCE_CLASSES = tuple(_classes(_SOURCE))
TARGET_CLASSES = tuple(_classes(_TARGET))
