"""Files as people have them: archives, other names for the same, odd suffixes, stray files; all of it counted and named."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import NARROW, Zfrepro, data_config, find_problems
from PIL import Image, features

from zfrepro.data import Packed, examine, open_data, read_image
from zfrepro.data.decode import read_picture
from zfrepro.errors import UserError
from zfrepro.options.shared import DataConfig


def picture(label: int, n: int) -> Image.Image:
    pixels = np.random.default_rng([label, n]).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((24, 20))


def make(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 5) -> Path:
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            picture(label, n).save(folder / name / f"{n}.png")
    return folder


def config_of(tmp_path: Path, root: Path | str, **changes: object) -> DataConfig:
    return data_config(tmp_path, "folder", root, **changes)


def opened(tmp_path: Path, root: Path | str) -> Packed:
    return open_data(config_of(tmp_path, root), progress=False)


# --------------------------------------------------------------------------------------------------------------- archives


@pytest.mark.parametrize("form", ["zip", "tar", "gztar", "bztar", "xztar"])
@pytest.mark.parametrize("inner", ["", "pets"])
def test_an_archive_of_the_folder_or_of_what_is_in_it(tmp_path: Path, form: str, inner: str) -> None:
    make(tmp_path / "here" / "pets")
    (tmp_path / "here" / "__MACOSX" / "pets").mkdir(parents=True)
    (tmp_path / "here" / "__MACOSX" / "pets" / "._cat").write_text("x")
    root, base = (tmp_path / "here", None) if inner else (tmp_path / "here" / "pets", None)
    archive = shutil.make_archive(str(tmp_path / "my.pets"), form, root, base)
    data = opened(tmp_path, archive)
    assert data.class_ids == ("cat", "dog") and data.key == opened(tmp_path, tmp_path / "here" / "pets").key
    shutil.copyfile(archive, tmp_path / "copy.bin")  # another name, other times
    shutil.rmtree(tmp_path / "cache" / "extracted")
    assert opened(tmp_path, tmp_path / "copy.bin").folder == data.folder
    assert not (tmp_path / "cache" / "extracted").exists()  # its key is known: nothing was unpacked again


def test_a_tar_where_python_has_no_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as Python 3.10.0 to 3.10.11."""

    def extractall(tar: tarfile.TarFile, path: Path) -> None:
        for member in tar:
            tar.extract(member, path)

    make(tmp_path / "pets")
    archive = shutil.make_archive(str(tmp_path / "pets"), "tar", tmp_path / "pets")
    monkeypatch.delattr(tarfile, "data_filter")
    monkeypatch.setattr(tarfile.TarFile, "extractall", extractall)
    assert opened(tmp_path, archive).class_ids == ("cat", "dog")


def test_hostile_and_broken_tars_are_refused(tmp_path: Path) -> None:
    link, pipe = tarfile.TarInfo("cat/link"), tarfile.TarInfo("cat/pipe")
    link.type, link.linkname, pipe.type = tarfile.SYMTYPE, "/etc/passwd", tarfile.FIFOTYPE
    hostile = {
        "'..'": tarfile.TarInfo("../evil.txt"), "absolute": tarfile.TarInfo("/tmp/evil.txt"), "is a link": link,
        "a device": pipe,
    }  # fmt: skip
    for why, member in hostile.items():
        with tarfile.open(tmp_path / "evil.tgz", "w:gz") as archive:
            archive.addfile(member, io.BytesIO())
        with pytest.raises(UserError, match=f"{why}.*; if you trust it, unpack it yourself and give data.root="):
            opened(tmp_path, tmp_path / "evil.tgz")
    assert not (tmp_path / "evil.txt").exists()
    whole = Path(shutil.make_archive(str(tmp_path / "pets"), "gztar", make(tmp_path / "pets"))).read_bytes()
    (tmp_path / "cut.tgz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.tgz").write_text("<html>404</html>")
    for name in ("cut.tgz", "text.tgz"):
        (problem,) = find_problems(config_of(tmp_path, tmp_path / name))
        assert "cannot be read as a zip or tar archive" in problem and "\n" not in problem


