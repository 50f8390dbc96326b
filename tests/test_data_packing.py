"""Packing: what is packed is what is decoded, whole or not at all, once, and kept under a key that says what it is."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from conftest import find_problems
from PIL import Image

from zfrepro.data import Packed, decode, embedded, open_data, packed_folder, packing, read_image, rows
from zfrepro.data.decode import measure_files, picture_size, read_picture
from zfrepro.data.embedded_kinds import KEYPOINTS, SOURCE_CLASSES, TARGET_CLASSES
from zfrepro.data.packed import load
from zfrepro.errors import UserError
from zfrepro.files import file_hash
from zfrepro.options.shared import DataConfig

SIZE = 16


def picture(seed: int, width: int = 24, height: int = 20) -> Image.Image:
    """A smooth random RGB picture."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)


def make_tree(root: Path, classes: int = 3, per_class: int = 6, side: int = 0) -> Path:
    """<root>/<class>/<n>.png; of side x side pixels, or of various sizes."""
    for label in range(classes):
        (root / f"class_{label}").mkdir(parents=True)
        for n in range(per_class):
            shape = (side, side) if side else (20 + 3 * n, 30 - 2 * label)
            picture(100 * label + n, *shape).save(root / f"class_{label}" / f"{n}.png")
    return root


def config_of(tmp_path: Path, **changes: object) -> DataConfig:
    settings: dict[str, object] = {"name": "folder", "size": SIZE, "root": str(tmp_path / "tree"), "workers": 1}
    settings |= {"cache": str(tmp_path / "cache")} | changes
    return DataConfig(**settings)  # type: ignore[arg-type]


def entries(cache: Path) -> list[str]:
    """What is in the cache besides lock files and remembered keys."""
    there = cache.iterdir() if cache.exists() else ()
    return sorted(path.name for path in there if path.suffix != ".lock" and path.name != "keys")


# ------------------------------------------------------------------------------------------------------------- content


def changed_files(packed: Packed) -> list[str]:
    """The arrays whose bytes are no longer those of the manifest."""
    entries = packed.manifest["arrays"].items()
    return [name for name, entry in entries if file_hash(packed.folder / name) != entry["sha256"]]


