"""Boxes of every data set, as they are written down and as they lie in the packed images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import data_config as config_of
from conftest import find_problems
from PIL import Image

from zfrepro.boxes import decode, encode
from zfrepro.data import Packed, annotations, open_data
from zfrepro.data.annotations import folder_boxes
from zfrepro.data.imagenet import devkit_synsets, kaggle_rows, torchvision_meta
from zfrepro.data.rescaling import draw_places, read_crops, resample, shapes_of
from zfrepro.errors import UserError


def save(path: Path, box: tuple[int, int, int, int] | None = None, size: tuple[int, int] = (20, 18)) -> None:
    """A black picture, white in the half-open box."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size)
    if box:
        image.paste((255, 255, 255), box)
    image.save(path.with_suffix(".png"))
    path.with_suffix(".png").rename(path)


def opened(tmp_path: Path, name: str, root: Path, **changes: object) -> Packed:
    return open_data(config_of(tmp_path, name, root, **changes), progress=False)


def boxes_of(data: Packed) -> dict[str, list[tuple[list[float], int]]]:
    """By file: corners and labels, for both splits."""
    found = {}
    for split in (data.train, data.val):
        assert split.boxes is not None
        for row, name in enumerate(split.files):
            corners, labels = split.boxes[row]
            found[name] = list(zip(corners.round(3).tolist(), labels.tolist(), strict=True))
    return found


# ------------------------------------------------------------------------------------------------------ a user's folder


def pets(tmp_path: Path, lines: list[str], mark: str = "", separator: str = ",") -> Path:
    for name in ("cat", "dog"):
        for n in range(3):
            save(tmp_path / "pets" / name / f"{n}.png", size=(40, 20) if name == "dog" else (20, 30))
    text = "\n".join(["image,left,top,right,bottom,class", *lines])
    (tmp_path / "pets" / "boxes.csv").write_text(mark + text.replace(",", separator), encoding="utf-8", newline="\r\n")
    return tmp_path / "pets"


def test_a_folder_with_boxes(tmp_path: Path) -> None:
    lines = ["cat/0.png,5,10,15,20,", "cat\\0.png,0,0,20,30,dog", "dog/1.png,10,0,30,20,", "dog/2.png,0,0,5,5,"]
    root = pets(tmp_path, lines, "\ufeff", ";")
    whole = boxes_of(opened(tmp_path, "folder", root, fit="whole"))  # 16 x 24 and 32 x 16
    assert whole["cat/0.png"] == [([4, 8, 12, 16], 0), ([0, 0, 16, 24], 1)]
    assert whole["dog/1.png"] == [([8, 0, 24, 16], 1)] and whole["dog/2.png"] == [([0, 0, 4, 4], 1)]
    assert whole["cat/1.png"] == whole["dog/0.png"] == []
    square = boxes_of(opened(tmp_path, "folder", root))  # the middle: 4 rows, 8 columns less on either side
    assert square["cat/0.png"] == [([4, 4, 12, 12], 0), ([0, 0, 16, 16], 1)]
    assert square["dog/1.png"] == [([0, 0, 16, 16], 1)] and square["dog/2.png"] == []  # nothing of it is left
    without = pets(tmp_path / "other", [])
    (without / "boxes.csv").unlink()
    data = opened(tmp_path, "folder", without)
    assert data.train.boxes is None and data.key != opened(tmp_path, "folder", root).key


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("cat/9.png,1,1,5,5,", "no image cat/9.png"),
        ("cat/0.png,1,1,25,5,", "leaves its image cat/0.png, which has 20 x 30 pixels"),
        ("cat/0.png,-1,1,5,5,", "leaves its image"),
        ("cat/0.png,5,1,1,5,", "5,1,1,5 has no area, or its corners are swapped"),
        ("cat/0.png,1,1,1,5,", "has no area"),
        ("cat/0.png,1,1,5,x,", "must be numbers"),
        ("cat/0.png,0.1,0.1,0.9,0.75,", "0.1,0.1,0.9,0.75 are shares of the picture"),
        ("cat/0.png,1,1,5", "not as many values"),
        ("cat/0.png,1,5,1,5,9,5,9,5", "not as many values"),
        ("cat/0.png,1,1,5,5,cow", "no class cow"),
        ("cat/0.png,1.0,1,5,5,", "the box 1,1,5,5 of cat/0.png stands there twice"),
    ],
)
def test_mistakes_in_boxes_csv(tmp_path: Path, line: str, says: str) -> None:
    root = pets(tmp_path, ["cat/0.png,1,1,5,5,", line])
    (problem,) = find_problems(config_of(tmp_path, "folder", root))
    assert says in problem and "boxes.csv, line 3" in problem and "\n" not in problem
    with pytest.raises(UserError):
        opened(tmp_path, "folder", root)


