"""Figure 8 and Table 1: signs and distances of hand-made features, places of masks, parts files, the command."""

from __future__ import annotations

import csv
import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Refused, Zfrepro
from zfrepro.errors import UserError
from zfrepro.evaluator import correspondence, pictures
from zfrepro.run import TrainedRun


def test_hamming_of_ternary_signs_by_hand() -> None:
    eps = torch.tensor([[0.5, 0.0, -2.0, 0.0], [3.0, 0.0, 0.0, -1.0], [-1.0, 1e-9, -7.0, 0.0]])
    sign = torch.sign(eps).to(torch.int8)
    # Rows as signs: + 0 - 0, + 0 0 -, - + - 0.
    assert correspondence.hamming_matrix(sign, sign).tolist() == [[0, 0.5, 0.5], [0.5, 0, 1.0], [0.5, 1.0, 0]]
    # Of the first two, entry 1 is 0 in both: 2 of 3 differ.
    changed = correspondence.hamming_matrix(sign, sign, changed_only=True)
    torch.testing.assert_close(changed, torch.tensor([[0, 2 / 3, 2 / 3], [2 / 3, 0, 1], [2 / 3, 1, 0]]).double())
    assert correspondence.hamming_matrix(sign[:1], sign[2:]).tolist() == [[0.5]]
    nothing = torch.zeros(2, 4, dtype=torch.int8)
    assert not correspondence.hamming_matrix(nothing, nothing, changed_only=True).any()


def test_scores_are_over_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    signs = rng.integers(-1, 2, (5, 4, 30))  # 2 parts and 3 random places, 4 images
    hamming = np.stack([correspondence.hamming_matrix(one, one).numpy() for one in torch.from_numpy(signs)])
    mean, std = correspondence.score_pairs(hamming, 2)
    for p in range(2):
        pairs = [(signs[p, i] != signs[p, j]).mean() for i, j in permutations(range(4), 2)]
        assert mean[p] == pytest.approx(np.mean(pairs))
        assert std[p] == pytest.approx(np.std(pairs))
    random = [(signs[r, i] != signs[r, j]).mean() for r in (2, 3, 4) for i, j in permutations(range(4), 2)]
    assert mean[2] == pytest.approx(np.mean(random))


def test_untouched_features_have_exact_zero_signs(run: TrainedRun) -> None:
    """A mask in one corner cannot reach layer 1's maps in the other; a mask that changes nothing gives zeros only."""
    images = np.array(run.data.val.images[:5])
    boxes = np.tile(np.array([[[0, 0, 9, 9], [20, 20, 20, 20]]]), (5, 1, 1))
    fill = pictures.fill_input(run, "grey", 0)
    found = correspondence.signs(run, images, boxes, fill, [1, 5, 7], batch=3)
    maps = found[1][0].unflatten(1, (-1, run.network.sizes[4], run.network.sizes[4]))
    assert maps[..., 6:, :].count_nonzero() == 0
    assert maps[..., :3, :3].count_nonzero() > 0
    for layer in (1, 5, 7):
        assert found[layer][1].count_nonzero() == 0
        assert found[layer].shape[:2] == (2, 5)


def test_signs_equal_their_definition(run: TrainedRun) -> None:
    image = np.array(run.data.val.images[3:4])
    fill = pictures.fill_input(run, "black", 0)
    found = correspondence.signs(run, image, np.array([[[5, 8, 17, 20]]]), fill, [5], batch=8)[5]
    clean, masked = run.inputs(image), run.inputs(image).clone()
    masked[:, :, 5:17, 8:20] = fill[:, 5:17, 8:20]
    with torch.no_grad():
        difference = run.network.features(clean, [5])[5] - run.network.features(masked, [5])[5]
    assert torch.equal(found[0, 0], torch.sign(difference).flatten().to(torch.int8))


