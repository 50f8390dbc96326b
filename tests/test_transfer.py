"""Tables 4-6 and Fig. 9: the protocol against hand-worked examples, the softmax against scikit-learn, and the command."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.conftest import composed, handed_over, toy_data
from zfrepro.data import open_data
from zfrepro.data.embedded_kinds import TARGET_CLASSES
from zfrepro.errors import UserError
from zfrepro.evaluator import overlap
from zfrepro.evaluator.average_precision import average_precisions, mean_precision
from zfrepro.evaluator.overlap import best_matches, compare_with_source, elsewhere, remark, small_grey
from zfrepro.evaluator.softmax import Axes, choose_strength, fit, one_hot
from zfrepro.evaluator.splits import Fold, draw_fold, inner_folds, mean_class_accuracy, possible_sizes
from zfrepro.evaluator.target import Target, common_scale, fold_data, open_target, softmax_accuracy
from zfrepro.evaluator.transfer import LEVELS, fitting, multi_label, network_hash, transfer
from zfrepro.features import extract
from zfrepro.options.commands import IMPORTED, TransferConfig
from zfrepro.options.shared import DataConfig
from zfrepro.run import TrainedRun, load_config, open_run

# ------------------------------------------------------------------------------------------------------------- protocol


def test_mean_of_per_class_accuracies_is_not_the_overall_one() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 4])
    predicted = np.array([0, 0, 0, 1, 1, 4, 0])
    assert mean_class_accuracy(predicted, labels) == pytest.approx(100 * (3 / 4 + 1 / 2 + 0) / 3)


def test_folds_follow_caltechs_protocol() -> None:
    labels = np.repeat([0, 1, 2], [9, 60, 31])
    fold = draw_fold(labels, 8, 20, seed=0, fold=0)
    assert np.bincount(labels[fold.train]).tolist() == [8, 8, 8]
    # the rest of a small class, at most 20 of a large one
    assert np.bincount(labels[fold.test]).tolist() == [1, 20, 20]
    assert not set(fold.train) & set(fold.test)
    again, other = draw_fold(labels, 8, 20, seed=0, fold=0), draw_fold(labels, 8, 20, seed=0, fold=1)
    np.testing.assert_array_equal(again.train, fold.train)
    assert set(other.train) != set(fold.train)
    assert set(draw_fold(labels, 3, 20, seed=0, fold=0).train) < set(fold.train)  # fewer are part of more
    assert possible_sizes(labels, [30, 8, 9, 1]) == [1, 8]


def test_inner_folds_hold_out_every_image_once_and_every_class_each_time() -> None:
    labels = np.repeat([0, 1, 2], [4, 7, 3])
    folds = inner_folds(labels, 3, seed=0)
    assert np.bincount(np.concatenate([fold.test for fold in folds])).tolist() == [1] * 14
    assert all(set(labels[fold.test]) == set(labels[fold.train]) == {0, 1, 2} for fold in folds)
    assert all(set(fold.train) | set(fold.test) == set(range(14)) for fold in folds)
    assert len(inner_folds(labels[:-1], 3, seed=0)) == 2  # a class with two images
    assert inner_folds(np.array([0, 1, 1]), 3, seed=0) == []


# -------------------------------------------------------------------------------------------------------------- softmax


def problem(seed: int, count: int = 90, width: int = 13) -> tuple[torch.Tensor, np.ndarray]:
    """Overlapping classes with strongly correlated features."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % 4)
    features = rng.normal(size=(4, width))[labels] + 1.5 * rng.normal(size=(count, width))
    return torch.from_numpy(features @ rng.normal(size=(width, width))), labels


@pytest.mark.parametrize("strength", [1e-3, 0.1, 10.0])
def test_softmax_equals_scikit_learn(strength: float) -> None:
    features, labels = problem(0)
    own = fit(features, one_hot(labels, 4), strength)
    other = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000).fit(features.numpy(), labels)
    np.testing.assert_allclose(own.weights.T.numpy(), other.coef_, atol=1e-2 * np.abs(other.coef_).max())
    np.testing.assert_allclose(own.probabilities(features), other.predict_proba(features.numpy()), atol=1e-3)
    assert own.gradient < 1e-3


