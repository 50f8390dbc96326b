"""A run knows its data: it may move, be copied, be deleted once packed; but not change unnoticed."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from conftest import NARROW
from PIL import Image

from zfrepro.data import identity, marks, open_data, open_own, packed_folder, recall, remember
from zfrepro.data.sources import split_by_class
from zfrepro.errors import UserError
from zfrepro.options.identity import decisive
from zfrepro.options.shared import DataConfig

COLOURS = {"cat": (200, 40, 40), "cow": (40, 200, 40), "dog": (40, 40, 200), "ant": (120, 120, 0), "bee": (0, 120, 120)}


def make(folder: Path, counts: dict[str, int], suffix: str = ".bmp") -> Path:
    """Small pictures whose colour tells the class; a little noise, so that no two are alike."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            noise = np.random.default_rng([n, *map(ord, name)]).integers(-30, 30, (20, 24, 3))
            pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{n}{suffix}")
    return folder


def config_of(root: Path, cache: Path, **changes: object) -> DataConfig:
    settings: dict[str, object] = {"name": "folder", "size": 16, "root": str(root), "workers": 1, "cache": str(cache)}
    return DataConfig(**(settings | changes))  # type: ignore[arg-type]


def key_of(root: Path, cache: Path) -> str:
    config = config_of(root, cache)
    return identity.identify(config, root).key


# --------------------------------------------------------------------------------------------------------------- the key


def test_a_moved_or_copied_folder_has_the_same_key_and_is_not_packed_again(tmp_path: Path) -> None:
    pets = make(tmp_path / "j1" / "pets", {"cat": 5, "cow": 5})
    first = open_data(config_of(pets, tmp_path / "cache"), progress=False)
    copy = tmp_path / "elsewhere" / "animals"
    shutil.copytree(pets, copy, copy_function=shutil.copyfile)  # all times are new
    pets.rename(tmp_path / "moved")
    for place in (copy, tmp_path / "moved"):
        assert open_data(config_of(place, tmp_path / "cache"), progress=False).folder == first.folder


def swap_folders(root: Path) -> None:
    (root / "cat").rename(root / "x")
    (root / "cow").rename(root / "cat")
    (root / "x").rename(root / "cow")


def swap_colours(root: Path) -> None:
    for path in root.glob("*/*.bmp"):
        Image.fromarray(np.asarray(Image.open(path))[:, :, ::-1]).save(path)


def touch_the_middle(root: Path) -> None:
    """One byte of a bitmap too large to be read at its ends alone; size and time as they were."""
    path = root / "cat" / "large.bmp"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        file.write(b"\xff")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def rename_one(root: Path) -> None:
    (root / "cat" / "3.bmp").rename(root / "cat" / "33.bmp")


@pytest.mark.parametrize("change", [swap_folders, swap_colours, touch_the_middle, rename_one])
def test_whatever_changes_the_content_changes_the_key(tmp_path: Path, change: Callable[[Path], None]) -> None:
    pets = make(tmp_path / "pets", {"cat": 5, "cow": 5})
    Image.new("RGB", (90, 90)).save(pets / "cat" / "large.bmp")
    before, cache = key_of(pets, tmp_path / "cache"), tmp_path / "cache"
    change(pets)
    assert key_of(pets, cache) != before


def test_colours_swapped_in_photographs_change_the_key(tmp_path: Path) -> None:
    """Files of equal size whose headers agree: the two ends tell them apart."""
    for name, order in (("a", [0, 1, 2]), ("b", [2, 1, 0])):
        pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)[:, :, order]
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "0.png")
    one, other = (marks.mark_files(tmp_path / name, ["0.png"]) for name in ("a", "b"))
    assert one[0] != other[0] and one[1] != other[1]


def test_both_ends_of_a_photograph_are_marked(tmp_path: Path) -> None:
    """Of a large one nothing else is read."""
    path = tmp_path / "0.jpg"
    seen = set()
    for place in (None, 10, 30_000, -1):
        content = bytearray(60_000)
        if place is not None:
            content[place] = 1
        path.write_bytes(content)
        seen.add(marks.mark_files(tmp_path, ["0.jpg"])[0])
    assert len(seen) == 3  # the middle does not show; a real photograph's size or end would change with it