def test_boxes_are_counted_with_the_picture_upright(tmp_path: Path) -> None:
    root = pets(tmp_path, ["cat/0.png,10,0,20,20,"])
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.new("RGB", (20, 40))  # upright: 40 x 20, white at x in [10, 20)
    turned.paste((255, 255, 255), (0, 20, 20, 30))
    turned.save(root / "cat" / "0.png", exif=exif)
    data = opened(tmp_path, "folder", root, fit="whole")
    split = data.train if "cat/0.png" in list(data.train.files) else data.val
    row = list(split.files).index("cat/0.png")
    assert split.boxes is not None and split.boxes[row][0].tolist() == [[8, 0, 16, 16]]
    assert split.images[row].shape == (16, 32, 3)
    assert (split.images[row][:, 9:15] == 255).all() and (split.images[row][:, :7] == 0).all()


# ------------------------------------------------------------------------------------------------- official data sets


def tiny_imagenet(root: Path) -> Path:
    for wnid in ("n01", "n02"):
        for n in range(2):
            save(root / "train" / wnid / "images" / f"{wnid}_{n}.JPEG", size=(16, 16))
        lines = [f"{wnid}_0.JPEG\t2\t3\t5\t15", f"{wnid}_1.JPEG\t7\t0\t7\t9"]  # one pixel wide
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("\n".join(lines) + "\n")
    save(root / "val" / "images" / "val_0.JPEG", size=(16, 16))
    (root / "wnids.txt").write_text("n01\nn02")
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t15\t15\n")
    return root


def test_tiny_imagenet_corners_are_inclusive(tmp_path: Path) -> None:
    found = boxes_of(opened(tmp_path, "tiny_imagenet", tiny_imagenet(tmp_path / "tiny")))
    assert found["train/n01/images/n01_0.JPEG"] == [([2, 3, 6, 16], 0)]
    assert found["train/n02/images/n02_1.JPEG"] == [([7, 0, 8, 10], 1)]
    assert found["val/images/val_0.JPEG"] == [([0, 0, 16, 16], 1)]


def test_another_label_in_a_list_is_other_data(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path / "tiny")
    for table in root.glob("train/*/*_boxes.txt"):
        table.unlink()
    annotations = root / "val" / "val_annotations.txt"
    annotations.write_text("val_0.JPEG\tn02\n")  # a list of classes alone
    before = opened(tmp_path, "tiny_imagenet", root)
    assert before.val.boxes is None
    annotations.write_text(annotations.read_text().replace("n02", "n01"))
    after = opened(tmp_path, "tiny_imagenet", root)
    assert after.key != before.key and after.val.labels.tolist() == [0] and before.val.labels.tolist() == [1]


def test_a_picture_s_width_is_rounded_and_its_boxes_follow(tmp_path: Path) -> None:
    """37 x 20 becomes 29 x 16: not quite 0.8 across."""
    root = pets(tmp_path, ["cat/0.png,0,0,37,20,"])
    save(root / "cat" / "0.png", size=(37, 20))
    assert boxes_of(opened(tmp_path, "folder", root, fit="whole"))["cat/0.png"] == [([0, 0, 29, 16], 0)]
    (root / "boxes.csv").write_text("image,left,top,right,bottom\ncat/0.png,18.5,5,37,20\n")
    assert boxes_of(opened(tmp_path, "folder", root, fit="whole"))["cat/0.png"] == [([14.5, 4, 29, 16], 0)]


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("train/n01/n01_boxes.txt", "n01_0.JPEG\t2\t3\t5", "n01_boxes.txt, line 1: not a file and a box"),
        ("train/n01/n01_boxes.txt", "n01_0.JPEG\t2\t3\t1\t9", "corners are swapped"),
        ("val/val_annotations.txt", "val_0.JPEG\tn02\t0\t0\t16\t15", "leaves its image val/images/val_0.JPEG"),
        ("val/val_annotations.txt", "val_0.JPEG\tn02\t0\t0\t", "not a file and a box"),
    ],
)
def test_tiny_imagenet_cut_off_or_wrong(tmp_path: Path, file: str, text: str, says: str) -> None:
    root = tiny_imagenet(tmp_path / "tiny")
    (root / file).write_text(text)
    (problem,) = find_problems(config_of(tmp_path, "tiny_imagenet", root))
    assert says in problem and file.rsplit("/", 1)[1] in problem