def test_softmax_with_several_labels_is_one_with_shares_of_images() -> None:
    features, labels = problem(1)
    second = (labels + 1 + np.arange(len(labels)) % 2) % 4
    own = fit(features, (one_hot(labels, 4) + one_hot(second, 4)) / 2, 0.5)
    twice = np.concatenate([features.numpy()] * 2)
    other = LogisticRegression(C=0.5, tol=1e-9, max_iter=10_000).fit(
        twice, np.concatenate([labels, second]), sample_weight=np.full(len(twice), 0.5)
    )
    np.testing.assert_allclose(own.probabilities(features), other.predict_proba(features.numpy()), atol=1e-3)


def test_fewer_images_than_features() -> None:
    features, labels = problem(2, count=12, width=40)
    own = fit(features.float(), one_hot(labels, 4), 1.0)
    other = LogisticRegression(C=1.0, tol=1e-9, max_iter=10_000).fit(features.numpy(), labels)
    np.testing.assert_allclose(own.probabilities(features), other.predict_proba(features.numpy()), atol=1e-3)


@pytest.mark.parametrize(("count", "width"), [(40, 12), (12, 40)])
def test_principal_axes_span_the_features(count: int, width: int) -> None:
    features, _ = problem(5, count=count, width=width)
    axes = Axes.of(features)
    identity = torch.eye(axes.directions.shape[1], dtype=torch.float64)
    torch.testing.assert_close(axes.features @ axes.directions.T, features.double(), atol=1e-8, rtol=0)
    torch.testing.assert_close(axes.directions.T @ axes.directions, identity, atol=1e-8, rtol=0)
    torch.testing.assert_close(axes.features.square().mean(0), axes.energy)


def test_several_labels_are_learned_as_they_are_given() -> None:
    """Table 6: a class shows in a feature of its own; on images that were not learned from, it is probable where it is."""
    rng = np.random.default_rng(0)
    present = rng.random((90, 4)) < [0.2, 0.4, 0.5, 0.6]
    present[~present.any(1), 0] = True
    features = (3 * present + rng.normal(0, 0.05, present.shape)).astype(np.float32)
    run = cast(Any, SimpleNamespace(device=torch.device("cpu")))
    marks, train, test = present.astype(np.int8), np.arange(60), np.arange(60, 90)
    found, _ = multi_label(TransferConfig(run="x", parts=3), features, present, marks, train, test, run)
    assert found.shape == (30, 4) and np.allclose(found.sum(1), 1)
    for own, there in zip(found.T, present[test].T):
        assert own[there].min() > own[~there].max()


def test_several_labels_choose_their_strength_by_the_measure_that_is_told() -> None:
    """VOC 2007's eleven levels; the area under the envelope prefers another strength here."""
    rng = np.random.default_rng(5)
    present = rng.random((60, 4)) < 0.4
    present[~present.any(1), 0] = True
    features = (present + rng.normal(0, 1.5, present.shape)).astype(np.float32)
    config, run = TransferConfig(run="x", parts=2, strengths=[0.01, 0.1]), cast(Any, SimpleNamespace(device="cpu"))
    marks, every = present.astype(np.int8), np.arange(60)
    chosen = [multi_label(config, features, present, marks, every, every, run, levels)[1] for levels in (None, 11)]
    order = np.random.default_rng(0).permutation(60)
    test, train = np.sort(order[:30]), np.sort(order[30:])
    shift, factor = common_scale(torch.from_numpy(features))
    seen, targets = (torch.from_numpy(features) - shift) * factor, torch.from_numpy(present / present.sum(1)[:, None])
    for levels, strength in zip((None, 11), chosen):
        models = [fit(seen[train], targets[train], one) for one in (0.01, 0.1)]
        scores = [mean_precision(model.probabilities(seen[test]), marks[test], levels) for model in models]
        assert strength == (0.01, 0.1)[int(np.argmax(scores))]
    assert chosen[0] != chosen[1]


