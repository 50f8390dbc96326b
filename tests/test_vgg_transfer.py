"""VGG's Tables 11 and 12: descriptors against a loop over places and scales, machines against scikit-learn, the command."""

from __future__ import annotations

import copy
import csv
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Refused, Zfrepro, of_its_own, small_table
from scipy import optimize, stats
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC
from test_average_precision import devkit, devkit_2007
from torch import Tensor

from zfrepro.data import open_data
from zfrepro.data.packed import Boxes
from zfrepro.evaluator import average_precision, describers, vgg_actions, vgg_transfer
from zfrepro.evaluator.average_precision import average_precisions, mean_precision
from zfrepro.evaluator.describers import Descriptors, Method, Net, last_of_vgg, methods_of, preferred
from zfrepro.evaluator.descriptors import Cut, Pool, describe, describe_batch, join_scales, unit_length
from zfrepro.evaluator.one_against_all import choose_cost, score_images, train_machines
from zfrepro.evaluator.splits import Fold, draw_fold, inner_folds
from zfrepro.evaluator.target import Target, packed_target
from zfrepro.figures.transfer import Bar, draw_bars
from zfrepro.models.network import Network, initialise
from zfrepro.options.commands import TrainConfig, TransferConfig
from zfrepro.options.shared import Common, DataConfig
from zfrepro.run import TrainedRun, open_run
from zfrepro.statistics import Estimate, Missing

# ----------------------------------------------------------------------------------------------------------- descriptors


def little_run(size: int = 40, top: int = 6) -> TrainedRun:
    """A random network of awkward sizes, trained on nothing, whose mean image is no constant."""
    network = Network(small_table(), top)
    initialise(network, "he", 3)
    generator = torch.Generator().manual_seed(1)
    mean = 90 + 60 * torch.rand(size, size, 3, generator=generator)
    return TrainedRun(
        folder=Path("nowhere/little"), config=TrainConfig(), network=network.eval(),
        checkpoint_hash="none", epoch=1, class_names=tuple("abcdef")[:top], known=None, mean=mean, scale=torch.tensor(0.05),
        device=torch.device("cpu"), precision="fp32",
    )  # fmt: skip


