"""What the embedded data set draws: one short function a class, parts listed back to front.

A class is its parts and how they sit; colours come from wide palettes that the classes share. x points right, y down,
and the object fills about [-1, 1]. The subject's own right is at the image's left (x < 0) in a face; vehicles and
animals seen from the side look to the right.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zfrepro.data.embedded_sketch import (
    Array,
    Number,
    Sketch,
    blend,
    box,
    circle,
    ellipse,
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
}  # named by the subject's side: a mirrored subject swaps them
KEYPOINTS = (
    "right_eye",
    "left_eye",
    "nose",
    "front_wheel",
    "rear_wheel",
    "handle",
    "center",
    "right_wing",
    "left_wing",
    "tail",
    "top",
)


# -------------------------------------------------------------------------------- shared parts
def eyes(s: Sketch, across: Number, y: Number, r: Number, iris: Array | None = None, slit: float = 1.0) -> None:
    """Eyes at (-across, y) and (across, y), turned with the face: white and iris (if there is one), pupil and glint."""
    yaw, gaze = s.yaw, s.u(-0.2, 0.2) * r
    d = circle(np.abs(s.x - yaw) - across, s.y - y, r)
    if iris is not None:
        s.fill(d, s.pale(), bevel=0.0)
        d = circle(np.abs(s.x - yaw - gaze) - across, s.y - y, 0.68 * r)
        s.fill(d, iris, bevel=0.0)
        d = ellipse(np.abs(s.x - yaw - gaze) - across, s.y - y, 0.38 * r * slit, 0.42 * r)
    s.fill(d, s.ink(), bevel=0.0)
    s.fill(
        circle(np.abs(s.x - yaw + 0.25 * r) - across, s.y - y + 0.3 * r, 0.22 * r), np.ones_like(s.pale()), bevel=0.0
    )
    s.mark("right_eye", yaw - across, y)
    s.mark("left_eye", yaw + across, y)


def nose(s: Sketch, y: Number, a: Number, b: Number, colour: Array | None = None) -> None:
    s.fill(ellipse(s.x - 1.3 * s.yaw, s.y - y, a, b), s.ink() if colour is None else colour, bevel=0.1, raised=True)
    s.mark("nose", 1.3 * s.yaw + 0.0, y)


def smile(s: Sketch, y: Number, r: Number, width: float = 0.035) -> None:
    """The lower arc of a circle of radius r whose lowest point is y."""
    x, v = s.x - 1.2 * s.yaw, s.y - y + r
    s.fill(np.maximum(ring(circle(x, v, r), width), 0.45 * r - v), s.ink(), bevel=0.0)


def wheels(s: Sketch, rear: Number, front: Number, y: Number, r: Number, front_r: Number | None = None) -> None:
    """Tyres and hubs, with their key points."""
    tyre, hub = s.ink(), s.metal()
    for name, x, radius in (("rear_wheel", rear, r), ("front_wheel", front, r if front_r is None else front_r)):
        d = circle(s.x - x, s.y - y, 0.0)
        s.fill(d - radius, tyre, bevel=0.1)
        s.fill(d - 0.55 * radius, hub, bevel=0.12, raised=True)
        s.mark(name, x, y)


def ears(
    s: Sketch, across: Number, base: Number, tip_out: Number, tip_y: Number, half: Number, fur: Array, inner: Array
) -> None:
    """Two pointed ears standing on (+-across, base)."""
    x = np.abs(s.x)
    for grow, colour in ((1.0, fur), (0.55, inner)):
        corners = (
            (across - half * grow, base),
            (across + tip_out * grow, base + (tip_y - base) * (0.15 + 0.85 * grow)),
            (across + half * grow, base),
        )
        s.fill(polygon(x, s.y, *corners, r=0.03), colour, bevel=0.15, texture=0.4 * grow)


def round_ears(s: Sketch, across: Number, y: Number, r: Number, fur: Array, inner: Array) -> None:
    d = circle(np.abs(s.x) - across, s.y - y, 0.0)
    s.fill(d - r, fur, texture=0.4)
    s.fill(d - 0.6 * r, inner, bevel=0.0)


def whiskers(s: Sketch, y: Number, colour: Array) -> None:
    x, v = np.abs(s.x - s.yaw), s.y - y
    d = np.minimum(segment(x, v, 0.25, 0.0, 0.85, -0.1, 0.018), segment(x, v, 0.25, 0.07, 0.85, 0.12, 0.018))
    s.fill(d, colour, bevel=0.0)


def windows(s: Sketch, step: Number, first: int, last: int, y: Number, a: Number, b: Number, x0: Number = 0.0) -> None:
    """A row of panes, centres at x0 + step * first ... x0 + step * last."""
    s.fill(
        box(repeat(s.x - x0, step, first, last), s.y - y, a, b, 0.05), mix(s.pale(), s.ink(), s.u(0.0, 0.7)), bevel=0.0
    )


def handle(s: Sketch, x: Number, y: Number, a: Number, b: Number, width: Number, colour: Array) -> None:
    s.fill(ring(ellipse(s.x - x, s.y - y, a, b), width), colour, bevel=0.1)
    s.mark("handle", x + a * np.sign(x), y)


# -------------------------------------------------------------------------------- faces
def dog(s: Sketch) -> None:
    fur, ear, w = s.fur(), s.fur(), s.u(0.6, 0.72)
    s.fill(ellipse(s.x, s.y, w, s.u(0.78, 0.9)), fur, 0.4, texture=0.6)
    x, y = turn(np.abs(s.x), s.y, w + 0.08, s.u(-0.3, -0.1), s.u(-0.35, 0.05))
    s.fill(ellipse(x, y, s.u(0.2, 0.28), s.u(0.5, 0.68)), ear, 0.2, texture=0.5)
    s.fill(circle(s.x - s.yaw - 0.28, s.y + 0.2, 0.27), ear, 0.0, when=s.coin(0.4))
    s.fill(ellipse(s.x - s.yaw, s.y - 0.62, 0.13, 0.24), s.vivid(), 0.1, when=s.coin(0.4), raised=True)
    muzzle = ellipse(s.x - 1.2 * s.yaw, s.y - 0.38, s.u(0.32, 0.42), s.u(0.26, 0.33))
    s.fill(muzzle, mix(fur, s.pale(), s.u(0.2, 0.9)), 0.25, raised=True)
    eyes(s, s.u(0.26, 0.32), s.u(-0.25, -0.15), s.u(0.1, 0.14))
    nose(s, s.u(0.18, 0.26), s.u(0.15, 0.2), s.u(0.1, 0.14))


def wolf(s: Sketch) -> None:
    fur, light = s.fur(), s.pale()
    ears(s, s.u(0.42, 0.5), -0.3, s.u(0.1, 0.22), s.u(-1.05, -0.9), 0.28, fur, s.ink())
    cheek = polygon(
        np.abs(s.x), s.y, (-1.0, -0.55), (0.4, -0.55), (s.u(0.78, 0.9), 0.28), (0.0, 1.0), (-1.0, 0.9), r=0.02
    )
    s.fill(cheek, fur, 0.4, texture=0.6)
    s.fill(ellipse(np.abs(s.x - s.yaw) - 0.36, s.y - 0.28, 0.26, 0.2), light, 0.0)
    muzzle = ellipse(s.x - 1.2 * s.yaw, s.y - 0.42, s.u(0.22, 0.28), s.u(0.42, 0.5))
    s.fill(muzzle, mix(fur, light, s.u(0.5, 1.0)), 0.25, raised=True)
    eyes(s, s.u(0.28, 0.34), s.u(-0.14, -0.04), s.u(0.09, 0.12), s.vivid(0.4))
    nose(s, s.u(0.6, 0.68), s.u(0.11, 0.15), s.u(0.09, 0.12))


def cat(s: Sketch) -> None:
    fur, r = s.fur(), s.u(0.66, 0.76)
    ears(s, s.u(0.42, 0.48), -0.3, s.u(0.08, 0.16), s.u(-1.0, -0.88), 0.3, fur, s.vivid())
    s.fill(ellipse(s.x, s.y - 0.08, r + 0.1, r), fur, 0.4, texture=0.9)
    s.fill(circle(np.abs(s.x - s.yaw) - 0.15, s.y - 0.4, 0.2), mix(fur, s.pale(), s.u(0.3, 1.0)), 0.12, raised=True)
    eyes(s, s.u(0.3, 0.36), s.u(-0.1, 0.0), s.u(0.17, 0.22), s.vivid(0.3), slit=0.5)
    nose(s, s.u(0.24, 0.3), s.u(0.07, 0.1), s.u(0.05, 0.07), s.vivid())
    whiskers(s, 0.4, mix(s.pale(), s.ink(), s.coin(0.5)))


def bear(s: Sketch) -> None:
    fur, r = s.fur(), s.u(0.72, 0.82)
    round_ears(s, s.u(0.52, 0.62), s.u(-0.68, -0.58), s.u(0.25, 0.32), fur, s.fur())
    s.fill(ellipse(s.x, s.y, r + s.u(0.0, 0.08), r), fur, 0.45, texture=0.5)
    muzzle = ellipse(s.x - 1.2 * s.yaw, s.y - 0.36, s.u(0.3, 0.4), s.u(0.24, 0.3))
    s.fill(muzzle, mix(fur, s.pale(), s.u(0.3, 0.9)), 0.25, raised=True)
    eyes(s, s.u(0.25, 0.34), s.u(-0.16, -0.06), s.u(0.07, 0.1))
    nose(s, s.u(0.22, 0.28), s.u(0.13, 0.18), s.u(0.08, 0.11))
    smile(s, s.u(0.5, 0.56), 0.16)


def owl(s: Sketch) -> None:
    fur, disc = s.fur(), s.u(0.32, 0.38)
    ears(s, s.u(0.42, 0.5), -0.4, s.u(0.15, 0.25), s.u(-0.98, -0.85), 0.26, fur, fur)
    s.fill(ellipse(s.x, s.y - 0.05, s.u(0.72, 0.8), s.u(0.78, 0.9)), fur, 0.4, texture=1.0)
    s.fill(circle(np.abs(s.x - s.yaw) - 0.31, s.y + 0.15, disc), mix(fur, s.pale(), s.u(0.4, 1.0)), 0.15, raised=True)
    eyes(s, 0.31 + 0.0, -0.15 + 0.0, disc * s.u(0.55, 0.75), s.vivid(0.4))
    beak = polygon(s.x - 1.3 * s.yaw, s.y, (-0.14, 0.05), (0.14, 0.05), (0.0, s.u(0.36, 0.46)))
    s.fill(beak, s.vivid(0.2), 0.12, raised=True)
    s.mark("nose", 1.3 * s.yaw, 0.18)


def monkey(s: Sketch) -> None:
    fur, skin = s.fur(), mix(s.pale(), s.fur(), s.u(0.0, 0.7))
    round_ears(s, s.u(0.72, 0.8), s.u(-0.15, 0.05), s.u(0.26, 0.34), fur, skin)
    s.fill(ellipse(s.x, s.y + 0.05, 0.68, s.u(0.76, 0.86)), fur, 0.35, texture=0.5)
    brows = circle(np.abs(s.x - s.yaw) - 0.24, s.y + 0.12, 0.32)
    s.fill(blend(brows, ellipse(s.x - s.yaw, s.y - 0.42, s.u(0.5, 0.6), s.u(0.34, 0.4)), 0.1), skin, 0.2, raised=True)
    eyes(s, s.u(0.2, 0.26), s.u(-0.16, -0.06), s.u(0.09, 0.13))
    nose(s, s.u(0.22, 0.28), s.u(0.08, 0.12), 0.05)
    smile(s, s.u(0.58, 0.64), s.u(0.3, 0.4))


def clown(s: Sketch) -> None:
    hair, skin = s.vivid(0.5), mix(s.pale(), s.fur(), s.u(0.0, 0.5))
    s.fill(circle(np.abs(s.x) - 0.66, s.y + s.u(0.0, 0.3), s.u(0.32, 0.42)), hair, 0.3, texture=0.8)
    s.fill(ellipse(s.x, s.y - 0.1, s.u(0.6, 0.68), s.u(0.72, 0.8)), skin, 0.4)
    hat = polygon(s.x, s.y, (-0.42, -0.5), (s.u(-0.25, 0.25), s.u(-1.15, -1.0)), (0.42, -0.5), r=0.04)
    s.fill(hat, s.vivid(), 0.2, texture=1.0, when=s.coin(0.7))
    s.fill(ellipse(s.x - s.yaw, s.y - 0.52, s.u(0.34, 0.44), s.u(0.15, 0.2)), s.pale(), 0.0)
    smile(s, s.u(0.58, 0.64), s.u(0.34, 0.42), 0.05)
    eyes(s, s.u(0.24, 0.3), s.u(-0.16, -0.06), s.u(0.12, 0.16), s.vivid(0.3))
    nose(s, s.u(0.16, 0.24), s.u(0.15, 0.2), s.u(0.15, 0.2), s.vivid())


def fox(s: Sketch) -> None:
    fur = s.fur()
    ears(s, s.u(0.5, 0.56), -0.25, s.u(0.15, 0.3), s.u(-1.05, -0.92), 0.32, fur, s.ink())
    shape = polygon(np.abs(s.x), s.y, (-1.0, -0.5), (0.5, -0.5), (0.95, s.u(0.0, 0.15)), (0.0, 0.95), (-1.0, 0.9))
    s.fill(shape, fur, 0.3, texture=0.4)
    s.fill(polygon(np.abs(s.x - s.yaw), s.y, (0.12, 0.35), (0.45, 0.1), (0.9, 0.1), (0.1, 0.85)), s.pale(), 0.0)
    eyes(s, s.u(0.3, 0.36), s.u(-0.1, 0.0), s.u(0.08, 0.11))
    nose(s, s.u(0.82, 0.9), s.u(0.09, 0.12), s.u(0.08, 0.1))


def panda(s: Sketch) -> None:
    fur, patch = mix(s.pale(), s.fur(), s.u(0.0, 0.4)), s.ink()
    round_ears(s, s.u(0.56, 0.64), s.u(-0.68, -0.6), s.u(0.25, 0.3), patch, patch)
    s.fill(ellipse(s.x, s.y, s.u(0.82, 0.9), s.u(0.72, 0.8)), fur, 0.45, texture=0.2)
    x, y = turn(np.abs(s.x - s.yaw), s.y, 0.34, -0.06, s.u(0.4, 0.8))
    s.fill(ellipse(x, y, s.u(0.18, 0.22), s.u(0.25, 0.3)), patch, 0.0)
    eyes(s, 0.32 + s.u(-0.02, 0.02), s.u(-0.12, -0.06), s.u(0.08, 0.11), s.pale())
    nose(s, s.u(0.24, 0.3), s.u(0.12, 0.16), s.u(0.07, 0.1))
    smile(s, s.u(0.46, 0.52), 0.16)


def rabbit(s: Sketch) -> None:
    fur, spread = s.fur(), s.u(0.05, 0.3)
    x, y = turn(np.abs(s.x), s.y, 0.26 + 0.3 * spread, -0.5, spread)
    s.fill(ellipse(x, y, s.u(0.16, 0.2), 0.55), fur, 0.2, texture=0.3)
    s.fill(ellipse(x, y, 0.09, 0.4), s.vivid(), 0.08, raised=True)
    s.fill(ellipse(s.x, s.y - 0.35, s.u(0.52, 0.6), s.u(0.5, 0.58)), fur, 0.4, texture=0.5)
    s.fill(circle(np.abs(s.x - s.yaw) - 0.12, s.y - 0.6, 0.17), s.pale(), 0.12, raised=True)
    s.fill(box(s.x - s.yaw, s.y - 0.78, 0.08, 0.1, 0.02), np.ones_like(fur), 0.0)
    eyes(s, s.u(0.24, 0.3), s.u(0.18, 0.26), s.u(0.09, 0.13))
    nose(s, s.u(0.46, 0.5), 0.08, 0.06, s.vivid())


def frog(s: Sketch) -> None:
    skin, across = mix(s.leafy(), s.vivid(), s.coin(0.3)), s.u(0.42, 0.5)
    s.fill(circle(np.abs(s.x - s.yaw) - across, s.y + 0.5, 0.32), skin, 0.2)
    s.fill(ellipse(s.x, s.y - 0.15, s.u(0.86, 0.95), s.u(0.6, 0.68)), skin, 0.4, texture=0.8)
    smile(s, s.u(0.45, 0.55), s.u(0.6, 0.8), 0.04)
    eyes(s, across, -0.5 + 0.0, s.u(0.2, 0.24), s.vivid(0.4), slit=1.6)
    s.fill(circle(np.abs(s.x - 1.2 * s.yaw) - 0.1, s.y + 0.05, 0.035), s.ink(), 0.0)
    s.mark("nose", 1.2 * s.yaw, -0.05)


def lion(s: Sketch) -> None:
    fur, mane = s.fur(), s.fur()
    angle, r = np.arctan2(s.y, s.x), circle(s.x, s.y, 0.0)
    s.fill(r - 0.9 - s.u(0.04, 0.09) * np.cos(np.rint(s.u(10.0, 18.0)) * angle), mane, 0.35, texture=1.0)
    round_ears(s, s.u(0.44, 0.5), s.u(-0.52, -0.44), 0.17, fur, mane)
    s.fill(ellipse(s.x, s.y - 0.05, s.u(0.52, 0.58), s.u(0.56, 0.64)), fur, 0.35)
    s.fill(circle(np.abs(s.x - s.yaw) - 0.14, s.y - 0.32, 0.18), s.pale(), 0.12, raised=True)
    eyes(s, s.u(0.2, 0.26), s.u(-0.16, -0.08), s.u(0.08, 0.11))
    nose(s, s.u(0.14, 0.2), s.u(0.12, 0.16), s.u(0.08, 0.1))


def pig(s: Sketch) -> None:
    skin, y = mix(s.vivid(), s.pale(), s.u(0.2, 0.7)), s.u(0.2, 0.3)
    s.fill(ellipse(s.x, s.y, s.u(0.78, 0.88), s.u(0.74, 0.82)), skin, 0.45, texture=0.4)
    x, v = turn(np.abs(s.x), s.y, 0.52, -0.62, s.u(-0.9, -0.4))
    s.fill(polygon(x, v, (-0.24, -0.2), (0.24, -0.2), (0.1, 0.3), r=0.03), mix(skin, s.ink(), 0.25), 0.15)
    eyes(s, s.u(0.34, 0.42), s.u(-0.2, -0.1), s.u(0.07, 0.1))
    s.fill(
        ellipse(s.x - 1.3 * s.yaw, s.y - y, s.u(0.32, 0.38), s.u(0.22, 0.28)),
        mix(skin, s.vivid(), 0.5),
        0.15,
        raised=True,
    )
    s.fill(ellipse(np.abs(s.x - 1.3 * s.yaw) - 0.13, s.y - y, 0.06, 0.1), s.ink(), 0.0)
    s.mark("nose", 1.3 * s.yaw, y)
    smile(s, s.u(0.6, 0.66), 0.26)


def robot(s: Sketch) -> None:
    steel, trim = mix(s.metal(), s.vivid(), s.coin(0.5)), s.vivid(0.5)
    s.fill(segment(s.x, s.y, 0.0, -0.7, 0.0, -0.95, 0.04), s.metal(), 0.05)
    s.fill(circle(s.x, s.y + 0.98, 0.1), trim, 0.1)
    s.fill(box(np.abs(s.x) - 0.78, s.y - 0.05, 0.12, 0.2, 0.03), trim, 0.1)
    s.fill(box(s.x, s.y - 0.05, s.u(0.66, 0.74), s.u(0.66, 0.76), s.u(0.05, 0.25)), steel, 0.15, texture=0.3)
    eyes(s, s.u(0.28, 0.34), s.u(-0.2, -0.1), s.u(0.15, 0.2), trim)
    s.fill(polygon(s.x - s.yaw, s.y, (0.0, 0.08), (0.1, 0.26), (-0.1, 0.26)), s.ink(), 0.0)
    s.mark("nose", s.yaw, 0.19)
    s.fill(box(s.x - s.yaw, s.y - 0.48, 0.4, 0.12, 0.03), s.ink(), 0.0)
    s.fill(box(repeat(s.x - s.yaw, 0.16, -2, 2), s.y - 0.48, 0.045, 0.09), s.pale(), 0.0)


# -------------------------------------------------------------------------------- on wheels
def car(s: Sketch) -> None:
    body, top = s.vivid(), s.u(-0.5, -0.38)
    s.fill(box(s.x, s.y - 0.17, s.u(0.9, 0.98), 0.24, 0.14), body, 0.2, texture=0.4)
    cabin = polygon(
        s.x + 0.05, s.y, (s.u(-0.65, -0.55), 0.05), (-0.38, top), (0.25, top), (s.u(0.5, 0.62), 0.05), r=0.05
    )
    s.fill(cabin, body, 0.2, raised=True)
    glass = polygon(np.abs(s.x + 0.07), s.y, (0.04, -0.05), (0.04, top + 0.08), (0.25, top + 0.08), (0.42, -0.05))
    s.fill(glass, mix(s.pale(), s.ink(), s.u(0.0, 0.6)), 0.0)
    s.fill(circle(s.x - 0.86, s.y - 0.12, 0.09), s.pale(), 0.0)
    r = s.u(0.22, 0.28)
    wheels(s, s.u(-0.62, -0.52), s.u(0.52, 0.62), 0.42, r)


def truck(s: Sketch) -> None:
    cab, load, r, split = s.vivid(), s.vivid(0.4), s.u(0.19, 0.24), s.u(0.3, 0.42)
    s.fill(box(s.x, s.y - 0.38, 0.95, 0.08), s.ink(), 0.0)
    shape = box(s.x - (split - 0.97) / 2, s.y + 0.15 + s.u(-0.03, 0.05), (split + 0.92) / 2, 0.5, 0.03)
    s.fill(shape, load, 0.12, texture=0.9)
    shape = polygon(
        s.x, s.y, (split + 0.06, 0.38), (split + 0.06, -0.3), (0.78, -0.3), (0.93, 0.0), (0.93, 0.38), r=0.04
    )
    s.fill(shape, cab, 0.15)
    s.fill(polygon(s.x, s.y, (split + 0.18, 0.0), (split + 0.18, -0.2), (0.76, -0.2), (0.86, 0.0)), s.pale(), 0.0)
    wheels(s, s.u(-0.65, -0.5), s.u(0.58, 0.66), 0.46, r)
    s.fill(circle(s.x + 0.1, s.y - 0.46, r), s.ink(), 0.1, when=s.coin(0.5))


def bus(s: Sketch) -> None:
    body, high = s.vivid(), s.u(0.46, 0.56)
    s.fill(box(s.x, s.y + 0.08, 0.97, high, s.u(0.06, 0.2)), body, 0.2)
    s.fill(box(s.x, s.y - 0.25, 0.96, s.u(0.04, 0.1)), s.vivid(0.4), 0.0, texture=0.5)
    windows(s, 0.34, -2, 2, -0.2 + s.u(-0.05, 0.05), 0.13, s.u(0.14, 0.2), s.u(-0.05, 0.05))
    s.fill(box(s.x - 0.66, s.y - 0.1, 0.12, 0.3, 0.02), s.ink(), 0.0, when=s.coin(0.6))
    wheels(s, s.u(-0.68, -0.5), s.u(0.5, 0.62), 0.5, s.u(0.18, 0.23))


def bicycle(s: Sketch) -> None:
    frame, r, y = s.vivid(), s.u(0.36, 0.43), 0.32
    tyre = mix(s.ink(), s.vivid(), s.coin(0.3))
    rear, front = s.u(-0.6, -0.52), s.u(0.52, 0.6)
    for name, x in (("rear_wheel", rear), ("front_wheel", front)):
        u, v = s.x - x, s.y - y
        d = circle(u, v, 0.0)
        s.fill(np.maximum(np.minimum(np.abs(u), np.abs(v)) - 0.015, d - r), s.metal(), 0.0)
        s.fill(ring(d - r, s.u(0.04, 0.065)), tyre, 0.06)
        s.mark(name, x, y)
    w, seat, bars = s.u(0.035, 0.055), s.u(-0.28, -0.18), s.u(0.32, 0.4)
    crank, top = s.u(-0.08, 0.02), s.u(-0.3, -0.2)
    tubes = segment(s.x, s.y, rear, y, crank, 0.34, w)
    for x0, y0, x1, y1 in (
        (seat, top, crank, 0.34),
        (seat, top, bars, top),
        (crank, 0.34, bars, top),
        (rear, y, seat, top),
    ):
        tubes = np.minimum(tubes, segment(s.x, s.y, x0, y0, x1, y1, w))
    s.fill(np.minimum(tubes, segment(s.x, s.y, bars - 0.05, top - 0.2, front, y, w)), frame, 0.06)
    s.fill(segment(s.x, s.y, bars - 0.12, top - 0.2, bars + 0.12, top - 0.24, w), s.ink(), 0.05)
    s.fill(segment(s.x, s.y, seat - 0.14, top - 0.1, seat + 0.14, top - 0.1, 0.06), s.ink(), 0.06)


def train(s: Sketch) -> None:
    body, boiler = s.vivid(), s.vivid(0.4)
    s.fill(polygon(s.x - 0.6, s.y, (-0.1, -0.2), (-0.16, s.u(-0.8, -0.65)), (0.16, -0.7), (0.1, -0.2)), s.ink(), 0.1)
    s.fill(box(s.x - 0.25, s.y + 0.02, 0.62, s.u(0.26, 0.32), 0.1), boiler, 0.3, texture=0.5)
    s.fill(box(s.x + 0.58, s.y + 0.2, 0.34, 0.55, 0.04), body, 0.12)
    s.fill(box(s.x + 0.58, s.y + 0.75, 0.42, 0.06, 0.05), s.ink(), 0.05)
    windows(s, 0.3, 0, 1, -0.32, 0.1, 0.14, -0.73)
    s.fill(polygon(s.x, s.y, (0.75, 0.25), (0.8, 0.25), (1.0, 0.62), (0.75, 0.62)), s.metal(), 0.05)
    s.fill(circle(s.x, s.y - 0.48, 0.16), s.ink(), 0.1)
    wheels(s, s.u(-0.65, -0.5), s.u(0.48, 0.58), 0.44, s.u(0.2, 0.26))


def tractor(s: Sketch) -> None:
    body, r = s.vivid(), s.u(0.42, 0.5)
    s.fill(segment(s.x, s.y, 0.55, -0.1, 0.55, s.u(-0.65, -0.5), 0.05), s.ink(), 0.05)
    s.fill(box(s.x + 0.3, s.y + 0.62, 0.42, 0.06, 0.04), body, 0.06)
    posts = np.minimum(segment(s.x, s.y, -0.6, -0.6, -0.6, 0.1, 0.05), segment(s.x, s.y, 0.05, -0.6, 0.12, 0.0, 0.05))
    s.fill(posts, body, 0.05)
    shape = polygon(s.x, s.y, (-0.65, 0.4), (-0.65, -0.05), (0.85, s.u(-0.15, -0.05)), (0.9, 0.4), r=0.04)
    s.fill(shape, body, 0.2, texture=0.4)
    wheels(s, s.u(-0.5, -0.42), s.u(0.62, 0.7), 0.4, r, s.u(0.22, 0.28))


def scooter(s: Sketch) -> None:
    body, tilt = s.vivid(), s.u(0.3, 0.45)
    s.fill(segment(s.x, s.y, 0.68, 0.5, tilt, -0.8, 0.055), s.metal(), 0.06)
    s.fill(segment(s.x, s.y, tilt - 0.18, -0.78, tilt + 0.12, -0.85, 0.06), s.ink(), 0.06)
    s.fill(segment(s.x, s.y, -0.45, 0.45, 0.45, 0.45, s.u(0.07, 0.11)), body, 0.1, texture=0.5)
    s.fill(segment(s.x, s.y, 0.45, 0.45, tilt + 0.12, -0.2, 0.12), body, 0.12)
    s.fill(ellipse(s.x + 0.5, s.y - 0.15, 0.36, s.u(0.24, 0.32)), body, 0.2)
    s.fill(segment(s.x, s.y, -0.75, -0.15, -0.25, -0.15, 0.08), s.ink(), 0.08)
    wheels(s, s.u(-0.68, -0.58), 0.68, 0.6, s.u(0.2, 0.25))


# -------------------------------------------------------------------------------- boats and planes
def sailboat(s: Sketch) -> None:
    mast, top = s.u(-0.12, 0.05), s.u(-1.0, -0.9)
    s.fill(segment(s.x, s.y, mast, 0.45, mast, top, 0.035), s.fur(), 0.05)
    main, low = s.pale(), s.u(0.22, 0.32)
    shape = polygon(s.x, s.y, (mast + 0.06, low), (mast + 0.06, top + 0.06), (s.u(0.6, 0.8), low))
    s.fill(shape, mix(main, s.vivid(), s.u(0.0, 1.0)), 0.2, texture=1.0)
    shape = polygon(s.x, s.y, (s.u(-0.75, -0.6), low), (mast - 0.06, s.u(-0.8, -0.5)), (mast - 0.06, low))
    s.fill(shape, s.vivid(), 0.15, texture=0.6)
    shape = polygon(s.x, s.y, (-0.85, 0.42), (s.u(0.85, 0.98), 0.42), (0.6, s.u(0.72, 0.85)), (-0.62, 0.75), r=0.03)
    s.fill(shape, s.vivid(0.4), 0.2, texture=0.4)
    s.mark("top", mast, top)


def steamboat(s: Sketch) -> None:
    white, stack = s.pale(), s.vivid(0.3)
    for x in (-0.3, 0.2):
        s.fill(box(s.x - x, s.y + 0.5, s.u(0.09, 0.13), s.u(0.35, 0.45), 0.02), stack, 0.1, texture=0.8)
    s.fill(box(s.x + 0.05, s.y + 0.05, 0.5, 0.17, 0.04), white, 0.08)
    s.fill(box(s.x, s.y - 0.24, 0.72, 0.15, 0.04), white, 0.08)
    windows(s, 0.24, -2, 2, 0.24, 0.06, 0.06)
    shape = polygon(s.x, s.y, (-0.95, 0.35), (0.98, 0.35), (0.72, s.u(0.74, 0.86)), (-0.78, 0.78), r=0.02)
    s.fill(shape, s.vivid(), 0.2, texture=0.4)
    s.mark("top", -0.3 + 0.0, -0.85)


def plane(s: Sketch) -> None:
    body, wing = mix(s.metal(), s.vivid(), s.coin(0.5)), s.vivid(0.4)
    s.fill(
        polygon(s.x, s.y, (-0.95, s.u(-0.6, -0.5)), (-0.72, -0.55), (-0.5, -0.05), (-0.85, -0.05), r=0.02), wing, 0.1
    )
    shape = polygon(s.x, s.y, (-0.3, s.u(-0.6, -0.4)), (-0.1, -0.5), (0.3, -0.1), (-0.05, -0.1), r=0.02)
    s.fill(shape, mix(wing, s.ink(), 0.3), 0.1)
    s.fill(ellipse(s.x, s.y, 0.97, s.u(0.16, 0.22)), body, 0.2, texture=0.4)
    windows(s, 0.17, -2, 3, -0.04, 0.045, 0.045)
    s.fill(polygon(s.x, s.y, (-0.05, 0.03), (0.32, 0.03), (-0.25, s.u(0.6, 0.75)), (-0.48, 0.65), r=0.02), wing, 0.1)
    s.mark("tail", -0.8 + 0.0, -0.35)


# -------------------------------------------------------------------------------- growing
def flower(s: Sketch) -> None:
    y0, r, n = s.u(-0.4, -0.28), s.u(0.42, 0.52), np.rint(s.u(4.6, 9.4))
    s.fill(segment(s.x, s.y, 0.0, y0, s.u(-0.15, 0.15), 0.98, 0.055), s.leafy(), 0.06)
    for side in (-1.0, 1.0):
        x, y = turn(s.x, s.y, side * 0.26, s.u(0.4, 0.7), side * s.u(-0.8, -0.3))
        s.fill(ellipse(x, y, 0.28, 0.1), s.leafy(), 0.1, when=s.coin(0.8))
    x, y = s.x, s.y - y0
    d = circle(x, y, 0.0)
    petals = np.cos(n * np.arctan2(y, x) + s.u(0.0, 6.0))
    s.fill((d - r - (0.4 * r) * np.sqrt(np.abs(petals)) + 0.4 * r) * 0.75, s.vivid(), 0.3, texture=0.5)
    s.fill(d - s.u(0.14, 0.2), s.vivid(0.4), 0.15)
    s.mark("center", 0.0, y0)


def tree(s: Sketch) -> None:
    leaf, w = s.leafy(), s.u(0.08, 0.14)
    s.fill(polygon(s.x, s.y, (-w, 0.0), (w, 0.0), (w * 1.5, 0.98), (-w * 1.5, 0.98)), s.fur(), 0.12, texture=0.3)
    twig = segment(s.x, s.y, 0.0, 0.5, s.u(-0.35, 0.35), 0.05, 0.05)
    s.fill(twig, s.fur(), 0.06, when=s.coin(0.5))
    crown = circle(s.x - s.u(-0.1, 0.1), s.y + s.u(0.5, 0.62), s.u(0.3, 0.36))
    for low, high in ((-0.05, 0.15), (0.3, 0.5)):
        x = np.abs(s.x - s.u(-0.12, 0.12)) - s.u(0.26, 0.5 - 0.4 * low)
        crown = blend(crown, circle(x, s.y + s.u(low, high), s.u(0.26, 0.34)), 0.06)
    s.fill(crown, leaf, 0.3, texture=0.9)
    s.mark("center", 0.0, -0.3)


def mushroom(s: Sketch) -> None:
    cap, y = s.vivid(), s.u(0.0, 0.12)
    s.fill(
        polygon(s.x, s.y, (-0.18, -0.1), (0.18, -0.1), (s.u(0.24, 0.34), 0.85), (-0.28, 0.85), r=0.06), s.pale(), 0.2
    )
    dome = np.maximum(ellipse(s.x, s.y - y, s.u(0.78, 0.92), s.u(0.75, 0.95)), s.y - y)
    s.fill(dome, cap, 0.35, texture=0.3)
    spots = circle(repeat(s.x, 0.4, -1, 1), s.y - y + 0.32 - 0.8 * s.x * s.x, s.u(0.09, 0.14))
    s.fill(spots, s.pale(), 0.06, when=s.coin(0.7))
    s.mark("center", 0.0, y - 0.35)


def cactus(s: Sketch) -> None:
    skin, r = s.leafy(), s.u(0.18, 0.25)
    d = segment(s.x, s.y, 0.0, s.u(-0.75, -0.6), 0.0, 0.7, r)
    for side in (-1.0, 1.0):
        y, x, w = s.u(-0.1, 0.3), side * s.u(0.48, 0.6), s.u(0.1, 0.14)
        arm = np.minimum(segment(s.x, s.y, 0.0, y, x, y, w), segment(s.x, s.y, x, y, x, y - s.u(0.35, 0.55), w))
        d = blend(d, arm, 0.08)
    s.fill(d, skin, 0.2, texture=1.0)
    s.fill(polygon(s.x, s.y, (-0.4, 0.55), (0.4, 0.55), (0.28, 0.95), (-0.28, 0.95), r=0.03), s.fur(), 0.15)
    s.fill(circle(s.x, s.y + 0.85, 0.12), s.vivid(), 0.1, when=s.coin(0.5))
    s.mark("center", 0.0, 0.0)


# -------------------------------------------------------------------------------- animals from the side and above
def butterfly(s: Sketch) -> None:
    wing, spot = s.vivid(), s.vivid(0.4)
    x, y = turn(np.abs(s.x), s.y, 0.46, s.u(-0.42, -0.3), s.u(0.5, 0.9))
    u, v = turn(np.abs(s.x), s.y, 0.38, s.u(0.32, 0.45), s.u(-0.7, -0.3))
    s.fill(ellipse(u, v, s.u(0.28, 0.36), s.u(0.36, 0.46)), mix(wing, spot, s.u(0.0, 0.5)), 0.15, texture=0.8)
    s.fill(ellipse(x, y, s.u(0.3, 0.4), s.u(0.48, 0.6)), wing, 0.15, texture=0.8)
    s.fill(circle(x, y + 0.12, s.u(0.1, 0.17)), spot, 0.0, when=s.coin(0.7))
    ink = s.ink()
    s.fill(segment(np.abs(s.x), s.y, 0.03, -0.4, s.u(0.2, 0.35), -0.85, 0.025), ink, 0.0)
    s.fill(ellipse(s.x, s.y, 0.1, s.u(0.5, 0.6)), ink, 0.1)
    s.mark("right_wing", -0.46 + 0.0, -0.36)
    s.mark("left_wing", 0.46 + 0.0, -0.36)


def ladybird(s: Sketch) -> None:
    shell, ink = s.vivid(), s.ink()
    s.fill(segment(np.abs(s.x), repeat(s.y - 0.15, 0.42, -1, 1), 0.3, 0.0, s.u(0.85, 0.98), 0.1, 0.045), ink, 0.0)
    s.fill(segment(np.abs(s.x), s.y, 0.1, -0.7, 0.32, -0.98, 0.03), ink, 0.0)
    s.fill(circle(s.x, s.y + 0.55, s.u(0.3, 0.38)), ink, 0.2)
    s.fill(ellipse(s.x, s.y - 0.15, s.u(0.66, 0.76), s.u(0.7, 0.8)), shell, 0.4, texture=0.2)
    r, y = s.u(0.1, 0.16), s.u(-0.2, -0.05)
    s.fill(circle(np.abs(s.x) - 0.32, repeat(s.y - 0.2 - y, 0.42, -1, 1), r), ink, 0.0)
    s.fill(segment(s.x, s.y, 0.0, -0.55, 0.0, 0.9, 0.025), ink, 0.0)
    s.mark("right_wing", -0.34 + 0.0, 0.15)
    s.mark("left_wing", 0.34 + 0.0, 0.15)


def fish(s: Sketch) -> None:
    body, fin, h = s.vivid(), s.vivid(0.4), s.u(0.36, 0.5)
    shape = polygon(s.x, s.y, (-0.95, -s.u(0.35, 0.48)), (-0.35, 0.0), (-0.95, s.u(0.35, 0.48)), r=0.03)
    s.fill(shape, fin, 0.12, texture=0.5)
    s.fill(polygon(s.x, s.y, (-0.3, 0.0), (s.u(-0.3, -0.1), -h - 0.24), (0.4, 0.0)), fin, 0.1, texture=0.5)
    s.fill(ellipse(s.x - 0.18, s.y, 0.74, h), body, 0.35, texture=1.0)
    s.fill(polygon(s.x, s.y, (0.15, 0.05), (-0.2, s.u(0.3, 0.4)), (-0.18, 0.08)), fin, 0.08)
    s.fill(circle(s.x - 0.6, s.y + 0.1, 0.11), s.pale(), 0.0)
    s.fill(circle(s.x - 0.62, s.y + 0.1, 0.06), s.ink(), 0.0)
    s.mark("tail", -0.8 + 0.0, 0.0)


# -------------------------------------------------------------------------------- in the house
def mug(s: Sketch) -> None:
    body, w, h = s.vivid(), s.u(0.45, 0.55), s.u(0.55, 0.7)
    handle(s, -w - s.u(0.02, 0.1), s.u(-0.05, 0.1), s.u(0.25, 0.32), s.u(0.3, 0.38), 0.07, body)
    s.fill(box(s.x, s.y - 0.05, w, h, 0.1), body, 0.18, texture=1.0)
    s.fill(ellipse(s.x, s.y + h - 0.05, w - 0.04, 0.12), mix(body, s.pale(), 0.5), 0.05)
    s.fill(ellipse(s.x, s.y + h - 0.07, w - 0.12, 0.07), s.fur(), 0.0)


def teapot(s: Sketch) -> None:
    body, w = s.vivid(), s.u(0.5, 0.6)
    handle(s, -w - s.u(0.0, 0.06), s.u(0.0, 0.12), s.u(0.25, 0.32), s.u(0.26, 0.36), 0.07, body)
    s.fill(segment(s.x, s.y, 0.35, 0.35, s.u(0.82, 0.92), s.u(-0.35, -0.2), 0.1), body, 0.12)
    s.fill(ellipse(s.x, s.y - 0.18, w, s.u(0.46, 0.56)), body, 0.4, texture=1.0)
    s.fill(ellipse(s.x, s.y + 0.28, w * 0.6, 0.13), mix(body, s.vivid(0.4), s.u()), 0.1)
    s.fill(circle(s.x, s.y + 0.48, s.u(0.08, 0.12)), s.vivid(0.4), 0.1)


def jug(s: Sketch) -> None:
    body, neck = s.vivid(), s.u(0.2, 0.28)
    handle(s, s.u(-0.48, -0.42), s.u(-0.35, -0.2), 0.26, s.u(0.36, 0.45), 0.06, body)
    shape = polygon(s.x, s.y, (-neck, -0.85), (neck + 0.25, s.u(-0.98, -0.85)), (neck, -0.4), (neck, 0.2), (-neck, 0.2))
    s.fill(shape, body, 0.2)
    s.fill(ellipse(s.x, s.y - 0.35, s.u(0.48, 0.58), s.u(0.55, 0.62)), body, 0.4, texture=1.0)


def clock(s: Sketch) -> None:
    rim, r, paper = s.vivid(), s.u(0.72, 0.82), s.pale()
    s.fill(circle(np.abs(s.x) - 0.45, s.y + 0.78, s.u(0.15, 0.22)), s.metal(), 0.15, when=s.coin(0.6))
    s.fill(segment(np.abs(s.x), s.y, 0.4, 0.6, 0.62, 0.95, 0.07), rim, 0.08, when=s.coin(0.6))
    d, angle, ink = circle(s.x, s.y, 0.0), np.arctan2(s.y, s.x), s.ink()
    s.fill(d - r, rim, 0.12)
    s.fill(d - (r - s.u(0.1, 0.18)), paper, 0.05)
    spoke = np.abs(repeat(angle, np.pi / 6, -6, 6)) * d
    s.fill(np.maximum(spoke - 0.03, np.abs(d - 0.56) - 0.06), ink, 0.0)
    for length, width in ((0.32, 0.05), (0.46, 0.035)):
        a = s.u(0.0, 6.28)
        s.fill(segment(s.x, s.y, 0.0, 0.0, length * np.cos(a), length * np.sin(a), width), ink, 0.0)
    s.mark("center", 0.0, 0.0)


def lamp(s: Sketch) -> None:
    top, low = s.u(0.2, 0.34), s.u(-0.1, 0.05)
    s.fill(segment(s.x, s.y, 0.0, 0.0, 0.0, 0.8, s.u(0.045, 0.09)), s.metal(), 0.06)
    s.fill(ellipse(s.x, s.y - 0.86, s.u(0.32, 0.46), 0.1), s.metal(), 0.1)
    shape = polygon(s.x, s.y, (-top, -0.88), (top, -0.88), (s.u(0.58, 0.72), low), (-0.65, low), r=0.02)
    s.fill(shape, s.vivid(), 0.3, texture=0.8)
    s.mark("top", 0.0, -0.86)


def umbrella(s: Sketch) -> None:
    cloth, y = s.vivid(), s.u(-0.05, 0.08)
    s.fill(segment(s.x, s.y, 0.0, -0.9, 0.0, 0.75, 0.04), s.metal(), 0.05)
    hook = np.maximum(ring(circle(s.x - 0.15, s.y - 0.75, 0.15), 0.045), 0.75 - s.y)
    s.fill(hook, s.fur(), 0.05)
    s.mark("handle", 0.15 + 0.0, 0.9)
    dome = np.maximum(ellipse(s.x, s.y - y, s.u(0.88, 0.97), s.u(0.8, 0.9)), s.y - y)
    bites = ellipse(repeat(s.x + 0.23, 0.46, -1, 2), s.y - y, 0.23, s.u(0.1, 0.16))
    s.fill(np.maximum(dome, -bites), cloth, 0.35, texture=1.0)


def house(s: Sketch) -> None:
    wall, w, eaves = s.pale(), s.u(0.6, 0.74), s.u(-0.2, -0.05)
    s.fill(box(s.x - s.u(0.3, 0.45), s.y + 0.6, 0.1, 0.28), s.fur(), 0.05, when=s.coin(0.7))
    s.fill(box(s.x, s.y - 0.38, w, 0.55), mix(wall, s.vivid(), s.u()), 0.12, texture=0.5)
    shape = polygon(s.x, s.y, (-w - 0.18, eaves), (s.u(-0.2, 0.2), s.u(-0.95, -0.75)), (w + 0.18, eaves), r=0.02)
    s.fill(shape, s.vivid(), 0.15, texture=0.8)
    door = s.u(-0.15, 0.15)
    s.fill(box(s.x - door, s.y - 0.65, 0.13, 0.28, 0.02), s.fur(), 0.05)
    s.fill(box(np.abs(s.x - door) - 0.38, s.y - s.u(0.2, 0.4), 0.12, 0.13, 0.01), mix(s.pale(), s.ink(), s.u()), 0.0)
    s.mark("center", door, 0.65)


def castle(s: Sketch) -> None:
    wall, roof = mix(s.metal(), s.vivid(), s.u(0.0, 0.7)), s.vivid(0.4)
    teeth = box(repeat(s.x, 0.28, -1, 1), s.y + 0.12, 0.08, 0.12)
    s.fill(np.minimum(teeth, box(s.x, s.y - 0.42, 0.6, 0.5)), wall, 0.1, texture=0.8)
    x, top = np.abs(s.x) - 0.66, s.u(-0.4, -0.25)
    s.fill(box(x, s.y - 0.25, s.u(0.2, 0.26), 0.67), wall, 0.12, texture=0.8)
    s.fill(polygon(x, s.y, (-0.3, top), (0.0, s.u(-0.98, -0.85)), (0.3, top)), roof, 0.12)
    s.fill(blend(box(s.x, s.y - 0.72, 0.18, 0.2), circle(s.x, s.y - 0.5, 0.18), 0.05), s.ink(), 0.0)
    s.fill(box(x, s.y, 0.06, 0.12, 0.05), s.ink(), 0.0)
    s.mark("center", 0.0, 0.7)


def guitar(s: Sketch) -> None:
    wood, w = s.fur(), s.u(0.42, 0.5)
    s.fill(box(s.x, s.y + 0.55, 0.075, 0.4), s.ink(), 0.05)
    s.fill(box(s.x, s.y + 0.9, 0.13, 0.12, 0.03), s.fur(), 0.08)
    body = blend(circle(s.x, s.y - 0.52, w), circle(s.x, s.y + 0.02, w * s.u(0.68, 0.8)), 0.2)
    s.fill(body, wood, 0.2, texture=0.6)
    s.fill(circle(s.x, s.y - 0.1, s.u(0.14, 0.18)), s.ink(), 0.0)
    s.fill(box(s.x, s.y - 0.66, 0.2, 0.045), s.ink(), 0.04)
    s.fill(box(repeat(s.x, 0.05, -1, 1), s.y + 0.1, 0.008, 0.76), s.pale(), 0.0)
    s.mark("center", 0.0, 0.1)


Draughtsman = Callable[[Sketch], None]
_FACES: tuple[tuple[Draughtsman, ...], ...] = (
    (dog, wolf, cat, bear, owl, monkey, clown),
    (fox, panda, rabbit, frog, lion, pig, robot),
)
_SOURCE = (*_FACES[0], car, truck, bus, bicycle, sailboat, flower, tree, butterfly, fish, mug, teapot, clock, house)
_TARGET = (
    *_FACES[1],
    train,
    tractor,
    scooter,
    steamboat,
    plane,
    mushroom,
    cactus,
    ladybird,
    jug,
    lamp,
    umbrella,
    castle,
    guitar,
)
CLASSES: dict[str, Draughtsman] = {one.__name__: one for one in (*_SOURCE, *_TARGET)}
SOURCE_CLASSES = tuple(one.__name__ for one in _SOURCE)
TARGET_CLASSES = tuple(one.__name__ for one in _TARGET)
FACE_CLASSES = tuple(one.__name__ for group in _FACES for one in group)