@pytest.mark.parametrize("form", ["", "gz"])
def test_of_a_tar_without_an_end_or_with_another_behind_it_no_picture_is_lost_in_silence(
    tmp_path: Path, form: str
) -> None:
    pets = make(tmp_path / "pets")
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        tar.add(pets, "pets")
    with tarfile.open(tmp_path / "pets.tar") as tar:
        last = tar.getmembers()[-1].offset
    whole = (tmp_path / "pets.tar").read_bytes()
    for content in (whole[:last], whole + whole):
        (tmp_path / "part.tar").write_bytes(gzip.compress(content) if form else content)
        (problem,) = find_problems(config_of(tmp_path, tmp_path / "part.tar"))
        assert "cannot be read as a zip or tar archive (cut off, or several in one file)" in problem
    (tmp_path / "one.tar").write_bytes(whole[: len(whole.rstrip(b"\0")) // 512 * 512 + 1024])  # a single block of zeros
    assert not find_problems(config_of(tmp_path, tmp_path / "one.tar"))


def test_a_zip_with_backslashes_between_folders(tmp_path: Path) -> None:
    """As PowerShell's Compress-Archive and .NET made them."""
    pets = make(tmp_path / "pets")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for path in sorted(pets.rglob("*.png")):
            member = zipfile.ZipInfo(f"pets\\{path.parent.name}\\{path.name}")
            member.create_system = 0
            archive.writestr(member, path.read_bytes())
    assert opened(tmp_path, tmp_path / "pets.zip").key == opened(tmp_path, pets).key


class Unsaid(zipfile.ZipInfo):
    """A member whose name is written in UTF-8 and not said to be that, as a Mac does it."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode(), self.flag_bits


def test_a_zip_whose_names_are_not_said_to_be_utf8(tmp_path: Path) -> None:
    pets = make(tmp_path / "pets", ("été", "猫"))
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for path in sorted(pets.rglob("*.png")):
            archive.writestr(Unsaid(f"{path.parent.name}/{path.name}"), path.read_bytes())
    data = opened(tmp_path, tmp_path / "pets.zip")
    assert data.class_ids == ("été", "猫") and data.key == opened(tmp_path, pets).key


# -------------------------------------------------------------------------------------------------------------- copies


def test_validation_images_that_are_training_images_are_told(tmp_path: Path, zfrepro: Zfrepro) -> None:
    """The error on them says nothing: in folders of one's own, and where a split is drawn among copies."""
    pets = make(tmp_path / "pets" / "train", count=8).parent
    make(pets / "val", count=1)  # the first of each class again
    picture(7, 7).save(pets / "val" / "dog" / "own.png")
    shutil.copyfile(pets / "train" / "cat" / "5.png", pets / "val" / "dog" / "wrong.png")
    given = ("data=folder", f"data.root={pets}", f"outputs={tmp_path / 'runs'}", *NARROW, "epochs=1", "batch_size=8")
    said = "3 of 4 validation images are copies of training images, 1 of another class, the first: val/cat/0.png of "
    found = zfrepro("train", *given, "run=a")
    assert said in found.stderr
    zfrepro("evaluate", f"outputs={tmp_path / 'runs'}", "run=a")
    notes = (tmp_path / "runs" / "a" / "table2_imagenet" / "table.md").read_text()
    assert "3 of the validation images are copies of training images, whose errors say nothing of new ones." in notes
    assert f"note: {said}" in zfrepro("prepare", *given).stdout


def test_copies_are_found_among_photographs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever they are called; others of the same size and camera are none."""
    pets = make(tmp_path / "pets", count=4)
    for n in range(4):
        shutil.copyfile(pets / "cat" / f"{n}.png", pets / "cat" / f"{n} (copy).png")
    data = opened(tmp_path, pets)
    one = {name.removesuffix(" (copy).png").removesuffix(".png") for name in data.train.files}
    two = {name.removesuffix(" (copy).png").removesuffix(".png") for name in data.val.files}
    assert data.manifest["copies"] == len(one & two) > 0
    assert f"{len(one & two)} of {len(data.val)} validation images are copies" in capsys.readouterr().err
    make(tmp_path / "others")
    assert opened(tmp_path, tmp_path / "others").manifest["copies"] == 0
    assert "copies" not in capsys.readouterr().err


def test_copies_in_two_classes_are_told(tmp_path: Path) -> None:
    pets = make(tmp_path / "pets" / "train", ("cat", "dog", "owl"), count=8).parent
    make(pets / "val", count=0)
    picture(9, 9).save(pets / "val" / "dog" / "own.png")
    for name in ("x.png", "y.png"):  # two of them are one picture, of one class: nothing is wrong with that alone
        shutil.copyfile(pets / "train" / "cat" / "5.png", pets / "train" / "owl" / name)
    (told,) = [line for line in examine(config_of(tmp_path, pets))[1] if "copies" in line]
    assert told.startswith("1 training images are copies of others of another class, the first: train/owl/")
    assert told.endswith(".png of train/cat/5.png; take out what is wrong")


def test_copies_are_told_before_anything_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are not so many files that it would take minutes."""
    pets = make(tmp_path / "pets" / "train").parent
    make(pets / "val", count=2)
    problems, notes = examine(config_of(tmp_path, pets))
    assert not problems and "4 of 4 validation images are copies of training images" in notes[0]
    assert not (tmp_path / "cache").exists()
    (pets / "train" / "cat" / "0.bmp").write_bytes(b"")  # of such files all is read
    assert examine(config_of(tmp_path, pets)) == ([], [])
    (pets / "train" / "cat" / "0.bmp").unlink()
    monkeypatch.setattr("zfrepro.data.identity.FEW", 13)
    assert examine(config_of(tmp_path, pets)) == ([], [])


# ------------------------------------------------------------------------------------------------------ names of splits


@pytest.mark.parametrize("val", ["valid", "validation", "test", "Val", "TEST"])
def test_other_names_of_the_validation_folder(tmp_path: Path, val: str) -> None:
    make(tmp_path / "pets" / "train", count=4)
    make(tmp_path / "pets" / val, count=3)
    data = opened(tmp_path, tmp_path / "pets")
    assert (len(data.train), len(data.val)) == (8, 6) and data.val.files[0] == f"{val}/cat/0.png"


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_a_validation_folder_without_classes_is_not_passed_over(tmp_path: Path, val: str) -> None:
    make(tmp_path / "pets" / "train", count=4)
    (tmp_path / "pets" / val).mkdir()
    said = f"{tmp_path / 'pets' / val}: has no class folders, as train/ has; sort its pictures"
    assert said in find_problems(config_of(tmp_path, tmp_path / "pets"))[0]
    picture(0, 0).save(tmp_path / "pets" / val / "a.png")
    assert said in find_problems(config_of(tmp_path, tmp_path / "pets"))[0]
    (tmp_path / "pets" / val).rename(tmp_path / "pets" / "test")  # as competitions give it, without the truth
    problems, (note,) = examine(config_of(tmp_path, tmp_path / "pets"))
    assert not problems and "test/" in note


def test_a_class_without_validation_pictures_is_told(tmp_path: Path) -> None:
    make(tmp_path / "pets" / "train", ("ant", "bee", "cat", "dog"), count=4)
    make(tmp_path / "pets" / "val", ("bee", "dog"), count=3)
    (tmp_path / "pets" / "val" / "cat").mkdir()
    problems, (note, _) = examine(config_of(tmp_path, tmp_path / "pets"))
    assert not problems and "no validation picture" in note and note.endswith("2 of the classes (ant, cat)")
    make(tmp_path / "pets" / "val", ("ant", "cat"), count=1)
    assert not any("no validation picture" in note for note in examine(config_of(tmp_path, tmp_path / "pets"))[1])


def test_a_drawn_split_tells_of_what_class_there_is_a_single_picture(tmp_path: Path) -> None:
    make(make(tmp_path / "pets"), ("owl",), 0)
    picture(9, 9).save(tmp_path / "pets" / "owl" / "0.png")
    (line,) = examine(config_of(tmp_path, tmp_path / "pets"))[1]
    assert line == "no validation picture, so that errors say nothing of them: 1 of the classes (owl)"


@pytest.mark.parametrize(
    "names", [("train", "val"), ("Train", "test1"), ("images/train", "images/valid"), ("images", "masks")]
)
def test_splits_without_classes_are_not_two_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    """Kaggle's cats and dogs, whose classes are in the files' names, or YOLO's images."""
    (problem,) = find_problems(config_of(tmp_path, make(tmp_path / "pets", names)))
    assert "are no classes, and hold no class folders; sort the pictures into <class>/" in problem
    assert not find_problems(config_of(tmp_path, make(tmp_path / "vehicles", ("train", "bus"))))


def test_a_picture_of_too_many_pixels_is_to_be_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some telephones take them; Pillow takes it for an attack."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(
        UserError, match=r"0\.png: cannot be read as an image \(more than 400 pixels; make it smaller\)"
    ):
        read_image(make(tmp_path / "pets") / "cat" / "0.png", 16)


def test_an_empty_file_is_no_picture(tmp_path: Path) -> None:
    (make(tmp_path / "pets") / "cat" / "e.png").touch()
    with pytest.raises(UserError, match=r"cat/e\.png \(the file is empty; fetch or copy it again\)"):
        opened(tmp_path, tmp_path / "pets")
    with pytest.raises(UserError, match=r"e\.png: cannot be read as an image \(the file is empty"):
        read_image(tmp_path / "pets" / "cat" / "e.png", 16)


def test_folders_beside_the_splits_are_named(tmp_path: Path) -> None:
    for name, count in (("Train", 4), ("val", 3), ("test", 2), ("extra", 1)):
        make(tmp_path / "pets" / name, count=count)
    picture(0, 0).save(tmp_path / "pets" / "cover.png")
    problems, (note, _) = examine(config_of(tmp_path, tmp_path / "pets"))
    assert not problems and "3 files or folders" in note and "cover.png, extra/, test/" in note
    data = opened(tmp_path, tmp_path / "pets")
    assert (len(data.train), len(data.val)) == (8, 6)
    assert data.manifest["passed_over"] == ["cover.png", "extra/", "test/"]


def test_data_root_here_although_our_runs_are_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "pets")
    (tmp_path / "pets" / "outputs" / "demo" / "train").mkdir(parents=True)
    (tmp_path / "pets" / "outputs" / "demo" / ".lock").write_text("")  # how a first training finds it
    monkeypatch.chdir(tmp_path / "pets")
    assert opened(tmp_path, ".").class_ids == ("cat", "dog")


