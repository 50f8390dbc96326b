"""What surrounds the embedded data set's objects: the canvas, light, backgrounds, patterns, the camera.

Everything is a function of the place on the canvas, so that a larger canvas shows more of the same picture.
Shapes of arrays: n images, P = height * width pixels (row-major); parameters are (n, 1), fields (n, P).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from zfrepro.data.embedded_sketch import Array, Sketch, box, hsv, mix, scramble, uniforms

REACH = 1.5  # of the longest canvas: its long side spans [-REACH, REACH], its short side [-1, 1]
GRAIN = 256  # places of the noise that an image may take, in rows and in columns
WAVES = 32  # cosines a side in the 1/f noise


@dataclass(frozen=True)
class Canvas:
    """The pixels to be drawn. The middle `size` x `size` of them span [-1, 1] x [-1, 1], y down."""

    height: int
    width: int
    size: int

    @property
    def pixels(self) -> int:
        return self.height * self.width


@lru_cache
def axes(canvas: Canvas) -> tuple[Array, Array]:
    """x (W,) and y (H,) of the pixels' centres."""
    x, y = ((np.arange(n) + 0.5 - n / 2) * (2.0 / canvas.size) for n in (canvas.width, canvas.height))
    return x.astype(np.float32), y.astype(np.float32)


@lru_cache
def grid(canvas: Canvas) -> tuple[Array, Array]:
    """x and y of every pixel, (1, P) each."""
    x, y = axes(canvas)
    return np.tile(x, canvas.height)[None], np.repeat(y, canvas.width)[None]


def affine(kx: Array, ky: Array, shift: Array, canvas: Canvas) -> Array:
    """kx x + ky y + shift at every pixel, (n, P), from its values along rows and columns."""
    x, y = axes(canvas)
    return ((ky * y + shift)[:, :, None] + (kx * x)[:, None]).reshape(len(kx), canvas.pixels)


# -------------------------------------------------------------------------------- light and background
def light_of(keys: Array) -> Array:
    """(n, 2): where the light comes from, mostly above, as a unit vector in the image."""
    angle = 2.0 * uniforms(scramble(keys ^ np.uint64(9)), 1) - 1.0
    return np.concatenate([np.sin(1.4 * angle), -np.cos(1.4 * angle)], axis=1)


def background(keys: Array, light: Array, wide: Array, canvas: Canvas) -> Array:
    """(n, 3, P): a gradient, two clouds of 1/f noise, a wave, and before them a clutter of blocks.

    wide (n, 1): whether the whole picture lies rather than stands (it has clutter beyond the square, too).
    """
    keys = scramble(keys ^ np.uint64(3))
    x, y = grid(canvas)
    blank = np.broadcast_to(x, (len(keys), canvas.pixels))
    s = Sketch(blank, y, np.full((len(keys), 1), 2.0 / canvas.size, np.float32), uniforms(keys, 144))
    fields = np.empty((len(keys), 7, canvas.pixels), np.float32)
    fields[:, 0], fields[:, 1], fields[:, 2], fields[:, 3] = 1.0, x, y, x * x + y * y - 0.67
    fields[:, 4:6] = _clouds(keys, 2, canvas)
    rate, angle = s.u(8.0, 30.0), s.u(0.0, 6.28)
    fields[:, 6] = _wave(rate * np.cos(angle), rate * np.sin(angle), s.u(0.0, 6.28), canvas)
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
    _clutter(s, low, high, wide, canvas)
    colour, _, cover = s.layer()
    picture *= (1.0 - cover)[:, None]
    shade = s.relief(light, canvas.height)
    shade *= 0.5
    shade += 0.3 * fields[:, 4]
    shade += 1.0
    colour *= shade[:, None]
    picture += colour
    return picture


def _clutter(s: Sketch, low: Array, high: Array, wide: Array, canvas: Canvas) -> None:
    """Rounded blocks of any proportions: walls, planks, stones, wires. Five about the square, one at either end of the
    long side. Most are small: only the rows of pixels that a block can touch are drawn."""
    crowd = s.u(0.1, 0.9)
    tx, ty = axes(canvas)
    for i in range(7):
        angle = s.u(0.0, 3.1416)
        c, si = np.cos(angle), np.sin(angle)
        x, y = s.u(-1.1, 1.1), s.u(-1.1, 1.1)
        if i >= 5:
            x, y = np.where(wide, x * 0.25 + 1.3 * (2 * i - 11), x), np.where(wide, y, y * 0.25 + 1.3 * (2 * i - 11))
        a, b = 0.04 + s.u() ** 2 * 0.9, 0.03 + s.u() ** 3 * 0.7
        r = np.minimum(a, b) * s.u(0.05, 1.0)
        colour = mix(mix(low, high, s.u(-0.4, 1.4)), s.vivid(0.5), s.u(0.0, 0.6)) * s.u(0.7, 1.2)
        high_reach, wide_reach = (a * p + b * q + 2.0 / canvas.size for p, q in ((si, np.abs(c)), (np.abs(c), si)))
        seen = (np.abs(x) - wide_reach <= tx[-1]) & (s.u() < crowd)
        one, row = np.nonzero((np.abs(ty - y) <= high_reach) & seen)
        along, across = (
            (ky[one] * ty[row, None] + shift[one]) + kx[one] * tx
            for kx, ky, shift in ((c, si, -c * x - si * y), (-si, c, si * x - c * y))
        )
        s.fill_rows(one * canvas.height + row, box(along, across, a[one], b[one], r[one]), colour, 0.1)


