"""The pencil of the embedded data set: hashed uniforms, signed distances, and parts that become a shaded layer.

Shapes of arrays: B images, P = S * S pixels (row-major). A *parameter* is (B, 1) float32, one number an image; a
*field* is (B, P) float32, one number a pixel. NumPy broadcasts the one over the other, so that a part is written as if
for one image and drawn for all of them. Every operation is elementwise or a matrix product per image, hence an image's
pixels do not depend on its neighbours in the batch.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray
Number = float | Array  # a constant, or a (B, 1) parameter

MAX_PARTS = 32
ROUGH = 1e-9  # keeps 0 / 0 away at the centre of an ellipse


# -------------------------------------------------------------------------------- randomness
def scramble(keys: Array) -> Array:
    """splitmix64's finaliser: uint64 -> uint64 of the same shape, every input bit reaching every output bit."""
    z = keys + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniforms(keys: Array, count: int) -> Array:
    """(B,) uint64 keys -> (B, count) float32 in [0, 1): number j of an image is a hash of its key and j."""
    counters = np.arange(count, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95)
    bits = scramble(keys[:, None] ^ scramble(counters)[None])
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def hsv(hue: Number, saturation: Number, value: Number) -> Array:
    """Parameters (hue in turns, the others in [0, 1]) -> (B, 3) float32 RGB in [0, 1]."""
    sector = (np.array([5.0, 3.0, 1.0], np.float32) + np.asarray(hue, np.float32) * 6.0) % 6.0
    return value - value * saturation * np.clip(np.minimum(sector, 4.0 - sector), 0.0, 1.0)


def mix(a: Array, b: Array, t: Number) -> Array:
    """a where t = 0, b where t = 1."""
    return a + (b - a) * t


# -------------------------------------------------------------------------------- distances
# Signed distance to the outline, negative inside, in the units of x and y (fields); y points down.
def circle(x: Array, y: Array, r: Number) -> Array:
    return np.sqrt(x * x + y * y) - r


def ellipse(x: Array, y: Array, a: Number, b: Number) -> Array:
    """First-order distance, exact on the outline: the unit circle's, divided by the length of its gradient."""
    u, v = x / a, y / b
    near = np.sqrt(u * u + v * v)
    u, v = u / a, v / b
    return near * (near - 1.0) / (np.sqrt(u * u + v * v) + ROUGH)


def box(x: Array, y: Array, a: Number, b: Number, r: Number = 0.0) -> Array:
    """A box of half sides a, b whose corners are rounded by r."""
    u, v = np.abs(x) - (a - r), np.abs(y) - (b - r)
    inside = np.maximum(u, v)
    np.minimum(inside, 0.0, out=inside)
    np.maximum(u, 0.0, out=u)
    np.maximum(v, 0.0, out=v)
    u *= u
    v *= v
    u += v
    np.sqrt(u, out=u)
    u += inside
    u -= r
    return u


def segment(x: Array, y: Array, x0: Number, y0: Number, x1: Number, y1: Number, r: Number) -> Array:
    """A stroke of half width r from (x0, y0) to (x1, y1), round at its ends."""
    dx, dy = x1 - x0, y1 - y0
    u, v = x - x0, y - y0
    t = np.clip((u * dx + v * dy) * (1.0 / (dx * dx + dy * dy + ROUGH)), 0.0, 1.0)
    return circle(u - t * dx, v - t * dy, r)


def polygon(x: Array, y: Array, *corners: tuple[Number, Number], r: Number = 0.0) -> Array:
    """A convex polygon, corners clockwise on the screen, grown by r (the largest of its half-planes' distances)."""
    far: Array | None = None
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        nx, ny = y1 - y0, x0 - x1
        # np.sqrt would turn a constant into float64, and the field with it
        scale = (nx * nx + ny * ny + ROUGH) ** -0.5
        edge = x * (nx * scale) + (y * (ny * scale) - (x0 * nx + y0 * ny) * scale)
        far = edge if far is None else np.maximum(far, edge, out=far)
    assert far is not None
    return far - r


def ring(d: Array, width: Number) -> Array:
    """The stroke of half width `width` along the outline of d."""
    return np.abs(d) - width


def turn(x: Array, y: Array, x0: Number, y0: Number, angle: Number) -> tuple[Array, Array]:
    """The fields in the frame that sits at (x0, y0) and is turned by angle (radians, clockwise on the screen)."""
    c, s = np.cos(np.float32(angle)), np.sin(np.float32(angle))
    u, v = x - x0, y - y0
    return u * c + v * s, v * c - u * s


def repeat(x: Array, step: Number, first: int, last: int) -> Array:
    """Folds x so that one part is drawn at step * first, ..., step * last."""
    return x - step * np.clip(np.rint(x * (1.0 / step)), first, last)


# -------------------------------------------------------------------------------- parts
def _coverage(d: Array, sharp: Array, out: Array) -> Array:
    """How much of each pixel lies within the outline, in [0, 1]; sharp: pixels per unit of d."""
    np.multiply(d, -sharp, out=out)
    out += 0.5
    return np.clip(out, 0.0, 1.0, out=out)