@pytest.mark.parametrize(("form", "all_of_it"), [("BMP", True), ("TIFF", True), ("PPM", True), ("PNG", False)])
def test_of_a_bitmap_with_a_photographs_suffix_all_is_marked(tmp_path: Path, form: str, all_of_it: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(pixels).save(path := tmp_path / "a.jpg", form)
    before, content = list(marks.mark_file(str(path))), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    assert (list(marks.mark_file(str(path))) != before) == all_of_it


def test_marks_are_read_once_until_something_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pets, cache = make(tmp_path / "pets", {"cat": 5, "cow": 5}), tmp_path / "cache"
    monkeypatch.setattr(identity, "SETTLED", 0.0)
    before = key_of(pets, cache)
    with monkeypatch.context() as patch:
        patch.setattr(marks, "mark_file", lambda *_: pytest.fail("read again"))
        assert key_of(pets, cache) == before
    with (pets / "cow" / "2.bmp").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    assert key_of(pets, cache) != before


def test_a_disk_that_fails_once_makes_no_other_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key would be remembered: what is a picture was not to be read when it was made."""
    pets, cache = make(tmp_path / "pets", {"cat": 5, "cow": 5}), tmp_path / "cache"
    monkeypatch.setattr(identity, "SETTLED", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(marks, "open", Mock(side_effect=OSError(errno.EIO, "Input/output error")), raising=False)
        with pytest.raises(OSError, match=r"Input/output error: .*\.bmp"):
            key_of(pets, cache)
    assert key_of(pets, cache) == key_of(pets, tmp_path / "another")


def test_what_is_young_is_not_trusted_to_its_stamp(tmp_path: Path) -> None:
    pets = make(tmp_path / "pets", {"cat": 2, "cow": 2})
    assert identity.stamp_of(pets) is None
    for path in (*pets.glob("*/*"),):
        os.utime(path, (1e9, 1e9))  # an old file: but its inode was changed just now
    assert identity.stamp_of(pets) is None


def test_a_folder_that_holds_our_runs_is_no_data(tmp_path: Path) -> None:
    pets, cache = make(tmp_path / "pets", {"cat": 5, "cow": 5}), tmp_path / "cache"
    before = key_of(pets, cache)
    (pets / "outputs" / "demo" / "train").mkdir(parents=True)
    (pets / "outputs" / "demo" / "train" / "config.yaml").write_text("")
    (pets / ".git").mkdir()
    assert key_of(pets, cache) == before
    assert open_data(config_of(pets, cache), progress=False).class_ids == ("cat", "cow")


# -------------------------------------------------------------------------------------------------------------- the split


def test_another_picture_does_not_draw_the_split_again() -> None:
    files = [f"c{label}/{n}.png" for label in range(4) for n in range(40)]
    labels = np.repeat(np.arange(4), 40)
    before = set(np.array(files)[split_by_class(files, labels, 0.1, 0)])
    assert len(before) == 16
    for extra in range(50):
        more, their = [*files, f"c2/new{extra}.png"], [*labels, 2]
        after = set(np.array(more)[split_by_class(more, np.array(their), 0.1, 0)])
        assert len(before - after) <= 1 and len(after - before) <= 1
        assert after - before <= {f"c2/new{extra}.png"}  # nothing that was trained on is validated


def test_the_split_follows_the_seed_and_leaves_some_of_every_class_on_both_sides() -> None:
    files, labels = [f"a/{n}" for n in range(100)] + ["b/0", "b/1", "c/0"], np.repeat([0, 1, 2], [100, 2, 1])
    chosen = {seed: split_by_class(files, labels, 0.25, seed) for seed in range(3)}
    assert not np.array_equal(chosen[0], chosen[1])
    for rows in chosen.values():
        assert [int(rows[labels == label].sum()) for label in range(3)] == [25, 1, 0]
    assert split_by_class(files, labels, 0.999, 0).sum() == 99 + 1 + 0


# ------------------------------------------------------------------------------------------- what a checkpoint remembers


def test_every_kind_of_change_is_named(tmp_path: Path) -> None:
    pets, cache = make(tmp_path / "pets", {"cat": 10, "cow": 10, "dog": 10}), tmp_path / "cache"
    config = config_of(pets, cache)
    known = recall(remember(open_data(config, progress=False)))
    assert known is not None
    assert open_own(config, known, "r", progress=False).key == known.key

    def said() -> str:
        with pytest.raises(UserError) as caught:
            open_own(config, known, "r", progress=False)
        assert "\n" not in str(caught.value) and "run=r" in str(caught.value) and str(pets) in str(caught.value)
        assert not list(cache.glob(".*.tmp")) and len(list(cache.glob("folder-*/manifest.json"))) == 1  # nothing packed
        return str(caught.value)

    rename_one(pets)
    assert "1 of its pictures have other names, the first: cat/33.bmp" in said()
    (pets / "cat" / "33.bmp").rename(pets / "cat" / "3.bmp")
    assert open_own(config, known, "r", progress=False).key == known.key  # as it was
    swap_folders(pets)
    assert "contents" in said()
    swap_folders(pets)
    make(pets, {"dog": 11})
    assert "class dog had 10 pictures and has 11 now" in said()
    make(pets, {"ant": 10})
    assert "1 class more (ant)" in said()
    shutil.rmtree(pets / "cat")
    assert "1 class missing (cat) and 1 class more (ant)" in said()


def test_the_packed_images_outlive_the_originals(tmp_path: Path) -> None:
    pets, cache = make(tmp_path / "pets", {"cat": 5, "cow": 5}), tmp_path / "cache"
    config = config_of(pets, cache)
    packed = open_data(config, progress=False)
    known = recall(remember(packed))
    shutil.rmtree(pets)
    assert open_own(config, known, "r", progress=False).folder == packed.folder
    (cache / "folder-16px-000000000000").mkdir()
    (cache / "folder-16px-000000000000" / "manifest.json").write_text("[]")  # a damaged neighbour does not matter
    assert open_own(config, known, "r", progress=False).folder == packed.folder
    shutil.rmtree(packed.folder)
    with pytest.raises(UserError, match="does not exist"):
        open_own(config, known, "r", progress=False)


def test_a_run_of_an_earlier_version_keeps_to_what_was_packed_for_it(tmp_path: Path) -> None:
    """Its key knew where the data lay, and its split was drawn in another way."""
    pets, cache = make(tmp_path / "pets", {"cat": 5, "cow": 5}), tmp_path / "cache"
    config = config_of(pets, cache)
    packed = open_data(config, progress=False)
    old = cache / "folder-16px-0123456789ab"
    shutil.copytree(packed.folder, old)
    manifest = (old / "manifest.json").read_text().replace(packed.key, "0123456789ab")
    (old / "manifest.json").write_text(manifest)
    known = recall({"model": {}, "trainer": {"data_key": "0123456789ab"}})
    assert open_own(config, known, "r", progress=False).folder == old
    shutil.rmtree(old)
    with pytest.raises(UserError, match="split cannot be drawn again"):
        open_own(config, known, "r", progress=False)
    assert open_own(config, recall({"model": {}}), "r", progress=False).folder == packed.folder  # imported: any data


def test_embedded_data_of_another_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig("embedded", 24, cache=str(tmp_path / "cache"), train_per_class=1, val_per_class=1, workers=1)
    packed = open_data(config, progress=False)
    known = recall(remember(packed))
    monkeypatch.setattr("zfrepro.data.embedded.VERSION", "another")
    assert packed_folder(config) != packed.folder
    assert open_own(config, known, "r", progress=False).folder == packed.folder
    shutil.rmtree(packed.folder)
    with pytest.raises(UserError, match="draws the embedded data set otherwise"):
        open_own(config, known, "r", progress=False)


# ---------------------------------------------------------------------------------------------------------------- in a run

TINY = ["data=folder", "data.size=32", "data.workers=1", "model=zfnet_demo", "model.input_size=28", "batch_size=8",
        *NARROW]  # fmt: skip


def test_a_run_and_its_data(tmp_path: Path, zfrepro: Callable[..., object]) -> None:
    """Trained under a relative root, opened from elsewhere; then the data change, go, and are others."""
    pets = make(tmp_path / "pets", {"cat": 12, "cow": 12})
    where = [f"outputs={tmp_path / 'outputs'}", "run=a", "precision=fp32"]
    zfrepro("train", *TINY, "data.root=pets", "epochs=1", *where, cwd=tmp_path)
    (tmp_path / "away").mkdir()

    def evaluate(*more: str, ok: bool = True) -> str:
        done = zfrepro("evaluate", *where, *more, cwd=tmp_path / "away", check=ok)
        assert (done.returncode == 0) == ok and "Traceback" not in done.stderr
        return done.stdout + done.stderr

    assert "wrote" in evaluate()
    assert "up to date" in evaluate()
    shutil.copytree(pets, tmp_path / "j2" / "pets", copy_function=shutil.copyfile)
    assert "up to date" in evaluate(f"data.root={tmp_path / 'j2' / 'pets'}")
    others = make(tmp_path / "others", {"ant": 12, "bee": 12})
    assert "2 classes missing (cat, cow) and 2 classes more (ant, bee)" in evaluate(f"data.root={others}", ok=False)
    assert "2 classes missing" in evaluate(f"data.root={others}", "resume=false", ok=False)
    assert "data.root=nowhere: must be" in evaluate("data.root=nowhere", ok=False)
    make(pets, {"ant": 12})
    assert "1 class more (ant)" in evaluate(ok=False)
    shutil.rmtree(pets)
    assert "up to date" in evaluate()
    assert "wrote" in evaluate("resume=false")
    done = zfrepro("train", *TINY, f"data.root={tmp_path / 'j2' / 'pets'}", "epochs=1", *where, cwd=tmp_path)
    assert "nothing to do" in done.stdout  # the same data in another place
    done = zfrepro("train", *TINY, f"data.root={others}", "epochs=1", *where, cwd=tmp_path, check=False)
    assert "2 classes missing" in done.stderr


def test_a_start_that_is_refused_leaves_nothing(tmp_path: Path, zfrepro: Callable[..., object]) -> None:
    make(tmp_path / "pets", {"cat": 2})
    for root, says in (("nowhere", "does not exist"), ("pets", "at least 2 are needed")):
        done = zfrepro(
            "train", *TINY, f"data.root={root}", f"outputs={tmp_path / 'outputs'}", cwd=tmp_path, check=False
        )
        assert done.returncode == 2 and says in done.stderr
        assert not any((tmp_path / "outputs").glob("*"))


def test_few_images_and_a_run_of_several_parts(tmp_path: Path, zfrepro: Callable[..., object]) -> None:
    """A page of Fig. 2 from the four validation images that there are; the run's name as it was given."""
    make(tmp_path / "pets", {"cat": 20, "cow": 20})
    where = [f"outputs={tmp_path / 'outputs'}", "precision=fp32"]
    zfrepro("train", *TINY, f"data.root={tmp_path / 'pets'}", "epochs=1", "run=my/first", *where)
    zfrepro("visualize", *where, "run=my/first", "layer=1", "num_maps=2")
    with np.load(tmp_path / "outputs" / "my" / "first" / "fig2_features" / "layer1.npz") as page:
        assert page["images"].shape[1] == 4
    done = zfrepro("evaluate", *where, "run=my/frist", check=False)
    assert "run=my/frist: no trained run" in done.stderr and "did you mean my/first?" in done.stderr
    done = zfrepro("doctor", *where, "data=folder", f"data.root={tmp_path / 'pets'}")
    assert "my/first" in done.stdout


def test_options_that_say_nothing_about_a_data_set_do_not_count(tmp_path: Path) -> None:
    """Another default of the drawn data does not keep a training on photographs from going on."""
    photographs = config_of(tmp_path, tmp_path)
    assert decisive(photographs) == decisive(dataclasses.replace(photographs, train_per_class=9, part="target"))
    assert decisive(photographs) != decisive(dataclasses.replace(photographs, val_fraction=0.3))
    drawn = DataConfig("embedded", 24)
    assert decisive(drawn) == decisive(dataclasses.replace(drawn, val_fraction=0.3))
    assert decisive(drawn) != decisive(dataclasses.replace(drawn, train_per_class=9))
    assert decisive(photographs)["name"] == "folder"
