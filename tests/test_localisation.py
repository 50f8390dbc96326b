"""Tables 8 and 9: a network of boxes on whole images against loops, constants by hand, the command."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from tests.conftest import Refused, Zfrepro, narrow_file, small_table
from zfrepro.boxes import iou, merge
from zfrepro.data import Split
from zfrepro.data.packed import Boxes, Whole
from zfrepro.errors import UserError
from zfrepro.evaluator import localisation
from zfrepro.evaluator.constants import centre_crops, constant_boxes
from zfrepro.evaluator.explanation import density, painted
from zfrepro.evaluator.localisation import ROWS, Bench, Setting, estimates8, estimates9, least_wrong
from zfrepro.evaluator.localisers import (
    Localiser,
    boxes_at,
    centre_boxes,
    clip,
    dense_boxes,
    places,
    propose,
    ratings_at,
    stride,
)
from zfrepro.models.network import Network, initialise
from zfrepro.options.commands import LocalizeConfig, TrainConfig
from zfrepro.options.compose import load_model
from zfrepro.options.shared import DataConfig, LearnedBoxes
from zfrepro.run import TrainedRun
from zfrepro.statistics import Estimate, Missing

CROP, CLASSES = 31, 3
MERGING = LocalizeConfig()


def run_of(outputs: int, seed: int = 3) -> TrainedRun:
    """A random network of awkward sizes, trained on nothing."""
    network = Network(small_table(CROP), outputs)
    initialise(network, "he", seed)
    top = network.weights[str(network.top)]
    torch.nn.init.normal_(cast(Tensor, top.weight), std=0.4, generator=torch.Generator().manual_seed(seed))
    return TrainedRun(
        folder=Path("nowhere/little"), config=TrainConfig(), network=network.eval().requires_grad_(False),
        checkpoint_hash="none", epoch=1, known=None, class_names=("a", "b", "c"),
        mean=torch.full((40, 40, 3), 110.0), scale=torch.tensor(0.05), device=torch.device("cpu"), precision="fp32",
    )  # fmt: skip


def says(values: list[float], outputs: int) -> TrainedRun:
    """A network that answers the same everywhere."""
    run = run_of(outputs)
    top = run.network.weights[str(run.network.top)]
    cast(Tensor, top.weight).zero_()
    cast(Tensor, top.bias).copy_(torch.tensor(values))
    return run


def images(*shapes: tuple[int, int]) -> Any:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in shapes]


def split_of(pictures: Any, boxes: Boxes | None = None) -> Split:
    shapes = np.array([picture.shape[:2] for picture in pictures])
    offsets = np.concatenate([[0], shapes.prod(1).cumsum()[:-1]])
    packed: Any = Whole(np.concatenate([picture.reshape(-1) for picture in pictures]), shapes, offsets, 3)
    return Split("val", packed, np.arange(len(pictures)) % CLASSES, [""] * len(pictures), boxes=boxes)


# ---------------------------------------------------------------------------------------------------------------- places


@pytest.mark.parametrize("shape", [(40, 57), (57, 40), (40, 40)])
@pytest.mark.parametrize("scale", [31, 54])
def test_every_place_is_a_crop_of_the_features_below(shape: tuple[int, int], scale: int) -> None:
    """The convolutional part once over the rescaled image, the layers above window by window; and each window's box by hand."""
    run, (image,) = run_of(4 * CLASSES), images(shape)
    found = places(run, image[None], scale)
    pictures, step = run.whole(image[None], scale), stride(run)
    height, width = pictures.shape[2:]
    spare = [(length - CROP) % step for length in (height, width)]  # in the middle, half of it at either end
    top, left = (pixels // 2 for pixels in spare)
    pictures = pictures[:, :, top : top + height - spare[0], left : left + width - spare[1]]
    last = run.network.conv_layers[-1]
    maps, side = run.network.features(pictures, [last])[last], run.network.side(last)
    assert step == 8  # 2 of the first convolution, 2 and 2 of the first two poolings
    across, down = shape[1] / width, shape[0] / height
    expected, windows = [], []
    for y in range(maps.shape[2] - side + 1):
        for x in range(maps.shape[3] - side + 1):
            window = maps[:, :, y : y + side, x : x + side].contiguous()
            expected.append(run.network.features(window, [5], after=last)[5][0])
            corner = (left + x * step) * across, (top + y * step) * down
            windows.append([*corner, corner[0] + CROP * across, corner[1] + CROP * down])
    torch.testing.assert_close(found.outputs[0], torch.stack(expected), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.crops, torch.tensor(windows).double(), atol=1e-4, rtol=1e-6)
    assert len(windows) > 1 or scale == CROP


@pytest.mark.parametrize("scale", [33, 40, 45, 54])
def test_places_lie_about_the_middle_of_the_image(scale: int) -> None:
    """To half a pixel of the rescaled image, whatever of it they leave over."""
    (image,) = images((44, 61))
    crops = places(run_of(4), image[None], scale).crops
    middle = (crops[:, :2] + crops[:, 2:]).mean(0) / 2
    pixel = np.array([61 / (61 * scale // 44), 44 / scale])
    assert (np.abs(middle.numpy() - [30.5, 22]) <= pixel / 2 + 1e-9).all()


def test_the_centre_is_the_centre_crop() -> None:
    run, (image,) = run_of(4), images((40, 40))
    found = places(run, image[None], 40, centre=True)
    torch.testing.assert_close(found.outputs[:, 0], run.network(run.inputs(image[None])), atol=1e-5, rtol=1e-5)
    assert found.crops.tolist() == [[4, 4, 35, 35]]
    with pytest.raises(UserError, match="scales=30: must be at least the network's input, 31 pixels"):
        places(run, image[None], 30)


def test_boxes_and_ratings_of_the_classes_asked_for() -> None:
    run, shared, rates = run_of(4 * CLASSES), run_of(4), run_of(CLASSES)
    pictures = np.stack(images((40, 57), (40, 57)))
    classes = torch.tensor([[2, 0], [1, 1]])
    at, same, rated = (places(one, pictures, 45) for one in (run, shared, rates))
    boxes, ratings = boxes_at(at, classes), ratings_at(rated, classes)
    assert boxes.shape == (2, 2, len(at.crops), 4) and ratings.shape == (2, 2, len(at.crops))
    for image, guess, place in ((0, 0, 1), (0, 1, 0), (1, 1, 2)):
        wanted = int(classes[image, guess])
        cx, cy, w, h = at.outputs[image, place, 4 * wanted : 4 * wanted + 4].tolist()
        x0, y0, x1, y1 = at.crops[place].tolist()
        centre = x0 + cx * (x1 - x0), y0 + cy * (y1 - y0)
        half = w * (x1 - x0) / 2, h * (y1 - y0) / 2
        expected = [centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]]
        assert boxes[image, guess, place].tolist() == pytest.approx(expected, abs=1e-4)
        assert ratings[image, guess, place] == pytest.approx(
            float(rated.outputs[image, place].softmax(0)[wanted]), abs=1e-6
        )
    assert torch.equal(boxes_at(same, classes)[:, 0], boxes_at(same, classes)[:, 1])  # one box for all classes


def test_a_network_that_names_a_third_of_its_window_draws_it_there() -> None:
    """Every window's upper left ninth; at one size the places' boxes do not overlap, so that nothing is merged."""
    net = Localiser(says([1 / 6, 1 / 6, 1 / 3, 1 / 3], 4), [says([0.0, 0.0, 0.0], CLASSES)])
    (image,) = images((40, 57))
    proposals = propose([(net, [40])], image[None], torch.tensor([[1]]), LocalizeConfig(threshold=0.2))
    crops = places(net.boxes, image[None], 40).crops
    corners = torch.stack([crops[:, 0], crops[:, 1], crops[:, 0] + CROP / 3, crops[:, 1] + CROP / 3], 1)
    torch.testing.assert_close(proposals.boxes[0, 0], corners, atol=1e-4, rtol=1e-4)
    assert (proposals.members == 1).all()
    torch.testing.assert_close(proposals.confidence, torch.full_like(proposals.confidence, 1 / 3))


def test_sizes_and_networks_agree_on_an_object() -> None:
    """Networks that always name the whole of a square image, seen whole: one box a network and size, all the same."""
    net = Localiser(says([0.5, 0.5, 1, 1] * CLASSES, 4 * CLASSES), [says([1.0, 0.0, 0.0], CLASSES)])
    (image,) = images((31, 31))
    proposals = propose([(net, [31]), (net, [31])], image[None], torch.tensor([[0, 2]]), MERGING)
    assert proposals.members.sum(2).tolist() == [[2, 2]]
    torch.testing.assert_close(proposals.best, torch.tensor([[[0.0, 0, 31, 31]] * 2]).double(), atol=1e-4, rtol=1e-4)
    sure = float(torch.tensor([1.0, 0, 0]).softmax(0)[0])
    assert proposals.merged_confidence.amax(2)[0, 0] == pytest.approx(2 * sure, abs=1e-6)


def test_boxes_are_merged_as_the_options_say() -> None:
    """All places of three sizes: every score and every mean gives other boxes, those of `merge` with the same options."""
    net, (image,) = Localiser(run_of(4), [run_of(CLASSES)]), images((40, 57))
    given = [(match, mean) for match in ("centre_iou", "paper") for mean in ("members", "plain")]
    found = [
        propose(
            [(net, [40, 50, 60])],
            image[None],
            torch.tensor([[1, 2]]),
            LocalizeConfig(threshold=10, match=match, mean=mean),
        )
        for match, mean in given
    ]
    for proposals, (match, mean) in zip(found, given):
        boxes, _, members = merge(proposals.boxes[0], proposals.confidence[0], 10, match, mean)
        assert torch.equal(proposals.merged[0], boxes) and torch.equal(proposals.members[0], members)
    assert len({float(one.merged.square().sum()) for one in found}) == len(given)


def test_boxes_of_the_mirror_image_are_mirrored_back() -> None:
    """A network that always names the left third of its window names the right third of it where the image is mirrored. What
    the places leave over is even, 6 pixels of either side: a mirrored place is a place."""
    net, (image,) = Localiser(says([1 / 6, 0.5, 1 / 3, 1.0], 4), [run_of(CLASSES)]), images((45, 61))
    alone, both = (
        propose([(net, [45])], image[None], torch.tensor([[1]]), LocalizeConfig(threshold=0.0, test_flips=flips))
        for flips in (False, True)
    )
    count = alone.boxes.shape[2]
    assert both.boxes.shape[2] == 2 * count
    assert torch.equal(both.boxes[:, :, :count], alone.boxes)
    torch.testing.assert_close(both.confidence[:, :, :count], alone.confidence)
    crops = places(net.boxes, image[None], 45).crops
    thirds = [[x1 - (x1 - x0) / 3, y0, x1, y1] for x0, y0, x1, y1 in crops.tolist()]
    found, expected = (sorted(np.round(one, 2).tolist()) for one in (both.boxes[0, 0, count:], np.array(thirds)))
    np.testing.assert_allclose(found, expected, atol=0.02)
    other = propose([(net, [45])], image[None, :, ::-1].copy(), torch.tensor([[1]]), MERGING)
    assert torch.equal(both.confidence[:, :, count:], other.confidence)
    seeing, given = Localiser(run_of(4), [run_of(CLASSES)]), LocalizeConfig(threshold=0.0, test_flips=True)
    found = propose([(seeing, [45])], image[None], torch.tensor([[1]]), given).boxes[0, 0, count:]
    turned = propose([(seeing, [45])], image[None, :, ::-1].copy(), torch.tensor([[1]]), MERGING).boxes[0, 0]
    expected = [[61 - x1, y0, 61 - x0, y1] for x0, y0, x1, y1 in turned.tolist()]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_all_images_of_all_shapes_in_their_order() -> None:
    """Boxes that hang over the border are cut off there; images of unlike shapes are tested apart."""
    pictures = images((40, 57), (57, 40), (40, 57), (44, 44))
    net = Localiser(run_of(4 * CLASSES), [run_of(CLASSES)])
    classes = np.array([[0, 1], [2, 0], [1, 1], [2, 1]])
    found = dense_boxes([(net, [35, 50])], split_of(pictures), classes, MERGING)
    centre = centre_boxes(net.boxes, split_of(pictures), classes, 40)
    for row, image in enumerate(pictures):
        alone = (
            propose([(net, [35, 50])], image[None], torch.from_numpy(classes[row : row + 1]), MERGING).best[0].numpy()
        )
        limit = np.array([image.shape[1], image.shape[0]] * 2)
        np.testing.assert_allclose(found[row], np.minimum(np.maximum(alone, 0), limit), atol=1e-3)
        middle = boxes_at(places(net.boxes, image[None], 40, centre=True), torch.from_numpy(classes[row : row + 1]))[
            0, :, 0
        ]
        np.testing.assert_allclose(centre[row], np.minimum(np.maximum(middle.numpy(), 0), limit), atol=1e-3)


@pytest.mark.parametrize(("given", "scale"), [(None, 45), (33, 33)])
def test_the_centre_is_tested_at_the_training_scale_or_another(given: int | None, scale: int) -> None:
    """The box is the crop's left half; the crop at the centre has 31 pixels at that scale, of pictures of 60 x 60."""
    bench = Bench(LocalizeConfig(centre_scale=given), [TrainConfig(train_scale=[40, 50])], {})
    bench.val = split_of(images((60, 60), (60, 60)))
    net, classes = says([0.25, 0.5, 0.5, 1.0], 4), np.array([[0, 2], [1, 1]])
    found = centre_boxes(net, bench.val, classes, bench.centre_scale)
    left = (scale - CROP) // 2
    expected = np.array([left, left, left + CROP / 2, left + CROP]) * 60 / scale
    np.testing.assert_allclose(found, np.tile(expected, (2, 2, 1)), atol=1e-5)


def test_boxes_end_at_the_border_of_their_picture() -> None:
    """40 rows, 57 columns."""
    given = torch.tensor([[-3.0, -2, 70, 80], [45, 30, 50, 39], [60, 45, 61, 46]])
    cut = clip(given, np.zeros((1, 40, 57, 3), np.uint8))
    assert cut.tolist() == [[0, 0, 57, 40], [45, 30, 50, 39], [57, 40, 57, 40]]


# ------------------------------------------------------------------------------------------------------------- constants


def test_constants_by_hand() -> None:
    """Training boxes as shares: class 0 has two, class 1 one; the validation image is 80 x 40."""
    boxes = Boxes.of([[(0, 0, 20, 40)], [(10, 10, 30, 40)], [(0, 20, 40, 80)]], [[0], [0], [1]])
    train = split_of(images((40, 40), (40, 40), (80, 40)), boxes)
    val = split_of(images((40, 80)))
    classes = np.array([[0, 1]])
    found = constant_boxes(train, val, classes, 20, 10)
    assert found["whole image"].tolist() == [[[0, 0, 80, 40]] * 2]
    # Shares: (0, 0, .5, 1), (.25, .25, .75, 1), (0, .25, 1, 1): their median (0, .25, .75, 1)
    assert found["median training box"].tolist() == [[[0, 10, 60, 40]] * 2]
    assert found["class mean box"].tolist() == [[[10, 5, 50, 40], [0, 10, 80, 40]]]
    # At 20 px the image is 40 x 20; the crop of 10 begins at x = 15, y = 5, in pixels twice as large.
    assert found["centre crop"].tolist() == [[[30, 10, 50, 30]] * 2]
    assert centre_crops(val, 40, 40).tolist() == [[20, 0, 60, 40]]


# ----------------------------------------------------------------------------------------------------------- explanation


def test_density_by_hand() -> None:
    """A quarter of the picture with half of the evidence: 2; all of the picture: 1; nothing: no number."""
    heat = np.zeros((3, 4, 4))
    heat[:2, 0, 0], heat[:2, 3, 3] = 1, 1
    boxes = np.array([[0.0, 0, 2, 2], [0, 0, 4, 4], [0, 0, 2, 2]])
    found = density(heat, painted(boxes, 4))
    assert found[:2].tolist() == [2, 1] and np.isnan(found[2])
    half = painted(np.array([[-3.0, 0.5, 1.5, 9]]), 4)[0]
    assert half[:, 0].tolist() == [0.5, 1, 1, 1] and half[3].tolist() == [1, 0.5, 0, 0]


# ------------------------------------------------------------------------------------------------------------- estimates


def test_estimates_are_differences_of_errors() -> None:
    def wrong(*shares: int) -> np.ndarray:
        return np.array([[image < share for image in range(100)] for share in shares])

    table8 = estimates8({"scr_fc": wrong(36, 38), "pcr_fc": wrong(34, 34), "pcr_all": wrong(30, 31)}, 0.5)
    assert cast(Estimate, table8["scr_minus_pcr"]).value == pytest.approx(3)
    assert cast(Estimate, table8["fc_minus_all"]).value == pytest.approx(3.5)
    rows = [Setting("a", ((0, (64,)),)), Setting("b", ((1, (96,)),)), Setting("a, b", ((0, (56, 64)),)),
            Setting("c", ((1, (88, 96)),)), Setting("all", ((0, (56, 64)), (1, (88, 96))))]  # fmt: skip
    errors = dict(zip(("a", "b", "a, b", "c", "all"), map(wrong, (29, 28, 27, 26, 25))))
    table9 = estimates9(rows, errors, wrong(33), 0.5)
    values = {name: cast(Estimate, one).value for name, one in table9.items()}
    assert values == pytest.approx({"centre_minus_dense": 4, "one_minus_scales": 2, "one_minus_nets": 1})
    alone = estimates9(rows[:1] + rows[2:3], errors, wrong(33), 0.5)
    assert isinstance(alone["one_minus_nets"], Missing) and cast(
        Estimate, alone["one_minus_scales"]
    ).value == pytest.approx(2)


def test_of_nets_that_know_no_more_than_a_constant_nothing_is_said() -> None:
    """The best constant is wrong on 35 images: SCR against PCR is 36 to 37, PCR against all layers 37 to 34."""
    nets = {name: np.arange(100)[None] < count for name, count in (("scr_fc", 36), ("pcr_fc", 37), ("pcr_all", 34))}
    found = estimates8(nets, least_wrong({"whole": np.arange(100) < 60, "median": np.arange(100) < 35}))
    assert isinstance(found["scr_minus_pcr"], Missing) and "35.0 %" in found["scr_minus_pcr"].why
    assert cast(Estimate, found["fc_minus_all"]).value == pytest.approx(3)
    assert isinstance(estimates8(nets, 0.34)["fc_minus_all"], Missing), "as good is not better"
    rows = [Setting("one", ((0, (64,)),)), Setting("two", ((0, (56, 64)),))]
    dense = {"one": np.arange(100)[None] < 40, "two": np.arange(100)[None] < 36}
    table9 = estimates9(rows, dense, np.arange(100)[None] < 30, 0.35)
    assert isinstance(table9["one_minus_scales"], Missing) and isinstance(table9["centre_minus_dense"], Estimate)


# ---------------------------------------------------------------------------------------------------------------- bench


def guessing(name: str, posteriors: list[list[float]]) -> Any:
    return SimpleNamespace(config=SimpleNamespace(run=name), posteriors=np.array(posteriors))


def test_the_five_classes_are_those_of_the_average_or_of_the_runs_that_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seven classes; the first run is sure of class 6, the others of class 0 together."""
    monkeypatch.setattr(
        localisation, "posteriors",
        lambda run, split, method, scales: run.posteriors if scales == [] else run.posteriors[:, ::-1],
    )  # fmt: skip
    first = guessing("a", [[0.0, 0.1, 0.1, 0.1, 0.1, 0.2, 0.4]])
    second = guessing("b", [[0.6, 0.1, 0.12, 0.08, 0.06, 0.04, 0.0]])
    bench: Any = SimpleNamespace(guessing=[], classifiers=[first, second], val=None, config=LocalizeConfig())
    classes, names = localisation.guesses(bench)
    assert (classes.tolist(), names) == ([[0, 6, 5, 2, 1]], ["a", "b"])
    bench.config.class_scales = [64, 96]
    assert localisation.guesses(bench)[0].tolist() == [[6, 0, 1, 4, 5]], "answers at those sizes"
    bench.config.class_scales = []
    bench.guessing = [second]
    classes, names = localisation.guesses(bench)
    assert (classes.tolist(), names) == ([[0, 2, 1, 3, 4]], ["b"])


def test_sizes_of_the_rows_of_table_9() -> None:
    """S and S - 32 for an input of 224, but no smaller than the input; all nets together at the sizes of each."""

    def run(name: str, scale: int) -> Any:
        config = TrainConfig(run=name, train_scale=[scale], model=small_table(56))
        return SimpleNamespace(config=config, network=SimpleNamespace(input_size=56))

    rows = localisation.settings(LocalizeConfig(), [run("a", 60), run("b", 96)])
    assert [row.nets for row in rows] == [
        ((0, (60,)),), ((1, (96,)),), ((0, (56, 60)),), ((1, (88, 96)),), ((0, (56, 60)), (1, (88, 96)))
    ]  # fmt: skip
    given = localisation.settings(LocalizeConfig(scales=[80, 64]), [run("a", 60)])
    assert [row.nets for row in given] == [((0, (60,)),), ((0, (64, 80)),)]


def test_a_row_of_a_seed_is_of_the_nets_of_that_seed() -> None:
    """Each is rated by the run that it was started from, or by all that name the classes."""
    trained = {(0, "pcr_all"): ["a0", "a1"], (1, "pcr_all"): ["b0", "b1"]}

    def nets(guessing: list[str], **options: Any) -> list[Any]:
        bench: Any = SimpleNamespace(
            runs=trained, classifiers=["a", "b"], guessing=guessing, config=LocalizeConfig(**options)
        )
        found = localisation.nets_of(bench, Setting("all", ((0, (56,)), (1, (64, 72)))), 1)
        return [(net.boxes, net.classes, sizes) for net, sizes in found]

    assert nets(["c"]) == [("a1", ["a"], (56,)), ("b1", ["b"], (64, 72))]
    assert nets([], rated_by="all") == [("a1", ["a", "b"], (56,)), ("b1", ["a", "b"], (64, 72))]
    assert nets(["c"], rated_by="all") == [("a1", ["c"], (56,)), ("b1", ["c"], (64, 72))]


def test_boxes_are_rated_by_the_average_of_the_networks() -> None:
    """Place by place."""
    runs, (image,) = [run_of(CLASSES, seed) for seed in (3, 4)], images((45, 61))
    classes = torch.tensor([[1, 0]])
    found = propose([(Localiser(run_of(4), runs), [45])], image[None], classes, MERGING).confidence
    each = [ratings_at(places(run, image[None], 45), classes) for run in runs]
    assert (each[0] - each[1]).abs().max() > 0.01
    torch.testing.assert_close(found, (each[0] + each[1]) / 2)


def test_images_without_a_box_do_not_count() -> None:
    """Three images: the first is right, of the second no box is known, the third is wrong."""
    bench = Bench(LocalizeConfig(), [], {})
    boxes = Boxes.of([[(0, 0, 10, 10)], [], [(0, 0, 10, 10)]], [[0], [], [2]])
    bench.val = split_of(images((40, 40), (40, 40), (40, 40)), boxes)
    given = np.array([[[0.0, 0, 10, 9]], [[0, 0, 10, 10]], [[20, 20, 30, 30]]])
    assert bench.wrong(bench.val.labels[:, None], given).tolist() == [False, True]


def test_a_jittered_run_is_localised_at_the_middle_of_its_scales(tmp_path: Path) -> None:
    """Of the run's own recipe only what is asked for changes; a box for all classes, the convolutions frozen."""
    data = DataConfig(name="embedded", size=128, fit="whole")
    source = TrainConfig(
        run="a", preset="vgg_demo", model=load_model("vgg_a_demo"), data=data, train_scale=[64, 129], lr=0.02
    )
    folder = tmp_path / "a" / "train" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "best.pt").write_bytes(b"")
    made = localisation.job(LocalizeConfig(run="x", outputs=str(tmp_path), epochs=3), source, ROWS[0], 4)
    assert (made.run, made.init_from, made.train_scale, made.seed) == ("a/localize/scr_fc_s4", "a", [96], 4)
    assert (made.regression, made.freeze, made.epochs, made.lr) == ("scr", 8, 3, 0.02)
    every = localisation.job(LocalizeConfig(run="x", outputs=str(tmp_path)), source, ROWS[2], 0)
    assert (every.run, every.regression, every.freeze) == ("a/localize/pcr_all", "pcr", 0)


def test_boxes_are_compared_with_the_evidence_in_the_frame_of_the_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The crop begins at (4, 5); all evidence lies in the true box of its image, 8 x 12 pixels of 31 x 31, and half of it in the
    box that is given."""
    corners = [(10.0, 12, 18, 24), (20.0, 9, 28, 21)]
    masks = np.zeros((2, 40, 40), np.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, np.array(corners, int)):
        mask[y0:y1, x0:x1] = 255
    heat = (masks[:, 5:36, 4:35] > 0).astype(float)
    split = dataclasses.replace(
        split_of(images((40, 40), (40, 40)), Boxes.of([[one] for one in corners], [[0], [1]])),
        truth=cast(Any, SimpleNamespace(masks=masks)),
    )
    source: Any = SimpleNamespace(
        squares=SimpleNamespace(val=split), network=SimpleNamespace(input_size=CROP), side=40,
        crops=lambda masks: torch.from_numpy(masks[:, 5:36, 4:35]).float(),
    )  # fmt: skip
    half = torch.tensor([[0.0, 0, -4, 0]])
    by_label = torch.tensor(corners)
    at = SimpleNamespace(crops=torch.tensor([[4.0, 5, 35, 36]]))
    monkeypatch.setattr(localisation, "slide_of", lambda *given: None)
    monkeypatch.setattr(localisation, "places", lambda *given, **more: at)
    monkeypatch.setattr(
        localisation, "boxes_at", lambda found, classes: (by_label[classes[:, 0]] + half)[:, None, None]
    )
    monkeypatch.setattr(
        localisation, "evidence",
        lambda source, images, labels, slide: {"occlusion": heat[labels], "projection": 2 * heat[labels]},
    )  # fmt: skip
    bench: Any = SimpleNamespace(
        classifiers=[source], config=LocalizeConfig(explain_images=2), runs={(0, "pcr_all"): [None]}
    )
    found = localisation.explain(bench)
    assert found is not None and found["images"] == 2
    for kind in ("occlusion", "projection"):
        values = {name: one["value"] for name, one in found[kind].items()}
        dense = 31 * 31 / (8 * 12)
        assert values == pytest.approx(
            {"given_box": dense, "another_images_box": 0, "true_box": dense, "true_mask": dense}
        )
    for given, owners, images_with_boxes in (([], [], 0), ([corners[1]], [1], 1)):  # of the second image, or of none
        source.squares.val = dataclasses.replace(split, boxes=Boxes.of([[], given], [[], owners]))
        bench.config = LocalizeConfig(explain_images=1)
        found = localisation.explain(bench)
        assert (found["images"] if found else 0) == images_with_boxes


def test_notes_name_the_rules_that_are_not_the_usual_ones() -> None:
    made = TrainConfig(run="a", model=small_table(), data=DataConfig(name="embedded"), epochs=3, lr=0.01)

    def said(**options: Any) -> str:
        bench: Any = SimpleNamespace(
            sources=[made], jobs={(0, "pcr_all"): [made]}, known=np.ones(5, bool), config=LocalizeConfig(**options)
        )
        return localisation.notes(bench, "dense")

    assert "a learning rate of 0.01, seeds [0]; " in said() and said().endswith("(centre_iou, members).")
    given = said(boxes=LearnedBoxes(inside=0.25, clip=True), test_flips=True, rated_by="all")
    assert "a learning rate of 0.01, boxes.inside=0.25, boxes.clip=true, seeds [0]; " in given
    assert given.endswith("(centre_iou, members, rated_by=all, test_flips=true).")
    other = said(boxes=LearnedBoxes(several="largest", flips=False))
    assert ", boxes.several=largest, boxes.flips=false, seeds" in other


# --------------------------------------------------------------------------------------------------------------- command


RUN = ["preset=vgg_demo", "data.train_per_class=3", "data.val_per_class=2", "data.size=72", "epochs=1", "batch_size=20",
       "warmup_steps=2", "precision=fp32"]  # fmt: skip
RULES = {"inside": 0.25, "clip": True, "several": "largest", "flips": False}
FEW = ["epochs=1", "warmup_steps=2", "explain_images=2", "num_images=3", "precision=fp32", "workers=1",
       *(f"boxes.{name}={str(value).lower()}" for name, value in RULES.items())]  # fmt: skip


@pytest.fixture(scope="module")
def localised(tmp_path_factory: pytest.TempPathFactory, zfrepro: Zfrepro, cache: Path) -> Path:
    """An outputs folder with two runs, `a` and `b`, and both tables of `a`."""
    outputs = tmp_path_factory.mktemp("localised")
    model = f"model={narrow_file(tmp_path_factory.mktemp('model'), 'vgg_a_demo', 8)}"
    zfrepro("train", f"outputs={outputs}", "run=a", "train_scale=[64]", model, *RUN)
    zfrepro("train", f"outputs={outputs}", "run=b", "train_scale=[72]", "seed=1", model, *RUN)
    with pytest.MonkeyPatch.context() as patched:  # networks of an epoch know no more than a constant
        patched.setattr(localisation, "least_wrong", lambda constants: 2.0)
        zfrepro("localize", f"outputs={outputs}", "run=a", "runs=[b]", *FEW)
    return outputs


def test_both_tables_are_written(localised: Path) -> None:
    tables = {name: localised / "a" / name for name in ("vgg_table8_localisation", "vgg_table9_localisation")}
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in tables.values())
    assert set(first["errors"]) == {"scr_fc", "pcr_fc", "pcr_all"}
    constants = {"whole image", "centre crop", "median training box", "class mean box"}
    assert set(first["constants"]) == set(second["constants"]) == constants
    assert set(second["errors"]) == {
        "a, one size",
        "b, one size",
        "a, several sizes",
        "b, several sizes",
        "all nets, several sizes",
    }
    assert set(first["estimates"]) == {"scr_minus_pcr", "fc_minus_all"}
    assert set(second["estimates"]) == {"centre_minus_dense", "one_minus_scales", "one_minus_nets"}
    assert set(first["explained"]["occlusion"]) == {"given_box", "another_images_box", "true_box", "true_mask"}
    rows = list(csv.DictReader((tables["vgg_table9_localisation"] / "table.csv").open()))
    ours = {row["method"]: row for row in rows if row["train_s"] and row["method"].startswith("ours")}
    assert ours["ours: a, several sizes"]["test_q"] == "56 64" and ours["ours: b, one size"]["test_q"] == "72"
    assert ours["ours: all nets, several sizes"]["train_s"] == "64 72"
    assert [row["train_s"] for row in rows][:3] == ["256", "384", "384"]
    theirs = [(row["val_top5_error"], row["test_top5_error"]) for row in rows[:4]]
    assert theirs == [("29.5", ""), ("28.2", "26.7"), ("27.5", ""), ("26.9", "25.3")]
    for row, name, paper in zip(
        list(csv.DictReader((tables["vgg_table8_localisation"] / "table.csv").open()))[-3:],
        ("scr_fc", "pcr_fc", "pcr_all"),
        ("36.4", "34.3", "33.1"),
        strict=True,
    ):
        assert float(row["error"]) == pytest.approx(first["errors"][name]["mean"]) and row["paper_error"] == paper
    assert [row["val_top5_error"] for row in rows if row["method"].startswith("Table 10")] == ["26.9", "", "30.0", ""]
    for folder in tables.values():
        assert {"errors.png", "predictions.npz", "table.md"} <= {path.name for path in folder.iterdir()}


def test_errors_are_those_of_the_boxes_that_are_written(localised: Path) -> None:
    """Both errors of one row again, from the boxes in predictions.npz and the drawn truth."""
    from zfrepro.options.shared import Common
    from zfrepro.run import open_run

    val = open_run(Common(run="a", outputs=str(localised), precision="fp32")).data.val
    assert val.boxes is not None
    table8 = np.load(localised / "a" / "vgg_table8_localisation" / "predictions.npz")
    true = torch.from_numpy(val.boxes.corners).double()
    overlap = iou(torch.from_numpy(table8["boxes_pcr_all"][:, 0]), true)
    np.testing.assert_array_equal(table8["wrong_pcr_all"][0], (overlap < 0.5).numpy())
    table9 = np.load(localised / "a" / "vgg_table9_localisation" / "predictions.npz")
    last = len(table9["methods"]) - 1
    assert table9["classes"].shape[1] == 5 + 1, "five guesses, and the true class"
    named = table9["classes"][:, :5] == val.labels[:, None]
    right = named & (iou(torch.from_numpy(table9[f"boxes_{last}"][:, :5]), true[:, None]) >= 0.5).numpy()
    np.testing.assert_array_equal(table9[f"wrong_{last}"][0], ~right.any(1))
    metrics = json.loads((localised / "a" / "vgg_table9_localisation" / "metrics.json").read_text())
    assert metrics["classification_top5_error"] == pytest.approx(100 * (~named.any(1)).mean())
    known = iou(torch.from_numpy(table9[f"boxes_{last}"][:, 5]), true) >= 0.5
    assert metrics["errors"][str(table9["methods"][last])]["true_class"] == pytest.approx(
        100 * float((~known).float().mean())
    )
    centre = 100 * (table8["wrong_pcr_all"][0].mean() - table9["wrong_0"][0].mean())
    assert metrics["estimates"]["centre_minus_dense"]["value"] == pytest.approx(centre)


def test_the_networks_learn_boxes_by_the_rules_that_were_given(localised: Path) -> None:
    for run in ("a/localize/scr_fc", "a/localize/pcr_fc", "a/localize/pcr_all", "b/localize/pcr_all"):
        saved = OmegaConf.load(localised / run / "train" / "config.yaml")
        assert saved.boxes == RULES, run
    assert OmegaConf.load(localised / "a" / "train" / "config.yaml").boxes != RULES


def test_frozen_layers_stay_and_all_layers_move(localised: Path) -> None:
    def weights(run: str, which: str) -> dict[str, Tensor]:
        path = localised / "a" / run / "train" / "checkpoints" / f"{which}.pt"
        return cast("dict[str, Tensor]", torch.load(path, weights_only=True)["model"])

    source, few, every = weights(".", "best"), weights("localize/pcr_fc", "last"), weights("localize/pcr_all", "last")
    for name, values in source.items():
        layer = int(name.split(".")[1])
        if layer <= 8:
            assert torch.equal(values, few[name]) and not torch.equal(values, every[name])
    assert few["weights.11.weight"].shape[0] == 4 * source["weights.11.weight"].shape[0]
    assert weights("localize/scr_fc", "last")["weights.11.weight"].shape[0] == 4


def test_what_is_there_is_not_made_again(localised: Path, zfrepro: Zfrepro) -> None:
    path = localised / "a" / "localize" / "pcr_all" / "train" / "checkpoints" / "last.pt"
    before = path.stat().st_mtime_ns
    again = zfrepro("localize", f"outputs={localised}", "run=a", "runs=[b]", *FEW)
    assert again.stdout.count("up to date") == 2 and path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        (
            "localize",
            ["run=a/localize/pcr_all"],
            "run=a/localize/pcr_all: its network gives boxes, not classes; give run=a",
        ),
        ("evaluate", ["run=a/localize/pcr_all"], "its network gives boxes, not classes; give run=a"),
        ("localize", ["run=a", "scales=[40]"], "scales=.40.: must be 56 pixels or more"),
        ("localize", ["run=a", "class_scales=[40]"], "class_scales=.40.: must be 56 pixels or more"),
        ("localize", ["run=a", "centre_scale=40"], "centre_scale=40: must be 56 pixels or more"),
        ("localize", ["run=a", "match=iou"], "match=iou: must be one of centre_iou, paper"),
        ("localize", ["run=a", "runs=[c]"], "runs=c: no trained run"),
    ],
)
def test_mistakes_are_one_line(
    command: str, options: list[str], message: str, localised: Path, refused: Refused
) -> None:
    few = FEW if command == "localize" else []
    assert re.search(message, refused(command, f"outputs={localised}", *options, *few))
