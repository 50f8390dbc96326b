"""Figures 2, 4 and 6: the numbers behind the pictures against what the network says, and every file in its place."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import autograd_projections

from tests.conftest import Refused, Zfrepro, handed_over, narrow
from zfrepro.checkpoints import load_checkpoint, save_checkpoint
from zfrepro.figures.features import contrast
from zfrepro.models.deconvnet import Rules
from zfrepro.models.table import ops_of, receptive_box
from zfrepro.models.window import project
from zfrepro.options.commands import VisualizeConfig
from zfrepro.options.compose import load_model
from zfrepro.options.shared import Experiment
from zfrepro.run import TrainedRun, open_run
from zfrepro.search import Top, top_images
from zfrepro.statistics import Estimate, Missing
from zfrepro.visualizer.evolution import correlation, project_maps
from zfrepro.visualizer.features import cut, energy_on_objects, measure, page_of, untrained
from zfrepro.visualizer.filters import axis_spectrum, band_shares, dead_filters, grid_peak, grid_peak_error


@pytest.fixture(scope="module")
def pages(tiny_run: Path, zfrepro: Zfrepro) -> Path:
    """The folder of the tiny run's Figure 2, all layers."""
    zfrepro("visualize", f"outputs={tiny_run}", "run=tiny", "num_maps=5", "device=cpu", "precision=fp32")
    return tiny_run / "tiny" / "fig2_features"


def test_a_page_holds_what_the_network_sees(pages: Path) -> None:
    run = open_run(Experiment(run="tiny", outputs=str(pages.parents[1]), device="cpu", precision="fp32"))
    for layer in run.network.conv_layers:
        with np.load(pages / f"layer{layer}.npz") as page:
            assert (pages / f"layer{layer}.png").stat().st_size > 5000
            inputs = run.inputs(run.data.val.images)
            output = run.network.features(inputs, [layer])[layer]
            for m, number in enumerate(page["maps"]):
                strongest = output[:, number].flatten(1).amax(1).sort(descending=True).values[:9]
                assert np.allclose(page["activations"][m], strongest, rtol=1e-4, atol=1e-6)
                image, (row, column) = int(page["images"][m, 0]), page["units"][m, 0]
                assert float(output[image, number, row, column]) == pytest.approx(float(strongest[0]), rel=1e-4)
                box = receptive_box(ops_of(run.network.layers, layer), row, column, run.network.input_size)
                assert tuple(page["boxes"][m, 0]) == box
                whole = project(run.network, inputs[image][None], layer, [(int(number), int(row), int(column))])[0]
                y, x = page["corners"][m, 0].tolist()
                y0, x0, y1, x1 = box
                shown = page["projections"][m, 0][y0 - y : y1 - y, x0 - x : x1 - x]
                assert np.allclose(shown, whole[:, y0:y1, x0:x1].permute(1, 2, 0), atol=1e-4 * float(whole.abs().max()))
                seen = run.crops(run.data.val.images[[image]])[0, y0:y1, x0:x1]
                assert np.array_equal(page["patches"][m, 0][y0 - y : y1 - y, x0 - x : x1 - x], seen)


def assert_projected(
    found: np.ndarray, run: TrainedRun, split: str, layer: int, maps: np.ndarray, count: int, rules: Rules
) -> None:
    """Projections of the strongest images of some maps are those of these rules, and not of the default ones."""
    top = top_images(run, split)[layer]
    top = Top(top.values[:, :count], top.images[:, :count], top.rows[:, :count], top.columns[:, :count])
    given, default = (page_of(run, split, layer, top, maps, rule)["projections"] for rule in (rules, Rules()))
    assert np.array_equal(found.reshape(given.shape), given) and not np.allclose(given, default, rtol=1e-2)