def pictures(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def looped(run: TrainedRun, image: np.ndarray, layer: int, scale: int) -> Tensor:
    """The descriptor of one picture in float64, place by place."""
    network = copy.deepcopy(run.network).double()
    short = min(image.shape[:2])
    size = [side * scale // short for side in image.shape[:2]]

    def stretch(values: Tensor) -> Tensor:
        return F.interpolate(values.double().permute(2, 0, 1)[None], size, mode="bilinear", antialias=True)[0]

    centred = (stretch(torch.from_numpy(image)) - stretch(run.mean)) * 0.05
    below = network.conv_layers[-1]
    total, places = torch.zeros(network.widths[layer]).double(), 0
    for view in (centred, torch.from_numpy(centred.numpy()[:, :, ::-1].copy())):
        maps = network.features(view[None], [below])[below]
        side = network.side(below)
        for y in range(maps.shape[2] - side + 1):
            for x in range(maps.shape[3] - side + 1):
                window = maps[:, :, y : y + side, x : x + side]
                total += network.features(window, [layer], after=below)[layer][0]
                places += 1
    return total / places


@pytest.mark.parametrize(("height", "width"), [(40, 57), (57, 40), (40, 40)])
@pytest.mark.parametrize("scale", [31, 53])
def test_descriptors_follow_a_loop_over_places(height: int, width: int, scale: int) -> None:
    run, images = little_run(), pictures(2, height, width)
    expected = torch.stack([looped(run, image, 4, scale) for image in images])
    found = describe_batch(run, images, np.array([1, 0]), 4, scale).flip(0)
    assert expected.std() > 0.01
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


def test_top_convolutional_layer_is_averaged_over_its_maps() -> None:
    run, images = little_run(), pictures(2, 40, 57)
    found = describe_batch(run, images, np.arange(2), 3, 45)
    views = run.whole(images, 45)
    maps = [run.network.features(view, [3])[3] for view in (views, views.flip(3))]
    assert maps[0].shape[2] != maps[0].shape[3]
    torch.testing.assert_close(found, (maps[0].mean((2, 3)) + maps[1].mean((2, 3))) / 2, atol=1e-5, rtol=1e-5)
    run.mean.fill_(100)  # a mean image is no mirror image of itself
    mirrored = describe_batch(run, images[:, :, ::-1].copy(), np.arange(2), 3, 45)
    torch.testing.assert_close(mirrored, describe_batch(run, images, np.arange(2), 3, 45), atol=1e-5, rtol=1e-5)


def test_scales_are_averaged_or_stacked_before_they_are_normalised() -> None:
    one, two = np.array([[3.0, 4.0], [0, 0]]), np.array([[1.0, 0.0], [0, 0]])
    np.testing.assert_allclose(join_scales([one, two], "mean"), [np.array([2, 2]) / np.sqrt(8), [0, 0]])
    np.testing.assert_allclose(join_scales([one, two], "stack"), [np.array([3, 4, 1, 0]) / np.sqrt(26), [0] * 4])
    np.testing.assert_allclose(join_scales([one, two], "max"), [np.array([3, 4]) / 5, [0, 0]])
    np.testing.assert_allclose(join_scales([two, one / 10], "max"), [np.array([1, 0.4]) / np.sqrt(1.16), [0, 0]])
    np.testing.assert_allclose(np.linalg.norm(unit_length(one), axis=1), [1, 0])


@pytest.mark.parametrize("layer", [4, 3, 1])
def test_descriptors_from_before_the_relu(layer: int) -> None:
    """The layer's products with its weights, by PyTorch's own modules; some are below 0."""
    run, images = little_run(), pictures(2, 40, 57)
    weights, views = run.network.weights[str(layer)], run.whole(images, 45)
    expected = []
    for view in (views, views.flip(3)):
        maps = view if layer == 1 else run.network.features(view, [layer - 1])[layer - 1]
        if layer == 4:  # fully connected: at every place where its input fits
            patches = F.unfold(maps, run.network.side(3)).mT  # (B, places, C side side)
            expected.append(weights(patches).mean(1))
        else:
            expected.append(weights(maps).mean((2, 3)))
    found = describe_batch(run, images, np.arange(2), layer, 45, relu=False)
    torch.testing.assert_close(found, (expected[0] + expected[1]) / 2, atol=1e-4, rtol=1e-4)
    assert found.min() < 0 <= describe_batch(run, images, np.arange(2), layer, 45).min()


def test_each_scale_may_have_unit_length_before() -> None:
    """(0.6, 0.8) and (1, 0)."""
    found = [np.array([[3.0, 4.0]]), np.array([[20.0, 0.0]])]
    for join, expected in (("mean", [0.8, 0.4]), ("max", [1, 0.8]), ("stack", [0.6, 0.8, 1, 0])):
        np.testing.assert_allclose(join_scales(found, join, unit_scales=True)[0], expected / np.linalg.norm(expected))


@pytest.mark.parametrize("join", ["mean", "stack", "max"])
def test_rows_of_two_networks_at_several_scales(join: str) -> None:
    """Against the definition, image by image; `one` takes the middle scale, of two the larger."""
    rng, nets = np.random.default_rng(1), [Net(little_run(), 4, scales) for scales in ((40, 60), (45, 50, 80))]
    files = {(index, scale): rng.random((5, 3 + index)) for index, net in enumerate(nets) for scale in net.scales}
    rows, way = np.array([3, 1]), {"mean": np.mean, "max": np.max}

    def unit(values: np.ndarray) -> np.ndarray:
        return values / np.sqrt((values**2).sum())

    for first in (False, True):
        made = Descriptors(nets, files, first)
        several, *alone = (
            made.rows(method, rows) for method in (Method((0, 1), join), Method((0,), "one"), Method((1,), "one"))
        )
        for row, found, *middle in zip(rows, several, *alone):
            parts = [[files[index, scale][row] for scale in net.scales] for index, net in enumerate(nets)]
            scaled = [[unit(values) if first else values for values in part] for part in parts]
            each = [np.concatenate(part) if join == "stack" else way[join](part, axis=0) for part in scaled]
            np.testing.assert_allclose(found, unit(np.concatenate([unit(values) for values in each])))
            np.testing.assert_allclose(np.concatenate(middle), np.concatenate([unit(part[1]) for part in parts]))


def test_the_maximum_over_scales_is_a_row_where_it_is_asked_for() -> None:
    nets = [Net(little_run(), 4, (40, 60)), Net(little_run(), 4, (40,))]
    assert [method.join for method in methods_of(nets, "mean")] == ["one", "mean", "stack", "one"]
    assert [method.join for method in methods_of(nets, "max")] == ["one", "mean", "stack", "max", "one"]
    assert [preferred(net, index, "max").join for index, net in enumerate(nets)] == ["max", "one"]


def test_what_lies_in_a_box_is_an_image_of_its_own() -> None:
    """The second box is a sliver of 1 x 20 pixels: it is widened to 5 about its middle; the third lies at the border."""
    images = pictures(2, 40, 57)
    boxes = np.array([[3.2, 4.0, 9.7, 12.0], [10, 5, 11, 25], [55, 0, 57, 40]], np.float32)
    cut = Cut(images, np.array([1, 0, 1]), boxes)
    np.testing.assert_array_equal(cut[0], images[1][4:12, 3:10])
    np.testing.assert_array_equal(cut[1], images[0][5:25, 8:13])
    np.testing.assert_array_equal(cut[2], images[1][0:40, 51:57])
    assert len(cut) == 3 and [tuple(shape) for shape in cut.shapes] == [(8, 7), (20, 5), (40, 6)]
    run = little_run()
    found = describe_batch(run, cut, np.array([0]), 4, 40)
    torch.testing.assert_close(found, describe_batch(run, images[1:, 4:12, 3:10].copy(), np.array([0]), 4, 40))


# -------------------------------------------------------------------------------------------------------------- machines


def problem(count: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, width) and the truth (count, 3) of three overlapping classes, some of it 'difficult'."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((count, 3)) < 0.4).astype(np.int8)
    features = truth @ rng.normal(size=(3, width)) + rng.normal(size=(count, width))
    truth[rng.random((count, 3)) < 0.1] = -1
    return unit_length(features), truth


@pytest.mark.parametrize(("count", "width"), [(60, 7), (25, 80)])
def test_machines_are_linear_svms_without_the_difficult(count: int, width: int) -> None:
    features, truth = problem(count, width)
    machines = train_machines(features, truth, 2.0)
    for column, weights, bias in zip(truth.T, machines.weights, machines.biases):
        used = column != -1
        assert used.sum() < count
        target = np.where(column[used] == 1, 1.0, -1.0)
        expected, least = primal_by_hand(features[used], target, 2.0)
        np.testing.assert_allclose(np.r_[weights, bias], expected, atol=5e-3 * np.abs(expected).max() + 5e-3)
        assert hinge_loss(np.r_[weights, bias], features[used], target, 2.0) == pytest.approx(least, rel=1e-3)
    assert machines.scores(features).shape == (count, 3)


def hinge_loss(given: np.ndarray, features: np.ndarray, target: np.ndarray, cost: float) -> float:
    """|w|^2 / 2 + cost * sum of max(0, 1 - t (w x + b)); the bias, which comes last, is free."""
    weights, bias = given[:-1], given[-1]
    return float(weights @ weights / 2 + cost * np.maximum(0, 1 - target * (features @ weights + bias)).sum())


def primal_by_hand(features: np.ndarray, target: np.ndarray, cost: float) -> tuple[np.ndarray, float]:
    """The weights and the bias, and the loss there, by a quadratic program with slacks, its loss in units of the cost."""
    count, width = features.shape
    start = np.r_[np.zeros(width + 1), np.ones(count)]

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        return x[:width] @ x[:width] / 2 / cost + x[width + 1 :].sum(), np.r_[x[:width] / cost, 0, np.ones(count)]

    margins = np.c_[target[:, None] * features, target, np.eye(count)]
    bounds = [(None, None)] * (width + 1) + [(0, None)] * count
    found = optimize.minimize(
        loss, start, jac=True, bounds=bounds, method="SLSQP", options={"maxiter": 500, "ftol": 1e-10},
        constraints={"type": "ineq", "fun": lambda x: margins @ x - 1, "jac": lambda x: margins},
    )  # fmt: skip
    assert found.success
    return found.x[: width + 1], cost * float(found.fun)


def test_machines_end_at_the_solution_and_say_nothing(recwarn: pytest.WarningsRecorder) -> None:
    """At a high cost, where liblinear's thousand steps are not enough."""
    features, truth = problem(60, 7)
    truth = truth[:, :1]
    used, machines = truth[:, 0] != -1, train_machines(features, truth, 300.0)
    target = np.where(truth[used, 0] == 1, 1.0, -1.0)
    _, least = primal_by_hand(features[used], target, 300.0)
    assert hinge_loss(np.r_[machines.weights[0], machines.biases], features[used], target, 300.0) <= least * 1.001
    assert not recwarn.list


def test_recalls_are_compared_split_by_split() -> None:
    """E beats D by 2 points, both together E by 1, stacked scales lose 3; ZFNet is 10 below E. Three splits of 60 and 20."""

    def net(model: str) -> Net:
        run: Any = SimpleNamespace(config=SimpleNamespace(model=SimpleNamespace(name=model)))
        return Net(run, 7, (56, 64))

    nets = [net("vgg_d_demo"), net("vgg_e_demo"), net("zfnet_demo")]
    d = np.array([50.0, 52.0, 57.0])
    values = {
        Method((0,), "mean"): d, Method((0,), "stack"): d - 3, Method((1,), "mean"): d + 2 + np.array([0.3, 0, -0.3]),
        Method((2,), "mean"): d - 8, Method((0, 1), "mean"): d + 3,
    }  # fmt: skip
    found = vgg_transfer.recall_estimates(nets, "mean", {key: list(one) for key, one in values.items()}, 60, 20)
    gain = cast(Estimate, found["e_minus_d"])
    half = stats.t.ppf(0.975, 2) * 0.3 * np.sqrt(1 / 3 + 20 / 60)
    assert (gain.value, gain.high - gain.value) == pytest.approx((2, half))
    others = {name: cast(Estimate, one).value for name, one in found.items() if name != "e_minus_d"}
    assert others == pytest.approx({"both_minus_best": 1, "stack_minus_mean": -3, "vgg_minus_zfnet": 10})
    # Whatever the order of `runs`: the claim about joining scales is about VGG's descriptors.
    turned = {
        Method(tuple((index + 1) % 3 for index in method.nets), method.join): one for method, one in values.items()
    }
    turned |= {Method((0,), "stack"): d + 5}
    again = vgg_transfer.recall_estimates(
        nets[2:] + nets[:2], "mean", {key: list(one) for key, one in turned.items()}, 60, 20
    )
    assert {name: cast(Estimate, one).value for name, one in again.items() if name != "e_minus_d"} == pytest.approx(
        others
    )
    alone = vgg_transfer.recall_estimates(nets[:1], "mean", {Method((0,), "mean"): list(d)}, 60, 20)
    assert all(isinstance(one, Missing) for one in alone.values())


def test_the_papers_rows_of_a_data_set() -> None:
    """Those that report it, with their standard deviation where there is one."""
    caltech, voc = (vgg_transfer.paper_rows(column) for column in ("caltech256_recall", "voc2012_map"))
    assert [row[1:] for row in caltech] == [
        (None, *pair) for pair in ((74.2, 0.3), (77.6, 0.1), (85.0, 0.2), (85.1, 0.3), (86.2, 0.3))
    ]
    assert [row[2:] for row in voc][:2] == [(79.0, None), (83.2, None)] and len(voc) == 6
    assert caltech[0][0] == "the paper's, caltech256: Zeiler & Fergus 2013"
    assert voc[2][0] == "the paper's, voc2012: Wei et al. 2014"


def test_networks_are_told_by_their_tables() -> None:
    names = {"d": ("vgg_d", "vgg_d_demo", "vgg16", "vgg16_bn"), "e": ("vgg_e", "vgg_e_demo", "vgg19", "vgg19_bn")}
    for letter, other in (("d", "e"), ("e", "d")):
        assert all(vgg_transfer.is_configuration(name, letter) for name in names[letter])
        assert not any(vgg_transfer.is_configuration(name, letter) for name in (*names[other], "vgg_b", "zfnet"))


def test_the_papers_scales_for_an_input_of_56_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """256, 384, 512 of 224; for VOC alone 640 and 768 as well."""
    network = SimpleNamespace(feature_layers=[1, 2], conv_layers=[1], input_size=56)
    monkeypatch.setattr(describers, "open_run", lambda config: SimpleNamespace(network=network))
    caltech, voc = DataConfig(name="caltech101"), DataConfig(name="voc2007")
    for targets, scales in (([caltech], 3), ([voc, voc], 5), ([voc, caltech], 3)):
        net = describers.open_net(TransferConfig(protocol="vgg"), "a", targets)
        assert (net.layer, net.scales) == (2, (64, 96, 128, 160, 192)[:scales])
    given = describers.open_net(TransferConfig(protocol="vgg", scales=[80, 60]), "a", [voc])
    assert given.scales == (60, 80)


def clusters(counts: tuple[int, ...], spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of unit length and labels 3, 5, 7, ..., so many of each."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(3 + 2 * np.arange(len(counts)), counts)
    middles = np.random.default_rng(9).normal(size=(len(counts), 6))
    return unit_length(middles[(labels - 3) // 2] + spread * rng.normal(size=(len(labels), 6))), labels


def test_every_class_counts_alike() -> None:
    """Of class 3 all of twelve images are right, of class 5 one of two, which looks like one of class 3."""
    train, own = clusters((5, 5), 0.1, 0)
    test, other = clusters((12, 2), 0.1, 1)
    test[-1] = test[0]
    recall, _ = vgg_transfer.recall_of(train, test, own, other, TransferConfig(costs=[1.0]), 0)
    assert recall == 75


def test_the_cost_of_one_label_is_the_best_on_a_fifth() -> None:
    """By scikit-learn's machines, for several splits."""
    train, own = clusters((10, 10, 10), 1.3, 2)
    costs, found, expected = [0.01, 0.3, 10.0, 300.0], [], []
    for number in range(6):
        found.append(vgg_transfer.recall_of(train, train, own, own, TransferConfig(costs=costs), number)[1])
        fold, shares = inner_folds(own, 5, number)[0], []
        for cost in costs:
            machines = [
                SVC(C=cost, kernel="linear").fit(train[fold.train], own[fold.train] == label) for label in (3, 5, 7)
            ]
            named = np.argmax([machine.decision_function(train[fold.test]) for machine in machines], axis=0) * 2 + 3
            shares.append(np.mean([(named == own[fold.test])[own[fold.test] == label].mean() for label in (3, 5, 7)]))
        expected.append(costs[int(np.argmax(shares))])
    assert found == expected and len(set(expected)) > 1


@pytest.mark.parametrize(("name", "size"), [("caltech101", 30), ("caltech256", 60)])
def test_training_images_of_a_class(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two classes of 90 images: 30 are learned from, of Caltech-256 60; of the rest at most 50 are tested; three times."""
    features, labels = clusters((90, 90), 0.1, 0)
    data: Any = SimpleNamespace(train=None, val=None, key="k", manifest={"name": name})
    run: Any = SimpleNamespace(config=SimpleNamespace(run="x", model=SimpleNamespace(name="zfnet_demo")))
    used: list[np.ndarray] = []
    written: list[Any] = []
    stored = SimpleNamespace(rows=lambda method, rows: (used.append(rows), features[rows])[1])
    monkeypatch.setattr(vgg_transfer.Pool, "of", lambda data: None)
    monkeypatch.setattr(vgg_transfer.Descriptors, "of", lambda *given: stored)
    monkeypatch.setattr(vgg_transfer, "write_part", lambda *given: written.extend(given))
    config = TransferConfig(protocol="vgg", overlap=None, costs=[1.0])
    target = Target(DataConfig(name=name), data, labels, np.arange(180))
    vgg_transfer.recall_part(config, [Net(run, 7, (64,))], target, cast(Any, None))
    assert written[6]["images_per_class"] == size
    assert [len(rows) for rows in used] == [2 * size, 2 * min(50, 90 - size)] * 3


def test_each_person_has_the_marks_of_their_row() -> None:
    """Three rows, of which the second has no box."""
    boxes = Boxes.of([[(0, 0, 4, 4)], [], [(1, 1, 2, 3)]], [[0], [], [0]])
    split: Any = SimpleNamespace(boxes=boxes, multi=np.array([[1, 0], [0, 1], [1, 1]], np.int8))
    people, things = (vgg_actions.Instances.of(split, 2, people) for people in (True, False))
    assert people.images.tolist() == [0, 2] and people.marks.tolist() == [[1, 0], [1, 1]]
    assert things.marks.tolist() == [[1, 0], [1, 0]]


def test_caltechs_background_is_a_class_in_this_protocol() -> None:
    """102 classes of Caltech-101, 257 of Caltech-256; elsewhere there is none, and the packed data stay the same."""
    for name, background in (("caltech101", True), ("caltech256", True), ("voc2012", False), ("folder", False)):
        config = TransferConfig(protocol="vgg", data=DataConfig(name=name, size=64))
        assert [data.background for data, _, _ in vgg_transfer.parts_of(config)] == [background]


def test_the_claim_about_boxes_rests_on_vggs_networks() -> None:
    def nets(*models: str) -> list[Net]:
        runs: list[Any] = [SimpleNamespace(config=SimpleNamespace(model=SimpleNamespace(name=name))) for name in models]
        return [Net(run, 7, (56, 64)) for run in runs]

    for models, decides in (
        (("vgg_d_demo", "vgg_e_demo", "zfnet_demo"), (0, 1)), (("vgg_d_demo", "zfnet_demo"), (0,)), (("zfnet_demo",), (0,)),
    ):  # fmt: skip
        given = nets(*models)
        assert last_of_vgg(given, vgg_actions.combinations(given, "mean")) == Method(decides, "mean")


def test_a_class_without_examples_of_both_kinds_scores_nothing() -> None:
    features, truth = problem(30, 5)
    truth[:, 1] = 0
    machines = train_machines(features, truth, 1.0)
    assert not machines.scores(features)[:, 1].any() and machines.scores(features)[:, 0].any()


def test_the_cost_is_chosen_on_what_is_held_out() -> None:
    features, truth = problem(90, 12)
    held, seen = Fold(np.arange(60), np.arange(60, 90)), []

    def score(scores: np.ndarray, positions: np.ndarray) -> float:
        seen.append(positions)
        return float(((scores > 0) == (truth[positions] == 1)).mean())

    chosen = choose_cost(features, truth, [10.0, 1e-6, 1.0], held, score)
    assert chosen in (1.0, 10.0)  # 1e-6 takes everything for the commoner kind
    assert all(positions is held.test for positions in seen) and len(seen) == 3
    assert choose_cost(features, truth, [10.0, 1e-6, 1.0], None, score) == 1.0
    assert choose_cost(features, truth, [10.0, 0.1, 1.0], held, lambda scores, positions: 0.5) == 0.1, "of equal ones"


def test_the_cost_of_several_labels_is_the_best_on_the_held_out_half() -> None:
    """By scikit-learn's machines and the devkit, for halves of several seeds."""
    features, marks = problem(60, 30)
    marks, costs = np.maximum(marks, 0), [0.01, 1.0, 100.0]
    found, expected = [], []
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(len(marks))
        held, own = np.sort(order[:30]), np.sort(order[30:])
        found.append(score_images(features, features[:2], marks, costs, seed, mean_precision)[1])
        precisions = []
        for cost in costs:
            machines = [SVC(C=cost, kernel="linear").fit(features[own], column) for column in marks[own].T]
            scores = [machine.decision_function(features[held]) for machine in machines]
            precisions.append(np.mean([devkit(score, truth) for score, truth in zip(scores, marks[held].T)]))
        expected.append(costs[int(np.argmax(precisions))])
    assert found == expected and len(set(expected)) > 1


@pytest.mark.parametrize(("name", "definition"), [("voc2007", devkit_2007), ("voc2012", devkit)])
def test_voc_2007_is_judged_by_its_own_definition(name: str, definition: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores by scikit-learn's machines, precision by the devkit of that year."""
    features, marks = problem(60, 8)
    marks = np.maximum(marks, 0)
    own, other = slice(0, 40), slice(40, 60)
    parts = [SimpleNamespace(images=[0] * len(marks[part]), multi=marks[part]) for part in (own, other)]
    data = SimpleNamespace(train=parts[0], val=parts[1], manifest={"name": name}, key="k")
    target: Any = SimpleNamespace(config=SimpleNamespace(name=name), data=data, name=name)
    run = SimpleNamespace(config=SimpleNamespace(run="x", model=SimpleNamespace(name="zfnet_demo")))
    stored = SimpleNamespace(rows=lambda method, rows: features[rows])
    monkeypatch.setattr(vgg_transfer.Descriptors, "of", lambda nets, pool, unit_scales: stored)
    written: list[Any] = []
    monkeypatch.setattr(vgg_transfer, "write_part", lambda *given: written.extend(given))
    vgg_transfer.precision_part(
        TransferConfig(protocol="vgg", costs=[1.0]), [Net(cast(Any, run), 7, (64,))], target, cast(Any, None)
    )
    ((found,),) = written[4].values()
    machines = [SVC(C=1.0, kernel="linear").fit(features[own], column) for column in marks[own].T]
    scores = [machine.decision_function(features[other]) for machine in machines]
    expected = [definition(score, truth) for score, truth in zip(scores, marks[other].T)]
    assert found == pytest.approx(100 * np.mean(expected), abs=1e-6)
    assert devkit_2007(scores[0], marks[other][:, 0]) != pytest.approx(devkit(scores[0], marks[other][:, 0]), abs=1e-3)


# --------------------------------------------------------------------------------------------------------------- command


SMALL = ["protocol=vgg", "images_per_class=3", "test_per_class=3", "splits=2", "costs=[0.001]", "precision=fp32",
         "data.train_per_class=4", "data.val_per_class=2", "scenes.train_per_class=1", "scenes.val_per_class=1"]  # fmt: skip


@pytest.fixture(scope="module")
def written(tiny_run: Path, zfrepro: Zfrepro, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table's folder; two runs of one network under a VGG's name stand for its networks."""
    outputs = tmp_path_factory.mktemp("outputs")
    shutil.copytree(tiny_run / "tiny" / "train", outputs / "tiny" / "train")
    for name in ("d", "e"):
        shutil.copytree(outputs / "tiny" / "train", outputs / name / "train")
        config = outputs / name / "train" / "config.yaml"
        config.write_text(config.read_text().replace("name: zfnet_demo", f"name: vgg_{name}_demo"))
        of_its_own(outputs / name, epoch="de".index(name) + 10)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(average_precision, "DRAWS", 40)
        zfrepro("transfer", f"outputs={outputs}", "run=d", "runs=[d,e,tiny]", "scales=[56,64]", *SMALL)
    return outputs / "d" / "vgg_table11_transfer"


def test_table_holds_every_network_in_every_way(written: Path) -> None:
    metrics = json.loads((written / "metrics.json").read_text())
    recall, precision = metrics["embedded_target"], metrics["embedded_scenes"]
    ways = [f"{run}, {how}" for run in ("d", "e", "tiny") for how in ("one scale", "scales averaged", "scales stacked")]
    assert list(recall["methods"]) == [*ways, "d & e, scales stacked"]
    assert list(precision["methods"]) == [*ways, "d & e, scales averaged"]
    assert all(len(one["values"]) == 2 for one in recall["methods"].values())
    # Twice the same network: the same numbers, alone and (each half of the stack is the whole) together.
    for how in ("one scale", "scales averaged", "scales stacked"):
        assert recall["methods"][f"d, {how}"] == recall["methods"][f"e, {how}"]
    assert recall["estimates"]["e_minus_d"]["value"] == 0
    assert recall["estimates"]["both_minus_best"]["value"] == pytest.approx(0, abs=1e-9)
    values = {name: np.array(one["values"]) for name, one in recall["methods"].items()}
    gain = values["d, scales stacked"] - values["d, scales averaged"]
    assert recall["estimates"]["stack_minus_mean"]["value"] == pytest.approx(gain.mean())
    assert recall["estimates"]["vgg_minus_zfnet"]["value"] == 0
    means = [precision["methods"][f"d, scales {how}"]["mean"] for how in ("stacked", "averaged")]
    assert precision["estimates"]["stack_minus_mean_voc"]["value"] == pytest.approx(means[0] - means[1])
    rows = list(csv.DictReader((written / "table.csv").open()))
    targets = [row["target"] for row in rows]
    assert targets == sorted(targets, reverse=True) and set(targets) == {"embedded_target", "embedded_scenes"}
    for name, part in (("embedded_target", recall), ("embedded_scenes", precision)):
        own = [row for row in rows if row["target"] == name]
        theirs = {"embedded_target": "caltech101", "embedded_scenes": "voc2012"}[name]
        assert own[0]["method"] == f"the paper's, {theirs}: Zeiler & Fergus 2013"
        ours = {row["method"].removeprefix("ours: "): float(row["percent"]) for row in own if "ours: " in row["method"]}
        assert ours == {method: one["mean"] for method, one in part["methods"].items()}
        assert {row["scales"] for row in own if row["method"].endswith("one scale")} == {"64"}
    notes = (written / "table.md").read_text()
    assert "embedded_target: Percent: mean class recall" in notes and "embedded_scenes: Percent: mean average" in notes


def test_recall_is_that_of_the_descriptors(written: Path) -> None:
    """The first split of one row, from the stored descriptors, with scikit-learn alone."""
    run = open_run(Common(run="d", outputs=str(written.parents[1]), precision="fp32"))
    config = DataConfig(name="embedded", part="target", size=64, fit="whole", train_per_class=4, val_per_class=2)
    target = packed_target(config)
    fold = draw_fold(target.labels, 3, 3, 0, 0)
    parts = [describe(run, Pool.of(target.data), 7, scale) for scale in (56, 64)]
    features = np.mean(parts, axis=0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    metrics = json.loads((written / "metrics.json").read_text())["embedded_target"]
    cost = metrics["costs"]["d, scales averaged"][0]
    machine = OneVsRestClassifier(SVC(C=cost, kernel="linear")).fit(features[fold.train], target.labels[fold.train])
    predicted, labels = machine.predict(features[fold.test]), target.labels[fold.test]
    expected = np.mean([(predicted == labels)[labels == label].mean() for label in np.unique(labels)])
    assert metrics["methods"]["d, scales averaged"]["values"][0] == pytest.approx(100 * expected, abs=2)


def test_boxes_are_described_as_well(written: Path) -> None:
    """Table 12's stand-in: of each network, and of VGG's together, the image alone and with what lies in the box."""
    folder = written.with_name("vgg_table12_actions")
    found = json.loads((folder / "metrics.json").read_text())["embedded_scenes"]
    ways = ("image only", "image and bounding box")
    rows = [f"{name}, scales averaged, {way}" for name in ("d", "e", "tiny", "d & e") for way in ways]
    assert list(found["methods"]) == rows
    gain = found["methods"][rows[-1]] - found["methods"][rows[-2]]
    assert found["estimates"]["box_minus_image"]["value"] == pytest.approx(gain)
    table = list(csv.DictReader((folder / "table.csv").open()))
    assert [row["mean_average_precision"] for row in table][:5] == ["70.2", "73.6", "76.3", "79.2", "84.0"]
    stored = np.load(folder / "embedded_scenes.npz")
    data = open_data(
        DataConfig(name="embedded", part="scenes", size=64, fit="whole", train_per_class=1, val_per_class=1)
    )
    assert data.val.boxes is not None
    np.testing.assert_array_equal(stored["truth"].argmax(1), data.val.boxes.labels)
    run = open_run(Common(run="d", outputs=str(written.parents[1]), precision="fp32"))
    assert data.train.boxes is not None
    alone, piece = [], []
    for split in (data.train, data.val):
        assert split.boxes is not None
        one = [[describe_batch(run, split.images, np.array([row]), 7, scale)[0].cpu().numpy() for row in range(len(split))]
               for scale in (56, 64)]  # fmt: skip
        alone.append(unit_length(np.mean(one, axis=0))[split.boxes.images])
        cut = Cut(split.images, split.boxes.images, split.boxes.corners)
        inside = [[describe_batch(run, cut, np.array([row]), 7, scale)[0].cpu().numpy() for row in range(len(cut))]
                  for scale in (56, 64)]  # fmt: skip
        piece.append(unit_length(np.mean(inside, axis=0)))
    marks = (data.train.boxes.labels[:, None] == np.arange(data.num_classes)).astype(np.int8)
    both = [unit_length(np.concatenate(pair, axis=1)) for pair in zip(alone, piece)]
    for number, (train, test) in enumerate((alone, both)):
        expected = train_machines(train, marks, 0.001).scores(test)
        np.testing.assert_allclose(stored["scores"][number], expected, atol=1e-4)
    precisions = average_precisions(stored["scores"][0], stored["truth"])
    assert found["methods"][rows[0]] == pytest.approx(100 * np.nanmean(precisions))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["scales=[40]"], "scales=40: must be 56 pixels or more"),
        (["images_per_class=9"], "images_per_class=9: the smallest class .* leaves at most 5"),
        (["layer=9"], "layer=9"),
        (["join=sum"], "join=sum: must be one of mean, stack"),
        (["runs=[tiny,nosuch]"], "runs=nosuch: no trained run"),
    ],
)
def test_mistakes_are_one_line(options: list[str], message: str, tiny_run: Path, refused: Refused) -> None:
    assert re.search(message, refused("transfer", f"outputs={tiny_run}", "run=tiny", *SMALL, *options))


def test_bars_say_what_differs() -> None:
    """One network used in several ways: what stands behind the comma tells them apart."""
    two = "vgg_demo/depth/d_64-128 & vgg_demo/depth/e_64-128, scales averaged"
    names = ["run/depth/d_64, one scale", "run/depth/d_64, scales averaged", f"{two}, image only",
             f"{two}, image and bounding box"]  # fmt: skip
    axes = draw_bars([Bar(name, 50.0, None, False) for name in names], "Table 11", "recall (%)").axes[0]
    assert [tick.get_text().replace("\n", " ") for tick in axes.get_yticklabels()] == names
