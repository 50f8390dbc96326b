"""Every data set in its official layout, built tiny: classes, labels and splits; and what is said of a missing one."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import data_config as config_of
from conftest import find_problems
from PIL import Image

from zfrepro.data import Packed, locating, open_data, packed_folder
from zfrepro.errors import UserError, line_of
from zfrepro.options.shared import DataConfig


def save(path: Path, shade: int) -> None:
    """A plain picture of one shade, so that a row is recognised by its colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 18), (shade, shade, shade)).save(path, quality=95)


def opened(tmp_path: Path, name: str, root: Path, **changes: object) -> Packed:
    config = config_of(tmp_path, name, root, **changes)
    assert find_problems(config) == []
    return open_data(config, progress=False)


def shades(images: np.ndarray) -> list[int]:
    return [int(image.mean().round()) for image in images]


# ------------------------------------------------------------------------------------------------------- tiny ImageNet


def tiny_imagenet(root: Path) -> Path:
    """Three classes; words.txt lists others as well, as the official one does; wnids.txt is not sorted."""
    wnids = ["n03", "n01", "n02"]
    for label, wnid in enumerate(wnids):
        for n in range(4):
            save(root / "train" / wnid / "images" / f"{wnid}_{n}.JPEG", 20 * label + 10)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t9\t9\n")
        save(root / "val" / "images" / f"val_{label}.JPEG", 20 * label + 10)
    (root / "wnids.txt").write_text("\n".join(wnids))
    words = "n00\tentity\nn01\tgoldfish, Carassius\nn02\tpay-phone, pay-station\nn03\thog, pig\n"
    (root / "words.txt").write_text(words)
    annotations = "".join(f"val_{i}.JPEG\t{wnids[i]}\t0\t0\t9\t9\n" for i in (2, 0, 1))
    (root / "val" / "val_annotations.txt").write_text(annotations)
    save(root / "test" / "images" / "test_0.JPEG", 255)
    return root


def test_tiny_imagenet(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path / "sets" / "tiny-imagenet-200")
    data = opened(tmp_path, "tiny_imagenet", root)
    assert data.class_names == ("hog", "goldfish", "pay-phone") and data.class_ids == ("n03", "n01", "n02")
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.val.labels.tolist() == [2, 0, 1] and shades(data.val.images) == [50, 10, 30]
    assert data.val.files[0] == "val/images/val_2.JPEG"
    assert opened(tmp_path, "tiny_imagenet", root.parent).key == data.key  # the parent serves as well
    archive = Path(shutil.make_archive(str(tmp_path / "t"), "zip", root.parent, root.name))
    zipped = opened(tmp_path, "tiny_imagenet", archive)
    assert zipped.class_ids == data.class_ids and np.array_equal(zipped.train.images, data.train.images)


def test_a_tiny_imagenet_that_is_not_whole(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path / "tiny")
    shutil.rmtree(root / "train" / "n01")
    assert "extract the archive again" in find_problems(config_of(tmp_path, "tiny_imagenet", root))[0]
    shutil.copytree(root, tmp_path / "tiny2")
    with pytest.raises(UserError, match="holds several"):
        open_data(config_of(tmp_path, "tiny_imagenet", tmp_path), progress=False)


