"""Any picture file -> uint8 pixels: decoded, upright, in RGB, its smaller side resized to S; whole, or the centre square.

Runs in the worker processes, hence NumPy and PIL only.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

from zfrepro.errors import is_of_machine, named, words_of

# a longer strip is cut to this before resizing: resized whole, a 1 x 100,000 picture would fill the memory
MAX_ASPECT = 8


@dataclass
class Chunk:
    """Consecutive rows of a packed data set, fresh from the decoder or the drawing board."""

    arrays: dict[str, Sequence[np.ndarray] | np.ndarray]  # 'images': n of (h, w, 3) uint8, and what else a row has
    failures: list[tuple[int, str]] = field(default_factory=list)  # row within the chunk, why it cannot be read
    several: list[int] = field(default_factory=list)  # rows whose files hold more than the one


def read_files(paths: Sequence[str], size: int, fit: str) -> Chunk:
    """The pictures at `paths` and their own upright heights and widths ('sizes'); one that cannot be read leaves a black
    image and an entry in `failures`."""
    images, sizes, failures, several = [], [], [], []
    for row, path in enumerate(paths):
        try:
            image, more = read_first(path)
            images.append(fitted(image, size, fit))
            sizes.append(image.size[::-1])
            several += [row] * more
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error... on broken files
            if is_of_machine(error):
                raise named(error, path) from None
            failures.append((row, reason(error)))
            images.append(np.zeros((size, size, 3), np.uint8))
            sizes.append((size, size))
    return Chunk({"images": images, "sizes": np.array(sizes, np.int32)}, failures, several)


def read_arrays(pictures: np.ndarray, size: int, fit: str) -> Chunk:
    """Pictures that are already decoded, (n, h, w, 3) uint8."""
    sizes = np.tile(np.array(pictures.shape[1:3], np.int32), (len(pictures), 1))
    return Chunk({"images": [fitted(Image.fromarray(picture), size, fit) for picture in pictures], "sizes": sizes})


def measure_files(paths: Sequence[str], size: int) -> np.ndarray:
    """(n, 2) int64: heights and widths of the whole pictures when their smaller side has `size` pixels, from the files'
    headers; `size` x `size` for what cannot be read."""
    shapes = np.full((len(paths), 2), size, np.int64)
    for row, path in enumerate(paths):
        try:
            shapes[row] = rescaled_shape(*_cut_strip(*picture_size(path))[2:], size)
        except Exception as error:  # what is no picture is told when it is decoded
            if is_of_machine(error):
                raise named(error, path) from None
    return shapes


def picture_size(path: str | Path) -> tuple[int, int]:
    """Height and width of a picture, upright as by `upright`, from its header. Raises whatever the decoder raises."""
    turned = False
    with _quiet(), open_picture(path) as image:
        with contextlib.suppress(Exception):
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        if turned and image.format == "TIFF":  # PIL turns its pixels by itself, its size in some versions only
            image.load()
            return upright(image).size[::-1]
        return image.size if turned else image.size[::-1]


def reason(error: Exception) -> str:
    """One short line of why a picture cannot be read."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "no image format that is known"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; make it smaller"
    return words_of(error)


def read_picture(path: str | Path, size: int, fit: str = "square") -> np.ndarray:
    """(h, w, 3) uint8. Raises whatever the decoder raises; a truncated file raises too."""
    return fitted(read_first(path)[0], size, fit)


def read_first(path: str | Path) -> tuple[Image.Image, bool]:
    """In RGB, turned as its EXIF orientation asks; the first of several frames or pages, and whether there are several: those of
    a JPEG (MPO) are the same picture for a small screen or another eye."""
    with _quiet(), open_picture(path) as image:
        image.load()
        return to_rgb(upright(image)), image.format not in ("JPEG", "MPO") and _goes_on(path)


def _goes_on(path: str | Path) -> bool:
    """Whether there is a second frame or page. Opened anew, since looking for one moves on in the file."""
    with contextlib.suppress(Exception), open_picture(path) as image:
        return bool(getattr(image, "is_animated", False))
    return False


def open_picture(path: str | Path) -> Image.Image:
    """The picture, not decoded yet. Raises OSError for what is no regular file, as a named pipe, which would wait forever, and
    for an empty one."""
    path = Path(path)
    if not path.is_file() and path.exists():
        raise OSError("not a regular file")
    if path.is_file() and not path.stat().st_size:
        raise OSError("the file is empty; fetch or copy it again")
    return Image.open(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata of otherwise good photographs; large ones
        yield


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation asks. Unreadable EXIF (ImageNet has some) asks for nothing."""
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB: 16 bits divided by 256, transparency over white (what is below is arbitrary), else PIL's way."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    if image.mode.startswith("I"):  # PIL's own conversion clips to 255; 'I' is how it reads some 16-bit files
        values = np.asarray(image).astype(np.int64)
        bytes_alone = (image.format, image.mode) == ("TIFF", "I") and 0 < values.max() < 256
        if values.min() < 0 or values.max() > 65535 or bytes_alone:
            raise ValueError(f"32-bit pixels from {values.min()} to {values.max()}, whose range is not known")
        grey = values // 256
        if isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0:
            grey = 255 - grey  # white is 0 there, which PIL minds in fewer bits alone
        return Image.fromarray(grey.astype(np.uint8), "L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def fitted(image: Image.Image, size: int, fit: str) -> np.ndarray:
    """(h, w, 3) uint8 of an RGB image: its smaller side resized to `size` (antialiased bilinear); fit=square: the centre.

    Filter and rounding are those of torchvision's Resize and CenterCrop, which its trained weights expect.
    """
    top, left, height, width = _cut_strip(image.height, image.width)
    if (height, width) != (image.height, image.width):
        image = image.crop((left, top, left + width, top + height))
    height, width = rescaled_shape(height, width, size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    if fit == "square":
        left, top = round((width - size) / 2), round((height - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)


def frame(height: int, width: int, size: int, fit: str) -> tuple[float, ...]:
    """How `fitted` moves a picture's pixels: factors along x and y, then what is subtracted, then the width and height that
    are left."""
    top, left, h, w = _cut_strip(height, width)
    new_height, new_width = rescaled_shape(h, w, size)
    across, down = new_width / w, new_height / h
    x, y = left * across, top * down
    if fit == "whole":
        return across, down, x, y, new_width, new_height
    return across, down, x + round((new_width - size) / 2), y + round((new_height - size) / 2), size, size


def rescaled_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width when the smaller side has `size` pixels."""
    short = min(height, width)
    return size * height // short, size * width // short


def _cut_strip(height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height, width of what is kept of a picture: all of it, but for very long strips."""
    h, w = min(height, MAX_ASPECT * width), min(width, MAX_ASPECT * height)
    return (height - h) // 2, (width - w) // 2, h, w
