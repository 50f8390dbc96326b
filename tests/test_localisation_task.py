"""The task of localisation: its loss, its targets in a crop, what counts as found; by hand."""

from __future__ import annotations

import dataclasses
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zfrepro.boxes import decode
from zfrepro.data import Packed, Split, open_data
from zfrepro.data.packed import Boxes
from zfrepro.errors import UserError
from zfrepro.options.commands import TrainConfig
from zfrepro.options.compose import load_model
from zfrepro.options.shared import DataConfig, LearnedBoxes
from zfrepro.trainer.localisation import Localisation, has_boxes, padded_boxes
from zfrepro.trainer.train import build_network

NAN = float("nan")


@pytest.fixture(scope="module")
def drawn() -> Packed:
    return open_data(DataConfig(name="embedded", size=32, train_per_class=2, val_per_class=1), progress=False)


def task(drawn: Packed, regression: str = "pcr", classes: int = 3, **rules: Any) -> Localisation:
    made = Localisation(drawn, regression, LearnedBoxes(**rules))
    made.outputs = 4 * classes if regression == "pcr" else 4
    return made


def targets(*images: list[list[float]]) -> Tensor:
    """(B, K, 5): class and corners, padded."""
    most = max(map(len, images))
    return torch.tensor([[*boxes, *[[boxes[0][0], NAN, NAN, NAN, NAN]] * (most - len(boxes))] for boxes in images])


NO_FLIP, FLIP, FIRST = torch.tensor([0]), torch.tensor([1]), torch.zeros(1)
CROP = torch.tensor([[10.0, 20, 50, 60]])


def test_targets_are_the_images_own_boxes(drawn: Packed) -> None:
    rows = np.array([5, 0])
    found = task(drawn).targets(drawn.train, rows)
    assert found.shape == (2, 1, 5)
    assert found[:, 0, 0].tolist() == drawn.train.labels[rows].tolist()
    assert drawn.train.truth is not None
    np.testing.assert_array_equal(found[:, 0, 1:], drawn.train.truth.boxes[rows])


def test_boxes_of_other_classes_are_left_out(drawn: Packed) -> None:
    """Three images: two boxes of its class and one of another; none; one of another class alone."""
    here, there = (0.0, 0, 4, 4), (4.0, 4, 9, 9)
    boxes = Boxes.of([[here, there, here], [], [there]], [[7, 7, 2], [], [5]])
    split = Split("train", drawn.train.images[:3], np.array([7, 1, 2]), [""] * 3, boxes=boxes)
    found = padded_boxes(split, np.array([2, 0, 1]))
    np.testing.assert_array_equal(found, [[[NAN] * 4] * 2, [here, there], [[NAN] * 4] * 2])
    assert has_boxes(split).tolist() == [True, False, False]


def test_a_box_in_the_frame_of_its_crop(drawn: Packed) -> None:
    one = targets([[2, 20, 20, 60, 40]])  # three quarters of it inside
    assert task(drawn).seen(one, CROP, NO_FLIP, FIRST).tolist() == [[[2, 1, 0.75, 0.25, 1.0, 0.5]]]
    assert task(drawn).seen(one, CROP, FLIP, FIRST).tolist() == [[[2, 1, 0.25, 0.25, 1.0, 0.5]]]


@pytest.mark.parametrize(("right", "learned"), [(70.0, 1), (72.0, 0)])
def test_a_box_is_left_out_where_less_than_half_of_it_is_seen(drawn: Packed, right: float, learned: int) -> None:
    """From x = 30 to 70, of which the crop shows 20 columns; then 42 columns, of which it shows 20."""
    (found,) = task(drawn).seen(targets([[0, 30, 20, right, 40]]), CROP, NO_FLIP, FIRST)[0]
    assert found[1] == learned


@pytest.mark.parametrize(
    ("inside", "counts"), [(0, [1, 1, 1, 1]), (0.25, [1, 1, 1, 0]), (0.6, [1, 0, 0, 0]), (1, [1, 0, 0, 0])]
)
def test_how_much_of_a_box_must_be_seen(drawn: Packed, inside: float, counts: list[int]) -> None:
    """In a crop of columns 10 to 50: all of a box; half of its columns; a quarter; nothing."""
    boxes = targets(*([[0, left, 20, left + 20, 40]] for left in (30.0, 40.0, 45.0, 60.0)))
    found = task(drawn, inside=inside).seen(boxes, CROP.expand(4, 4), torch.zeros(4), torch.zeros(4))
    assert found[:, 0, 1].tolist() == counts