# -------------------------------------------------------------------------------- patterns
def pattern(keys: Array, inverse: Array, canvas: Canvas) -> tuple[Array, Array]:
    """What textured parts wear: stripes, spots or clouds, 0 to how strongly they show (n, P); their colour (n, 3).

    inverse (n, 2, 2): from the image to the object's frame.
    """
    keys = scramble(keys ^ np.uint64(4))
    u = uniforms(keys, 12)
    waves = []
    for i in range(2):
        angle = 3.1416 * u[:, 0:1] + 1.5708 * i
        way = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)[:, None] @ inverse  # (n, 1, 2)
        rate = 6.0 + 14.0 * u[:, 1:2]
        waves.append(_wave(rate * way[:, 0, 0:1], rate * way[:, 0, 1:2], 6.28 * u[:, 2 + i : 3 + i], canvas))
    kind = (u[:, 4:5] * 4.0).astype(np.int32)
    cloud = _clouds(keys, 1, canvas)[:, 0] * 0.7
    value = np.where(kind == 0, waves[0], np.where(kind == 1, waves[0] * waves[1], cloud))
    value *= 0.5 + 3.0 * u[:, 5:6]
    value += 0.5 - 0.6 * u[:, 6:7]
    strength = np.where(kind == 3, 0.15, 0.4 + 0.6 * u[:, 7:8]).astype(np.float32)
    return np.clip(value, 0.0, 1.0) * strength, hsv(u[:, 8:9], u[:, 9:10] * 0.8, u[:, 10:11] * 0.9 + 0.08)


def _wave(kx: Array, ky: Array, phase: Array, canvas: Canvas) -> Array:
    """sin(kx x + ky y + phase) as (n, P), by the addition theorem from sines of rows and columns only."""
    x, y = axes(canvas)
    a, b = kx * x + phase, ky * y
    wave = np.cos(b)[:, :, None] * np.sin(a)[:, None] + np.sin(b)[:, :, None] * np.cos(a)[:, None]
    return wave.reshape(len(kx), canvas.pixels)


def _clouds(keys: Array, count: int, canvas: Canvas) -> Array:
    """(n, count, P) of unit variance: random cosines whose amplitudes fall with frequency as they do in photographs."""
    n = len(keys)
    table = _falloff()
    coefficients = uniforms(scramble(keys ^ np.uint64(5)), count * (WAVES * WAVES + 1))
    steep = np.minimum((coefficients[:, :count] * len(table)).astype(np.int64), len(table) - 1)
    coefficients = (coefficients[:, count:].reshape(n, count, WAVES, WAVES) - 0.5) * table[steep]
    columns, rows = _cosines(canvas)
    return (rows @ coefficients @ columns.T).reshape(n, count, canvas.pixels)


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
def _cosines(canvas: Canvas) -> tuple[Array, Array]:
    """(W, WAVES), (H, WAVES): half periods that fit the longest canvas."""
    x, y = (np.cos(np.pi * np.arange(WAVES) * (t[:, None] / (2 * REACH) + 0.5)) for t in axes(canvas))
    return x.astype(np.float32), y.astype(np.float32)


# -------------------------------------------------------------------------------- the camera
def develop(picture: Array, keys: Array, canvas: Canvas) -> Array:
    """(n, 3, P) light, consumed -> (n, H, W, 3) uint8: exposure, a colour cast and the sensor's noise."""
    u = uniforms(scramble(keys ^ np.uint64(6)), 6)
    picture *= ((0.8 + 0.3 * u[:, 0:1]) * (0.94 + 0.12 * u[:, 1:4]) * 255.0)[:, :, None]
    picture = picture.reshape(-1, 3, canvas.height, canvas.width)
    grain, (top, left) = _grain(canvas.size), ((longest(canvas.size) - n) // 2 for n in (canvas.height, canvas.width))
    start = (u[:, 4] * GRAIN**2).astype(int)
    for one, down, right, amount in zip(picture, start // GRAIN, start % GRAIN, 1.0 + 7.0 * u[:, 5] ** 2, strict=True):
        y, x = down + top, right + left
        one += grain[:, y : y + canvas.height, x : x + canvas.width] * amount
    picture += 0.5
    np.clip(picture, 0.0, 255.0, out=picture)
    return picture.astype(np.uint8).transpose(0, 2, 3, 1)


def proportions(keys: Array) -> tuple[Array, Array]:
    """(n, 1) long side over short side, 1 to REACH, and (n, 1) bool: whether the picture lies rather than stands."""
    u = uniforms(scramble(keys ^ np.uint64(10)), 2)
    return 1.0 + (REACH - 1.0) * u[:, :1], u[:, 1:] < 0.5


def longest(size: int) -> int:
    """Pixels on the long side of the longest canvas: the square's, and as many more at either end."""
    return size + 2 * round((REACH - 1.0) * size / 2)


@lru_cache(maxsize=4)
def _grain(size: int) -> Array:
    """Normal numbers of which an image takes a window."""
    side = longest(size) + GRAIN
    return np.random.default_rng(size).standard_normal((3, side, side), dtype=np.float32)
