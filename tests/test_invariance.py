"""Figure 5: transformations against a loop over pixels, curves against a loop over steps, the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Refused, Zfrepro
from zfrepro.data import open_data
from zfrepro.data.finer import finer, finest
from zfrepro.data.squares import squared
from zfrepro.evaluator import invariance
from zfrepro.options.commands import InvarianceConfig
from zfrepro.options.shared import DataConfig
from zfrepro.run import TrainedRun


def by_loop(image: np.ndarray, kind: str, value: float, border: np.ndarray) -> np.ndarray:
    """Every pixel of the result asks where it comes from, and mixes the four pixels around that place."""
    size = len(image)
    middle, result = (size - 1) / 2, np.zeros(image.shape)
    for y in range(size):
        for x in range(size):
            down, right = y - middle, x - middle
            if kind == "translation":
                down -= value
            elif kind == "scale":
                down, right = down / value, right / value
            else:  # counter-clockwise on the screen: undo it
                turn = -math.radians(value)
                up = -down
                right, up = right * math.cos(turn) - up * math.sin(turn), right * math.sin(turn) + up * math.cos(turn)
                down = -up
            sy, sx = down + middle, right + middle
            y0, x0 = math.floor(sy + 1e-9), math.floor(sx + 1e-9)
            for yy, wy in ((y0, y0 + 1 - sy), (y0 + 1, sy - y0)):
                for xx, wx in ((x0, x0 + 1 - sx), (x0 + 1, sx - x0)):
                    inside = 0 <= yy < size and 0 <= xx < size
                    result[y, x] += wy * wx * (image[yy, xx] if inside else border[y, x])
    return result


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("translation", 3.0),
        ("translation", -2.4),
        ("scale", 1.3),
        ("scale", 1.0),
        ("rotation", 90.0),
        ("rotation", 33.0),
    ],
)
def test_transformations_equal_a_loop_over_pixels(kind: str, value: float) -> None:
    rng = np.random.default_rng(0)
    image, border = rng.integers(0, 256, (11, 11, 3)).astype(np.uint8), 200 * rng.random((11, 11, 3))
    matrix = invariance.matrices(kind, np.array([value]))
    ours = invariance.transform(torch.from_numpy(image)[None], matrix, torch.from_numpy(border).float())[0].numpy()
    np.testing.assert_allclose(ours, by_loop(image.astype(float), kind, value, border), atol=2e-3)


@pytest.mark.parametrize(("kind", "value"), [("translation", -2.4), ("scale", 1.3), ("rotation", 33.0)])
def test_pictures_are_moved_at_their_sources_resolution(kind: str, value: float) -> None:
    """Three times as fine: the loop at that resolution, then the mean of every three by three pixels."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (21, 21, 3)).astype(np.uint8)
    matrix = invariance.matrices(kind, np.array([value]))
    ours = invariance.transform(torch.from_numpy(image)[None], matrix, torch.zeros(7, 7, 3), factor=3)[0].numpy()
    moved = by_loop(image.astype(float), kind, 3 * value if kind == "translation" else value, np.zeros((21, 21, 3)))
    np.testing.assert_allclose(ours, moved.reshape(7, 3, 7, 3, 3).mean((1, 3)), atol=3e-3)


def test_drawn_pictures_are_had_at_any_size(run: TrainedRun) -> None:
    rows = np.array([5, 0, 11])
    fine = finer(run.config.data, run.data, run.data.val, rows, (2, 4))
    packed = np.stack([run.data.val.images[row] for row in rows])
    assert fine.shape == (3, 256, 256, 3)
    coarse = fine.reshape(3, 64, 4, 64, 4, 3).mean((2, 4))
    assert np.abs(coarse - packed).mean() < 6  # grain and edges aside, the same pictures
    assert np.abs(coarse[::-1] - packed).mean() > 20


@pytest.mark.parametrize("fit", ["square", "whole"])
def test_a_file_that_is_another_picture_now_is_not_taken_for_the_packed_one(tmp_path: Path, fit: str) -> None:
    """As where other data of the same names lie at the place from which they were packed."""
    pictures = np.random.default_rng(0).integers(0, 256, (4, 5, 4, 3), dtype=np.uint8)
    for number, pixels in enumerate(pictures):
        path = tmp_path / "pets" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((128, 160)).save(path)
    config = DataConfig(
        name="folder", root=str(tmp_path / "pets"), size=32, fit=fit, cache=str(tmp_path / "cache"), workers=1
    )
    data = open_data(config, progress=False)
    data = squared(data, 32) if fit == "whole" else data
    assert finer(config, data, data.train, np.arange(2), (2, 4)).shape == (2, 128, 128, 3)
    Image.fromarray(pictures[::-1].reshape(20, 4, 3)).resize((128, 160)).save(tmp_path / "pets" / data.train.files[1])
    found = finer(config, data, data.train, np.arange(2), (2, 4))
    assert np.array_equal(found, data.train.images[:2])