def test_the_largest_of_several_boxes(drawn: Packed) -> None:
    """Areas 100, 300 and 300, of which the first; 81 and, long as it is, 40; nothing."""
    several = targets(
        [[1, 10, 20, 20, 30], [1, 10, 20, 40, 30], [1, 10, 20, 20, 50]],
        [[2, 10, 20, 19, 29], [2, 10, 20, 50, 21]],
        [[0, NAN, NAN, NAN, NAN]],
    )
    for draw in (0.0, 0.5, 0.999):
        made = task(drawn, several="largest")
        found = made.seen(several, CROP.expand(3, 4), torch.zeros(3), torch.full((3,), draw))
        assert found[..., 1].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_a_clipped_box_ends_with_the_crop(drawn: Packed) -> None:
    """From -0.5 to 0.5 and 0.25 to 0.75 of the crop's sides: seen, it goes from 0 to 0.5. It is found as it is."""
    truth = seen([0, 1, 0, 0.5, 1, 0.5])
    outputs = torch.tensor([[0.25, 0.5, 0.5, 0.5]])
    loss, wrong = task(drawn, "scr", clip=True).loss(outputs, truth)
    assert loss == 0 and wrong == 0  # IoU with all of the true box: a half
    loss, _ = task(drawn, "scr").loss(outputs, truth)
    assert loss == pytest.approx((0.25**2 + 0.5**2) / 2)
    short = torch.tensor([[0.24, 0.5, 0.48, 0.5]])
    assert task(drawn, "scr", clip=True).loss(short, truth)[1] == 1
    nothing = seen([0, 0, NAN, NAN, NAN, NAN])
    assert task(drawn, "scr", clip=True).loss(outputs, nothing)[0] == 0


def test_one_of_several_boxes_is_drawn(drawn: Packed) -> None:
    several = targets([[1, 10, 20, 20, 30], [1, 20, 20, 30, 30], [1, 30, 30, 40, 40]], [[0, 10, 20, 50, 60]])
    crops, flip = CROP.expand(2, 4), torch.zeros(2)
    for draw, chosen in ((0.0, 0), (0.34, 1), (0.66, 1), (0.67, 2), (0.999, 2)):
        found = task(drawn).seen(several, crops, flip, torch.tensor([draw, draw]))
        assert found[0, :, 1].tolist() == [float(k == chosen) for k in range(3)]
        assert found[1, :, 1].tolist() == [1, 0, 0]  # its only box, whatever is drawn
    nothing = task(drawn).seen(targets([[1, NAN, NAN, NAN, NAN]]), CROP, NO_FLIP, FIRST)
    assert nothing[0, 0, 1] == 0


def seen(*rows: list[float]) -> Tensor:
    """(B, 1, 6)."""
    return torch.tensor(rows)[:, None]