def test_disjoint_groups_share_no_image() -> None:
    """Each image is a bit, the distance of two their sum: over the ordered pairs of three images, two thirds of all bits."""
    one = correspondence.Subjects("a", [], np.zeros((7, 1)), ("p",), np.zeros((7, 1, 4)), np.zeros((7, 1, 4)))
    bits = 2.0 ** np.arange(7)
    pairs = (bits[:, None] + bits)[None]  # (1, 7, 7)
    places = np.stack([pairs, 2 * pairs], 1)  # (1, 2, 7, 7): a part, a random place
    distances = correspondence.Distances(places, 3 * places, 4 * pairs, 5 * pairs[:, None])
    groups = correspondence.disjoint_groups([one], {"a": distances}, 3, np.random.default_rng(0))
    images = 1.5 * groups.hamming[0, :, 0]  # (G,) which are in each draw
    first, second = np.rint(images).astype(int).tolist()
    assert groups.classes == ["a", "a"] and first & second == 0
    assert bin(first).count("1") == bin(second).count("1") == 3 and first not in (0b111, 0b111000)  # in no order
    expected = {"hamming": [1, 2], "changed": [3, 6], "other_part": [4], "matched": [5]}
    for name, factors in expected.items():  # the same images for each measure
        found = getattr(groups, name)[0].reshape(2, -1)
        np.testing.assert_allclose(1.5 * found, images[:, None] * factors)


def test_the_paired_test_finds_what_is_there() -> None:
    rng = np.random.default_rng(0)
    random = rng.random(40)
    own = np.stack([random - 0.1, random - 0.05, random], 1)[None]
    groups = correspondence.Groups(own, own[..., [2, 2, 0]], own[..., 2] + 0.2, own[..., :2] + 0.05, ["a"] * 40)
    found = correspondence._layer_metrics(("eye", "nose", "random"), (own[0, 0], own[0, 0]), own[0], groups, 0)
    assert found["random_minus_parts"] == pytest.approx(0.075)
    assert found["random_minus_parts_low"] == pytest.approx(0.075)
    assert found["p_value_parts_below_random"] < 1e-6
    assert found["disjoint_draws"] == 40
    assert found["over_changed_features"]["p_value"] > 0.99
    assert found["same_part_against_other_part"]["other_minus_same"] == pytest.approx(0.275)
    assert found["over_matched_places"]["random_minus_parts"] == pytest.approx(0.05)


def test_matched_places_by_hand() -> None:
    """Two images, one part and three random places each: what they change, and how far from the centre they lie."""
    changed = np.array([[100, 10, 99, 200], [50, 49, 400, 50]])
    away = np.array([[9, 9, 9, 9], [10, 30, 10, 10]])
    assert correspondence.matched_places(changed, away, 1).tolist() == [[1], [2]]
    boxes = np.array([[[0, 0, 4, 4], [8, 8, 12, 12], [8, 5, 12, 9]]])
    assert correspondence.distance_from_centre(boxes, 20).tolist() == [[8 * 2**0.5, 0, 3]]


def test_matched_distances_by_loop() -> None:
    rng = np.random.default_rng(4)
    found = torch.from_numpy(rng.integers(-1, 2, (5, 4, 30))).to(torch.int8)  # two parts, three places, four images
    found[2] = 0  # a place that changes nothing is no match
    away = np.full((4, 5), 7.0)
    matched = correspondence.distances_at(found, away, 2)[3]
    places = correspondence.matched_places((found != 0).sum(2).T.numpy(), away, 2)
    assert places.min() >= 1
    for p in range(2):
        for i, j in permutations(range(4), 2):
            one, other = found[2 + places[i, p], i], found[2 + places[j, p], j]
            assert matched[p, i, j] == pytest.approx(float((one != other).double().mean()))


def test_other_part_distances_by_loop(run: TrainedRun) -> None:
    images = np.array(run.data.val.images[:3])
    rng = np.random.default_rng(2)
    low = rng.integers(0, 40, (3, 2, 2))
    boxes = np.concatenate([low, low + 12], -1)
    one = correspondence.Subjects("a", [], images, ("p", "q"), boxes, boxes[:, :1])
    fill = pictures.fill_input(run, "grey", 0)
    found = correspondence.distances_of(run, one, fill, [5], 8)
    sign = correspondence.signs(run, images, boxes, fill, [5], 8)[5]
    for i, j in permutations(range(3), 2):
        expected = ((sign[0, i] != sign[1, j]).double().mean() + (sign[1, i] != sign[0, j]).double().mean()) / 2
        assert found.other_part[0, i, j] == pytest.approx(float(expected))
        changed = (sign[0, i] != 0) | (sign[0, j] != 0)
        assert found.changed[0, 0, i, j] == pytest.approx(float((sign[0, i] != sign[0, j])[changed].double().mean()))