def thing(name: str, box: tuple[float, ...], more: str = "") -> str:
    tags = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box))
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    return f"<object><name>{name}</name>{more}<bndbox>{tags}</bndbox>{part}</object>"


def annotate(path: Path, *things: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation>{''.join(things)}</annotation>")


def voc(root: Path, year: int, sets: dict[str, str], **annotations: tuple[str, ...]) -> Path:
    base = root / "VOCdevkit" / f"VOC{year}"
    for stem, things in annotations.items():
        save(base / "JPEGImages" / f"{stem}.jpg", size=(32, 16))
        annotate(base / "Annotations" / f"{stem}.xml", *things)
    for name, text in sets.items():
        path = base / "ImageSets" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return base


@pytest.mark.parametrize("year", [2007, 2012])
def test_voc_counts_pixels_from_one(tmp_path: Path, year: int) -> None:
    one = (thing("dog", (1, 1, 32, 16)), thing("person", (5, 3.5, 8, 10), "<difficult>1</difficult>"))
    two, three = (thing("cat", (2, 2, 2, 2)),), (thing("cat", (1, 1, 4, 4)),)
    sets = {f"Main/{name}": text for name, text in (("train", "a"), ("val", "b"), ("trainval", "a\nb"), ("test", "c"))}
    voc(tmp_path, year, sets, a=one, b=two, c=three)
    data = opened(tmp_path, f"voc{year}", tmp_path, fit="whole")
    found = boxes_of(data)
    assert found["JPEGImages/a.jpg"] == [([0, 0, 32, 16], 11), ([4, 2.5, 8, 10], 14)]
    assert found["JPEGImages/b.jpg"] == [([1, 1, 2, 2], 7)]
    assert len(data.train) == {2007: 2, 2012: 1}[year]
    assert list(data.val.files) == [{2007: "JPEGImages/c.jpg", 2012: "JPEGImages/b.jpg"}[year]]
    base = tmp_path / "VOCdevkit" / f"VOC{year}"
    (base / "Annotations" / "a.xml").write_text("<annotation><object><name>dog</na")
    assert "a.xml: no VOC annotation" in find_problems(config_of(tmp_path, f"voc{year}", tmp_path))[0]
    annotate(base / "Annotations" / "a.xml", thing("dog", (9, 9, 3, 12)))
    assert "corners are swapped" in find_problems(config_of(tmp_path, f"voc{year}", tmp_path))[0]


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ((1, 1, 34, 16), "1,1,34,16 leaves its image JPEGImages/a.jpg, which has 32 x 16 pixels"),
        ((1, -2, 32, 16), "1,-2,32,16 leaves its image"),
        ((40, 1, 50, 16), "40,1,50,16 lies outside its image"),
        ((33, 1, 33, 16), "33,1,33,16 lies outside its image"),
        ((9, 9, 3, 12), "9,9,3,12 has no area, or its corners are swapped"),
        ((9, 9, 12, 8), "9,9,12,8 has no area"),
        ((9, 9, 12), "has no area"),
    ],
)
@pytest.mark.parametrize("name", ["voc2007", "voc2012", "voc2012_actions"])
def test_voc_boxes_that_are_none(tmp_path: Path, name: str, box: tuple[float, ...], says: str) -> None:
    running = "<actions><running>1</running></actions>"
    # counted from 0, by one too far
    sound, wrong = thing("person", (0, 0, 33, 17), running), thing("person", box, running)
    names = ("train", "val", "trainval", "test")
    sets = {f"Main/{split}": "a" for split in names} | {f"Action/{split}": "a 1\na 2\n" for split in names}
    base = voc(tmp_path, 2007 if name == "voc2007" else 2012, sets, a=(sound, sound))
    found = boxes_of(opened(tmp_path, name, tmp_path, fit="whole"))["JPEGImages/a.jpg"]
    assert found[0] == ([0, 0, 32, 16], 6 if name == "voc2012_actions" else 14)
    annotate(base / "Annotations" / "a.xml", sound, wrong)
    (problem,) = find_problems(config_of(tmp_path, name, tmp_path))
    assert says in problem and "a.xml: " in problem and "take it out" in problem and "\n" not in problem