@pytest.mark.parametrize("regression, outputs", [("scr", 4), ("pcr", 12)])
def test_boxes_begin_in_the_middle_of_the_crop(regression: str, outputs: int) -> None:
    network = build_network(TrainConfig(model=load_model("zfnet_demo"), regression=regression, init="he"), outputs)
    biases = [layer.bias for layer in network.weights.values() if isinstance(layer.bias, Tensor)]
    assert biases[-1].tolist() == [0.5] * outputs and not any(bias.any() for bias in biases[:-1])
    begun = decode(biases[-1].detach().view(-1, 4), torch.tensor([8.0, 0.0, 64.0, 56.0]))
    assert begun.tolist() == [[22.0, 14.0, 50.0, 42.0]] * (outputs // 4)


def test_loss_by_hand(drawn: Packed) -> None:
    """Two images: squared differences 0.25 + 0.0625 and, left out, much more; divided by 2 x 2."""
    outputs = torch.zeros(2, 12)
    outputs[0, 4:8] = torch.tensor([1.0, 0.5, 0.25, 0.5])
    truth = seen([1, 1, 0.5, 0.5, 0.5, 0.5], [2, 0, 9, 9, 1, 1])
    loss, wrong = task(drawn).loss(outputs, truth)
    assert loss == pytest.approx((0.25 + 0.0625) / 4)
    assert wrong == 2
    shared, _ = task(drawn, "scr").loss(outputs[:, 4:8], truth)
    assert shared == pytest.approx((0.25 + 0.0625) / 4)


def test_only_the_true_classs_outputs_of_a_box_that_is_seen_are_trained(drawn: Packed) -> None:
    outputs = torch.randn(3, 12, generator=torch.Generator().manual_seed(0), requires_grad=True)
    truth = seen([1, 1, 0.5, 0.5, 0.5, 0.5], [0, 0, 0.5, 0.5, 1, 1], [2, 1, NAN, NAN, NAN, NAN])
    truth[2, 0, 1] = 0
    task(drawn).loss(outputs, truth)[0].backward()
    expected = torch.zeros(3, 12)
    expected[0, 4:8] = (outputs[0, 4:8].detach() - 0.5) / 3
    assert outputs.grad is not None
    torch.testing.assert_close(outputs.grad, expected)


def test_found_is_what_overlaps_any_true_box_enough(drawn: Packed) -> None:
    """The given box is the crop's left half. Its IoU with the left two thirds is 3/4, with all of the crop exactly 1/2."""
    outputs = torch.tensor([[0.25, 0.5, 0.5, 1.0]] * 5)
    third, whole, narrow = [1 / 3, 0.5, 2 / 3, 1.0], [0.5, 0.5, 1, 1.0], [0.24, 0.5, 0.24, 1.0]
    none = [NAN] * 4
    truth = torch.tensor(
        [
            [[0, 0, *a], [0, 0, *b]]
            for a, b in ((third, none), (whole, none), (narrow, none), (narrow, whole), (none, none))
        ]
    )
    assert task(drawn, "scr").count(outputs, truth).tolist() == [1, 4]  # of the last image there is nothing to find
    assert task(drawn, "scr").errors([1.0, 4.0], 5) == {"val_localisation_error": 25.0}
    per_class = torch.zeros(5, 12)
    per_class[:, 8:] = outputs
    truth[..., 0] = 2
    assert task(drawn).count(per_class, truth).tolist() == [1, 4]
    truth[..., 0] = 1
    assert task(drawn).count(per_class, truth).tolist() == [4, 4]


def test_many_boxes_in_one_image_cost_no_memory_for_the_others() -> None:
    starts = np.concatenate([np.zeros(1, np.int64), np.full(50_000, 1000)])
    boxes = Boxes(starts, np.tile(np.float32([0, 0, 1, 1]), (1000, 1)), np.ones(1000, np.int64))
    split = Split("train", np.zeros((50_000, 0)), np.ones(50_000, np.int64), [""], boxes=boxes)
    tracemalloc.start()
    found = has_boxes(split)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[0] and found.sum() == 1 and peak < 20e6


def test_what_has_no_boxes_is_refused(drawn: Packed) -> None:
    def without(rows: np.ndarray) -> Packed:
        assert drawn.train.boxes is not None
        boxes = drawn.train.boxes.only(~rows)
        return dataclasses.replace(drawn, train=dataclasses.replace(drawn.train, boxes=boxes))

    lacking = without(drawn.train.labels == 3)
    with pytest.raises(UserError, match=f"no boxes of {drawn.class_names[3]} .*regression=scr"):
        Localisation(lacking, "pcr", LearnedBoxes())
    with pytest.raises(UserError, match=r"no boxes of .* in its training images"):
        Localisation(without(drawn.train.labels >= 0), "scr", LearnedBoxes())
    shared, rows = Localisation(lacking, "scr", LearnedBoxes()), np.flatnonzero(np.isin(drawn.train.labels, [0, 3, 4]))
    learned = shared.rows(lacking.train, rows)  # those of which there is something to learn
    assert len(learned) < len(rows) and set(drawn.train.labels[learned]) == {0, 4}