def test_photographs_are_moved_at_their_files_resolution(tmp_path: Path) -> None:
    sizes = {"a.png": (130, 160), "b.png": (200, 140)}
    for name, size in sizes.items():
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / name)
    both = [tmp_path / name for name in sizes]
    assert finest((2, 4), 64, both) == 2 and finest((2, 4), 32, both) == 4
    assert finest((2, 4), 66, both) == 1 and finest((2, 4), 32, [*both, tmp_path / "gone.png"]) == 1


def test_directions() -> None:
    """A positive shift goes down, a quarter turn is NumPy's (counter-clockwise), magnification keeps the centre."""
    image = np.arange(75, dtype=np.uint8).reshape(1, 5, 5, 3)
    black = torch.zeros(5, 5, 3)

    def moved(kind: str, value: float) -> np.ndarray:
        return invariance.transform(torch.from_numpy(image), invariance.matrices(kind, np.array([value])), black)[
            0
        ].numpy()

    np.testing.assert_allclose(moved("translation", 2)[2:], image[0, :3], atol=1e-3)
    assert np.abs(moved("translation", 2)[:2]).max() < 1e-3
    np.testing.assert_allclose(moved("rotation", 90), np.rot90(image[0]), atol=1e-3)
    np.testing.assert_allclose(moved("scale", 1.7)[2, 2], image[0, 2, 2], atol=1e-3)


def test_edge_fill_continues_the_picture() -> None:
    image = torch.from_numpy(np.arange(75, dtype=np.uint8).reshape(1, 5, 5, 3))
    moved = invariance.transform(image, invariance.matrices("translation", np.array([3.0])), None, "border")[0]
    torch.testing.assert_close(moved[0], image[0, 0].float(), atol=1e-3, rtol=0)


def test_shifts_are_whole_pixels_where_they_can_be() -> None:
    steps = invariance.step_values(InvarianceConfig(run="tiny"), 56)[0]
    assert len(set(steps.tolist())) == 25
    assert (steps == np.round(steps)).all()
    assert (steps == -steps[::-1]).all()
    assert steps[[0, 12, 24]].tolist() == [-15, 0, 15]
    assert invariance.step_values(InvarianceConfig(run="tiny"), 224)[0].tolist() == list(range(-60, 61, 5))
    fine = invariance.step_values(InvarianceConfig(run="tiny", translation=6.0), 56)[0]
    np.testing.assert_allclose(np.diff(fine), 0.5)


def test_curves_equal_a_loop(run: TrainedRun) -> None:
    config = InvarianceConfig(run="tiny", steps=3, batch_size=20, fill="grey")
    steps = invariance.step_values(config, run.network.input_size)
    np.testing.assert_allclose(steps, [[-15, 0, 15], [1, 1.4, 1.8], [0, 180, 360]])
    images, labels = np.array(run.data.val.images[:5]), run.data.val.labels[:5]
    curves = invariance.measure(run, images, labels, steps, [1, 7], config)
    border = torch.full_like(run.mean, 128.0)
    edge = (run.mean.shape[0] - run.network.input_size) // 2

    def features(image: np.ndarray, kind: str, value: float) -> tuple[list[torch.Tensor], torch.Tensor]:
        whole = invariance.transform(
            torch.from_numpy(image)[None].to(border.device), invariance.matrices(kind, np.array([value])), border
        )
        pixels = ((whole - run.mean) * run.scale)[:, edge:-edge, edge:-edge].permute(0, 3, 1, 2)
        with torch.no_grad():
            found = run.network.features(pixels, [1, 7, 8])
        return [found[1].flatten().double(), found[7].flatten().double()], found[8].softmax(1)[0].double()

    calm = [features(image, "scale", 1.0)[0] for image in images]
    for n, image in enumerate(images):
        for t, kind in enumerate(invariance.TRANSFORMATIONS):
            for k, value in enumerate(steps[t]):
                maps, softmax = features(image, kind, value)
                assert curves.probability[n, t, k] == pytest.approx(float(softmax[labels[n]]), abs=1e-5)
                for i in range(2):
                    expected = float((maps[i] - calm[n][i]).norm())
                    assert curves.distance[n, t, k, i] == pytest.approx(expected, rel=1e-3, abs=1e-3)
        for i in range(2):
            assert curves.norm[n, i] == pytest.approx(float(calm[n][i].norm()), rel=1e-4)
            if n:
                between = float((calm[n][i] - calm[n - 1][i]).norm())
                assert curves.between[n - 1, i] == pytest.approx(between, rel=1e-3)
    assert curves.distance[:, 0, 1].max() == curves.distance[:, 1, 0].max() == 0  # nothing moved, nothing changed


