"""Table 7: the SVM on inner products against scikit-learn on the features themselves, and the command."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from sklearn.svm import SVC

from tests.conftest import composed, small_table
from zfrepro.errors import UserError
from zfrepro.evaluator import svm
from zfrepro.evaluator.probe import probe, with_layers
from zfrepro.evaluator.splits import Fold, mean_class_accuracy
from zfrepro.evaluator.svm import fit_svm, products, svm_accuracy
from zfrepro.features import flat, width
from zfrepro.models.network import Network
from zfrepro.options.commands import ProbeConfig
from zfrepro.options.compose import load_model
from zfrepro.run import TrainedRun

CPU = torch.device("cpu")


def blobs(seed: int, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray, Fold]:
    """Features (54, 37) of five noisy classes, and a fold of them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(54) % 5
    centres = rng.normal(size=(5, 37)) * rng.uniform(0.01, 30, 37)
    features = (centres[labels] + spread * rng.normal(size=(54, 37)) * rng.uniform(0.01, 30, 37)).astype(np.float32)
    order = rng.permutation(54)
    return features, labels, Fold(np.sort(order[:31]), np.sort(order[31:]))


def test_maps_smaller_than_what_they_are_averaged_to_stay() -> None:
    network, maps = Network(small_table(), 3), torch.randn(2, 6, 4, 4)  # as layer 2 has them
    for pool, side in ((7, 4), (4, 4), (2, 2), (None, 4)):
        found = flat(maps, pool)
        assert found.shape == (2, width(network, 2, pool)) == (2, 6 * side**2)
        assert torch.equal(found, maps.flatten(1)) == (side == 4)


@pytest.mark.parametrize("scaling", ["common", "each"])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_products_are_those_of_the_scaled_features(scaling: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, _, fold = blobs(0)
    monkeypatch.setattr(svm, "BLOCK_BYTES", 4 * len(features) * block)
    own, other = features[fold.train].astype(float), features[fold.test].astype(float)
    shift, deviation = own.mean(0), own.std(0)
    factor = 1 / np.maximum(deviation, svm.FLOOR * deviation.mean()) if scaling == "each" else np.ones(37)
    own, other = (own - shift) * factor, (other - shift) * factor
    length = (own**2).sum(1).mean()
    found = products(features, fold, scaling, CPU)
    np.testing.assert_allclose(found.train, own @ own.T / length, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.test, other @ own.T / length, rtol=1e-4, atol=1e-5)


def test_svm_equals_scikit_learn_on_the_features() -> None:
    features, labels, fold = blobs(1)
    kernel = products(features, fold, "common", CPU)
    own = features[fold.train].astype(float)
    shift = own.mean(0)
    length = np.sqrt(((own - shift) ** 2).sum(1).mean())
    expected = SVC(kernel="linear", C=2.0).fit((own - shift) / length, labels[fold.train])
    predicted = expected.predict((features[fold.test] - shift) / length)
    np.testing.assert_array_equal(fit_svm(kernel.train, labels[fold.train], 2.0).predict(kernel.test), predicted)


def test_choice_of_scaling_and_cost_looks_at_training_rows_only() -> None:
    features, labels, fold = blobs(2)
    arguments = (["common", "each"], [0.01, 1.0, 100.0], 3, 0, CPU)
    first = svm_accuracy(features, labels, fold, *arguments)
    garbled = features.copy()
    garbled[fold.test] = np.random.default_rng(9).normal(size=garbled[fold.test].shape) * 100
    second = svm_accuracy(garbled, labels, fold, *arguments)
    assert (first.scaling, first.cost) == (second.scaling, second.cost)
    assert first.accuracy != second.accuracy


def test_separable_classes_are_told_apart() -> None:
    features, labels, fold = blobs(3, spread=0.01)
    assert svm_accuracy(features, labels, fold, ["common"], [1.0, 10.0], 3, 0, CPU).accuracy == 100.0
    assert mean_class_accuracy(labels, labels) == 100.0


def config(outputs: Path, *overrides: str) -> ProbeConfig:
    small = ["data.train_per_class=6", "data.val_per_class=3", "test_per_class=3", "folds=2"]
    return composed("probe", ProbeConfig, f"outputs={outputs}", "run=tiny", *small, *overrides)


def test_probe_writes_table_7_and_keeps_other_targets_beside_it(tiny_run: Path) -> None:
    probe(config(tiny_run, "per_class=4", "layers=[1,5,7]", "softmax_layers=[7]"))
    folder = tiny_run / "tiny" / "table7_layers"
    metrics = json.loads((folder / "metrics.json").read_text())["embedded_target"]
    assert metrics["widths"] == {"1": 8 * 13 * 13, "5": 24 * 9, "7": 128}
    folds = metrics["svm"]["5"]["folds"]
    assert metrics["svm"]["5"]["mean"] == pytest.approx(np.mean(folds))
    np.testing.assert_allclose(np.load(folder / "embedded_target.npz")["svm_5"], folds)
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8  # the paper's rows
    assert [row["paper_caltech101_30"] for row in rows] == [
        "44.8",
        "66.2",
        "72.3",
        "76.6",
        "86.2",
        "85.5",
        "82.9",
        "85.4",
    ]
    assert float(rows[0]["ours_embedded_target_4"]) == pytest.approx(metrics["svm"]["1"]["mean"])
    assert rows[1]["ours_embedded_target_4"] == ""  # layer 2 was not asked for
    probe(
        config(
            tiny_run, "per_class=2", "layers=[2]", "softmax_layers=[]", "data.part=source", "dtype=float16", "pool=1"
        )
    )
    both = json.loads((folder / "metrics.json").read_text())
    assert set(both) == {"embedded_target", "embedded_source", "provenance"}
    second = both["embedded_source"]
    assert second["dtype"] == "float16" and second["widths"] == {"2": 24}
    read = [np.load(path, mmap_mode="r") for path in (tiny_run / "tiny" / "features").glob("*/layer2.npy")]
    assert (second["classes"] * (6 + 3), 24) in [array.shape for array in read if array.dtype == np.float16]
    header = (folder / "table.csv").read_text().splitlines()[0]
    assert "ours_embedded_target_4" in header and "ours_embedded_source_2" in header


@pytest.mark.parametrize(
    "name, classes, svm, softmax",
    [
        ("zfnet_demo", 3, [1, 2, 3, 4, 5, 7], [5, 7]),
        ("vgg_d", 3, [2, 4, 7, 10, 13, 15], [13, 15]),
        ("vgg_a_demo", 3, [1, 2, 4, 10], [4, 10]),
    ],
)
def test_layers_that_are_looked_at(name: str, classes: int, svm: list[int], softmax: list[int]) -> None:
    """The paper's, or where another network pools, and its last."""
    table = load_model(name)
    with torch.device("meta"):
        network = Network(table, classes)
    run = cast(TrainedRun, SimpleNamespace(network=network, config=SimpleNamespace(model=table)))
    found = with_layers(ProbeConfig(), run)
    assert (found.layers, found.softmax_layers) == (svm, softmax)
    given = with_layers(ProbeConfig(layers=[3], softmax_layers=[]), run)
    assert (given.layers, given.softmax_layers) == ([3], [])


def test_too_many_images_per_class_are_refused(tiny_run: Path) -> None:
    with pytest.raises(UserError, match="per_class=9: must be at most 8"):
        probe(config(tiny_run, "per_class=9"))
    with pytest.raises(UserError, match="layers=8"):
        probe(config(tiny_run, "layers=[8]"))
