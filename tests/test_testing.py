"""Dense and multi-crop testing against loops over places, crops, mirror images and sizes in float64."""

from __future__ import annotations

from collections.abc import Callable
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
from zfrepro.options.commands import EvaluateConfig, Reading, TrainConfig
from zfrepro.options.declare import check_options
from zfrepro.options.shared import DataConfig, LayerConfig, ModelConfig
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


def maps_of(network: Network, image: Tensor) -> Tensor:
    """The convolutional part, once over the whole image."""
    last = network.conv_layers[-1]
    return network.features(image[None], [last])[last]


def mean_score(scores: Tensor) -> Tensor:
    """(places, C) to (C,): VGG's section 3.2 as it is read unless told otherwise."""
    return scores.mean(0).softmax(0)


def dense_by_loop(
    run: TrainedRun,
    pixels: Tensor,
    join: Callable[[Tensor], Tensor] = mean_score,
    maps_of: Callable[[Network, Tensor], Tensor] = maps_of,
) -> Tensor:
    """The convolutional part once over the whole image, then the fully connected layers window by window."""
    network, last = run.network, run.network.conv_layers[-1]
    answers = []
    for image in (pixels, pixels.flip(2)):
        maps = maps_of(network, image)
        side = network.side(last)
        scores = [
            network.features(maps[:, :, y : y + side, x : x + side].contiguous(), [network.top], after=last)[
                network.top
            ][0]
            for y in range(maps.shape[2] - side + 1)
            for x in range(maps.shape[3] - side + 1)
        ]
        answers.append(join(torch.stack(scores)))
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


# ---------------------------------------------------------------------------------------------------------------- readings


def softmax(scores: list[float]) -> np.ndarray:
    """By the definition."""
    powers = np.exp(np.array(scores) - max(scores))
    return powers / powers.sum()


def loop_over_places(scores: Tensor, places: str) -> Tensor:
    """(places, C) to (C,), class by class."""
    rows = scores.tolist()
    if places == "posteriors":
        return torch.from_numpy(sum(softmax(row) for row in rows) / len(rows))
    over = {"scores": lambda column: sum(column) / len(column), "sum": sum, "max": max}[places]
    return torch.from_numpy(softmax([over(column) for column in zip(*rows)]))


@pytest.mark.parametrize("places", ["scores", "posteriors", "sum", "max"])
def test_places_are_joined_as_a_loop_does(places: str) -> None:
    run, split, scales = run_of(), split_of(*SHAPES[:2]), [33, 48]
    found = posteriors(run, split, "dense", scales, reading=Reading(places=places))
    for answer, image in zip(found, split.images):
        pixels = [network_input(run, image, q) for q in scales]
        by_loop = [dense_by_loop(run, one, lambda scores: loop_over_places(scores, places)) for one in pixels]
        assert np.abs(answer - torch.stack(by_loop).mean(0).numpy()).max() < 1e-5
    assert np.abs(found - posteriors(run, split, "dense", scales)).max() > 0.01 or places == "scores"
    crops = posteriors(run, split, "multi_crop", scales, reading=Reading(places=places))
    np.testing.assert_array_equal(crops, posteriors(run, split, "multi_crop", scales))


def rounded_up(network: Network, image: Tensor) -> Tensor:
    """The convolutional part with every pooling by a loop over its windows, as many as begin within the map or before it."""
    x = image[None]
    for layer in network.layers[:-2]:
        for op in layer.ops:
            x = pooled(x, op.kernel, op.stride, op.padding) if op.kind == "pool" else network.step(op, x)
    return x


def pooled(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    starts = [range(-padding, side + padding - kernel + stride, stride) for side in x.shape[2:]]
    rows, columns = ([at for at in one if at < side] for one, side in zip(starts, x.shape[2:]))
    return torch.stack([
        torch.stack([x[:, :, max(y, 0) : y + kernel, max(z, 0) : z + kernel].amax((2, 3)) for z in columns], -1)
        for y in rows
    ], -2)  # fmt: skip


def test_odd_maps_are_rounded_up_where_asked_for() -> None:
    run, split = run_of(), split_of(*SHAPES[:2])
    up, down = (posteriors(run, split, "dense", [38], reading=Reading(rounding=one)) for one in ("ceil", "floor"))
    for answer, image in zip(up, split.images):
        by_loop = dense_by_loop(run, network_input(run, image, 38), maps_of=rounded_up)
        assert np.abs(answer - by_loop.detach().numpy()).max() < 1e-5
    assert np.abs(up - down).max() > 0.01
    crops = [posteriors(run, split, "multi_crop", [38], reading=Reading(rounding=one)) for one in ("ceil", "floor")]
    np.testing.assert_array_equal(*crops)


def test_images_of_the_training_size_are_pooled_as_in_training() -> None:
    """Rounded up, the maps of this table would have places that no crop has."""
    run, split = run_of(), split_of((CROP, CROP))
    assert run.network(torch.zeros(1, 3, CROP, CROP).double(), ceil=True).ndim == 4
    found = [posteriors(run, split, "dense", [CROP], reading=Reading(rounding=one)) for one in ("ceil", "floor")]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("image", "down", "up"),
    [((256, 341), (2, 4), (2, 5)), ((512, 682), (10, 15), (10, 16)), ((384, 512), (6, 10), (6, 10))],
)
def test_vggs_maps_of_a_picture_of_4_by_3(image: tuple[int, int], down: tuple[int, int], up: tuple[int, int]) -> None:
    rows = [LayerConfig(maps=1, kernel=3, padding=1, pool=2)] * 5 + [LayerConfig("fc", units=1)]
    network = Network(ModelConfig("vgg", 224, rows), 2)
    for ceil, expected in ((False, down), (True, up)):
        assert network(torch.zeros(1, 3, *image), ceil=ceil).shape[2:] == expected