# ------------------------------------------------------------------------------------------------ CIFAR-10, Imagenette


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zfrepro.vision import torchvision

    base = tmp_path / "cifar" / "cifar-10-batches-py"
    base.mkdir(parents=True)
    names = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
    data = {name: np.full((2, 3072), 10 * i, np.uint8) for i, name in enumerate(names)}
    data["data_batch_1"][:] = np.repeat([200, 100, 50], 1024), np.arange(3072) % 256
    batches = {name: {"labels": [i % 10, 3], "data": data[name]} for i, name in enumerate(names)}
    for name, content in {**batches, "batches.meta": {"label_names": list("abcdefghij")}}.items():
        (base / name).write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="not the official one"):  # nothing is unpickled unless its MD5 is known
        open_data(config_of(tmp_path, "cifar10", base.parent), progress=False)
    md5 = {name: hashlib.md5((base / name).read_bytes()).hexdigest() for name in [*names, "batches.meta"]}
    cifar = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", [[name, md5[name]] for name in names[:5]])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(cifar, "meta", cifar.meta | {"md5": md5["batches.meta"]})
    packed = opened(tmp_path, "cifar10", base.parent, size=32)
    assert len(packed.train) == 10 and len(packed.val) == 2 and packed.class_names == tuple("abcdefghij")
    assert packed.train.images[0, 5, 9].tolist() == [200, 100, 50] and packed.train.labels[:4].tolist() == [0, 3, 1, 3]
    assert packed.train.images[1, 2, 4, 0] == 2 * 32 + 4  # row-major, channels apart
    assert opened(tmp_path, "cifar10", base, size=16).train.images.shape == (10, 16, 16, 3)


