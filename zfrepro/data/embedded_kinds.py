"""What the embedded data set draws: kinds of objects, and three arrangements of each kind's parts. These are the classes.

A *kind* is a body, what sticks out of it, and three parts; all of these come from the common stock of
`embedded_parts`. A body has three places, one above the other, or side by side in a long body. The kind's first class
has the parts in the places in the order of the table below, from the top down or from the rear to the front; its
second and third class have them moved on by one place and by two. So

- the three classes of a kind have the same body, the same parts, the same colours and the same places: only which part
  sits where tells them apart, and over the three every part is in every place once;
- kinds share bodies and parts: no two have more than two parts in common, and a part belongs to several kinds;
- the target classes are other kinds of the same stock.

Everything else is drawn at random, from the same distributions for all classes: colours, materials, patterns, light,
background, clutter, what stands in front, place, size, mirror image, tilt, and the play of the places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zfrepro.data.embedded_parts import (
    Body,
    Cell,
    antennae,
    block,
    bow,
    buttons,
    cross,
    dial,
    disc,
    dome,
    door,
    egg,
    eyes,
    feet,
    fins,
    floppy_ears,
    flower,
    grille,
    hat,
    heart,
    hull,
    mast,
    mouth,
    nose,
    pointed_ears,
    rays,
    roof,
    round_ears,
    shield,
    side_handle,
    star,
    stripes,
    tail,
    wagon,
    wheels_below,
    whiskers,
    windows,
    wings,
    zigzag,
)
from zfrepro.data.embedded_sketch import Array, Sketch

MIRRORED = {  # named by the subject's side: a mirrored subject swaps them
    "right_eye": "left_eye",
    "right_wing": "left_wing",
}
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
PLACES = 3
LONG = (wagon, hull)  # bodies whose places lie side by side


@dataclass(frozen=True)
class Kind:
    """A body, what sticks out of it, and its parts."""

    body: Callable[[Sketch], Body]
    outer: Callable[[Sketch, Body], None]
    parts: tuple[Callable[[Sketch, Cell, Array], None], ...]

    def draw(self, s: Sketch, shift: Array) -> None:
        """Sketches the kind, its parts moved on by `shift` (B, 1) places."""
        body = self.body(s)
        self.outer(s, body)
        s.fill(body.d, body.colour, 0.4, texture=0.4)
        x, y, a, b = _places(s, self.body in LONG)
        for i, part in enumerate(self.parts):
            slot = (i + shift) % PLACES
            here, there = (np.take_along_axis(one, slot, 1) for one in (x, y))
            part(s, Cell(here, there, a, b), body.colour)


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