# -------------------------------------------------------------------------------------------------- what is a picture


def test_pictures_by_any_suffix_or_none(tmp_path: Path) -> None:
    folder = make(tmp_path / "pets", count=2) / "cat"
    formats = {
        ".jfif": "JPEG",
        ".JPE": "JPEG",
        "": "JPEG",
        ".jpeg_large": "PNG",
        ".x": "GIF",
        ".y": "BMP",
        ".z": "TIFF",
    }
    formats |= {".w": "WEBP"} | ({".avif": "AVIF", ".v": "AVIF"} if features.check("avif") else {})
    for n, (suffix, form) in enumerate(formats.items()):
        picture(0, 10 + n).save(folder / f"odd{n}{suffix}", format=form)
    data = opened(tmp_path, tmp_path / "pets")
    assert len(data.train) + len(data.val) == 4 + len(formats) and data.manifest["passed_over"] == []
    for split in (data.train, data.val):
        for row, name in enumerate(split.files):
            assert np.array_equal(split.images[row], read_image(tmp_path / "pets" / name, 16))


@pytest.mark.parametrize("fit", ["square", "whole"])
def test_of_several_frames_the_first_is_taken_and_that_is_told(
    tmp_path: Path, fit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for a camera's MPO, whose other pictures are the same one."""
    folder, (first, *others) = make(tmp_path / "pets", count=9) / "cat", [picture(0, n) for n in range(20, 23)]
    several = {"a.gif": "GIF", "b.tif": "TIFF", "c.png": "PNG", "d.webp": "WEBP", "gif.jpg": "GIF", "camera.jpg": "MPO"}
    for name, form in several.items():
        first.save(folder / name, form, save_all=True, append_images=others)
    first.save(folder / "one.gif")
    data = open_data(config_of(tmp_path, tmp_path / "pets", fit=fit), progress=False)
    told = [f"cat/{name}" for name in several if name != "camera.jpg"]
    assert sorted(data.manifest["several_frames"]) == told
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "frames" in line]
    assert line.startswith("note: 5 of the files hold several frames or pages, of which the first is taken: cat/")
    first.save(tmp_path / "first.png")
    expected = read_picture(tmp_path / "first.png", 16, fit).astype(float)
    for split in (data.train, data.val):
        for row, name in enumerate(split.files):
            if name in told:
                assert np.abs(split.images[row] - expected).mean() < 12, name  # of another frame, several times that