def test_linearity_takes_both_directions_for_themselves() -> None:
    change = np.array([-3.0, -2, -1, 0, 1, 2, 3])
    steeper_to_the_right = np.where(change < 0, -change, 2 * change)
    assert invariance.linearity(change, steeper_to_the_right) == pytest.approx(1)
    levels_off = np.array([3.0, 2, 1, 0, 1, 1, 1])  # R^2 of 0, 1, 1, 1 on 0, 1, 2, 3: 0.6
    assert invariance.linearity(change, levels_off) == pytest.approx((1 + 0.6) / 2)
    assert np.isnan(invariance.linearity(change[2:5], np.ones(3)))
    np.testing.assert_allclose(invariance.turned("rotation", np.arange(0, 361, 90.0), 0), [0, 90, -180, -90, 0])


def test_claims_of_a_hand_made_case() -> None:
    """Layer 1 jumps at once, layer 7 grows in proportion; rotation destroys the class, the others do not."""
    steps = np.array([[-2.0, -1, 0, 1, 2], [1, 1.1, 1.2, 1.3, 1.4], [0, 90, 180, 270, 360]])
    distance = np.zeros((3, 3, 5, 2))
    distance[:, 0, :, 0], distance[:, 0, :, 1] = [10, 10, 0, 10, 10], [2, 1, 0, 1, 2]
    distance[:, 1, :, 0], distance[:, 1, :, 1] = [0, 10, 10, 10, 10], [0, 1, 2, 3, 4]
    probability = np.full((3, 3, 5), 0.8)
    probability[:, 2, 1:4] = 0.2  # a full turn is the untouched picture again
    curves = invariance.Curves(distance, np.full((3, 2), 10.0), probability, np.full((2, 2), 5.0))
    found = invariance.claims_of(curves, steps, [1, 7])
    assert found["images"] == 3
    for kind in ("translation", "scale"):
        assert found[kind]["layer1_relative_distance_small_step"] == pytest.approx(1.0)
        assert found[kind]["layer7_relative_distance_small_step"] == pytest.approx(0.1)
        assert found[kind]["layer7_small_step_of_between_images"] == pytest.approx(0.2)
        assert found[kind]["layer7_linearity_r2"] == pytest.approx(1.0)
        assert found[kind]["layer1_linearity_r2"] < 0.8
        assert found[kind]["probability_loss_points"] == pytest.approx(0)
    assert found["translation"]["small_step"] == 1
    assert found["rotation"]["probability_loss_points"] == pytest.approx(60)
    assert found["rotation"]["probability_kept_percent"] == pytest.approx(25)


def test_the_command(tiny_run: Path, zfrepro: Zfrepro) -> None:
    arguments = ["invariance", f"outputs={tiny_run}", "run=tiny", "num_images=2", "claims_images=3", "steps=5"]
    zfrepro(*arguments, "layers=[1,3,7]", "fill=reflect")
    folder = tiny_run / "tiny" / "fig5_invariance"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["fill"] == "reflect"
    assert metrics["layers"] == [1, 3, 7]
    assert metrics["claims"]["moved_at"] == 4
    with np.load(folder / "arrays.npz") as arrays:
        assert arrays["distance"].shape == (2, 3, 5, 3)
        assert arrays["examples"].shape == (2, 3, 5, 56, 56, 3)
        still, packed = (arrays[name].astype(float) for name in ("examples", "images"))
        assert np.abs(still[:, 1, 0] - packed).mean() < 6  # scale 1: the picture itself, drawn finer and averaged
    for name in ("invariance.png", "claims.png", "claims.npz"):
        assert (folder / name).stat().st_size > 0


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("layers=[9]", "layers=9: the layers to choose from are 1, 2, 3, 4, 5, 6, 7"),
        ("steps=4", "steps=4: must be odd"),
        ("fill=whit", "fill=whit: must be one of"),
        ("scale=1", "scale=1.0: must be above 1"),
    ],
)
def test_mistakes_are_one_line(tiny_run: Path, refused: Refused, argument: str, says: str) -> None:
    assert says in refused("invariance", f"outputs={tiny_run}", "run=tiny", argument)