def test_random_places_lie_on_the_object_and_apart_from_the_parts() -> None:
    mask = np.zeros((40, 40))
    mask[10:38, 6:36] = 1
    boxes = np.array([[14, 10, 20, 16], [14, 24, 20, 30], [26, 16, 32, 22]])
    places = correspondence.random_places(mask, boxes, 60, np.random.default_rng(0))
    assert len({tuple(place) for place in places.tolist()}) == 60
    taken = np.zeros((40, 40), dtype=bool)
    for y0, x0, y1, x1 in boxes:
        taken[y0:y1, x0:x1] = True
    for y0, x0, y1, x1 in places:
        assert (y1 - y0, x1 - x0) == (6, 6)
        assert not taken[y0:y1, x0:x1].any()
        assert mask[y0:y1, x0:x1].mean() >= correspondence.ON_OBJECT


def test_random_places_when_there_is_no_room() -> None:
    boxes = np.array([[0, 0, 8, 8]])
    places = correspondence.random_places(np.ones((8, 8)), boxes, 3, np.random.default_rng(0))
    assert places.tolist() == [[0, 0, 8, 8]] * 3


def test_boxes_follow_the_picture_into_the_crop() -> None:
    # 200 x 100 pixels -> 100 x 50 -> the middle 50 x 50 (from x = 25) -> the middle 40 x 40.
    box = correspondence.place_box((80, 20, 100, 60), (200, 100), 50, 5, 40, "here")
    assert box.tolist() == [5, 10, 25, 20]
    cut = correspondence.place_box((0, 0, 200, 100), (200, 100), 50, 5, 40, "here")
    assert cut.tolist() == [0, 0, 40, 40]
    for outside in ((10, 10, 10, 20), (-1, 0, 5, 5), (150, 0, 201, 50)):
        with pytest.raises(UserError, match="here: the box"):
            correspondence.place_box(outside, (200, 100), 50, 5, 40, "here")
    with pytest.raises(UserError, match="all that the network sees"):
        correspondence.place_box((0, 0, 20, 20), (200, 100), 50, 5, 40, "here")


def write_parts(folder: Path, images: int, lines: str = "") -> Path:
    rng = np.random.default_rng(1)
    text = "image,part,left,top,right,bottom\n"
    for i in range(images):
        Image.fromarray(rng.integers(0, 256, (100, 120, 3)).astype(np.uint8)).save(folder / f"{i}.png")
        text += f"{i}.png,eye,{30 + i},20,{50 + i},40\n{i}.png,mouth,50,60,80,80\n{i}.png,object,20,10,100,95\n"
    path = folder / "parts.csv"
    path.write_text(text + lines)
    return path


def test_a_parts_file_with_backslashes(tmp_path: Path) -> None:
    """As programs write it on Windows."""
    lines = [f"faces\\{n}.png,eye,1,1,9,9" for n in range(2)]
    (tmp_path / "parts.csv").write_text("\n".join(["image,part,left,top,right,bottom", *lines]))
    assert list(correspondence.read_parts(tmp_path / "parts.csv")) == ["faces/0.png", "faces/1.png"]