def test_whatever_is_passed_over_is_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "pets") / "cat"
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "notes").write_text("BM is how bitmaps begin")
    (folder / ".DS_Store").write_text("")
    (folder / "Icon\r").write_text("")
    make(folder / "summer", ("more",))
    os.mkfifo(folder / "pipe")
    data = opened(tmp_path, tmp_path / "pets")
    assert data.manifest["passed_over"] == ["cat/Thumbs.db", "cat/notes", "cat/pipe", "cat/summer/"]
    assert (
        "4 files or folders that are no pictures of a class are passed over: cat/Thumbs.db" in capsys.readouterr().err
    )
    assert len(data.train) + len(data.val) == 10


def test_what_is_passed_over_is_what_lies_there_now(tmp_path: Path, zfrepro: Zfrepro) -> None:
    """Beside pictures that were packed before, with other things among them."""
    folder = make(tmp_path / "pets") / "cat"
    given = (
        "prepare",
        "data=folder",
        f"data.root={tmp_path / 'pets'}",
        f"data.cache={tmp_path / 'cache'}",
        "data.size=64",
    )
    assert "note:" not in zfrepro(*given, cwd=tmp_path).stdout
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    found = zfrepro(*given, cwd=tmp_path).stdout
    assert "already packed" in found and "are passed over: cat/Thumbs.db" in found
    (folder / "Thumbs.db").unlink()
    again = zfrepro(*given, cwd=tmp_path).stdout
    assert "already packed" in again and "note:" not in again


