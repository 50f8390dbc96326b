"""Boxes against hand-worked examples and brute force: overlap, a crop's frame, OverFeat's merging, what counts as found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from zfrepro.boxes import (
    best,
    crop_boxes,
    decode,
    dense_crops,
    encode,
    found,
    intersection,
    iou,
    match_scores,
    merge,
    share_inside,
)


def box(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_boxes(count: int, seed: int, size: int = 40) -> Tensor:
    """Boxes with whole corners in a picture of `size` pixels, (count, 4) float64."""
    corners = np.sort(np.random.default_rng(seed).integers(0, size, (count, 2, 2)), axis=1) + [[[0], [1]]]
    return torch.from_numpy(corners.reshape(count, 4)).double()


def painted(one: Tensor, size: int = 64) -> np.ndarray:
    """The pixels of a box with whole corners."""
    canvas = np.zeros((size, size), bool)
    x0, y0, x1, y1 = one.int().tolist()
    canvas[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
    return canvas


# --------------------------------------------------------------------------------------------------------------- overlap


def test_overlap_by_hand() -> None:
    a, b = box(0, 0, 10, 10), box(5, 0, 15, 10)
    assert iou(a, b) == pytest.approx(50 / 150)
    assert iou(a, box(10, 0, 20, 10)) == 0  # they touch
    assert iou(a, box(2, 2, 4, 4)) == pytest.approx(0.04)
    assert iou(a, a) == 1
    assert iou(a, box(20, 20, 30, 30)) == 0  # apart along both axes: no product of two negative sides
    assert iou(a, box(5, 5, 5, 9)) == 0 and iou(box(3, 3, 3, 3), box(3, 3, 3, 3)) == 0
    assert iou(a, box(8, 8, 2, 2)) == 0  # corners swapped


def test_overlap_counts_pixels() -> None:
    a, b = random_boxes(25, 0), random_boxes(25, 1)
    for one, other, share, both, inside in zip(a, b, iou(a, b), intersection(a, b), share_inside(a, b)):
        p, q = painted(one), painted(other)
        assert both == (p & q).sum()
        assert share == pytest.approx((p & q).sum() / (p | q).sum())
        assert inside == pytest.approx((p & q).sum() / p.sum())
    torch.testing.assert_close(iou(a[:, None], b[None]).diagonal(), iou(a, b))


# ---------------------------------------------------------------------------------------------------------------- frames


def test_a_crops_frame_by_hand() -> None:
    crop = box(10, 20, 50, 60)
    one = box(20, 20, 60, 40)  # 40 x 20 around (40, 30), the right quarter of it outside
    assert encode(one, crop).tolist() == [0.75, 0.25, 1.0, 0.5]
    assert encode(one, crop, torch.tensor(True)).tolist() == [0.25, 0.25, 1.0, 0.5]
    assert encode(box(-10, 20, 10, 40), crop).tolist() == [-0.25, 0.25, 0.5, 0.5]  # not clipped
    assert share_inside(one, crop) == 0.75
    assert decode(box(0.75, 0.25, 1.0, 0.5), crop).tolist() == one.tolist()


def test_encoding_follows_the_pixels_through_scale_crop_and_flip() -> None:
    """A rectangle is painted, the picture enlarged, cropped and mirrored: the painted pixels are where the numbers say."""
    generator = np.random.default_rng(3)
    for one in random_boxes(30, 2, size=24):
        factor, side = int(generator.integers(1, 4)), 17
        picture = painted(one, 24).repeat(factor, 0).repeat(factor, 1)
        y, x = generator.integers(0, 24 * factor - side + 1, 2)
        flip = bool(generator.integers(2))
        cut = picture[y : y + side, x : x + side]
        rows, columns = (np.flatnonzero(cut[:, :: -1 if flip else 1].any(axis)) for axis in (1, 0))
        ratio = torch.full((2,), float(factor), dtype=torch.float64)
        crop = crop_boxes(torch.tensor(y), torch.tensor(x), side, ratio)
        cx, cy, w, h = encode(one, crop, torch.tensor(flip)).tolist()
        seen = np.clip(np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]) * side, 0, side)
        if len(rows) and len(columns):
            np.testing.assert_allclose(seen, [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=1e-9)
        else:
            assert (seen[2] - seen[0]) * (seen[3] - seen[1]) == pytest.approx(0)
        torch.testing.assert_close(decode(encode(one, crop), crop), one)


def test_places_of_a_dense_map() -> None:
    ratio = box(1.5, 2.0)  # enlarged by 1.5 along x, 2 along y
    crops = dense_crops(2, 3, 8, 56, ratio)
    assert crops.shape == (2, 3, 4)
    assert crops[0, 0].tolist() == [0, 0, 56 / 1.5, 28]
    assert crops[1, 2].tolist() == [16 / 1.5, 4, 72 / 1.5, 32]
    whole = decode(box(0.5, 0.5, 1, 1).expand(2, 3, 4), crops)  # "all of the crop" at every place
    torch.testing.assert_close(whole, crops)


# --------------------------------------------------------------------------------------------------------------- merging


def merged(boxes: list[list[float]], confidence: list[float], threshold: float, **options: str) -> list[list[float]]:
    """What is left of one group: rows of x0, y0, x1, y1, confidence, members, in order."""
    found = merge(torch.tensor([boxes]), torch.tensor([confidence]), threshold, **options)  # type: ignore[arg-type]
    rows = torch.cat([found[0][0], found[1][0][:, None], found[2][0][:, None].double()], 1)
    return sorted(row for row in rows.tolist() if row[-1] > 0)


def test_match_scores_by_hand() -> None:
    a, b = box(0, 0, 10, 10), box(5, 0, 15, 10)
    assert match_scores(a, b) == pytest.approx(5 / 10 + 1 - 1 / 3)
    assert match_scores(a, b, "paper") == 5 + 50
    assert match_scores(a, a) == 0 and match_scores(a, a, "paper") == 100
    assert match_scores(a, box(40, 0, 50, 10)) == pytest.approx(4 + 1)
    assert match_scores(a, box(40, 0, 50, 10), "paper") == 40
    assert match_scores(box(0, 0, 20, 10), box(0, 0, 10, 10)) == pytest.approx(5 / ((20 + 10 + 10 + 10) / 4) + 0.5)


def test_three_boxes() -> None:
    """0 and 1 overlap by 9 of 11 columns: 1/10 + 2/11 = 0.28. The third is far away."""
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40]]
    assert merged(boxes, [0.5, 0.25, 0.625], 0.3) == [[0.5, 0, 10.5, 10, 0.75, 2], [30, 30, 40, 40, 0.625, 1]]
    assert merged(boxes, [0.5, 0.25, 0.625], 0.28) == [  # 0.2818 is above
        [0, 0, 10, 10, 0.5, 1], [1, 0, 11, 10, 0.25, 1], [30, 30, 40, 40, 0.625, 1]
    ]  # fmt: skip
    # Agreement wins over a single confident box: 0.75 against 0.625.
    groups = merge(torch.tensor([boxes]).double(), torch.tensor([[0.5, 0.25, 0.625]]), 0.3)
    assert best(*groups).tolist() == [[0.5, 0, 10.5, 10]]


def test_five_boxes_weighted_by_members() -> None:
    """The boxes at x = 0, 0 merge (0), then x = 2 joins them (0.2 + 4/12 = 0.53): (0 + 0 + 2) / 3. With the plain mean it is
    (0 + 2) / 2. Two at the right meet at 0.3 + 6/13 = 0.76."""
    boxes = [[2, 0, 12, 10], [0, 0, 10, 10], [50, 0, 60, 10], [0, 0, 10, 10], [53, 0, 63, 10]]
    left, right = pytest.approx([2 / 3, 0, 10 + 2 / 3, 10, 1.5, 3]), [51.5, 0, 61.5, 10, 0.5, 2]
    assert merged(boxes, [0.75, 0.5, 0.25, 0.25, 0.25], 0.8) == [left, right]
    assert merged(boxes, [0.75, 0.5, 0.25, 0.25, 0.25], 0.8, mean="plain") == [[1, 0, 11, 10, 1.5, 3], right]


def test_six_boxes_by_the_papers_own_score() -> None:
    """As printed the sum is smallest for boxes that neither overlap nor are far apart: 0 goes with its disjoint neighbour."""
    boxes = [[0, 0, 4, 4], [1, 0, 5, 4], [4, 0, 8, 4], [20, 0, 24, 4], [20, 0, 24, 4], [40, 0, 44, 4]]
    # (1, 4): intersection 1 x 4 + distance 3 = 7; (0, 1): 12 + 1; (0, 4): 0 + 4, the smallest; equal boxes: 16.
    assert merged(boxes, [1] * 6, 4, match="paper") == [
        [1, 0, 5, 4, 1, 1], [2, 0, 6, 4, 2, 2], [20, 0, 24, 4, 1, 1], [20, 0, 24, 4, 1, 1], [40, 0, 44, 4, 1, 1]
    ]  # fmt: skip


@pytest.mark.parametrize("match", ["centre_iou", "paper"])
def test_merging_does_not_depend_on_the_order_of_the_boxes(match: str) -> None:
    boxes = random_boxes(5, 5, size=12)
    boxes[3], boxes[4] = boxes[1], boxes[1] + 1  # ties
    confidence = torch.tensor([0.5, 0.25, 0.125, 1.0, 0.75])
    expected = merged(boxes.tolist(), confidence.tolist(), 1.0 if match == "centre_iou" else 5, match=match)
    assert 1 < len(expected) < 5
    for order in itertools.permutations(range(5)):
        again = merged(
            boxes[list(order)].tolist(), confidence[list(order)].tolist(), 1.0 if match == "centre_iou" else 5, match=match
        )  # fmt: skip
        assert again == expected


def plainly_merged(boxes: list[list[float]], confidence: list[float], threshold: float) -> list[list[float]]:
    """The text of OverFeat, section 4.3, as loops over lists."""
    left = [(list(b), c, 1) for b, c in zip(boxes, confidence)]
    while len(left) > 1:
        scores = {}
        for i, j in itertools.combinations(range(len(left)), 2):
            (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = left[i][0], left[j][0]
            shared = max(0, min(ax1, bx1) - max(ax0, bx0)) * max(0, min(ay1, by1) - max(ay0, by0))
            union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared
            side = (ax1 - ax0 + ay1 - ay0 + bx1 - bx0 + by1 - by0) / 4
            distance = np.hypot((ax0 + ax1 - bx0 - bx1) / 2, (ay0 + ay1 - by0 - by1) / 2)
            scores[i, j] = distance / side + 1 - shared / union
        (i, j), least = min(scores.items(), key=lambda item: item[1])
        if least > threshold:
            break
        (a, ca, na), (b, cb, nb) = left[i], left[j]
        joined = [(na * p + nb * q) / (na + nb) for p, q in zip(a, b)], ca + cb, na + nb
        left = [one for k, one in enumerate(left) if k not in (i, j)] + [joined]
    return sorted([*b, c, n] for b, c, n in left)


@pytest.mark.parametrize("threshold", [0.3, 0.8, 1.5, 9.0])
def test_merging_follows_the_text(threshold: float) -> None:
    generator = np.random.default_rng(7)
    for seed in range(8):
        boxes = (random_boxes(11, seed, size=30) + torch.from_numpy(generator.uniform(0, 0.1, (11, 4)))).tolist()
        confidence = generator.uniform(size=11).tolist()
        expected = plainly_merged(boxes, confidence, threshold)
        np.testing.assert_allclose(merged(boxes, confidence, threshold), expected, atol=1e-9)


def test_groups_are_merged_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zfrepro.boxes.MERGE_CELLS", 100)  # two groups at a time
    groups = torch.stack([random_boxes(7, seed) for seed in range(3)])
    groups[1] = groups[1, :1]  # all of them one
    together = merge(groups, torch.full((3, 7), 0.5), 1.0)
    for row, group in enumerate(groups):
        rows = torch.cat([together[0][row], together[1][row][:, None]], 1)[together[2][row] > 0].tolist()
        assert sorted(rows) == [one[:5] for one in merged(group.tolist(), [0.5] * len(group), 1.0)]
        assert together[2][row].sum() == len(group)
    torch.testing.assert_close(best(*together)[1], groups[1, 0])


def test_boxes_of_which_nobody_is_sure_are_better_than_none() -> None:
    """Places that are empty, far out and as confident: they are no boxes."""
    boxes = torch.tensor([[[0.0, 0, 9, 9], [5, 5, 8, 8], [0, 0, 9, 9]]])
    assert best(boxes, torch.zeros(1, 3), torch.tensor([[0, 2, 0]])).tolist() == [[5, 5, 8, 8]]


# ----------------------------------------------------------------------------------------------------------------- found


def test_found_by_hand() -> None:
    """Five images, two guesses each. Right are 0 (second guess), 1 (exactly 0.5) and 4 (the second of two true boxes)."""
    classes = torch.tensor([[1, 2], [3, 0], [1, 2], [1, 0], [4, 0]])
    here, away = [0.0, 0, 10, 10], [50.0, 50, 60, 60]
    boxes = torch.tensor([[away, here], [[0, 0, 10, 20], away], [here, here], [away, here], [here, away]]).double()
    true = [(0, 2, here), (1, 3, here), (2, 0, here), (3, 1, here), (4, 4, away), (4, 4, here)]
    owners, labels = (torch.tensor(column) for column in list(zip(*true))[:2])
    right = found(classes, boxes, torch.tensor([one for *_, one in true]).double(), labels, owners)
    assert right.tolist() == [True, True, False, False, True]


def test_an_image_without_a_true_box_is_not_found() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    right = found(torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1, 4), torch.zeros(0, 4), nothing, nothing)
    assert right.tolist() == [False, False]


def test_found_compares_every_guess_with_every_true_box() -> None:
    generator = np.random.default_rng(0)
    boxes, true = random_boxes(60, 1, 6).reshape(12, 5, 4), random_boxes(30, 2, 6)
    classes = torch.from_numpy(generator.integers(0, 2, (12, 5)))
    labels, owners = (torch.from_numpy(generator.integers(0, high, 30)) for high in (2, 12))
    expected = [
        any(
            classes[image, k] == labels[m] and iou(boxes[image, k], true[m]) >= 0.5
            for k in range(5) for m in range(30) if owners[m] == image
        )
        for image in range(12)
    ]  # fmt: skip
    assert 0 < sum(expected) < 12
    assert found(classes, boxes, true, labels, owners).tolist() == expected