def test_imagenette(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for label, wnid in enumerate(("n01440764", "n03888257")):
            save(tmp_path / "imagenette2-320" / split / wnid / f"{wnid}_1.JPEG", 100 * label + 20)
    data = opened(tmp_path, "imagenette", tmp_path)
    assert data.class_names == ("tench", "parachute") and shades(data.val.images) == [20, 120]


# ------------------------------------------------------------------------------------------------------------- Caltech


def test_caltech101_leaves_the_background_out(tmp_path: Path) -> None:
    base = tmp_path / "caltech101" / "101_ObjectCategories"
    for label, name in enumerate(("BACKGROUND_Google", "Faces", "Faces_easy", "water_lilly")):
        for n in range(1, 11):
            save(base / name / f"image_{n:04d}.jpg", 50 * label)
    Image.new("L", (30, 20), 7).save(base / "Faces" / "image_0011.jpg")
    (base / "Faces" / "Thumbs.db").write_text("no picture")
    data = opened(tmp_path, "caltech101", base.parent, val_fraction=0.3)
    assert data.class_names == ("Faces", "Faces easy", "water lilly")
    assert "BACKGROUND" in data.manifest["source"]["left_out"]
    assert np.bincount(data.val.labels).tolist() == [3, 3, 3] and len(data.train) == 22
    assert {opened(tmp_path, "caltech101", root, val_fraction=0.3).key for root in (base, tmp_path)} == {data.key}
    other = opened(tmp_path, "caltech101", base, val_fraction=0.3, split_seed=1)
    assert set(other.val.files) != set(data.val.files)


def test_caltech256_leaves_the_clutter_out(tmp_path: Path) -> None:
    base = tmp_path / "256_ObjectCategories"
    for number, name in ((1, "ak47"), (2, "american-flag"), (257, "clutter")):
        for n in range(1, 6):
            save(base / f"{number:03d}.{name}" / f"{number:03d}_{n:04d}.jpg", 60)
    (base / "002.american-flag" / "RENAME2").write_text("a stray file of the archive")
    data = opened(tmp_path, "caltech256", tmp_path)
    assert data.class_names == ("ak47", "american flag") and data.class_ids[0] == "001.ak47"
    assert "257.clutter" in data.manifest["source"]["left_out"] and len(data.train) + len(data.val) == 10


# ----------------------------------------------------------------------------------------------------------------- VOC


def annotate(path: Path, *things: tuple[str, int | None]) -> None:
    """An annotation in VOC's XML; parts of objects (a person's head) have names too, and are no objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    marks = ("" if d is None else f"<difficult>{d}</difficult>" for _, d in things)
    objects = (
        f"<object><name>{name}</name>{mark}<part><name>head</name></part></object>"
        for (name, _), mark in zip(things, marks, strict=True)
    )
    path.write_text(f"<annotation><filename>x</filename>{''.join(objects)}</annotation>")


def test_voc2012(tmp_path: Path) -> None:
    base = tmp_path / "VOCdevkit" / "VOC2012"
    contents: dict[str, tuple[tuple[str, int | None], ...]] = {
        "2008_1": (("dog", 0), ("person", 1), ("person", 0)),  # once easy is present, in whichever order
        "2008_2": (("cat", 0), ("cat", 1), ("aeroplane", 1)),
        "2008_3": (("tvmonitor", 1),),
        "2008_4": (("sheep", None), ("bus", 0)),
    }
    for shade, (stem, things) in enumerate(contents.items()):
        save(base / "JPEGImages" / f"{stem}.jpg", 40 * shade)
        annotate(base / "Annotations" / f"{stem}.xml", *things)
    (base / "ImageSets" / "Main").mkdir(parents=True)
    (base / "ImageSets" / "Main" / "train.txt").write_text("2008_2\n2008_1\n2008_3\n")
    (base / "ImageSets" / "Main" / "val.txt").write_text("2008_4\n")
    data = opened(tmp_path, "voc2012", tmp_path)
    assert data.num_classes == 20 and data.class_names[11] == "dog"
    assert data.train.multi is not None and data.val.multi is not None
    found = [{data.class_names[c]: int(row[c]) for c in np.flatnonzero(row)} for row in data.train.multi]
    assert found == [{"aeroplane": -1, "cat": 1}, {"dog": 1, "person": 1}, {"tvmonitor": -1}]
    assert [data.class_names[label] for label in data.train.labels] == ["cat", "dog", "tvmonitor"]
    assert shades(data.train.images) == [40, 0, 80] and data.val.multi.sum() == 2
    keys = {opened(tmp_path, "voc2012", root).key for root in (base, base.parent)}
    assert keys == {data.key}
    (base / "Annotations" / "2008_1.xml").write_text("<annotation><object><name>zebra</name></object></annotation>")
    assert "2008_1.xml" in find_problems(config_of(tmp_path, "voc2012", base))[0]


# ------------------------------------------------------------------------------------------------------------ ImageNet


def imagenet_train(root: Path) -> Path:
    for label, wnid in enumerate(("n01", "n02")):
        for n in range(2):
            save(root / "train" / wnid / f"{wnid}_{n}.JPEG", 90 * label)
    return root


def test_imagenet_with_class_folders(tmp_path: Path) -> None:
    root = imagenet_train(tmp_path / "ilsvrc")
    save(root / "val" / "n02" / "ILSVRC2012_val_00000001.JPEG", 90)
    save(root / "val" / "n01" / "ILSVRC2012_val_00000002.JPEG", 0)
    data = opened(tmp_path, "imagenet", root)
    assert data.class_names == ("n01", "n02") and data.val.labels.tolist() == [0, 1]


@pytest.mark.parametrize("truth", ["devkit", "kaggle", "torchvision"])
def test_imagenet_with_a_flat_validation_folder(tmp_path: Path, truth: str) -> None:
    base = imagenet_train(tmp_path / "ILSVRC" / "Data" / "CLS-LOC")
    for n, shade in enumerate((90, 90, 0), 1):
        save(base / "val" / f"ILSVRC2012_val_{n:08d}.JPEG", shade)
    assert "nothing says which picture is of which class" in find_problems(config_of(tmp_path, "imagenet", tmp_path))[0]
    words = {"n01": "tench, Tinca tinca", "n02": "goldfish"}
    if truth == "kaggle":
        lines = [f"ILSVRC2012_val_{n:08d},{wnid} 1 2 3 4 " for n, wnid in ((3, "n01"), (1, "n02"), (2, "n02"))]
        (tmp_path / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]))
        (tmp_path / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} {name}\n" for wnid, name in words.items()))
    elif truth == "torchvision":
        import torch

        split = {wnid: tuple(text.split(", ")) for wnid, text in words.items()}
        torch.save((split, ["n02", "n02", "n01"]), base / "meta.bin")
    else:
        write_devkit(base / "ILSVRC2012_devkit_t12" / "data", words)
    data = opened(tmp_path, "imagenet", tmp_path)
    assert data.class_names == ("tench", "goldfish")
    assert data.val.labels.tolist() == [1, 1, 0] and shades(data.val.images) == [90, 90, 0]


def test_validation_images_with_other_numbers_are_not_given_the_truth_of_their_place(tmp_path: Path) -> None:
    """Names without the zeros in front stand in another order; a picture that is missing, with a copy in its place, moves all
    that follow."""
    base = imagenet_train(tmp_path / "ILSVRC" / "Data" / "CLS-LOC")
    write_devkit(base / "ILSVRC2012_devkit_t12" / "data", {"n01": "tench", "n02": "goldfish"})
    truth = base / "ILSVRC2012_devkit_t12" / "data" / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("".join(f"{n % 2 + 1}\n" for n in range(12)))
    for n in range(12):
        save(base / "val" / f"val_{n + 1}.JPEG", 90 * (1 - n % 2))
    val = opened(tmp_path, "imagenet", tmp_path).val
    assert shades(val.images) == [90 * label for label in val.labels.tolist()]
    (base / "val" / "val_3.JPEG").rename(base / "val" / "val_4 (copy).JPEG")
    (problem,) = find_problems(config_of(tmp_path, "imagenet", tmp_path))
    assert "its 12 pictures are not numbered from 1 to 12" in problem and "\n" not in problem


def write_devkit(folder: Path, words: dict[str, str]) -> None:
    """meta.mat with two leaves, numbered the other way round, and an inner node; the ground truth in its numbers."""
    import scipy.io

    folder.mkdir(parents=True)
    fields = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "f8")]
    rows = [(1, "n02", words["n02"], "", 0), (2, "n01", words["n01"], "", 0), (3, "n00", "fish", "", 2)]
    scipy.io.savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=fields)})
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n1\n2\n")


# -------------------------------------------------------------------------------------------------------------- folder


def test_folder_with_and_without_splits(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        for label, name in enumerate(("red_fox", "train")):  # a class may be called as a split is
            for n in range(count):
                save(tmp_path / "given" / split / name / f"{n}.jpg", 80 * label)
    given = opened(tmp_path, "folder", tmp_path / "given")
    assert (len(given.train), len(given.val)) == (8, 4) and given.class_names == ("red fox", "train")
    assert shades(given.val.images) == [0, 0, 80, 80]
    drawn = opened(tmp_path, "folder", tmp_path / "given" / "train", val_fraction=0.25)
    assert (len(drawn.train), len(drawn.val)) == (6, 2) and drawn.class_names == given.class_names
    save(tmp_path / "given" / "val" / "wolf" / "0.jpg", 1)
    assert "'wolf' is not in" in find_problems(config_of(tmp_path, "folder", tmp_path / "given"))[0]


def test_a_folder_of_one_class_or_of_no_pictures(tmp_path: Path) -> None:
    save(tmp_path / "one" / "cat" / "1.png", 1)
    assert "at least 2 are needed" in find_problems(config_of(tmp_path, "folder", tmp_path / "one"))[0]
    (tmp_path / "none" / "cat").mkdir(parents=True)
    (tmp_path / "none" / "cat" / "notes.txt").write_text("")
    assert "there are no pictures" in find_problems(config_of(tmp_path, "folder", tmp_path / "none"))[0]


def test_a_class_whose_pictures_lie_deeper(tmp_path: Path) -> None:
    """Silently empty, it would leave one class to tell apart from nothing."""
    for n in range(3):
        save(tmp_path / "cat" / "summer" / f"{n}.png", 1)
        save(tmp_path / "dog" / f"{n}.png", 1)
    assert "no pictures directly in this class folder" in find_problems(config_of(tmp_path, "folder", tmp_path))[0]


def test_no_picture_left_to_validate_on(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        save(tmp_path / name / "1.png", 1)
    assert "no validation picture is left" in find_problems(config_of(tmp_path, "folder", tmp_path))[0]


# ------------------------------------------------------------------------------------------------ what is not there


@pytest.mark.parametrize("name", locating.GET)
def test_a_missing_data_set_is_told_how_to_get(tmp_path: Path, name: str) -> None:
    cases = ((None, "data.root is not given"), (tmp_path / "nowhere", "does not exist"), (tmp_path, "not laid out"))
    for root, why in cases:
        (problem,) = find_problems(config_of(tmp_path, name, root))
        assert why in problem and locating.GET[name] in problem and "\n" not in problem
        with pytest.raises(UserError, match=r"give data\.root="):
            open_data(config_of(tmp_path, name, root), progress=False)
    with pytest.raises(UserError):
        packed_folder(config_of(tmp_path, name, None))


def test_a_failed_download_is_told_how_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zfrepro.vision import torchvision

    def refuse(*_: object, **__: object) -> None:
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr(torchvision.datasets, "VOCDetection", refuse)
    root = tmp_path / "cache" / "downloads" / "voc2012"
    with pytest.raises(UserError, match=r"could not be fetched .*Name or service not known.* put it into") as caught:
        open_data(config_of(tmp_path, "voc2012", None, download=True), progress=False)
    assert str(root) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be fetched for you"):
        open_data(config_of(tmp_path, "imagenet", None, download=True), progress=False)


def test_a_download_is_looked_for_where_it_was_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zfrepro.vision import torchvision

    def fetch(root: str, size: str, download: bool) -> None:
        assert size == "160px" and download
        for split in ("train", "val"):
            for wnid in ("n01440764", "n03888257"):
                save(Path(root) / "imagenette2-160" / split / wnid / "1.JPEG", 30)

    fetch._WNID_TO_CLASS = torchvision.datasets.Imagenette._WNID_TO_CLASS  # type: ignore[attr-defined]
    monkeypatch.setattr(torchvision.datasets, "Imagenette", fetch)
    data = open_data(config_of(tmp_path, "imagenette", None, download=True), progress=False)
    assert len(data.train) == 2
    assert opened(tmp_path, "imagenette", tmp_path / "cache" / "downloads" / "imagenette").key == data.key


def test_every_data_set_has_a_description() -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from zfrepro.options.compose import conf_folder
    from zfrepro.options.declare import check_options
    from zfrepro.options.shared import DATA_SETS

    names = sorted(path.stem for path in (conf_folder() / "data").glob("*.yaml"))
    assert names == sorted([*DATA_SETS, "embedded_target", "embedded_scenes"])
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        for name in names:
            config = OmegaConf.merge(OmegaConf.structured(DataConfig), compose("train", [f"data={name}"]).data)
            typed = OmegaConf.to_object(config)
            assert isinstance(typed, DataConfig) and typed.name == name.split("_ta")[0].split("_sc")[0]
            check_options(typed, "data.")
            assert (conf_folder() / "data" / f"{name}.yaml").read_text().startswith("# ")


# ---------------------------------------------------------------------------------------------- names that look the same

ACCENT, TWO_SIGNS = "\u00e9", "e\u0301"  # the same letter to everybody who looks at it


def test_two_class_folders_that_look_the_same_are_refused(tmp_path: Path) -> None:
    for name in (ACCENT, TWO_SIGNS, "b"):
        save(tmp_path / "pets" / name / "0.png", 9)
    (problem,) = find_problems(config_of(tmp_path, "folder", tmp_path / "pets"))
    assert r"its class folders 'e\u0301' and '\xe9' are both seen as é; put the pictures into one" in problem


@pytest.mark.parametrize(
    ("val", "said"), [(TWO_SIGNS, r"there is '\xe9' for 'e\u0301'"), ("É ", r"'\xe9' for '\xc9 '")]
)
def test_a_class_that_val_spells_otherwise(tmp_path: Path, val: str, said: str) -> None:
    for folder, name in (("train", ACCENT), ("train", "b"), ("val", val), ("val", "b")):
        save(tmp_path / "pets" / folder / name / "0.png", 9)
    (problem,) = find_problems(config_of(tmp_path, "folder", tmp_path / "pets"))
    assert said in problem and problem.endswith("give both one name")


def test_a_link_to_itself_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises((RuntimeError, UserError)) as caught:
        opened(tmp_path, "folder", tmp_path / "loop")
    assert "loop" in (line_of(caught.value) or "")