def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(make(tmp_path / "pets") / "cat" / "p.png")
    with pytest.raises(UserError, match=r"1 of 11 images cannot be read, the first: cat/p\.png \(not a regular file\)"):
        opened(tmp_path, tmp_path / "pets")
    with pytest.raises(UserError, match="not a regular file"):
        read_image(tmp_path / "pets" / "cat" / "p.png", 16)


def test_folders_that_are_not_as_they_should_be(tmp_path: Path) -> None:
    pets = make(tmp_path / "pets")
    (pets / "empty").mkdir()
    (problem,) = find_problems(config_of(tmp_path, pets))
    assert str(pets / "empty") in problem and "take the folder away" in problem
    (pets / "empty" / "a.tar").write_bytes(b"")
    (pets / "empty" / "b.zip").write_bytes(b"")
    assert "its 2 archives (a.tar...) are not extracted" in find_problems(config_of(tmp_path, pets))[0]
    imagenet = tmp_path / "imagenet"
    (imagenet / "train").mkdir(parents=True)
    (imagenet / "train" / "n01440764.tar").write_bytes(b"")
    make(imagenet / "val", ("n01440764",))
    problem = find_problems(data_config(tmp_path, "imagenet", imagenet))[0]
    assert str(imagenet / "train") in problem and "extract each of its archives" in problem


def test_a_cache_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = config_of(tmp_path, make(tmp_path / "pets"), cache=str(tmp_path / "file" / "cache"))
    assert "cannot be written" in find_problems(config)[0]