def test_voc_2007_without_its_test_images(tmp_path: Path) -> None:
    sets = {"Main/train": "a", "Main/val": "b", "Main/trainval": "a\nb"}
    voc(tmp_path, 2007, sets, a=(thing("dog", (1, 1, 2, 2)),), b=(thing("cat", (1, 1, 2, 2)),))
    data = opened(tmp_path, "voc2007", tmp_path)
    assert (len(data.train), len(data.val)) == (1, 1) and "not here" in data.manifest["source"]["val"]


def test_actions_have_a_row_for_each_person(tmp_path: Path) -> None:
    running, both = (
        "<actions><running>1</running></actions>",
        "<actions><reading>1</reading><walking>1</walking></actions>",
    )
    people = (
        thing("person", (1, 1, 8, 8), running),
        thing("chair", (1, 1, 3, 3)),
        thing("person", (9, 1, 32, 16), both),
    )
    sets = {"Action/train": "a  1\na  3\n", "Action/val": "b 1\n"}
    base = voc(tmp_path, 2012, sets, a=people, b=(thing("person", (2, 2, 3, 3), running),))
    data = opened(tmp_path, "voc2012_actions", tmp_path, fit="whole")
    assert data.num_classes == 11 and list(data.train.files) == ["JPEGImages/a.jpg"] * 2
    assert data.train.boxes is not None and data.train.multi is not None
    assert data.train.boxes.corners.tolist() == [[0, 0, 8, 8], [8, 0, 32, 16]]
    marked = [{data.class_names[c] for c in np.flatnonzero(row)} for row in data.train.multi]
    assert marked == [{"running"}, {"reading", "walking"}]
    (base / "ImageSets" / "Action" / "train.txt").write_text("a 2\n")
    assert "no person number 2" in find_problems(config_of(tmp_path, "voc2012_actions", tmp_path))[0]


def test_a_picture_of_many_people_is_opened_once_for_their_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = "<actions><running>1</running></actions>"
    crowd = tuple(thing("person", (n, 1, n + 3, 8), act) for n in range(1, 9))
    sets = {"Action/train": "".join(f"a {n}\n" for n in range(1, 9)), "Action/val": "b 1\n"}
    voc(tmp_path, 2012, sets, a=crowd, b=crowd[:1])
    opened_files: list[Path] = []
    size = annotations.picture_size
    monkeypatch.setattr(annotations, "picture_size", lambda path: (opened_files.append(path), size(path))[1])
    assert not find_problems(config_of(tmp_path, "voc2012_actions", tmp_path))
    assert [path.name for path in opened_files] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("form", ["tables", "xml"])
def test_imagenet_boxes(tmp_path: Path, form: str) -> None:
    base = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    for wnid in ("n01", "n02"):
        for n in range(2):
            save(base / "train" / wnid / f"{wnid}_{n}.JPEG", size=(32, 16))
    for n in (1, 2):
        save(base / "val" / f"ILSVRC2012_val_{n}.JPEG", size=(32, 16))
    header = "ImageId,PredictionString\n"
    truth = "ILSVRC2012_val_1,n02 0 0 32 16 n02 1 1 2 3 \nILSVRC2012_val_2,n01 4 4 8 8\n"
    (tmp_path / "LOC_val_solution.csv").write_text(header + truth)
    if form == "tables":
        (tmp_path / "LOC_train_solution.csv").write_text(header + "n01_1,n01 2 2 4 4\n")
    else:
        folder = tmp_path / "ILSVRC" / "Annotations" / "CLS-LOC"
        annotate(folder / "train" / "n01" / "n01_1.xml", thing("n01", (2, 2, 4, 4)), thing("n77", (1, 1, 2, 2)))
    found = boxes_of(opened(tmp_path, "imagenet", tmp_path, fit="whole"))
    assert found["train/n01/n01_1.JPEG"] == [([2, 2, 4, 4], 0)] and found["train/n02/n02_0.JPEG"] == []
    assert found["val/ILSVRC2012_val_1.JPEG"] == [([0, 0, 32, 16], 1), ([1, 1, 2, 3], 1)]
    assert found["val/ILSVRC2012_val_2.JPEG"] == [([4, 4, 8, 8], 0)]
    (tmp_path / "LOC_val_solution.csv").write_text(header + truth[:-4])
    assert "not five fields a box" in find_problems(config_of(tmp_path, "imagenet", tmp_path))[0]


