"""A network whose weights came without a classifier: what needs no probabilities works, what does says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Zfrepro
from tests.test_import import IMAGENET, opened, small_net, small_net_table
from zfrepro.evaluator import invariance, pictures
from zfrepro.evaluator.invariance import Curves
from zfrepro.models.deconvnet import Rules
from zfrepro.options.commands import FiltersConfig
from zfrepro.run import TrainedRun
from zfrepro.statistics import Missing
from zfrepro.visualizer.filters import second_layer

DATA = "data=embedded", "data.size=32", "data.train_per_class=3", "data.val_per_class=5"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, zfrepro: Zfrepro) -> Path:
    """An outputs folder with the run `bare`: two convolutional layers, nothing above."""
    from omegaconf import OmegaConf

    folder = tmp_path_factory.mktemp("bare")
    torch.save(small_net().features.state_dict(), folder / "features.pth")
    (folder / "table.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(small_net_table())))
    given = f"model={folder / 'table.yaml'}", f"weights={folder / 'features.pth'}"
    zfrepro("import", *given, *IMAGENET, *DATA, f"outputs={folder}", "run=bare")
    return folder


@pytest.fixture
def bare(outputs: Path) -> TrainedRun:
    return opened(outputs, "bare")


def metrics(outputs: Path, folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((outputs / "bare" / folder / "metrics.json").read_text())
    return found


def test_what_needs_no_probabilities_works(zfrepro: Zfrepro, outputs: Path) -> None:
    where = f"outputs={outputs}", "run=bare"
    zfrepro("visualize", *where, "layer=2", "num_maps=2")
    zfrepro("correspond", *where, "num_images=2", "draws=5")
    assert list(metrics(outputs, "table1_correspondence")["estimates"]["gap_lower"].values()) == [
        "two layers are needed, layers=[a,b]"
    ]
    zfrepro("correspond", *where, "num_images=2", "draws=5", "layers=[1,2]")
    target = "data=embedded_target", "data.train_per_class=4", "data.val_per_class=2"
    zfrepro("probe", *where, *target, "layers=[1,2]", "per_class=2", "folds=2", "softmax_layers=[]", "pool=2")
    given = *where, *target, "layer=2", "tables=[table4]", "per_class.table4=[2]", "folds=2", "scratch_steps=10"
    said = zfrepro("transfer", *given, "scratch_doublings=0").stdout
    assert "run=bare: was imported; networks from scratch are left out (scratch=true" in said and "scratch:" not in said
    assert not (outputs / "bare" / "scratch").exists() and "scratch" not in metrics(outputs, "table4_caltech101")
    for folder in ("fig2_features", "table1_correspondence", "table7_layers", "table4_caltech101"):
        assert metrics(outputs, folder)
    for folder in ("table7_layers", "table4_caltech101"):
        assert "the network was trained elsewhere" in (outputs / "bare" / folder / "table.md").read_text()
    zfrepro("report", *where)
    about = json.loads((outputs / "bare" / "report" / "claims.json").read_text())["run"]
    assert "no classifier, trained elsewhere, looked at on the embedded data set at 32 px" in about["sentence"]
    assert about["sentence"] in (outputs / "bare" / "report" / "index.html").read_text()


def test_a_stride_of_one_leaves_no_grid(outputs: Path, zfrepro: Zfrepro, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zfrepro.visualizer.filters.first_stride", lambda run: 1)
    arrays, peak = second_layer(opened(outputs, "bare"), FiltersConfig(num_maps=2), Rules())
    assert arrays["projections"].any() and peak == {}


def test_what_needs_probabilities_says_so_and_names_the_cure(zfrepro: Zfrepro, outputs: Path) -> None:
    done = zfrepro("evaluate", f"outputs={outputs}", "run=bare", check=False)
    assert done.returncode == 2 and done.stderr.count("zfrepro: ") == 1
    said = done.stderr.splitlines()[-1]
    assert "without a classifier" in said and "zfrepro train run=bare_head init_from=bare freeze=2 model=" in said


def test_distances_of_invariance(zfrepro: Zfrepro, outputs: Path, bare: TrainedRun) -> None:
    said = zfrepro("invariance", f"outputs={outputs}", "run=bare", "steps=3", "num_images=2", "claims_images=4").stdout
    assert "probabilities: missing: the network has no softmax" in said and "the true class" not in said
    found = metrics(outputs, "fig5_invariance")
    assert found["claims"]["images"] == 4 and "layer2_relative_distance_small_step" in found["claims"]["translation"]
    assert "probability_kept_percent" not in found["claims"]["translation"]
    assert "no softmax" in found["estimates"]["rotation_kept"]["why"]
    assert found["estimates"]["translation_first_minus_top"]["n"] == 4
    assert found["task"]["known"] is None
    with np.load(outputs / "bare" / "fig5_invariance" / "arrays.npz") as arrays:
        assert np.isnan(arrays["probability"]).all() and np.isfinite(arrays["distance"]).all()
        labels, names = arrays["labels"].tolist(), arrays["class_names"]
    assert [names[label] for label in labels] == found["images"] == [bare.data.class_names[label] for label in labels]


def test_activity_of_occlusion(zfrepro: Zfrepro, outputs: Path, bare: TrainedRun) -> None:
    sliding = f"outputs={outputs}", "run=bare", "square=9", "stride=11"
    zfrepro("occlude", *sliding, "num_images=2", "claims_images=4", "others=1")
    found = metrics(outputs, "fig7_occlusion")
    assert "no softmax" in found["claims"]["probabilities"]
    assert found["claims"]["activity_falls_where_the_projection_is"]["images"] <= 4
    assert found["estimates"]["projection_correlation"]["n"] <= 4 and "why" in found["estimates"]["object_correlation"]
    with np.load(outputs / "bare" / "fig7_occlusion" / "arrays.npz") as arrays:
        assert np.isnan(arrays["probability"]).all() and (arrays["top_class"] == -1).all()
        inputs = torch.from_numpy(arrays["images"])
        number, expected = int(arrays["maps"][0]), float(arrays["clean_activity"][0])
    crop = ((inputs - bare.mean[:31, :31]) * bare.scale).permute(0, 3, 1, 2)
    activity = bare.network.features(crop, [2])[2][0, number].sum()
    assert float(activity) == pytest.approx(expected, rel=1e-4)


def test_own_pictures_have_the_titles_that_they_are_given(zfrepro: Zfrepro, outputs: Path, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(tmp_path / "rex.png")
    given = f"outputs={outputs}", "run=bare", "square=9", "stride=11", "claims_images=0", "images=[rex.png]"
    zfrepro("occlude", *given, cwd=tmp_path)
    assert metrics(outputs, "fig7_occlusion")["images"][0]["class"] == "rex.png"
    zfrepro("occlude", *given, "labels=[Rex]", cwd=tmp_path)
    assert metrics(outputs, "fig7_occlusion")["images"][0]["class"] == "Rex"


# -------------------------------------------------------------------------------- few correctly classified pictures


def survey(labels: list[int], predicted: list[int]) -> pictures.Survey:
    count = len(labels)
    arrays = np.arange(count), np.array(labels), np.array(predicted), np.zeros(count)
    return pictures.Survey(*arrays, torch.zeros(count, 1), torch.zeros(count, 1))


def test_where_few_are_right_all_are_measured_on_and_probabilities_are_missing() -> None:
    rows, why = pictures.measured_on(survey([0, 1, 2, 3, 4], [0, 1, 2, 0, 0]), 10)
    assert rows.tolist() == [0, 1, 2] and why == ""
    rows, why = pictures.measured_on(survey([0, 1, 2, 3, 4], [0, 0, 0, 0, 0]), 4)
    assert rows.tolist() == [0, 1, 2, 3] and "only 1 of 5 validation images are classified correctly" in why
    seen = survey([0, 1, 2], [-1, -1, -1])
    assert seen.wrong is None and pictures.measured_on(seen, 2)[1] == pictures.NO_SOFTMAX
    assert pictures.measured_on(seen, 0)[0].tolist() == []


def test_estimates_say_why_probabilities_are_missing() -> None:
    draw = np.random.default_rng(0)
    steps = np.stack([np.linspace(-2, 2, 5), np.linspace(1, 1.8, 5), np.linspace(0, 360, 5)])
    curves = Curves(draw.random((6, 3, 5, 2)), 1 + draw.random((6, 2)), np.full((6, 3, 5), np.nan), draw.random((5, 2)))
    found = invariance.estimates(curves, steps, [1, 7], "only one is right")
    assert [name for name, one in found.items() if one == Missing("only one is right")] == [
        "translation_kept", "scale_kept", "rotation_kept"
    ]  # fmt: skip
    assert "probability_loss_points" not in invariance.claims_of(curves, steps, [1, 7])["scale"]