def test_pages_know_what_is_up_to_date(pages: Path, zfrepro: Zfrepro) -> None:
    outputs = f"outputs={pages.parents[1]}"
    options = [outputs, "run=tiny", "num_maps=5", "device=cpu", "precision=fp32"]
    assert "up to date" in zfrepro("visualize", *options, "layer=2").stdout  # made by layer=all
    zfrepro("visualize", *options, "layer=3", "maps=[1,0]", "unpool=max", "ties=first")
    with np.load(pages / "layer3.npz") as page:
        assert page["maps"].tolist() == [1, 0]
        run = open_run(Experiment(run="tiny", outputs=str(pages.parents[1]), device="cpu", precision="fp32"))
        assert_projected(page["projections"], run, "val", 3, page["maps"], 9, Rules("max", "first"))
    metrics = json.loads((pages / "metrics.json").read_text())
    for layer in range(1, 6):
        found = metrics[f"layer{layer}"]
        assert 0 <= found["dead_maps"] < found["maps"]
        assert 0 <= found["energy_on_object"] <= 100 and 0 <= found["object_share_of_field"] <= 100


@pytest.mark.parametrize(
    "options, said",
    [
        (["layer=6"], "the layers to choose from are 1, 2, 3, 4, 5"),
        (["layer=five"], "must be all or one of 1, 2, 3, 4, 5"),
        (["layer=2", "maps=[100000]"], "the maps of layer 2"),
        (["unpool=mean"], "must be one of sum, max"),
        (["num_images=100000"], "has only"),
    ],
)
def test_impossible_pages_are_refused(tiny_run: Path, refused: Refused, options: list[str], said: str) -> None:
    assert said in refused("visualize", f"outputs={tiny_run}", "run=tiny", *options)


def test_evolution(tiny_run: Path, zfrepro: Zfrepro) -> None:
    zfrepro("evolve", f"outputs={tiny_run}", "run=tiny", "num_maps=2", "alike_maps=4", "device=cpu", "ties=first")
    folder = tiny_run / "tiny" / "fig4_evolution"
    with np.load(folder / "arrays.npz") as arrays:
        assert arrays["epochs"].tolist() == [1, 2]
        assert arrays["projections_5"].shape[:2] == (2, 2) and arrays["alike_1"].shape == (4, 1)
        assert np.abs(arrays["alike_3"]).max() <= 1 + 1e-6 and arrays["common_3"].max() <= 1
        last = open_run(Experiment(run="tiny", outputs=str(tiny_run), device="cpu", precision="fp32"), 2)
        assert_projected(arrays["projections_5"][:, -1], last, "train", 5, arrays["maps_5"], 1, Rules(ties="first"))
    assert all((folder / name).exists() for name in ("evolution.png", "alike.png", "metrics.json"))


def test_filters_trains_what_is_missing_once(tiny_run: Path, zfrepro: Zfrepro, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zfrepro.visualizer.filters.load_model", lambda name, key: narrow(name))
    monkeypatch.setattr("zfrepro.visualizer.filters.in_parallel", handed_over)
    options = [
        f"outputs={tiny_run}",
        "run=tiny",
        "epochs=1",
        "sibling_epochs=1",
        "num_maps=4",
        "ties=first",
        "device=cpu",
        "precision=fp32",
        "workers=1",
    ]
    zfrepro("filters", *options)
    folder = tiny_run / "tiny" / "fig6_filters"
    weights = folder / "alexnet_demo" / "train" / "checkpoints" / "best.pt"
    written = weights.stat().st_mtime_ns
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"own", "sibling", "with", "without"} < set(metrics)
    run = open_run(Experiment(run="tiny", outputs=str(tiny_run), device="cpu", precision="fp32"))
    with np.load(folder / "arrays.npz") as arrays:
        assert_projected(arrays["projections_own"], run, "val", 2, arrays["maps_own"], 1, Rules(ties="first"))
    assert metrics["without"]["renorm_radius"] is None and metrics["sibling"]["grid_frequency"] == 0.25
    assert "up to date" in zfrepro("filters", *options).stdout and weights.stat().st_mtime_ns == written
    assert len((folder / "table.csv").read_text().splitlines()) == 5
    stronger = load_checkpoint(weights)
    stronger["model"]["weights.1.weight"] *= 2  # the sibling has been trained again, say
    save_checkpoint(weights, stronger)
    assert "up to date" not in zfrepro("filters", *options).stdout
    again = json.loads((folder / "metrics.json").read_text())["sibling"]["rms_median"]
    assert again == pytest.approx(2 * metrics["sibling"]["rms_median"])