WRONG = {
    (0, 0, 34, 16): "0,0,34,16 leaves its image train/n01/n01_0.JPEG, which has 32 x 16 pixels",
    (40, 0, 50, 9): "40,0,50,9 lies outside its image",
    (5, 1, 1, 9): "5,1,1,9 has no area, or its corners are swapped",
    (5, 9, 9, 9): "5,9,9,9 has no area",
}


@pytest.mark.parametrize("box", WRONG)
@pytest.mark.parametrize("form", ["tables", "xml"])
def test_imagenet_boxes_that_are_none(
    tmp_path: Path, form: str, box: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Alone they are refused; one among many is a slip of the published ones, which is told."""
    for name in ("train/n01/n01_0", "train/n02/n02_0", "val/n01/v_1", "val/n02/v_2"):
        save(tmp_path / f"{name}.JPEG", size=(32, 16))
    xml = tmp_path / "Annotations" / "CLS-LOC" / "train" / "n01" / "n01_0.xml"
    where = str(xml) if form == "xml" else f"{tmp_path / 'LOC_train_solution.csv'}, n01_0"

    def write(*boxes: tuple[int, ...]) -> None:
        if form == "xml":
            annotate(xml, *(thing("n01", one) for one in boxes))
        else:
            fields = " ".join(" ".join(map(str, ("n01", *one))) for one in boxes)
            xml.parents[4].joinpath("LOC_train_solution.csv").write_text(f"ImageId,PredictionString\nn01_0,{fields}\n")

    write((0, 0, 33, 16), box)
    (problem,) = find_problems(config_of(tmp_path, "imagenet", tmp_path))
    assert f"{where}: the box {WRONG[box]}" in problem and "fetch the annotations again" in problem
    write(*[(0, 0, 33, 16)] * 19, box)
    found = boxes_of(opened(tmp_path, "imagenet", tmp_path, fit="whole"))["train/n01/n01_0.JPEG"]
    assert found == [([0, 0, 32, 16], 0)] * (20 if "leaves" in WRONG[box] else 19)
    assert f"1 boxes are cut or left out, the first: {where}: the box {WRONG[box]}" in capsys.readouterr().err


def test_imagenets_table_with_words_for_corners(tmp_path: Path) -> None:
    for name in ("train/n01/n01_0", "train/n02/n02_0", "val/n01/v_1", "val/n02/v_2"):
        save(tmp_path / f"{name}.JPEG", size=(32, 16))
    (tmp_path / "LOC_train_solution.csv").write_text("ImageId,PredictionString\nn01_0,n01 0 0 x 16\n")
    (problem,) = find_problems(config_of(tmp_path, "imagenet", tmp_path))
    assert "LOC_train_solution.csv, n01_0: 0 0 x 16 are no corners of a box; fetch the file again" in problem


def test_caltech_with_its_background(tmp_path: Path) -> None:
    for name in ("BACKGROUND_Google", "ant", "bee"):
        for n in range(1, 4):
            save(tmp_path / "101_ObjectCategories" / name / f"image_{n:04d}.jpg")
    assert opened(tmp_path, "caltech101", tmp_path).class_ids == ("ant", "bee")
    data = opened(tmp_path, "caltech101", tmp_path, background=True)
    assert data.class_ids == ("BACKGROUND_Google", "ant", "bee") and "left_out" not in data.manifest["source"]


# ------------------------------------------------------------------------------------------- through crops and mirrors


@pytest.mark.parametrize("fit", ["square", "whole"])
def test_a_box_lies_where_its_object_is_in_every_crop(tmp_path: Path, fit: str) -> None:
    """White objects on black: the crop's white pixels are inside the encoded box, and reach its edges."""
    objects = {"cat/0.png": (6, 4, 30, 28), "dog/0.png": (20, 10, 60, 34)}
    for name, box in objects.items():
        save(tmp_path / "pets" / name, box, size=(64, 48) if name < "d" else (70, 40))
        save(tmp_path / "pets" / name.replace("0", "1"), box, size=(64, 48) if name < "d" else (70, 40))
    lines = [f"{name.replace('0', n)},{','.join(map(str, box))}" for name, box in objects.items() for n in ("0", "1")]
    (tmp_path / "pets" / "boxes.csv").write_text("\n".join(["image,left,top,right,bottom", *lines]))
    data = opened(tmp_path, "folder", tmp_path / "pets", fit=fit, size=40)
    split, crop = data.train, 32
    assert split.boxes is not None
    rows = np.tile(np.arange(len(split)), 20)
    shapes = shapes_of(split.images, rows)
    places = draw_places(shapes, (32, 60), crop, torch.Generator().manual_seed(0))
    crops = resample(read_crops(split.images, rows, places, crop), torch.zeros(3))[:, 0]
    ratio = places.side.double() / torch.from_numpy(shapes.min(1))
    corner = torch.stack([places.x, places.y], 1)
    seen = torch.cat([corner, corner + crop], 1) / ratio[:, None]  # the crop, in pixels of the packed image
    boxes = torch.from_numpy(split.boxes.take(rows).corners).double()
    encoded = encode(boxes, seen, places.flip)
    assert torch.allclose(decode(encode(boxes, seen), seen), boxes)
    centre, extent = encoded[:, :2] * crop, encoded[:, 2:] * crop
    low, high = (centre - extent / 2).clamp(0, crop), (centre + extent / 2).clamp(0, crop)
    for b in range(len(rows)):
        for axis in (0, 1):
            white = torch.nonzero((crops[b] > 127).any(axis))[:, 0]  # axis 0 leaves columns: x
            if len(white):
                assert abs(int(white[0]) - low[b, axis]) <= 1 and abs(int(white[-1]) + 1 - high[b, axis]) <= 1


def test_the_class_of_a_box_is_the_one_that_is_written(tmp_path: Path) -> None:
    ids = ["A", "a", "b_c"]
    table = tmp_path / "boxes.csv"

    def labels(*given: str) -> list[int | None]:
        rows = "".join(f"{n}.png,0,0,1,1,{name}\n" for n, name in enumerate(given))
        table.write_text("image,left,top,right,bottom,class\n" + rows, encoding="utf-8")
        return [boxes[0].label for boxes in folder_boxes(tmp_path, ids, ["A", "a", "b c"]).values()]

    assert labels("A", "a", "b c", "B_C", "") == [0, 1, 2, 2, None]
    with pytest.raises(UserError, match=r"boxes\.csv, line 2: there is no class d$"):
        labels("d")
    with pytest.raises(UserError, match="there is no class x, which may be any of X_, _X"):
        ids[:] = ["X_", "_X"]
        table.write_text("image,left,top,right,bottom,class\n0.png,0,0,1,1,x\n", encoding="utf-8")
        folder_boxes(tmp_path, ids, ["X ", " X"])


def test_a_table_may_write_accents_otherwise_than_the_disk(tmp_path: Path) -> None:
    """As where pictures come from a Mac and the table from elsewhere."""
    for name in ("e\u0301te\u0301", "hiver"):
        for n in range(3):
            save(tmp_path / "pets" / name / f"{n}.png")
    line = "\u00e9t\u00e9/0.png,1,2,9,8\n"
    (tmp_path / "pets" / "boxes.csv").write_text(f"image,left,top,right,bottom\n{line}", encoding="utf-8")
    found = boxes_of(opened(tmp_path, "folder", tmp_path / "pets"))
    assert [name for name, boxes in found.items() if boxes] == ["e\u0301te\u0301/0.png"]


def test_damaged_files_of_imagenet_are_one_line(tmp_path: Path) -> None:
    for name, read in (("meta.mat", devkit_synsets), ("meta.bin", torchvision_meta)):
        for content in (b"", b"<html>", b"MATLAB 5.0" + bytes(200), b"PK\x03\x04"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(UserError, match=f"{name}: damaged, or not the devkit's .*; fetch it again"):
                read(tmp_path / name)
    table = tmp_path / "LOC_val_solution.csv"
    for text in (
        "a,b\n1,2\n",
        "ImageId,PredictionString\nx\n",
        "ImageId,PredictionString\nx," + "n0 1 2 3 4 " * 20_000,
    ):
        table.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="not Kaggle's table"):
            list(kaggle_rows(table))