def test_packed_equals_direct_decoding(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    data = open_data(config_of(tmp_path), progress=False)
    assert (len(data.train), len(data.val), data.num_classes, data.size) == (15, 3, 3, SIZE)
    assert data.class_names == ("class 0", "class 1", "class 2") and data.class_ids[0] == "class_0"
    for split in (data.train, data.val):
        for row in range(len(split)):
            assert np.array_equal(split.images[row], read_picture(tree / split.files[row], SIZE))
            assert split.files[row].startswith(f"class_{split.labels[row]}/")
    assert data.train.images.dtype == np.uint8 and isinstance(data.train.images, np.memmap)
    assert np.allclose(data.mean, data.train.images.astype(np.float64).mean(0), atol=1e-4)
    assert not set(data.train.files) & set(data.val.files)
    assert data.manifest["counts"] == {"train": 15, "val": 3} and changed_files(data) == []


def test_packed_whole_equals_direct_decoding(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", per_class=30)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    picture(1, 40, 24).save(tree / "class_0" / "0.png", exif=exif)
    Image.new("RGB", (3, 400), (9, 9, 9)).save(tree / "class_0" / "1.png")  # a long strip
    data = open_data(config_of(tmp_path, fit="whole"), progress=False)
    assert data.fit == "whole" and data.size == SIZE and data.folder.name.startswith("folder-16px-whole-")
    for split in (data.train, data.val):
        assert len(split.images) == len(split)
        for row in range(len(split)):
            with Image.open(tree / split.files[row]) as image:
                upright = image.convert("RGB")
            if split.files[row] == "class_0/0.png":
                upright = upright.transpose(Image.Transpose.ROTATE_270)
            if split.files[row] == "class_0/1.png":
                upright = upright.crop((0, 188, 3, 212))
            w, h = upright.size
            resized = upright.resize((w * SIZE // min(w, h), h * SIZE // min(w, h)), Image.Resampling.BILINEAR)
            assert np.array_equal(split.images[row], np.asarray(resized))
    square = open_data(config_of(tmp_path), progress=False)
    assert square.key != data.key and list(square.train.files) == list(data.train.files)


def test_mean_colour_and_covariance_are_those_of_all_training_pixels(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", per_class=8)
    for fit in ("square", "whole"):
        data = open_data(config_of(tmp_path, fit=fit), progress=False)
        pixels = np.concatenate([data.train.images[row].reshape(-1, 3) for row in range(len(data.train))]).astype(float)
        assert np.allclose(data.colour, pixels.mean(0), rtol=1e-12)
        assert np.allclose(data.covariance, np.cov(pixels.T, bias=True), rtol=1e-9)
        assert data.mean.shape == (SIZE, SIZE, 3) and np.allclose(data.mean.mean((0, 1)), data.colour, atol=1e-3)
    assert (data.mean == data.colour.astype(np.float32)).all()


def test_the_mean_of_large_images_takes_little_memory(tmp_path: Path) -> None:
    images = np.lib.format.open_memmap(tmp_path / "train_images.npy", "w+", np.uint8, (80, 512, 512, 3))
    images[1::2, 0, 1, 2] = 255
    images.flush()
    tracemalloc.start()
    packing._write_colours(config_of(tmp_path), tmp_path, rows.Written(pixels=1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 45e6  # of which the sum takes six and a half
    mean = np.load(tmp_path / "mean.npy")
    assert mean[0, 1, 2] == 127.5 and mean.sum() == 127.5


def test_pictures_of_the_right_size_are_untouched(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", side=SIZE)
    data = open_data(config_of(tmp_path), progress=False)
    assert np.array_equal(data.train.images[4], np.asarray(Image.open(tree / data.train.files[4])))


def test_geometry_is_resizing_the_smaller_side_and_cropping_the_centre(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200  # the central square
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (read_image(tmp_path / "wide.png", 8) == 200).all()
    photo = picture(1, 60, 41)
    photo.save(tmp_path / "photo.png")
    resized = photo.resize((int(16 * 60 / 41), 16), Image.Resampling.BILINEAR)
    left = round((resized.width - 16) / 2)
    assert np.array_equal(read_image(tmp_path / "photo.png", 16), np.asarray(resized)[:, left : left + 16])
    strip = np.tile(np.arange(0, 250, 10, dtype=np.uint8)[:, None, None], (1, 40_000, 3))
    Image.fromarray(strip[:1]).save(tmp_path / "strip.png")  # 40,000 x 1: would be 2.5 GB at this size
    assert read_image(tmp_path / "strip.png", 256).shape == (256, 256, 3)


@pytest.mark.parametrize("fit", ["square", "whole"])
def test_parallel_packing_equals_serial(tmp_path: Path, fit: str) -> None:
    make_tree(tmp_path / "tree", per_class=50)
    serial = open_data(config_of(tmp_path, fit=fit), progress=False)
    parallel = open_data(config_of(tmp_path, workers=3, cache=str(tmp_path / "other"), fit=fit), progress=False)
    assert serial.key == parallel.key
    assert serial.manifest["arrays"] == parallel.manifest["arrays"]


@pytest.mark.parametrize("part", ["source", "target", "scenes"])
def test_embedded_is_packed_as_it_is_drawn(tmp_path: Path, part: str) -> None:
    config = config_of(
        tmp_path, name="embedded", root=None, size=24, part=part, train_per_class=3, val_per_class=1, split_seed=5
    )
    data = open_data(config, progress=False)
    classes = TARGET_CLASSES if part == "target" else SOURCE_CLASSES
    assert data.class_ids == tuple(classes) and len(data.train) == 3 * len(classes) and len(data.val) == len(classes)
    ids = np.arange(len(data.train))
    if part == "scenes":
        scenes = embedded.draw_scenes(classes, ids, 24, 5)
        assert np.array_equal(data.train.images, scenes.images)
        assert data.train.multi is not None and np.array_equal(data.train.multi, scenes.labels)
        has_one = (scenes.labels == 1).any(1)
        assert np.array_equal(data.train.labels[has_one], (scenes.labels == 1).argmax(1)[has_one])
        return
    drawing = embedded.draw(classes, ids % len(classes), ids, 24, 5)
    assert np.array_equal(data.train.images, drawing.images)
    assert (np.bincount(data.train.labels[: len(classes)]) == 1).all()  # any beginning is balanced
    truth = data.train.truth
    assert truth is not None and np.array_equal(truth.masks, drawing.masks)
    assert np.array_equal(truth.boxes, drawing.boxes)
    assert np.array_equal(truth.keypoints, drawing.keypoints, equal_nan=True)
    assert data.keypoint_names == tuple(KEYPOINTS)
    again = embedded.draw(classes, data.val.labels, 1_000_000 + np.arange(len(classes)), 24, 5)
    assert np.array_equal(data.val.images, again.images)


@pytest.mark.parametrize("part", ["target", "scenes"])
def test_embedded_rectangles_are_packed_as_they_are_drawn(tmp_path: Path, part: str) -> None:
    change = {"train_per_class": 2, "val_per_class": 1, "split_seed": 5, "fit": "whole", "workers": 1}
    data = open_data(config_of(tmp_path, name="embedded", root=None, size=24, part=part, **change), progress=False)
    ids = np.arange(len(data.train))
    if part == "scenes":
        scenes = embedded.draw_scenes(SOURCE_CLASSES, ids, 24, 5, "whole")
        assert all(np.array_equal(data.train.images[i], scenes.images[i]) for i in ids)
        assert np.array_equal(data.train.multi, scenes.labels)
        return
    drawing = embedded.draw(TARGET_CLASSES, ids % len(TARGET_CLASSES), ids, 24, 5, "whole")
    assert len({image.shape for image in drawing.images}) > 3
    truth = data.train.truth
    assert truth is not None
    for i in ids:
        assert np.array_equal(data.train.images[i], drawing.images[i])
        assert np.array_equal(truth.masks[i], drawing.masks[i])
    assert np.array_equal(truth.boxes, drawing.boxes)
    assert np.array_equal(truth.keypoints, drawing.keypoints, equal_nan=True)


def test_per_class_takes_the_first_of_each(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", classes=2, per_class=5)
    train = open_data(config_of(tmp_path), progress=False).train
    assert train.per_class(None).tolist() == list(range(8))
    assert train.per_class(2).tolist() == [0, 1, 4, 5]
    assert train.per_class(100).tolist() == list(range(8)) and train.per_class(1).dtype == np.int64


# ------------------------------------------------------------------------------------------------------- odd pictures


def test_every_mode_of_pictures_becomes_rgb(tmp_path: Path) -> None:
    grey = np.tile(np.arange(0, 256, 16, dtype=np.uint8), (16, 1))
    three = np.repeat(grey[:, :, None], 3, 2)

    def read(image: Image.Image, name: str, **options: object) -> np.ndarray:
        image.save(tmp_path / name, **options)
        return read_image(tmp_path / name, 16)

    assert np.array_equal(read(Image.fromarray(grey), "l.png"), three)
    assert np.array_equal(read(Image.fromarray(grey.astype(np.uint16) * 256 + 255), "i16.png"), three)
    assert np.array_equal(read(Image.fromarray(grey.astype(np.int32) * 256 + 255), "i32.tif"), three)
    half = np.where(np.arange(16) < 8, 255, 0).astype(np.uint8) * np.ones((16, 1), np.uint8)
    on_white = np.where(half[:, :, None] > 0, three, 255)
    layers = Image.merge("RGBA", [Image.fromarray(grey)] * 3 + [Image.fromarray(half)])
    assert np.array_equal(read(layers, "rgba.png"), on_white)
    assert np.array_equal(read(Image.merge("LA", [Image.fromarray(grey), Image.fromarray(half)]), "la.png"), on_white)
    palette = Image.fromarray(three).quantize(16)
    assert np.array_equal(read(palette, "p.png"), np.asarray(palette.convert("RGB")))
    see_through = read(palette, "tp.png", transparency=palette.getpixel((0, 0)))
    assert (see_through[:, 0] == 255).all()
    assert np.array_equal(see_through[:, 1:], np.asarray(palette.convert("RGB"))[:, 1:])
    one_bit = Image.fromarray(half).convert("1")
    assert np.array_equal(read(one_bit, "1.png"), np.repeat(half[:, :, None], 3, 2))
    cmyk = read(Image.fromarray(three).convert("CMYK"), "cmyk.jpg", quality=100)
    assert np.abs(cmyk.astype(int) - three).max() < 12
    assert np.array_equal(read(Image.fromarray(three), "gif.gif"), three)
    with pytest.raises(UserError, match="floating-point"):
        read(Image.fromarray(grey.astype(np.float32)), "f.tif")
    for factor, said in (
        (1, "0 to 240"),
        (1 << 20, "0 to 251658240"),
        (-1, "-240 to 0"),
    ):  # black, or white, in silence
        with pytest.raises(UserError, match=f"32-bit pixels from {said}, whose range is not known"):
            read(Image.fromarray(grey.astype(np.int32) * factor), "i.tif")


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_in_which_white_is_zero(tmp_path: Path, bits: int) -> None:
    """As radiographs are often stored."""
    stored = np.tile(np.arange(16, dtype=np.uint16) * 16, (16, 1))
    image = Image.fromarray(stored.astype(np.uint8) if bits == 8 else stored * 256)
    image.save(path := tmp_path / "a.tif")
    entry = struct.pack("<HHIH", 262, 3, 1, 1)  # photometric interpretation: black is zero
    content = path.read_bytes()
    assert content.count(entry) == 1
    path.write_bytes(content.replace(entry, struct.pack("<HHIH", 262, 3, 1, 0)))
    assert np.array_equal(read_image(path, 16)[:, :, 0], 255 - stored)


@pytest.mark.parametrize(("largest", "told"), [(15, True), (1, True), (255, False)])
def test_images_without_contrast_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], largest: int, told: bool
) -> None:
    """Such as 12-bit values in 16-bit files, which are divided by 256; or values of 0 to 1 that were made bytes."""
    for row in range(8):
        (tmp_path / "tree" / f"class_{row % 2}").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(row).integers(0, largest, (20, 20, 3), np.uint8, endpoint=True)
        Image.fromarray(pixels).save(tmp_path / "tree" / f"class_{row % 2}" / f"{row}.png")
    open_data(config_of(tmp_path), progress=False)
    assert ("the training images are nearly of one colour" in capsys.readouterr().err) == told


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_pictures_upright(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8, :8], upright[:8, 8:], upright[8:, :8] = 250, 170, 90  # four quarters, all different
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition with which a camera so held would store it
    stored = Image.fromarray(upright)
    stored = stored.transpose(Image.Transpose(undo[orientation])) if orientation in undo else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png", 16), upright)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_size_of_a_turned_picture_is_known_from_its_header(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(0).save(path := tmp_path / f"a.{suffix}", exif=exif)
    assert picture_size(path) == ((24, 20) if orientation == 6 else (20, 24))
    assert read_picture(path, 10, "whole").shape[:2] == tuple(measure_files([str(path)], 10)[0])


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_unreadable_exif_asks_for_nothing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    picture(0).save(path, exif=b"Exif\0\0neither II nor MM")
    assert read_picture(path, 10, "whole").shape[:2] == tuple(measure_files([str(path)], 10)[0])
    assert picture_size(path) == (20, 24)


def test_a_disk_that_fails_is_no_picture_without_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    path = str(tmp_path / "a.png")
    assert measure_files([path], 10).tolist() == [[10, 10]]
    monkeypatch.setattr(decode, "open_picture", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match=r"Input/output error: .*a\.png"):
        measure_files([path], 10)


@pytest.mark.parametrize("fit", ["square", "whole"])
def test_unreadable_pictures_are_counted_or_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fit: str
) -> None:
    tree = make_tree(tmp_path / "tree", per_class=100)
    (tree / "class_0" / "1.png").write_bytes(b"")
    (tree / "class_0" / "11.png").write_text("not a picture")
    whole = (tree / "class_2" / "55.png").read_bytes()
    (tree / "class_2" / "55.png").write_bytes(whole[: len(whole) // 2])
    message = r"^3 of 300 images cannot be read, the first: class_\d/\d+\.png .*on_error=skip"
    with pytest.raises(UserError, match=message):
        open_data(config_of(tmp_path, workers=2, fit=fit), progress=False)
    assert entries(tmp_path / "cache") == []
    data = open_data(config_of(tmp_path, workers=2, on_error="skip", fit=fit), progress=False)
    assert "3 images cannot be read" in capsys.readouterr().err
    assert data.manifest["skipped_count"] == 3 and len(data.train) + len(data.val) == 297
    assert {entry["file"] for entry in data.manifest["skipped"]} == {
        "class_0/1.png", "class_0/11.png", "class_2/55.png"
    }  # fmt: skip
    for split in (data.train, data.val):
        assert len(split.images) == len(split.files) == len(split)
        for row, name in enumerate(split.files):
            assert name.startswith(f"class_{split.labels[row]}/")
            assert np.array_equal(split.images[row], read_picture(tree / name, SIZE, fit))
    pixels = np.concatenate([data.train.images[row].reshape(-1, 3) for row in range(len(data.train))]).astype(float)
    np.testing.assert_allclose(data.colour, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(data.covariance, np.cov(pixels.T, bias=True), rtol=1e-9)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EMFILE, "Too many open files"), OSError(errno.ENOTCONN, "Transport endpoint"), MemoryError()],
)
def test_what_the_machine_fails_at_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """No picture is left out, and no packed data set is to be deleted, for want of file handles or memory, or since the network
    to them is gone, as sshfs says it."""
    make_tree(tmp_path / "tree")
    data = open_data(config_of(tmp_path), progress=False)

    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(np, "load", failing)
    with pytest.raises(type(error)):
        load(data.folder)
    monkeypatch.setattr(decode, "open_picture", failing)
    with pytest.raises(type(error)) as caught:
        decode.read_files([str(tmp_path / "tree" / "class_0" / "1.png")], SIZE, "square")
    assert isinstance(error, MemoryError) or caught.value.filename  # what comes in the middle of a file names none


def test_a_disk_that_does_not_know_its_size_is_no_full_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of FUSE say that 0 of 0 bytes are free."""
    make_tree(tmp_path / "tree")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(total=0, used=0, free=0))
    assert len(open_data(config_of(tmp_path), progress=False).train)


def test_a_class_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    for path in (tree / "class_1").iterdir():
        path.write_bytes(b"")
    with pytest.raises(
        UserError, match=r"nothing would be left to train on of the class of class_1/.*take its folder away"
    ):
        open_data(config_of(tmp_path, on_error="skip"), progress=False)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("hello")
    with pytest.raises(UserError, match=r"notes\.jpg: cannot be read as an image"):
        read_image(tmp_path / "notes.jpg", 16)
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "missing.jpg", 16)


# ----------------------------------------------------------------------------------------------------------- the cache


def test_the_key_changes_with_what_matters_only(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    first = packed_folder(config_of(tmp_path))
    for same in ({"workers": 7}, {"per_class": 2}, {"train_per_class": 9}):
        assert packed_folder(config_of(tmp_path, **same)) == first
    others = [{"size": 20}, {"split_seed": 1}, {"val_fraction": 0.3}, {"on_error": "skip"}]
    folders = [packed_folder(config_of(tmp_path, **other)) for other in others]
    shutil.copy(tree / "class_0" / "0.png", tree / "class_0" / "new.png")
    folders.append(packed_folder(config_of(tmp_path)))
    assert len({first, *folders}) == 1 + len(folders)
    drawn = [{}, {"part": "target"}, {"train_per_class": 9}, {"val_per_class": 9}, {"split_seed": 1}, {"size": 20}]
    keys = {packed_folder(config_of(tmp_path, name="embedded", root=None, **change)).name for change in drawn}
    assert len(keys) == len(drawn)


def test_a_packed_data_set_is_opened_and_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path / "tree")
    data = open_data(config_of(tmp_path), progress=False)
    monkeypatch.setattr(packing, "build", lambda *_: pytest.fail("built twice"))
    assert open_data(config_of(tmp_path), progress=False).key == data.key
    assert entries(tmp_path / "cache") == [data.folder.name]


def test_damage_is_noticed(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    data = open_data(config_of(tmp_path), progress=False)
    with (data.folder / "train_images.npy").open("r+b") as file:
        file.seek(500)
        file.write(b"\0\1\2\3")
    assert changed_files(open_data(config_of(tmp_path), progress=False)) == ["train_images.npy"]
    with (data.folder / "train_images.npy").open("r+b") as file:
        file.truncate(600)
    with pytest.raises(UserError, match="is damaged"):
        open_data(config_of(tmp_path), progress=False)


@pytest.mark.parametrize("answer", [errno.EACCES, errno.ENODEV])
def test_what_cannot_be_read_is_not_called_damaged(
    tmp_path: Path, answer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's in a cache that is shared; file systems that map no files into memory."""
    make_tree(tmp_path / "tree")
    data = open_data(config_of(tmp_path), progress=False)

    def refuse(*args: object, **options: object) -> None:
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(UserError, match=rf"cannot be read here \({os.strerror(answer)}\): .* give data\.cache="):
        load(data.folder)


BUILD = """
import sys, time
from pathlib import Path
from zfrepro.data import open_data, decode
from zfrepro.options.shared import DataConfig
cache, root, delay = sys.argv[1], sys.argv[2], float(sys.argv[3])
slowly = decode.read_first
decode.read_first = lambda path: (time.sleep(delay), slowly(path))[1]
data = open_data(DataConfig(name="folder", size=16, root=root, cache=cache, workers=2), progress=False)
print(data.key)
"""


def start_build(tmp_path: Path, delay: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(tmp_path / "cache"), str(tmp_path / "tree"), str(delay)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_build_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", per_class=150)
    process = start_build(tmp_path, delay=0.05)
    deadline = time.time() + 60
    while not list(tmp_path.glob("cache/.folder*.tmp/train_images.npy")) and time.time() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(list(tmp_path.glob("cache/.folder*.tmp"))) == 1 and not list(tmp_path.glob("cache/*px-*/manifest.json"))
    data = open_data(config_of(tmp_path, workers=2), progress=False)
    assert entries(tmp_path / "cache") == [data.folder.name] and changed_files(data) == []


def test_two_builders_at_once_build_once(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", per_class=20)
    processes = [start_build(tmp_path, delay=0.01) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert len(entries(tmp_path / "cache")) == 1


def test_leftovers_of_other_dead_builds_go_and_live_ones_stay(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    begin = f"""
import sys
from pathlib import Path
from zfrepro.files import pending
with pending(Path({str(tmp_path / "cache")!r}), sys.argv[1]) as folder:
    print(folder, flush=True)
    input()
"""
    command = [sys.executable, "-c", begin]
    with subprocess.Popen([*command, "dead"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        dead = Path(killed.stdout.readline().strip())
        killed.kill()
    with subprocess.Popen([*command, "live"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        live = Path(holder.stdout.readline().strip())
        open_data(config_of(tmp_path), progress=False)
        assert not dead.exists() and live.exists()
        holder.communicate("\n")


def test_a_full_disk_and_a_read_only_cache_are_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path / "tree")
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", Path("/proc/x")):
        with pytest.raises(
            UserError, match=rf"data\.cache=.*cannot be written \([^)]+: {place}.*make it.*set ZFREPRO_CACHE"
        ):
            open_data(config_of(tmp_path, cache=str(place)), progress=False)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"packed images need [\d.]+kB, 1\.00kB are free.*data\.cache="):
        open_data(config_of(tmp_path), progress=False)
    monkeypatch.undo()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rows, "write_at", full)
    with pytest.raises(UserError, match=r"No space left on device.*set ZFREPRO_CACHE"):
        open_data(config_of(tmp_path), progress=False)
    assert entries(tmp_path / "cache") == []


def test_a_script_that_a_worker_runs_again_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off Linux workers begin with it, where its statements are not guarded, while their parent holds the lock."""
    make_tree(tmp_path / "tree", per_class=2)
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(UserError, match='put its statements below `if __name__ == "__main__":`'):
        open_data(config_of(tmp_path), progress=False)
    monkeypatch.undo()
    open_data(config_of(tmp_path), progress=False)


def test_a_killed_worker_is_an_error_and_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path / "tree", per_class=50)
    parent = os.getpid()
    monkeypatch.setattr("zfrepro.data.decode.read_first", lambda *_: os.getpid() != parent and os._exit(9))
    with pytest.raises(UserError, match="decoding process was killed"):
        open_data(config_of(tmp_path, workers=2), progress=False)


# ------------------------------------------------------------------------------------------------------------ archives


def zip_with(path: Path, *members: tuple[zipfile.ZipInfo | str, str]) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members:
            archive.writestr(member, text)
    return str(path)


def test_hostile_archives_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("tree/link")
    link.external_attr = (0o120777) << 16
    hostile = {"'..'": "../evil.txt", "absolute": "/tmp/evil.txt", "is a link": link, "has an absolute": "C:\\evil.txt"}
    for why, member in hostile.items():
        root = zip_with(tmp_path / "evil.zip", ("tree/fine.txt", "x"), (member, "/etc/passwd"))
        with pytest.raises(UserError, match=why):
            open_data(config_of(tmp_path, root=root), progress=False)
        assert find_problems(config_of(tmp_path, root=root))
    assert entries(tmp_path / "cache" / "extracted") == []
    assert not (tmp_path / "evil.txt").exists()
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(150 << 20))
    with pytest.raises(UserError, match=r"would unpack to .*; if you trust it, unpack it yourself"):
        open_data(config_of(tmp_path, root=str(tmp_path / "bomb.zip")), progress=False)
    root = Path(zip_with(tmp_path / "new.zip", ("tree/fine.txt", "x")))
    content = bytearray(root.read_bytes())
    for mark, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        content[content.index(mark) + place] = 99  # a way to compress that Python does not know
    root.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be unpacked into .* unpack it yourself"):
        open_data(config_of(tmp_path, root=str(root)), progress=False)
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4 and then nothing")
    with pytest.raises(UserError, match="cannot be read as a zip or tar"):
        open_data(config_of(tmp_path, root=str(tmp_path / "broken.zip")), progress=False)


def test_an_archive_equals_its_folder(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    archive = shutil.make_archive(str(tmp_path / "tree"), "zip", tmp_path / "tree")
    folder, zipped = (
        open_data(config_of(tmp_path, root=root), progress=False) for root in (str(tmp_path / "tree"), archive)
    )
    assert folder.manifest["arrays"] == zipped.manifest["arrays"] and folder.key == zipped.key


def test_the_manifest_says_what_is_in_it(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    data: Packed = open_data(config_of(tmp_path), progress=False)
    manifest = json.loads((data.folder / "manifest.json").read_text())
    assert manifest["source"]["root"] == str(tmp_path / "tree") and manifest["source"]["split"].startswith("drawn: 0.1")
    assert set(manifest["arrays"]) == {path.name for path in data.folder.glob("*.npy")}
    assert data.folder == packed_folder(config_of(tmp_path))