def test_a_parts_file(tiny_run: Path, zfrepro: Zfrepro, tmp_path: Path) -> None:
    path = write_parts(tmp_path, 3)
    zfrepro("correspond", f"outputs={tiny_run}", "run=tiny", f"parts={path}", "num_images=3", "draws=5", "layers=[2,6]")
    folder = tiny_run / "tiny" / "table1_correspondence"
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert [row["occlusion"] for row in rows] == ["eye", "mouth", "random"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["layer6"]["p_value_parts_below_random"] is None  # one draw only: nothing to test
    with np.load(folder / "arrays.npz") as arrays:
        assert sorted(arrays["names"].tolist()) == ["0.png", "1.png", "2.png"]
        assert arrays["hamming"].shape == (2, 2 + correspondence.RANDOM_PLACES, 3, 3)
        object_box = correspondence.place_box((20, 10, 100, 95), (120, 100), 64, 4, 56, "")
        inside = arrays["random_boxes"].reshape(-1, 4)
        assert (inside[:, :2] >= object_box[:2] - 4).all()


def test_a_parts_file_that_changed_is_measured_again(tiny_run: Path, zfrepro: Zfrepro, tmp_path: Path) -> None:
    """Its boxes; the object, which bounds the random places; a part's name."""
    path = write_parts(tmp_path, 2)
    given = f"outputs={tiny_run}", "run=tiny", f"parts={path}", "num_images=2", "draws=5", "layers=[2]"
    zfrepro("correspond", *given)
    assert "up to date" in zfrepro("correspond", *given).stdout
    for old, new in (
        ("50,60,80,80", "52,60,82,80"),
        ("object,20,10,100,95", "object,20,10,100,60"),
        ("mouth", "snout"),
    ):
        path.write_text(path.read_text().replace(old, new))
        assert "up to date" not in zfrepro("correspond", *given).stdout, new


def test_a_single_part_has_no_other_to_compare_with(tiny_run: Path, zfrepro: Zfrepro, tmp_path: Path) -> None:
    path = write_parts(tmp_path, 12)
    path.write_text("\n".join(line for line in path.read_text().splitlines() if ",mouth," not in line))
    given = f"outputs={tiny_run}", "run=tiny", f"parts={path}", "num_images=2", "draws=5", "layers=[2,7]"
    said = zfrepro("correspond", *given).stdout
    assert "6 disjoint draws: random - parts" in said and "other part" not in said and "nan" not in said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("right,", "rihgt,", 1), "no column right"),
        (lambda text: text.replace("30,20", "x,20", 1), "line 2: left, top, right and bottom must be numbers"),
        (lambda text: text + "0.png,eye,1,1,5,5\n", "0.png has eye twice"),
        (lambda text: text + "2.png,eye,1,1,5,5\n", "2.png has no line for mouth"),
        (lambda text: text.replace("80,80", "180,80", 1), "is empty or outside the image of 120 x 100 pixels"),
        (lambda text: text.replace("1.png", "no.png"), "no.png: cannot be read as an image"),
        (lambda text: text.splitlines()[0] + "\n", "needs parts in at least two images"),
    ],
)
def test_mistakes_in_a_parts_file(tiny_run: Path, refused: Refused, tmp_path: Path, change: object, says: str) -> None:
    path = write_parts(tmp_path, 2)
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    assert says in refused("correspond", f"outputs={tiny_run}", "run=tiny", f"parts={path}", "num_images=2")


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("parts=none.csv", "cannot be read"),
        ("class_name=dgo", "did you mean dog?"),
        ("layers=[8]", "layers=8: the layers to choose from"),
        ("mask=1", "mask=1.0: must be between 0 and 1"),
        ("num_images=1", "num_images=1: must be 2 or more"),
    ],
)
def test_mistakes_are_one_line(tiny_run: Path, refused: Refused, argument: str, says: str) -> None:
    assert says in refused("correspond", f"outputs={tiny_run}", "run=tiny", "num_images=2", argument)


def test_the_command(tiny_run: Path, zfrepro: Zfrepro, run: TrainedRun) -> None:
    zfrepro("correspond", f"outputs={tiny_run}", "run=tiny", "num_images=2", "draws=20")
    folder = tiny_run / "tiny" / "table1_correspondence"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["class"] == "dog"
    assert metrics["layer5"]["disjoint_draws"] >= 7
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert [row["occlusion"] for row in rows] == ["right_eye", "left_eye", "nose", "random"]
    assert rows[3]["layer5_paper_mean"] == "0.107"
    with np.load(folder / "arrays.npz") as arrays:
        side = arrays["boxes"][..., 2:] - arrays["boxes"][..., :2]
        assert (side == round(0.18 * 56)).all()
        # The mask stands on the key point: find the image again and compare.
        row = run.data.val.files.encoded.tolist().index(arrays["names"][0].encode())
        point = run.data.val.truth.keypoints[row, run.data.keypoint_names.index("nose")] - 4  # type: ignore[union-attr]
        middle = arrays["boxes"][0, 2].reshape(2, 2).mean(0)
        assert np.abs(middle - point[::-1]).max() <= 0.5
    for name in ("masks.png", "scores.png", "table.md", "draws.npz"):
        assert (folder / name).stat().st_size > 0