def test_start_does_not_change_the_solution() -> None:
    features, labels = problem(3)
    targets = one_hot(labels, 4)
    cold, warm = fit(features, targets, 1.0), fit(features, targets, 1.0, fit(features, targets, 0.01))
    np.testing.assert_allclose(warm.weights, cold.weights, atol=1e-3)


def test_strength_is_the_best_on_the_held_out_parts() -> None:
    features, labels = problem(4)
    scores = {0.01: 1.0, 0.1: 3.0, 1.0: 2.0, 10.0: 9.0}  # 10 is not reached: 1 is worse than 0.1 already
    tried = iter(scores.values())
    folds = inner_folds(labels, 2, 0)[:1]
    chosen = choose_strength(features, one_hot(labels, 4), [10.0, 1.0, 0.01, 0.1], folds, lambda p, rows: next(tried))
    assert chosen == 0.1
    assert choose_strength(features, one_hot(labels, 4), [1.0, 0.01, 0.1], [], lambda p, rows: 0.0) == 0.1


def test_choice_looks_at_training_rows_only(tiny_run: Path) -> None:
    features, labels = (values for values in problem(5))
    array, config = features.numpy().astype(np.float32), options(tiny_run)
    fold = Fold(np.arange(60), np.arange(60, 90))
    first = softmax_accuracy(config, array, labels, fold, 0, torch.device("cpu"))
    garbled = array.copy()
    garbled[60:] = np.random.default_rng(0).normal(size=garbled[60:].shape) * 50
    second = softmax_accuracy(config, garbled, labels, fold, 0, torch.device("cpu"))
    assert first.strength == second.strength
    assert first.accuracy > second.accuracy


# -------------------------------------------------------------------------------------------------- overlap and features


