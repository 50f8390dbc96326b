"""Lists and tables as people have them: with a byte order mark, Windows line ends, semicolons or tabs for commas."""

from __future__ import annotations

import codecs
import csv
import errno
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zfrepro.errors import UserError

SEPARATORS = ",;\t|"


def read_text(path: Path) -> str:
    """A text file: UTF-8, UTF-16 with its mark, or what Windows programs write in the west of Europe."""
    if path.exists() and not path.is_file():  # a pipe would have us wait for ever
        raise IsADirectoryError(errno.EISDIR, "no file", str(path))
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def read_lines(path: Path) -> list[str]:
    """The lines that are not empty, without spaces around them."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


@dataclass(frozen=True)
class Row:
    where: str  # file and line, for messages
    values: dict[str, str]  # by column, without spaces around them

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def numbers(self, *columns: str) -> tuple[float, ...]:
        """The values of some columns, decimal commas allowed. Raises UserError where one is no finite number."""
        found = tuple(_number(self.values[column]) for column in columns)
        if not all(map(math.isfinite, found)):
            named = f"{', '.join(columns[:-1])} and {columns[-1]}"
            raise UserError(f"{self.where}: {named} must be numbers, without marks between thousands")
        return found

    def pixels(self, *columns: str) -> tuple[float, ...]:
        """The corners of a box. Raises UserError too where they lie within one pixel: shares of the picture, as YOLO has."""
        found = self.numbers(*columns)
        if all(0 <= value <= 1 for value in found) and any(value % 1 for value in found):
            shown = ",".join(f"{value:g}" for value in found)
            raise UserError(f"{self.where}: {shown} are shares of the picture; multiply them by its width and height")
        return found


def _number(text: str) -> float:
    """NaN where it is none, or may be two: 1,000 is a thousand to some and one to others."""
    if "_" in text or re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+", text):
        return math.nan
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan


def read_table(path: Path, columns: Sequence[str], key: str, optional: Sequence[str] = ()) -> list[Row]:
    """The rows of a .csv whose first line names `columns`, in any order and case, and perhaps `optional` ones.

    key: the option that names the file, for messages. Raises UserError where the file is no such table.
    """
    try:
        lines = [line for line in read_text(path).splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"{key}={path}: cannot be read ({error.strerror or error})") from error
    separator = max(SEPARATORS, key="".join(lines[:1]).count)
    rows: list[Row] = []
    try:
        reader = csv.DictReader(lines, delimiter=separator, skipinitialspace=True)
        found = [str(name or "").strip().lower() for name in reader.fieldnames or []]
        if missing := [name for name in columns if name not in found]:
            needed = ",".join([*columns, *(f"[{name}]" for name in optional)])
            raise UserError(f"{key}={path}: no column {', '.join(missing)}; the first line must be {needed}")
        if twice := [name for name in (*columns, *optional) if found.count(name) > 1]:
            raise UserError(f"{key}={path}: has the column {twice[0]} twice; take one out")
        reader.fieldnames = found
        for row in reader:
            where = f"{key}={path}, line {reader.line_num}"
            if any(row[name] is None for name in columns) or any(row.get(None, [])):
                raise UserError(f"{where}: has not as many values as the first line; quote what has commas in it")
            rows.append(Row(where, {name: (row.get(name) or "").strip() for name in (*columns, *optional)}))
    except csv.Error as error:
        raise UserError(f"{key}={path}: not readable as a table ({error})") from error
    return rows
