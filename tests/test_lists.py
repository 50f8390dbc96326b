"""Lists and tables, however they were saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from zfrepro.errors import UserError
from zfrepro.lists import read_lines, read_table

TABLE = "image,left,top\n\na.png, 1.5 ,2\nb ü.png,3,4\n"
FORMS = {
    "plain": TABLE.encode(),
    "mark": b"\xef\xbb\xbf" + TABLE.encode(),
    "utf-16": TABLE.encode("utf-16"),
    "windows": TABLE.replace("\n", "\r\n").encode("cp1252"),
    "semicolons": TABLE.replace(",", ";").replace("1.5", "1,5").encode(),
    "tabs": TABLE.replace(",", "\t").encode(),
    "old mac": TABLE.replace("\n", "\r").encode(),
    "quoted": TABLE.replace("a.png", '"a.png"').replace("image", '"Image"').encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_table_in_many_forms(tmp_path: Path, form: str) -> None:
    (tmp_path / "t.csv").write_bytes(FORMS[form])
    first, second = read_table(tmp_path / "t.csv", ("image", "left", "top"), "parts", optional=("class",))
    assert first["image"] == "a.png" and second["image"] == "b ü.png" and first["class"] == ""
    assert first.numbers("left", "top") == (1.5, 2.0) and second.numbers("top", "left") == (4.0, 3.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column image, left, top"),
        ("image,left\n", "no column top; the first line must be image,left,top"),
        ("image,left,top\na,1\n", "line 2: has not as many values"),
        ("image,left,top\na,1,5,2\n", "line 2: has not as many values .* quote what has commas"),
        ("image,left,top,left\na,1,5,2\n", "has the column left twice"),
        ("image,left,top\na,1," + "9" * 200_000 + "\n", "not readable as a table"),
    ],
)
def test_what_is_no_such_table(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        read_table(tmp_path / "t.csv", ("image", "left", "top"), "parts")
    assert "parts=" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["x", "", "nan", "inf", "1_0", '"1,000"', '"-12,345,678"'])
def test_what_is_no_number(tmp_path: Path, value: str) -> None:
    (tmp_path / "t.csv").write_text(f"image,left,top\na,1,{value}\n")
    (row,) = read_table(tmp_path / "t.csv", ("image", "left", "top"), "parts")
    with pytest.raises(UserError, match="line 2: left and top must be numbers"):
        row.numbers("left", "top")


def test_corners_are_pixels_and_no_shares(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("left,top\n0,1\n0.5,1.5\n0,0.25\n")
    unit, whole, shares = read_table(tmp_path / "t.csv", ("left", "top"), "parts")
    assert unit.pixels("left", "top") == (0, 1) and whole.pixels("left", "top") == (0.5, 1.5)
    with pytest.raises(UserError, match=r"line 4: 0,0\.25 are shares of the picture; multiply"):
        shares.pixels("left", "top")


def test_lines_and_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\n two \r\n")
    assert read_lines(tmp_path / "l.txt") == ["one", "two"]
    with pytest.raises(UserError, match="cannot be read"):
        read_table(tmp_path / "none.csv", ("image",), "parts")
    with pytest.raises(UserError, match="cannot be read"):
        read_table(tmp_path, ("image",), "parts")