def test_the_best_match_is_that_of_all_pairs_however_they_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    targets, sources = (torch.randn(count, 5, generator=generator) for count in (20, 23))
    targets, sources = targets / targets.norm(dim=1, keepdim=True), sources / sources.norm(dim=1, keepdim=True)
    pairs = targets.double().numpy() @ sources.double().numpy().T
    monkeypatch.setattr(overlap, "CHUNK", 7)
    best, row = best_matches(targets, sources)
    np.testing.assert_allclose(best, pairs.max(1), atol=1e-6)
    assert row.tolist() == pairs.argmax(1).tolist() and len({number // 7 for number in row.tolist()}) == 4


def test_overlap_finds_a_planted_copy_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    base = np.repeat(np.repeat(rng.integers(0, 256, (30, 5, 5, 3)), 8, 1), 8, 2)
    sources = np.clip(base + rng.normal(0, 5, base.shape), 0, 255).astype(np.uint8)
    copy = np.clip(0.8 * sources[17].astype(float) + 20 + rng.normal(0, 4, sources[17].shape), 0, 255).astype(np.uint8)
    targets = np.stack([255 - sources[3], copy, np.full_like(copy, 90)])
    best, row = best_matches(small_grey(targets), small_grey(sources))
    assert best[1] > 0.98 and row[1] == 17
    assert best[0] < 0.9  # a negative is no copy
    assert best[2] == 0.0  # nor is an image of one grey


def test_an_image_that_reaches_the_threshold_exactly_overlaps() -> None:
    """Noise against other noise: the images at the threshold and above are counted, named and left out, and no others."""
    data, source = toy_data(6, 16), toy_data(6, 16)
    inverted = [dataclasses.replace(one, images=np.roll(255 - one.images, 5, 2)) for one in (source.train, source.val)]
    run: Any = SimpleNamespace(
        config=SimpleNamespace(preset="demo"), squares=dataclasses.replace(source, train=inverted[0])
    )
    files = [f"{number}.png" for number in range(9)]
    splits = [dataclasses.replace(data.train, files=files[:6]), dataclasses.replace(data.val, files=files[6:])]
    target = Target(DataConfig(), dataclasses.replace(data, train=splits[0], val=splits[1]), np.zeros(9), np.arange(9))
    _, every = compare_with_source(TransferConfig(run="x", overlap=-1.0), run, target)
    known = {pair["target"]: pair["correlation"] for pair in every["pairs"]}
    third = sorted(known.values())[-3]
    left, found = compare_with_source(TransferConfig(run="x", overlap=third, drop_overlap=True), run, target)
    above = [name for name in files if known[name] >= third]
    assert len(set(known.values())) == 9 and found["images"] == found["dropped"] == len(above) == 3
    assert [pair["target"] for pair in found["pairs"]] == above
    assert [files[row] for row in left.rows] == [name for name in files if name not in above]


def test_what_an_imported_network_has_seen_is_not_here(run: TrainedRun) -> None:
    """Its data set is one to look at: the images that it was trained on are not there to be compared."""
    target = open_target(DataConfig(name="embedded", size=64, part="target", train_per_class=2, val_per_class=1), run)
    names = (*target.data.class_names[:2], "tench")
    config = dataclasses.replace(run.config, preset=IMPORTED)
    imported = dataclasses.replace(run, config=config, class_names=names, class_ids=())
    same, found = compare_with_source(TransferConfig(run="x", drop_overlap=True), imported, target)
    assert same is target and not found["checked"] and "dropped" not in found
    count = len(target.data.class_names)
    assert f"2 of the {count} classes are its own ({names[0]}, {names[1]})" in remark(found)
    bare = dataclasses.replace(imported, class_names=())
    assert elsewhere(bare, target.data).endswith("its classes are not known") and elsewhere(run, target.data) == ""
    checked = {"checked": True, "threshold": 0.95, "images": 3, "dropped": 3}
    assert remark(checked) == "3 target images correlate by 0.95 or more with a source image (left out)."


@pytest.fixture()
def run(tiny_run: Path) -> TrainedRun:
    return open_run(options(tiny_run))


def test_features_are_the_networks_outputs_in_the_pools_order(run: TrainedRun) -> None:
    small = DataConfig(
        name="embedded", size=64, part="target", train_per_class=5, val_per_class=1, cache=run.config.data.cache
    )
    data = open_data(small)  # 150 + 30 images: neither is a multiple of the batch
    before = network_hash(run)
    found = extract(run, data, [2, 7])
    assert found[2].shape == (180, 24 * 7 * 7) and found[7].shape == (180, 128)
    images = np.concatenate([data.train.images, data.val.images])
    for row, image in ((row, images[row]) for row in (0, 127, 128, 149, 150, 179)):
        outputs = run.network.features(run.inputs(image[None]), [2, 7])
        for layer in (2, 7):
            expected = outputs[layer].flatten().cpu().numpy()
            np.testing.assert_allclose(found[layer][row], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    pooled = extract(run, data, [2], "float16", 1)[2]
    assert pooled.dtype == np.float16
    means = np.asarray(found[2]).reshape(180, 24, 49).mean(2)
    np.testing.assert_allclose(pooled, means, rtol=2e-3, atol=2e-3 * np.abs(means).max())
    assert network_hash(run) == before
    folder = next((run.folder / "features").glob("*"))
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_fold_as_data_to_train_on_holds_its_training_images_only(run: TrainedRun, tiny_run: Path) -> None:
    target = open_target(options(tiny_run).data, run)
    assert target.data.size == run.config.data.size
    fold = draw_fold(target.labels, 3, 50, 0, 0)
    data = fold_data(target, fold)
    assert len(data.train) == 90
    assert set(data.train.files) == set(target.files(fold.train))
    assert not set(target.files(fold.test)) & {*data.train.files, *data.val.files}
    for position in (0, 31, 89):
        row = fold.train[position]
        np.testing.assert_array_equal(data.train.images[position], target.images(np.array([row]))[0])
        assert data.train.labels[position] == target.labels[row]
    np.testing.assert_allclose(data.mean, data.train.images[:].mean(0), atol=1e-3)
    several = np.array([[5, 0], [7, 5]])
    np.testing.assert_array_equal(data.train.images[several], target.images(fold.train)[several])
    assert data.key not in (target.data.key, fold_data(target, draw_fold(target.labels, 3, 50, 0, 1)).key)


# ---------------------------------------------------------------------------------------------------------- the command


def options(outputs: Path, *overrides: str) -> TransferConfig:
    few = (("data.train", 4), ("data.val", 2), ("scenes.train", 2), ("scenes.val", 1))
    small = [f"{split}_per_class={n}" for split, n in few]
    sizes = "per_class={table4:[2,4],table5:[2],fig9:[1,2,3,99]}"
    given = ["folds=2", "test_per_class=4", "scratch_steps=10", "scratch_doublings=0", "precision=fp32", sizes]
    return composed("transfer", TransferConfig, f"outputs={outputs}", "run=tiny", *small, *given, *overrides)


def test_the_demo_fills_all_four_folders(
    tiny_run: Path, run: TrainedRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = network_hash(run)
    monkeypatch.setattr("zfrepro.evaluator.transfer.in_parallel", handed_over)
    transfer(options(tiny_run, "workers=1"))
    assert network_hash(open_run(options(tiny_run))) == before
    folder = tiny_run / "tiny"
    metrics = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("[tf]*/metrics.json")}
    four = metrics["table4_caltech101"]
    assert len(four["pretrained"]["2"]["folds"]) == len(four["scratch"]["4"]["folds"]) == 2
    assert four["overlap"]["checked"] and four["overlap"]["images"] == 0
    assert four["network_hash"] == before
    with (folder / "table4_caltech101" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["acc_15"] for row in rows[:4]] == ["", "73.2", "22.8", "83.8"]
    assert float(rows[4]["acc_4"]) == pytest.approx(four["pretrained"]["4"]["mean"])
    splits = np.load(folder / "table4_caltech101" / "splits.npz")
    assert len(splits["train_2_1"]) == 60 and not set(splits["train_4_0"]) & set(splits["test_4_0"])
    assert "scratch" not in metrics["fig9_few_shot"]
    assert list(metrics["fig9_few_shot"]["pretrained"]) == ["1", "2", "3"]  # 99 is more than there are
    six = metrics["table6_pascal2012"]
    known = [value for value in six["average_precision"].values() if value is not None]
    assert six["mean_average_precision"] == pytest.approx(np.mean(known))
    for name in ("table4_caltech101", "table5_caltech256", "table6_pascal2012", "fig9_few_shot"):
        assert (folder / name / f"{name}.png").stat().st_size > 10_000
        assert (folder / name / "table.md").exists()
    capsys.readouterr()
    transfer(options(tiny_run))
    assert capsys.readouterr().out.count("up to date") == 4
    transfer(options(tiny_run, "parts=2", "tables=[table4]", "workers=1"))  # another result, from the same networks
    assert capsys.readouterr().out.count("finished, 10 epochs; nothing to do") == 4


def test_from_scratch_trains_for_the_steps_asked_for_at_a_rate_that_falls_to_nothing(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's own rate (0.02, batches of 40), warmed up over 1 and 2 steps; another number of steps trains other networks."""
    own = ["tables=[table4]", "per_class={table4:[3]}", "folds=1", "workers=1", "overlap=0.4", "scratch_doublings=0"]
    images = 3 * len(TARGET_CLASSES)
    for steps, repeats, warm in (
        (10, 1, 1),
        (30, 2, 2),
    ):  # of 40 images: so many passes over them in a tenth of the steps
        transfer(options(tiny_run, *own, f"scratch_steps={steps}"))
        (folder,) = [
            path for path in (tiny_run / "tiny" / "scratch").glob("*_3_fold0*") if load_config(path).passes == repeats
        ]
        lines = [json.loads(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()]
        total = 10 * (images * repeats // 40)
        last = np.arange(1, 11) * total // 10 - 1  # each epoch's last update
        expected = 0.02 * np.cos(np.pi / 2 * np.maximum(last - warm, 0) / (total - warm)) ** 2
        np.testing.assert_allclose([line["lr"] for line in lines], expected, rtol=1e-9)
    transfer(options(tiny_run, *own, "scratch_steps=10", "parts=2"))
    assert "finished, 10 epochs; nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("enough, steps", [(5.0, 20), (100.0, 10)])
def test_from_scratch_goes_on_until_the_training_images_are_learned(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, enough: float, steps: int
) -> None:
    """Twenty updates do not teach the network its images: it is trained for twice as many, unless so many errors are enough."""
    monkeypatch.setattr("zfrepro.evaluator.transfer.LEARNED", enough)
    own = ["tables=[table4]", "per_class={table4:[3]}", "folds=1", "workers=1", f"parts={round(steps / 5)}"]
    transfer(options(tiny_run, *own, "scratch_doublings=1"))
    folder = tiny_run / "tiny" / "table4_caltech101"
    found = json.loads((folder / "metrics.json").read_text())["scratch"]["3"]
    assert found["steps"] == steps and 5 < found["train_error"] <= 100
    assert f"on average {steps} (" in (folder / "table.md").read_text()


def test_an_image_of_the_source_is_found_and_left_out(tiny_run: Path, run: TrainedRun) -> None:
    own = ["data.part=source", "data.train_per_class=5", "data.val_per_class=2", "scratch=false", "tables=[table4]"]
    transfer(options(tiny_run, *own, "drop_overlap=true", "per_class={table4:[2]}", "overlap=0.999"))
    folder = tiny_run / "tiny" / "table4_caltech101"
    found = json.loads((folder / "metrics.json").read_text())["overlap"]
    assert found["images"] == found["dropped"] == 180  # the target is the source itself: its training images overlap
    splits = np.load(folder / "splits.npz")
    assert min(rows.min() for rows in splits.values()) >= 180


def test_voc_2007_is_judged_by_eleven_levels_of_recall(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitting(DataConfig(name="voc2007")) == ["table6"] and LEVELS == {"voc2007": 11}
    monkeypatch.setitem(LEVELS, "embedded", 11)
    transfer(options(tiny_run, "tables=[table6]", "parts=2"))
    folder = tiny_run / "tiny" / "table6_pascal2012"
    with np.load(folder / "arrays.npz") as arrays:
        expected = 100 * average_precisions(arrays["probabilities"], arrays["truth"], 11)
        np.testing.assert_allclose(arrays["average_precisions"], expected)
        assert not np.allclose(expected, 100 * average_precisions(arrays["probabilities"], arrays["truth"]))
    assert "eleven levels of recall" in (folder / "table.md").read_text()


def test_tables_that_do_not_fit_the_target_are_refused(tiny_run: Path) -> None:
    with pytest.raises(UserError, match="several labels"):
        transfer(options(tiny_run, "data=embedded_scenes", "tables=[table4]"))
    with pytest.raises(UserError, match="one label each"):
        transfer(options(tiny_run, "scenes.part=target", "tables=[table6]", "overlap=0.5"))


def test_a_table_that_no_class_can_fill_is_refused_before_anything_is_computed(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor are the tables made that stand before it."""
    shutil.copytree(tiny_run / "tiny" / "train", tmp_path / "tiny" / "train")
    monkeypatch.setattr("zfrepro.evaluator.transfer.open_target", None)
    with pytest.raises(UserError, match=r"per_class\.table5=\[20, 6\]: the smallest class has 6 images"):
        transfer(options(tmp_path, "per_class={table4:[2],table5:[20,6],fig9:[1]}", "overlap=0.5"))
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["train"]
