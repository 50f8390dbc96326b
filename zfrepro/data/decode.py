"""Any picture file -> (S, S, 3) uint8: decoded, upright, in RGB, its smaller side resized to S, the centre cropped.

Runs in the worker processes, hence NumPy and PIL only.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

Transpose = Image.Transpose
ORIENTATION_TAG = 0x0112
UPRIGHT = {  # EXIF orientation -> what turns the picture upright
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
}  # fmt: skip
MAX_ASPECT = (
    8  # a longer strip is cut to this before resizing: resized whole, a 1 x 100,000 picture would fill the memory
)


@dataclass
class Chunk:
    """Consecutive rows of a packed data set, fresh from the decoder or the drawing board."""

    arrays: dict[str, np.ndarray]  # 'images': (n, S, S, 3) uint8, and whatever else is known of each row
    failures: list[tuple[int, str]] = field(default_factory=list)  # row within the chunk, why it cannot be read


def read_files(paths: Sequence[str], size: int) -> Chunk:
    """The pictures at `paths`; one that cannot be read leaves a black row and an entry in `failures`."""
    images = np.zeros((len(paths), size, size, 3), np.uint8)
    failures = []
    for row, path in enumerate(paths):
        try:
            images[row] = read_picture(path, size)
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error... on broken files
            failures.append((row, reason(error)))
    return Chunk({"images": images}, failures)


def read_arrays(pictures: np.ndarray, size: int) -> Chunk:
    """Pictures that are already decoded, (n, h, w, 3) uint8."""
    return Chunk({"images": np.stack([square(Image.fromarray(picture), size) for picture in pictures])})


def reason(error: Exception) -> str:
    """One short line of why a picture cannot be read."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "no image format that is known"
    return " ".join(str(error).split()) or type(error).__name__


def read_picture(path: str | Path, size: int) -> np.ndarray:
    """(size, size, 3) uint8. Raises whatever the decoder raises; a truncated file raises too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata of otherwise good photographs; large ones
        with Image.open(path) as image:
            image.load()
            return square(to_rgb(upright(image)), size)


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation asks. Unreadable EXIF (ImageNet has some) asks for nothing."""
    try:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB: 16 bits divided by 256, transparency over white (what is below is arbitrary), else PIL's way."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    if image.mode.startswith("I"):  # PIL's own conversion clips to 255; 'I' is how it reads some 16-bit files
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535) // 256
        return Image.fromarray(grey.astype(np.uint8), "L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> np.ndarray:
    """(size, size, 3) uint8 of an RGB image: smaller side resized (antialiased bilinear), then the centre.

    Filter and rounding are those of torchvision's Resize and CenterCrop, which its trained weights expect.
    """
    width, height = image.size
    short = min(width, height)
    if max(width, height) > MAX_ASPECT * short:
        w, h = min(width, MAX_ASPECT * short), min(height, MAX_ASPECT * short)
        left, top = (width - w) // 2, (height - h) // 2
        image = image.crop((left, top, left + w, top + h))
        width, height = w, h
    if short != size:
        width, height = int(size * width / short), int(size * height / short)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))
