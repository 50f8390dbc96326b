"""What a page is made of: tables that sort, and pictures that it holds itself."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

LARGE = 1_000_000  # bytes above which a picture is embedded as WebP: a page of some megabytes still opens at once
WEBP = 16_383  # pixels along a side that WebP can have


@dataclass(frozen=True)
class Picture:
    """A picture inside the page."""

    uri: str  # data URI
    width: int  # pixels
    height: int
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Cell:
    """A table's cell; `value` is None for words."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Row:
    """A table's row; `ours`: measured here, not reported in the paper."""

    cells: list[Cell]
    ours: bool


@dataclass(frozen=True)
class Column:
    """A table's column."""

    title: str
    numeric: bool


@dataclass(frozen=True)
class Table:
    """A table that sorts."""

    title: str
    columns: list[Column]
    rows: list[Row]
    notes: str = ""


# -------------------------------------------------------------------------------------------------------------- tables


def read_table(path: Path, title: str) -> Table:
    """<name>.csv, with the notes below the table in <name>.md where there is one. Raises ValueError for an empty file."""
    with path.open(newline="", encoding="utf-8") as file:
        columns, *rows = [*csv.reader(file)] or [[]]
    if not columns:
        raise ValueError("it is empty")
    beside = path.with_suffix(".md")
    lines = beside.read_text(encoding="utf-8").splitlines() if beside.exists() else []
    return make_table(title, columns, rows, " ".join(line for line in lines if line and not line.startswith("|")))


def make_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: str) -> Table:
    """A table of strings; a column whose cells are all numbers or empty sorts and aligns as numbers. One without any cell, such
    as the spread of single nets, is left out."""
    by_column = [[number(row[i]) for row in rows if row[i] != ""] for i in range(len(columns))]
    numeric = [bool(values) and all(value is not None for value in values) for values in by_column]
    formats = [decimals([v for v in values if v is not None]) for values in by_column]
    made = []
    for row in rows:
        cells = []
        for text, is_number, digits in zip(row, numeric, formats, strict=True):
            value = number(text) if is_number and text else None
            cells.append(Cell(text if value is None else f"{value:,.{digits}f}", value))
        shown = [cell for cell, values in zip(cells, by_column, strict=True) if values]
        made.append(Row(shown, any(text.lower().startswith("ours") for text in row)))
    heads = [
        Column(heading(name), is_number)
        for name, is_number, values in zip(columns, numeric, by_column, strict=True)
        if values or not rows
    ]
    return Table(title, heads, made, notes)


def heading(name: str) -> str:
    """A column's name as one reads it; the papers' S and Q, the sizes of training and test, are capital letters."""
    return re.sub(r" [sq]$", lambda found: found[0].upper(), name.replace("_", " "))


def number(text: str) -> float | None:
    """The number that a cell holds, if it does."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def decimals(values: Sequence[float]) -> int:
    """Decimals to show a column with: as few as say all, else one for percentages as in the paper, three for small values."""
    for few in (0, 1):
        if all(value == round(value, few) for value in values):
            return few
    return 3 if max(map(abs, values)) < 2 else 1


# ------------------------------------------------------------------------------------------------------------ pictures


def picture(path: Path, alt: str) -> Picture:
    """A PNG file, embedded: as it is, or as WebP where it is large. Its name stands below it, unless it is its folder's. Raises
    OSError and others for what is none."""
    return png_picture(path.read_bytes(), alt, "" if path.stem == path.parent.name else words(path))


def png_picture(data: bytes, alt: str, caption: str = "") -> Picture:
    """The bytes of a PNG file, embedded."""
    kind = "png"
    with Image.open(io.BytesIO(data)) as image:
        image.load()  # a picture that was cut off is an error here, not a blank on the page
        width, height = image.size
        if len(data) > LARGE:
            buffer = io.BytesIO()
            small = image.convert("RGB")
            small.thumbnail((WEBP, WEBP))
            small.save(buffer, "WEBP", quality=90)
            data, kind = buffer.getvalue(), "webp"
    return Picture(data_uri(data, kind), width, height, alt, caption)


def words(path: Path) -> str:
    """A file's name as words."""
    return path.stem.replace("_", " ")


def data_uri(data: bytes, kind: str) -> str:
    """An image inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def pixels_uri(pixels: np.ndarray, lossless: bool = True) -> str:
    """(h, w, 3 or 4) uint8 -> data URI."""
    buffer = io.BytesIO()
    effort = {"quality": 50, "method": 1} if lossless else {"quality": 92}  # a fifteenth of the time for 7 % more bytes
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "WEBP", lossless=lossless, exact=True, **effort)
    return data_uri(buffer.getvalue(), "webp")


def bytes_of(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as uint8."""
    return np.rint(255 * values).astype(np.uint8)
