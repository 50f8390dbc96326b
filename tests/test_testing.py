"""Dense and multi-crop testing against loops over places, crops, mirror images and sizes in float64."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.conftest import small_table
from zfrepro.data import Split
from zfrepro.errors import UserError
from zfrepro.evaluator.testing import (
    around,
    grid_positions,
    own_scale,
    posteriors,
    ten_positions,
)
from zfrepro.models.network import Network
from zfrepro.options.commands import TrainConfig
from zfrepro.options.shared import DataConfig, ModelConfig
from zfrepro.run import TrainedRun

CROP, CLASSES = 31, 4


def run_of(mean: Tensor | None = None, scales: tuple[int, ...] = (), size: int = 37) -> TrainedRun:
    """What testing needs of a run: a random network of an awkward table, in float64."""
    torch.manual_seed(5)
    network = Network(small_table(CROP), CLASSES).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    given = TrainedRun.__new__(TrainedRun)
    vars(given).update(
        network=network, mean=(torch.full((3,), 100.0) if mean is None else mean).double(), scale=torch.full((3,), 0.05).double(),
        device=torch.device("cpu"), precision="fp32", folder=Path("tiny"),
        config=SimpleNamespace(run="tiny", train_scale=list(scales), data=SimpleNamespace(size=size)),
    )  # fmt: skip
    return given


def split_of(*shapes: tuple[int, int]) -> Split:
    """Random images of these shapes, as a data set packed whole has them."""
    generator = np.random.default_rng(1)
    images = [generator.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in shapes]
    return Split("val", cast(Any, images), np.zeros(len(images), np.int64), [""] * len(images))


def resized(image: np.ndarray, smaller: int) -> Tensor:
    """(H, W, 3) float64 by the definition: isotropic, the larger side rounded down, bilinear, antialiased."""
    height, width = (side * smaller // min(image.shape[:2]) for side in image.shape[:2])
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    return F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)[0].permute(1, 2, 0).double()


def network_input(run: TrainedRun, image: np.ndarray, smaller: int) -> Tensor:
    return ((resized(image, smaller) - run.mean) * run.scale).permute(2, 0, 1)


def dense_by_loop(run: TrainedRun, pixels: Tensor) -> Tensor:
    """The convolutional part once over the whole image, then the fully connected layers window by window."""
    network, last = run.network, run.network.conv_layers[-1]
    answers = []
    for image in (pixels, pixels.flip(2)):
        maps = network.features(image[None], [last])[last]
        side = network.side(last)
        scores = [
            network.features(maps[:, :, y : y + side, x : x + side].contiguous(), [network.top], after=last)[
                network.top
            ][0]
            for y in range(maps.shape[2] - side + 1)
            for x in range(maps.shape[3] - side + 1)
        ]
        answers.append(torch.stack(scores).mean(0).softmax(0))
    return (answers[0] + answers[1]) / 2


def crops_by_loop(run: TrainedRun, pixels: Tensor, places: list[tuple[int, int]]) -> Tensor:
    answers = [run.network(pixels[None, :, y : y + CROP, x : x + CROP])[0].softmax(0) for y, x in places]
    mirrored = [run.network(pixels[:, y : y + CROP, x : x + CROP].flip(2)[None])[0].softmax(0) for y, x in places]
    return torch.stack(answers + mirrored).mean(0)


def grid(height: int, width: int) -> list[tuple[int, int]]:
    """The regular grid in plain arithmetic."""
    rows, columns = ([round(i * (side - CROP) / 4) for i in range(5)] for side in (height, width))
    return [(y, x) for y in rows for x in columns]


SHAPES = ((37, 52), (61, 37), (37, 52), (40, 40))


@pytest.mark.parametrize("scales", [[37], [31], [33, 48], [31, 40, 64]])
def test_dense_equals_a_loop_over_places_flips_and_sizes(scales: list[int]) -> None:
    run, split = run_of(), split_of(*SHAPES)
    found = posteriors(run, split, "dense", scales)
    for answer, image in zip(found, split.images):
        expected = torch.stack([dense_by_loop(run, network_input(run, image, q)) for q in scales]).mean(0)
        assert np.abs(answer - expected.detach().numpy()).max() < 1e-5


@pytest.mark.parametrize("scales", [[37], [31, 45]])
def test_multi_crop_equals_a_loop_over_the_grid(scales: list[int]) -> None:
    run, split = run_of(), split_of(*SHAPES)
    found, both = (posteriors(run, split, method, scales) for method in ("multi_crop", "dense_and_multi_crop"))
    dense = posteriors(run, split, "dense", scales)
    for answer, image in zip(found, split.images):
        each = []
        for q in scales:
            pixels = network_input(run, image, q)
            each.append(crops_by_loop(run, pixels, grid(*pixels.shape[1:])))
        assert np.abs(answer - torch.stack(each).mean(0).detach().numpy()).max() < 1e-5
    assert np.abs(both - (found + dense) / 2).max() < 1e-6


def test_ten_crops_and_the_centre() -> None:
    run, split = run_of(), split_of((37, 52))
    pixels = network_input(run, split.images[0], 37)
    corners = [(0, 0), (0, 21), (6, 0), (6, 21), (3, 10)]
    expected = crops_by_loop(run, pixels, corners).detach().numpy()
    assert np.abs(posteriors(run, split, "ten_crop", [37])[0] - expected).max() < 1e-5
    centre = run.network(pixels[None, :, 3:34, 10:41])[0].softmax(0).detach().numpy()
    assert np.abs(posteriors(run, split, "centre", [37])[0] - centre).max() < 1e-5


def test_at_the_training_size_dense_is_the_crop_and_its_mirror_image() -> None:
    run, split = run_of(), split_of((CROP, CROP))
    grids = posteriors(run, split, "multi_crop", [CROP])  # all 25 places coincide
    assert np.abs(posteriors(run, split, "dense", [CROP]) - grids).max() < 1e-6


def test_a_mean_image_belongs_to_its_places() -> None:
    """It is rescaled with the image, not with the crop."""
    mean = torch.rand(37, 37, 3) * 200
    run, split = run_of(mean), split_of((37, 37))
    pixels = (torch.from_numpy(split.images[0]) - mean).double() * run.scale
    expected = crops_by_loop(run, pixels.permute(2, 0, 1), grid(37, 37)).detach().numpy()
    assert np.abs(posteriors(run, split, "multi_crop", [37])[0] - expected).max() < 1e-5
    larger = resized(split.images[0], 45) - resized(mean.numpy(), 45)
    expected = crops_by_loop(run, (larger * run.scale).permute(2, 0, 1), grid(45, 45)).detach().numpy()
    assert np.abs(posteriors(run, split, "multi_crop", [45])[0] - expected).max() < 1e-5


def test_the_grid_covers_the_whole_image() -> None:
    places = grid_positions(256, 341, 224)
    assert places.shape == (50, 3) and places[:25, 2].sum() == 0 and places[25:, 2].sum() == 25
    assert sorted(set(places[:, 0].tolist())) == [0, 8, 16, 24, 32]
    assert sorted(set(places[:, 1].tolist())) == [0, 29, 58, 88, 117]
    assert set(grid_positions(224, 224, 224)[:, :2].flatten().tolist()) == {0}
    assert ten_positions(256, 341, 224)[:5, :2].tolist() == [[0, 0], [0, 117], [32, 0], [32, 117], [16, 58]]


def test_sizes_of_a_run() -> None:
    def config(crop: int, *scales: int, size: int = 0) -> TrainConfig:
        return TrainConfig(
            model=ModelConfig(name="m", input_size=crop), data=DataConfig(name="d", size=size), train_scale=list(scales)
        )

    assert (own_scale(config(31, 64)), around(config(31, 70))) == (64, [66, 70, 74])
    assert (own_scale(config(31, 64, 128)), around(config(31, 64, 128))) == (96, [64, 96, 128])
    assert (own_scale(config(31, size=40)), around(config(31, size=40))) == (40, [36, 40, 44])
    assert around(config(224, 256)) == [224, 256, 288], "S - 32, S and S + 32 of crops of 224 px"
    assert around(config(56, 256)) == [248, 256, 264]


def test_small_batches_give_the_same() -> None:
    run, split = run_of(), split_of(*SHAPES)
    whole = posteriors(run, split, "dense", [33])
    assert np.abs(posteriors(run, split, "dense", [33], batch=1) - whole).max() < 1e-6
    assert np.abs(posteriors(run, split, "dense", [33], np.array([2, 0])) - whole[[2, 0]]).max() < 1e-6


def test_a_size_below_the_networks_input_is_refused() -> None:
    with pytest.raises(UserError, match=r"test_scales=\[30\]: .* 31 pixels"):
        posteriors(run_of(), split_of((37, 37)), "dense", [30])
