"""VGG's Tables 11 and 12: descriptors against a loop over places and scales, machines against scikit-learn, the command."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import small_table
from PIL import Image
from torch import Tensor

from zfrepro.data.transforms import rescaled
from zfrepro.evaluator.descriptors import describe_batch, join_scales, unit_length
from zfrepro.evaluator.one_against_all import choose_cost, train_machines
from zfrepro.evaluator.splits import Fold
from zfrepro.models.network import Network, initialise
from zfrepro.options.commands import TrainConfig
from zfrepro.run import TrainedRun

# ----------------------------------------------------------------------------------------------------------- descriptors


def little_run(size: int = 40, top: int = 6) -> TrainedRun:
    """A random network of awkward sizes, trained on nothing, whose mean image is no constant."""
    network = Network(small_table(), top)
    initialise(network, "he", 3)
    generator = torch.Generator().manual_seed(1)
    mean = 90 + 60 * torch.rand(size, size, 3, generator=generator)
    return TrainedRun(
        folder=Path("nowhere/little"), config=TrainConfig(), network=network.eval(), checkpoint=Path("none"),
        checkpoint_hash="none", epoch=1, class_names=tuple("abcdef")[:top], known=None, mean=mean, scale=torch.tensor(0.05),
        device=torch.device("cpu"), precision="fp32",
    )  # fmt: skip


def pictures(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def test_rescaling_is_pillows() -> None:
    for height, width, side in ((40, 57, 31), (57, 40, 71), (40, 40, 40)):
        images = pictures(2, height, width)
        found = rescaled(torch.from_numpy(images), side).numpy()
        assert min(found.shape[1:3]) == side
        size = (found.shape[2], found.shape[1])
        assert abs(size[0] / size[1] - width / height) < 0.02
        for one, image in zip(found, images):
            pillow = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR), np.float64)
            np.testing.assert_allclose(one, pillow, atol=1.01)  # Pillow rounds twice


def looped(run: TrainedRun, image: np.ndarray, layer: int, scale: int) -> Tensor:
    """The descriptor of one picture in float64, place by place."""
    network = copy.deepcopy(run.network).double()
    short = min(image.shape[:2])
    size = [round(side * scale / short) for side in image.shape[:2]]

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
    found = describe_batch(run, images, 4, scale)
    assert expected.std() > 0.01
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


def test_top_convolutional_layer_is_averaged_over_its_maps() -> None:
    run, images = little_run(), pictures(2, 40, 57)
    found = describe_batch(run, images, 3, 45)
    views = run.whole(images, 45)
    maps = [run.network.features(view, [3])[3] for view in (views, views.flip(3))]
    assert maps[0].shape[2] != maps[0].shape[3]
    torch.testing.assert_close(found, (maps[0].mean((2, 3)) + maps[1].mean((2, 3))) / 2, atol=1e-5, rtol=1e-5)
    run.mean.fill_(100)  # a mean image is no mirror image of itself
    mirrored = describe_batch(run, images[:, :, ::-1].copy(), 3, 45)
    torch.testing.assert_close(mirrored, describe_batch(run, images, 3, 45), atol=1e-5, rtol=1e-5)


def test_scales_are_averaged_or_stacked_before_they_are_normalised() -> None:
    one, two = np.array([[3.0, 4.0], [0, 0]]), np.array([[1.0, 0.0], [0, 0]])
    np.testing.assert_allclose(join_scales([one, two], "mean"), [np.array([2, 2]) / np.sqrt(8), [0, 0]])
    np.testing.assert_allclose(join_scales([one, two], "stack"), [np.array([3, 4, 1, 0]) / np.sqrt(26), [0] * 4])
    np.testing.assert_allclose(np.linalg.norm(unit_length(one), axis=1), [1, 0])


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
        # libsvm's bias is free, liblinear's has a price, as the weight of a feature that is always 1.
        with_bias = np.c_[features[used], np.ones(used.sum())]
        target = np.where(column[used] == 1, 1.0, -1.0)
        expected = dual_by_hand(with_bias, target, 2.0)
        np.testing.assert_allclose(np.r_[weights, bias], expected, atol=5e-3 * np.abs(expected).max() + 5e-3)
    assert machines.scores(features).shape == (count, 3)


def dual_by_hand(features: np.ndarray, target: np.ndarray, cost: float) -> np.ndarray:
    """The hinge loss's weights by projected coordinate ascent on the dual, slowly."""
    alpha, gram = np.zeros(len(target)), (features * target[:, None]) @ (features * target[:, None]).T
    for _ in range(300):
        for i in range(len(alpha)):
            alpha[i] = np.clip(alpha[i] + (1 - gram[i] @ alpha) / gram[i, i], 0, cost)
    return (alpha * target) @ features


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