def test_the_grid_over_the_centre_square() -> None:
    places = grid_positions(256, 341, 224, "square")
    assert sorted(set(places[:, 0].tolist())) == [0, 8, 16, 24, 32]
    assert sorted(set(places[:, 1].tolist())) == [42, 50, 58, 66, 74], "the square begins at (341 - 256) // 2"
    turned = grid_positions(341, 256, 224, "square")
    assert sorted(set(turned[:, 0].tolist())) == [42, 50, 58, 66, 74] and places[:, 2].sum() == 25
    assert set(map(tuple, grid_positions(224, 298, 224, "square")[:, :2].tolist())) == {(0, 37)}, "the centre crop"
    run, split = run_of(), split_of((37, 52))
    pixels = network_input(run, split.images[0], 37)
    expected = crops_by_loop(run, pixels, [(y, x) for y in (0, 2, 3, 4, 6) for x in (7, 9, 10, 11, 13)])
    found = posteriors(run, split, "multi_crop", [37], reading=Reading(grid="square"))[0]
    assert np.abs(found - expected.detach().numpy()).max() < 1e-5


def test_both_methods_weigh_by_their_views() -> None:
    """Of an image at one size, dense evaluation has two views, the grid 50."""
    run, split, reading = run_of(), split_of(*SHAPES[:2]), Reading(weights="views")
    dense, crops = (posteriors(run, split, method, [37, 45]) for method in ("dense", "multi_crop"))
    both = posteriors(run, split, "dense_and_multi_crop", [37, 45], reading=reading)
    assert np.abs(both - (2 * dense + 50 * crops) / 52).max() < 1e-6
    assert np.abs(both - (dense + crops) / 2).max() > 1e-3


def test_both_methods_follow_all_readings() -> None:
    run, split = run_of(), split_of(*SHAPES[:2])
    reading = Reading(places="max", rounding="ceil", grid="square")
    dense, crops, both = (
        posteriors(run, split, method, [38], reading=reading)
        for method in ("dense", "multi_crop", "dense_and_multi_crop")
    )
    assert np.abs(both - (dense + crops) / 2).max() < 1e-6


@pytest.mark.parametrize(
    ("method", "given", "methods"),
    [
        ("ten_crop", {"places": "max"}, "dense or dense_and_multi_crop"),
        ("multi_crop", {"rounding": "ceil"}, "dense or dense_and_multi_crop"),
        ("dense", {"grid": "square"}, "multi_crop or dense_and_multi_crop"),
        ("dense", {"weights": "views"}, "dense_and_multi_crop"),
    ],
)
def test_a_reading_without_effect_is_refused(method: str, given: dict[str, str], methods: str) -> None:
    check_options(EvaluateConfig(method="dense_and_multi_crop", **given))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"=\w+: must be left out, or given with method={methods}$"):
        check_options(EvaluateConfig(method=method, **given))  # type: ignore[arg-type]


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
    assert around(config(55, 80)) == [72, 80, 88], "55 / 7 is nearer to 8"


def test_small_batches_give_the_same() -> None:
    run, split = run_of(), split_of(*SHAPES)
    whole = posteriors(run, split, "dense", [33])
    assert np.abs(posteriors(run, split, "dense", [33], batch=1) - whole).max() < 1e-6
    assert np.abs(posteriors(run, split, "dense", [33], np.array([2, 0])) - whole[[2, 0]]).max() < 1e-6


def test_a_size_below_the_networks_input_is_refused() -> None:
    with pytest.raises(UserError, match=r"test_scales=\[30\]: .* 31 pixels"):
        posteriors(run_of(), split_of((37, 37)), "dense", [30])