# ----------------------------------------------------------------------------------------------------- small functions


def test_cut_fills_beyond_the_edges() -> None:
    image = np.arange(12).reshape(3, 4, 1)
    assert cut(image, np.array([-1, 2]), 3, 99)[..., 0].tolist() == [[99, 99, 99], [2, 3, 99], [6, 7, 99]]


def test_contrast_ignores_a_lone_bright_pixel() -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (9, 20, 20, 3))
    images[0, 0, 0] = 1000
    assert contrast(images) < 1.1
    assert contrast(np.zeros((1, 2, 2, 3))) == 1


def test_correlation_is_numpys() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    expected = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b)]
    assert np.allclose(correlation(a, b), expected)
    assert correlation(a, np.zeros_like(b)).tolist() == [0, 0, 0]


def test_bands_of_pure_waves() -> None:
    y, x = np.mgrid[:40, :40]
    waves = [
        np.cos(2 * np.pi * (fx * x + fy * y)) for fx, fy in ((0.05, 0.05), (0.25, 0), (0.1, 0.2), (0.4, 0), (0.3, 0.3))
    ]
    side = waves[0].shape[0]
    shares = band_shares(np.stack(waves)[:, None], side)
    assert shares.argmax(1).tolist() == [0, 1, 1, 2, 2] and shares.max(1).min() > 0.9
    windows = band_shares(np.stack(waves)[:, None], side // 2)
    assert windows.argmax(1).tolist() == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("slope", [1, 2, 3])
def test_one_spectrum_scores_alike_at_both_kernel_sizes(slope: int) -> None:
    """Filters cut from fields whose power falls as frequency^-slope: larger ones alone would show less middle band."""
    line = np.fft.fftfreq(32)
    radius = np.hypot(line[:, None], line[None])
    radius[0, 0] = 1 / 32
    noise = np.random.default_rng(slope).normal(size=(400, 3, 32, 32))
    fields = np.fft.ifft2(np.fft.fft2(noise) * radius ** (-slope / 2)).real
    small, large = fields[:, :, :7, :7], fields[:, :, 12:23, 12:23]
    alone, together, own = (
        100 * band_shares(filters, common, 32).mean(0) for filters, common in ((large, 11), (large, 7), (small, 7))
    )
    assert np.abs(together - own).max() < 1.2
    assert slope == 1 or np.abs(alone - own).max() > 3


def test_a_grid_stands_out_of_the_spectrum() -> None:
    noise = np.random.default_rng(0).normal(size=(200, 48, 48, 3))
    smooth = noise  # a spectrum that falls gently towards high frequencies
    for axis in (1, 2):
        smooth = 3 * smooth + np.roll(smooth, 1, axis) + np.roll(smooth, -1, axis)
    grid = np.zeros((48, 48, 1))
    grid[::4] = grid[:, ::4] = 0.5
    for frequency in (0.25, 0.5):
        plain = grid_peak(*axis_spectrum(smooth), frequency, 48)
        gridded = grid_peak(*axis_spectrum(smooth + 30 * grid), frequency, 48)
        assert plain == pytest.approx(1, abs=0.3) and gridded > 2


def test_grid_peak_error_is_the_jackknife() -> None:
    """Against the definition, written as a loop over left-out images."""
    images = np.random.default_rng(3).normal(size=(7, 24, 24, 3))
    left = [grid_peak(*axis_spectrum(np.delete(images, i, axis=0)), 0.25, 24) for i in range(7)]
    by_hand = np.sqrt(6 / 7 * sum((value - np.mean(left)) ** 2 for value in left))
    np.testing.assert_allclose(grid_peak_error(images, 0.25), by_hand, rtol=1e-10)


@pytest.fixture
def run(tiny_run: Path) -> TrainedRun:
    return open_run(Experiment(run="tiny", outputs=str(tiny_run), device="cpu", precision="fp32"))


def test_energy_on_objects_against_whole_projections(run: TrainedRun) -> None:
    """Projected by automatic differentiation to the whole image, beneath the drawn mask."""
    top = top_images(run, "val", 2)[3]
    maps = top.live[:4]
    found, difference = energy_on_objects(run, "val", 3, top, maps, Rules())
    rows, units = top.images[maps].ravel(), top.units(maps)
    pictures = run.inputs(run.data.val.images[rows])
    energy = autograd_projections(run.network, pictures, 3, torch.as_tensor(units)).square().sum(1).numpy()
    truth = run.data.val.truth
    assert truth is not None
    masks = truth.masks[rows][:, 4:60, 4:60] / 255
    on_object = (energy * masks).sum((1, 2)) / energy.sum((1, 2))
    boxes = [receptive_box(ops_of(run.network.layers, 3), row, column, 56) for _, row, column in units.tolist()]
    share = np.array([mask[y0:y1, x0:x1].mean() for mask, (y0, x0, y1, x1) in zip(masks, boxes)])
    assert found["energy_on_object"] == pytest.approx(100 * on_object.mean(), rel=1e-3)
    assert found["object_share_of_field"] == pytest.approx(100 * share.mean(), rel=1e-4)
    np.testing.assert_allclose(difference, 100 * (on_object - share).reshape(4, 2).mean(1), atol=1e-2)
    assert abs(on_object.mean() - 0.5) > 0.02, "the mask's complement must differ for this to notice"


def test_likeness_is_of_the_strongest_units(run: TrainedRun) -> None:
    """Each map's strongest unit in the image that is asked for, projected by automatic differentiation: the same energy."""
    maps, rows = np.array([4, 1, 7]), np.array([2, 5, 2])
    found = project_maps(run, 2, maps, rows, Rules())
    pictures = run.inputs(run.data.train.images[rows])
    units = []
    for image, number in zip(run.network.features(pictures, [2])[2], maps.tolist()):
        units.append([number, *np.unravel_index(int(image[number].argmax()), image[number].shape)])
    expected = autograd_projections(run.network, pictures, 2, torch.tensor(units)).square().sum((1, 2, 3))
    np.testing.assert_allclose((found**2).sum((1, 2, 3)), expected.numpy(), rtol=1e-3)
    assert (expected > 0).any()


def test_dead_filters_by_hand(run: TrainedRun) -> None:
    """Of an untrained network's filters, one is made weak and one silent."""
    drawn = dataclasses.replace(untrained(run), checkpoint_hash="by-hand")
    first = drawn.network.conv(1)
    assert first.bias is not None
    first.weight[3] *= 0.05
    first.bias[5] = -1e6
    assert np.flatnonzero(dead_filters(drawn, 0.1)).tolist() == [3, 5]


def test_an_untrained_network_is_searched_anew_when_the_run_was_trained_anew(run: TrainedRun) -> None:
    """With another table or other pixels, say: a search is kept by the first sixteen signs of the weights' hash."""
    seeds = [dataclasses.replace(run, config=dataclasses.replace(run.config, seed=n, init="variance")) for n in (0, 10)]
    others = [run, dataclasses.replace(run, checkpoint_hash="trained anew"), *seeds]
    assert len({untrained(one).checkpoint_hash[:16] for one in others}) == 4


def test_an_untrained_network_does_not_pass(tiny_run: Path) -> None:
    """What training adds to the energy on objects, measured for a network that was never trained, is nothing clear. With few
    maps it may be, by chance: the demo's whole network."""
    trained = open_run(Experiment(run="tiny", outputs=str(tiny_run), precision="fp32"))
    drawn = dataclasses.replace(trained.config, seed=10, model=load_model("zfnet_demo"))
    run = untrained(dataclasses.replace(trained, config=drawn))
    run.config.seed = 20  # so that it is compared with an untrained network of another seed
    config = VisualizeConfig(run="tiny", outputs=str(tiny_run), num_images=5)
    layer = run.network.conv_layers[-1]
    _, measures = measure(run, config, layer, top_images(run, "val", 5)[layer], Rules())
    gain = measures["energy_above_untrained"]
    assert (isinstance(gain, Estimate) and gain.low < 0 < gain.high) or gain.value == 0
    _, other = measure(run, config, 1, top_images(run, "val", 5)[1], Rules())
    assert isinstance(other["energy_above_untrained"], Missing)