def _lift(d: Array, bevel: float, coverage: Array, below: Array | None) -> Array:
    """How far a part raises the surface. It rises from its outline as a quarter of a circle would, nearly: from 0 and in
    place of the surface `below`, or on top of it where that is None. bevel: above 0."""
    inner = d * (-1.0 / bevel)
    np.clip(inner, 0.0, 1.0, out=inner)
    lift = 2.0 - inner
    lift *= inner
    lift *= bevel
    if below is not None:
        lift -= below
    lift *= coverage
    return lift


# -------------------------------------------------------------------------------- the sketch
class Sketch:
    """Collects the parts of one object, back to front, for a batch of images; `layer` paints them.

    x, y (B, P): the object's frame, in which it fills about [-1, 1]; pixel (B, 1): the side of a pixel in that frame;
    chance (B, n): uniforms that `u` hands out in order.
    """

    def __init__(self, x: Array, y: Array, pixel: Array, chance: Array) -> None:
        self.x, self.y, self.pixel = x, y, pixel
        self.chance, self.used = chance, 0
        self.marks: dict[str, tuple[Number, Number]] = {}
        self.sharp = 1.0 / pixel
        self.cover = np.empty((MAX_PARTS, *x.shape), np.float32)
        self.paint: list[Array] = []
        self.height = np.zeros(x.shape, np.float32)
        self.outline = np.full(x.shape, 9.0, np.float32)
        self.hue, self.yaw = self.u(), self.u(-0.12, 0.12)  # a base colour; how far the face looks aside

    # -- choices
    def u(self, low: float = 0.0, high: float = 1.0) -> Array:
        """A fresh parameter, uniform in [low, high)."""
        self.used += 1
        return self.chance[:, self.used - 1 : self.used] * np.float32(high - low) + np.float32(low)

    def coin(self, probability: float) -> Array:
        """A fresh parameter: 1 with that probability, else 0."""
        return (self.u() < probability).astype(np.float32)

    def vivid(self, shift: Number = 0.0) -> Array:
        """(B, 3): a lively colour, `shift` turns of hue away from the image's own hue."""
        return hsv(self.hue + shift + self.u(-0.05, 0.05), self.u(0.45, 0.95), self.u(0.5, 1.0))

    # -- parts
    def fill(
        self,
        d: Array,
        colour: Array,
        bevel: float = 0.25,
        texture: Number = 0.0,
        when: Array | None = None,
        raised: bool = False,
    ) -> None:
        """Lays a part over the others.

        d: its distance field; colour: (B, 3); bevel: how far in from its outline it is rounded (0: it is flat, and
        follows what lies below); texture: how strongly the image's pattern shows on it, 0 to 1; when: a parameter, 0
        leaves the part out of that image; raised: it swells out of what lies below, as a muzzle does.
        """
        slot = self.cover[len(self.paint)]
        if when is not None:
            d = d + (1.0 - when) * 9.0
        _coverage(d, self.sharp, slot)
        if bevel:
            np.minimum(self.outline, d, out=self.outline)  # what has height throws a shadow
            self.height += _lift(d, bevel, slot, None if raised else self.height)
        self._painted(colour, texture)

    def fill_rows(self, rows: Array, d: Array, colour: Array, bevel: float) -> None:
        """`fill` where the part reaches only some rows of pixels, and without a shadow.

        rows: (M,) their numbers, image * H + row; d: (M, W); colour: (B, 3); bevel: above 0.
        """
        width = d.shape[1]
        slot, height = self.cover[len(self.paint)].reshape(-1, width), self.height.reshape(-1, width)
        part = _coverage(d, self.sharp[rows // (self.x.shape[1] // width)], np.empty_like(d))
        slot.fill(0.0)
        slot[rows] = part
        height[rows] += _lift(d, bevel, part, height[rows])
        self._painted(colour, 0.0)

    def _painted(self, colour: Array, texture: Number) -> None:
        paint = np.empty((len(self.cover[0]), 4), np.float32)
        paint[:, :3], paint[:, 3:] = colour, texture
        self.paint.append(paint)

    def mark(self, name: str, x: Number, y: Number) -> None:
        """Names a point of the object, in its frame."""
        self.marks[name] = (x, y)

    # -- the result
    def layer(self) -> tuple[Array, Array, Array]:
        """-> RGB premultiplied by coverage (B, 3, P), texture strength (B, P), coverage (B, P); all in [0, 1]."""
        parts = len(self.paint)
        left = np.ones(self.x.shape, np.float32)
        for i in range(
            parts - 1, -1, -1
        ):  # front to back: what is left of the light times the part's coverage is its weight
            weight = self.cover[i]
            weight *= left
            left -= weight
        colours = np.ascontiguousarray(np.stack(self.paint, axis=2))
        flat = colours @ self.cover[:parts].transpose(1, 0, 2)
        return flat[:, :3], flat[:, 3], 1.0 - left

    def relief(self, light: Array, rows: int) -> Array:
        """(B, P) in about [-1, 1]: how much the rounded parts face the light, (B, 2) a direction in the image.

        rows: of pixels, H."""
        height = self.height.reshape(len(self.x), rows, -1)
        slope = np.zeros_like(height)
        scale = (0.5 * self.sharp)[:, :, None]
        slope[:, :, 1:-1] += (height[:, :, 2:] - height[:, :, :-2]) * (light[:, None, :1] * scale)
        slope[:, 1:-1] += (height[:, 2:] - height[:, :-2]) * (light[:, None, 1:] * scale)
        return np.clip(slope, -1.0, 1.0, out=slope).reshape(self.x.shape)
