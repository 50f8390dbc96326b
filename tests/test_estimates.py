"""What the experiments hand to the verdicts: each estimate on hand-made measurements, and those that cannot be made."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.conftest import TINY, Zfrepro
from zfrepro import knowledge, papers, statistics
from zfrepro.evaluator import ablation, correspondence, errors, invariance, occlusion, probe, transfer
from zfrepro.evaluator.ablation import Net
from zfrepro.statistics import Estimate, Measure, Missing
from zfrepro.visualizer import evolution, filters


def number(measure: Measure) -> Estimate:
    """The estimate, which must be one."""
    assert isinstance(measure, Estimate), measure
    return measure


def why(measure: Measure) -> str:
    """Why there is none."""
    assert isinstance(measure, Missing), measure
    return measure.why


# ------------------------------------------------------------------------------------------------------------ Table 3


def nets(train: float, *validation: float) -> list[Net]:
    """A row's networks."""
    return [Net((train, value, 1.0), 1, 1.0, str(i)) for i, value in enumerate(validation)]


ROWS = {
    "alexnet": nets(20, 40, 42, 44),
    "alexnet_no_7": nets(20, 45, 46),
    "alexnet_no_3_4_6_7": nets(60, 70, 72, 71),
    "zfnet": nets(15, 30, 31),
    "zfnet_fc_8192": nets(5, 33, 34),
    "zfnet_maps_512": [],
}


def test_gaps_between_rows() -> None:
    found = ablation.estimates(ROWS, (95.0, 1000))
    gap = number(found["alexnet_minus_zfnet"])
    test = stats.ttest_ind([40, 42, 44], [30, 31], equal_var=False).confidence_interval()
    assert (gap.value, gap.low, gap.high) == pytest.approx((11.5, *test))
    assert number(found["no_3_4_6_7_minus_next"]).value == pytest.approx(71 - 45.5), "the next worst, not the base"
    assert why(found["gain_of_wide_middle"]) == "zfnet_maps_512 is not trained"
    assert number(found["training_gain"]).value == 10 and number(found["validation_gain"]).value == -3
    more = number(found["training_minus_validation_gain"])
    assert more.value == pytest.approx((15 - 30.5) - (5 - 33.5)) and not more.exact
    assert set(found) == papers.estimates_in("table3_ablation")
    single = number(ablation.estimates({**ROWS, "zfnet_maps_512": nets(15, 29)}, (95.0, 1000))["gain_of_wide_middle"])
    shared = [8, 0.5, 2, 0.5, 0.5]  # squares of deviations within the rows of several nets
    assert single.value == 1.5 and "2 and 1 nets, with the spread of the rows of several" in single.note
    half = stats.t.ppf(0.975, 7) * math.sqrt(sum(shared) / 7 * (1 / 2 + 1))
    assert single.high - single.value == pytest.approx(half)


def test_the_next_worst_row_is_not_known_before_all_are_trained() -> None:
    found = ablation.estimates({**ROWS, "alexnet_no_6_7": []}, (95.0, 1000))
    assert why(found["no_3_4_6_7_minus_next"]) == "alexnet_no_6_7 is not trained"
    assert number(found["alexnet_minus_zfnet"]), "which does not rest on it"


def test_rows_at_chance_show_nothing() -> None:
    lost = {**ROWS, "zfnet": nets(95, 94.9, 95.2)}
    found = ablation.estimates(lost, (95.0, 1000))
    assert "zfnet is at chance" in why(found["alexnet_minus_zfnet"])
    assert number(found["no_3_4_6_7_minus_next"]), "which does not rest on it"
    assert number(ablation.estimates(lost, None)["alexnet_minus_zfnet"]), "nothing is known of guessing"
    single = {**ROWS, "zfnet_maps_512": nets(15, 29)}
    beside = {**single, "alexnet_no_6_7": nets(95, 95, 95, 95)}
    one, same = (ablation.estimates(rows, (95.0, 1000))["gain_of_wide_middle"] for rows in (single, beside))
    assert one == same, "nets at chance do not differ, and say nothing of how others do"


# ----------------------------------------------------------------------------------------------------- Tables 2, 4, 7


def test_gain_of_averaging() -> None:
    """Three nets, each wrong on another image, where the other two outvote it."""
    labels = np.zeros(6, dtype=int)
    outputs = np.zeros((3, 6, 2))
    outputs[:, :, 0] = 1
    for net in range(3):
        outputs[net, net] = [0, 1.5]
    gain = number(errors.gain_of_averaging(list(outputs), labels))
    assert gain.value == pytest.approx(100 / 6) and gain.n == 3 and gain.note == "16.7 % alone, 0.0 % together"
    drawn = np.random.default_rng(0).random((4, 30, 3))
    truth = np.random.default_rng(1).integers(0, 3, 30)
    wrong = [[int(np.argmax(one[i]) != truth[i]) for i in range(30)] for one in drawn]
    together = [int(np.argmax(drawn[:, i].sum(0)) != truth[i]) for i in range(30)]
    others = [[k for k in range(4) if k != net] for net in range(4)]
    without = [[int(np.argmax(drawn[rest, i].sum(0)) != truth[i]) for i in range(30)] for rest in others]
    expected = number(statistics.averaging(*map(np.array, (wrong, together, without))))
    same = number(errors.gain_of_averaging(list(drawn), truth))
    assert (same.value, same.low, same.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert number(errors.gain_of_averaging(list(outputs[:2]), labels)).low == -math.inf
    assert "several nets" in why(errors.gain_of_averaging(list(outputs[:1]), labels))


def test_gaps_of_transfer_are_paired_and_corrected() -> None:
    ours = {"pretrained": {15: [60.0, 61.0], 30: [70.0, 72.0]}, "scratch": {15: [20.0, 23.0], 30: [50.0, 51.0]}}
    splits = {"train_15_0": np.arange(300), "test_15_0": np.arange(100)}
    nets = {15: [{"train_error": 2.0}, {"train_error": 1.0}]}
    found = transfer.gaps(ours, splits, nets)
    few, more = number(found["gap_at_15"]), number(found["gap_at_15_minus_30"])
    assert (few.value, more.value) == (39, 18.5)
    half = stats.t.ppf(0.975, 1) * math.sqrt(np.var([20, 17], ddof=1) * (1 / 2 + 100 / 300))
    assert more.high - more.value == pytest.approx(half)
    assert "upper bound" not in few.note
    short = number(transfer.gaps(ours, splits, {15: [{"train_error": 60.0}, {"train_error": 20.0}]})["gap_at_15"])
    assert short.value == 39 and "upper bound: those from scratch are wrong on 40 %" in short.note
    assert "15 and at 30" in why(transfer.gaps({"pretrained": ours["pretrained"]}, splits, {})["gap_at_15"])


def test_the_note_on_networks_from_scratch_says_what_was_done() -> None:
    given = SimpleNamespace(folds=3, test_per_class=50, parts=3, scratch_steps=400, scratch_doublings=0)
    source = SimpleNamespace(config=SimpleNamespace(data=SimpleNamespace(size=64), origin="zfnet"))
    bench: Any = SimpleNamespace(
        config=given, run=source, layer=7, compare=lambda _: (None, {"checked": False, "why": "x"})
    )
    target: Any = SimpleNamespace(name="x", config=None, data=SimpleNamespace(num_classes=30))
    net = {"steps": 400.0, "passes": 60.0, "train_error": 16.0, "accuracy": 30.0}
    note = transfer.caltech_notes(bench, target, {15: [net]})
    assert "for 400 updates: on average 400 (60 passes) at 15" in note and "twice" not in note
    given.scratch_doublings = 2
    assert "and for twice as many, 2 times at most" in transfer.caltech_notes(bench, target, {15: [net]})


def test_depth_counts() -> None:
    folds = {"1": [40, 41], "2": [50, 52], "3": [60, 61], "5": [70, 69], "7": [69, 70]}
    found = probe.depth_counts({layer: {"folds": values} for layer, values in folds.items()}, 300, 100)
    assert number(found["top_minus_first"]).value == 29
    assert number(found["top_minus_first"]).note == "layer 7 minus layer 1"
    assert number(found["rank_with_depth"]).value == pytest.approx((0.9 + 1) / 2)
    assert "three layers" in why(probe.depth_counts({"1": {"folds": [1, 2]}}, 3, 1)["rank_with_depth"])


def test_the_papers_numbers_stand_beside_the_papers_layers() -> None:
    """Layer 7 of VGG-16 is a convolution, not the fully connected layer 7 of the paper."""
    part = {"a": {"svm": {"7": {"mean": 50.0, "std": 1.0}}, "softmax": {}, "per_class": 30}}
    columns, rows = probe.table(part, same_layers=True)
    [row] = [row for row in rows if row[:2] == ["svm", 7]]
    assert row[columns.index("paper_caltech101_30")] == 85.5 and row[-2] == 50.0
    columns, rows = probe.table(part, same_layers=False)
    [row] = [row for row in rows if row[:2] == ["svm", 7]]
    assert row[columns.index("paper_caltech101_30")] is None and row[-2] == 50.0
    assert ["svm, the paper's network", 7, 85.5] in [row[:3] for row in rows]
    assert not probe.curves({}, same_layers=False)
    names = ("right_eye", "random")
    assert correspondence._reported(names, [5, 7], "zfnet_demo")[1] == [(0.069, 0.015), (0.073, 0.014)]
    assert correspondence._reported(names, [5, 7], "torchvision/vgg16") == [[None, None], [None, None]]


# -------------------------------------------------------------------------------------------------------------- Table 1


def groups(lower: np.ndarray, upper: np.ndarray) -> correspondence.Groups:
    """Draws with these distances of one part; the places matched to it score 0.1 at either layer, all random ones 0.5."""
    hamming = np.stack([np.stack([one, np.full(len(one), 0.5)], 1) for one in (lower, upper)])
    return correspondence.Groups(hamming, hamming, hamming[..., 0], 0.2 * hamming[..., 1:], ["dog"] * len(lower))


def test_relative_gaps() -> None:
    lower, upper = np.array([0.06, 0.07, 0.08] * 3), np.array([0.09, 0.10, 0.11] * 3)
    found = correspondence.relative_gaps(groups(lower, upper), [5, 7])
    gap = number(found["gap_lower"])
    assert gap.value == pytest.approx(30)
    ends = stats.t.interval(0.95, 8, 30, stats.sem([40, 30, 20] * 3))
    assert (gap.low, gap.high) == pytest.approx(ends)
    assert number(found["gap_upper_minus_half_lower"]).value == pytest.approx(-15)
    swapped = correspondence.relative_gaps(groups(upper, lower), [10, 8])
    assert number(swapped["gap_lower"]).value == pytest.approx(30), "layers are ordered by number"
    few = correspondence.relative_gaps(groups(lower[:5], upper[:5]), [5, 7])
    assert "5 draws" in why(few["gap_lower"])
    silent = groups(lower, upper)
    silent.matched[1] = 0
    assert why(correspondence.relative_gaps(silent, [5, 7])["gap_lower"]) == "layer 7 answers to no mask"


# -------------------------------------------------------------------------------------------------------- Figures 5, 7


STEPS = np.array([[-2.0, -1, 0, 1, 2], [1, 1.1, 1.2, 1.3, 1.4], [0, 90, 180, 270, 360]])


def curves(seed: int = 0, images: int = 30) -> invariance.Curves:
    """Layer 1 jumps at once, layer 7 grows in proportion; rotation destroys the class, the others do not."""
    generator = np.random.default_rng(seed)
    distance = np.zeros((images, 3, 5, 2))
    distance[:, 0, :, 0], distance[:, 0, :, 1] = [10, 10, 0, 10, 10], [2, 1, 0, 1, 2]
    distance[:, 1, :, 0], distance[:, 1, :, 1] = [0, 10, 10, 10, 10], [0, 1, 2, 3, 4]
    distance *= generator.uniform(0.9, 1.1, (images, 1, 1, 1))
    probability = np.full((images, 3, 5), 0.8) * generator.uniform(0.5, 1, (images, 1, 1))
    probability[:, 2, 1:4] *= 0.25  # a full turn is the untouched picture again
    return invariance.Curves(distance, np.full((images, 2), 10.0), probability, np.full((images - 1, 2), 5.0))


def test_invariance_in_numbers() -> None:
    given = curves()
    found = invariance.estimates(given, STEPS, [1, 7])
    scale = given.distance[:, 1, 1, 0] / 10  # of layer 1, image by image; layer 7 moves by a tenth of it
    gap = number(found["scale_first_minus_top"])
    assert (gap.low, gap.high) == pytest.approx(stats.t.interval(0.95, 29, 0.9 * scale.mean(), 0.9 * stats.sem(scale)))
    assert number(found["translation_r2"]).value == pytest.approx(1)
    assert number(found["rotation_kept"]).value == pytest.approx(25) and number(
        found["scale_kept"]
    ).value == pytest.approx(100)
    assert set(found) == set(invariance.NAMES) == papers.estimates_in("fig5_invariance")
    swapped = invariance.Curves(given.distance[..., ::-1], given.norm, given.probability, given.between)
    again = invariance.estimates(swapped, STEPS, [7, 1])
    assert number(again["scale_first_minus_top"]).value == pytest.approx(gap.value), "layers are ordered by number"


@pytest.mark.filterwarnings("error")
def test_a_dead_top_layer_is_not_measured() -> None:
    given = curves()
    given.norm[:, 1] = given.distance[..., 1] = given.between[:, 1] = 0
    found = invariance.estimates(given, STEPS, [1, 7])
    assert "layer 7 is dead" in why(found["scale_first_minus_top"]) and "layer 7 is dead" in why(
        found["translation_r2"]
    )
    assert number(found["rotation_kept"]), "which does not rest on it"
    numbers = invariance.claims_of(given, STEPS, [1, 7])
    assert math.isnan(numbers["scale"]["layer7_relative_distance_small_step"])


def test_occlusion_in_numbers() -> None:
    """The fall is the object's share of the square, and noise; the next image's object lies elsewhere."""
    generator = np.random.default_rng(0)
    cover = generator.uniform(0, 1, (40, 6, 6))
    drop = cover + generator.normal(0, 0.3, cover.shape)
    drop[7] = 0.5  # nothing falls: no correlation
    arrays = {"probability_drop": drop, "activity_drop": drop, "energy": cover, "cover": cover}
    found = occlusion.estimates(arrays)
    own = [np.corrcoef(d.ravel(), c.ravel())[0, 1] for i, (d, c) in enumerate(zip(drop, cover)) if i != 7]
    one = number(found["object_correlation"])
    assert one.n == 39 and (one.low, one.high) == pytest.approx(
        stats.t.interval(0.95, 38, np.mean(own), stats.sem(own))
    )
    more = number(found["object_minus_other"])
    assert more.confidence == 98 and more.low > 0.5
    assert set(found) == papers.estimates_in("fig7_occlusion")
    del arrays["cover"]
    assert "masks" in why(occlusion.estimates(arrays)["object_correlation"])
    arrays["activity_drop"] = np.zeros_like(drop)
    assert why(occlusion.estimates(arrays)["projection_correlation"]) == "no images to measure on"


# -------------------------------------------------------------------------------------------------------- Figures 4, 6


def test_the_fall_with_depth_varies_as_its_floor_does() -> None:
    """Against the bootstrap over maps, of both likenesses together."""
    generator = np.random.default_rng(2)
    layers = [
        (level + generator.normal(0, 0.05, (40, 2)), 0.2 + generator.normal(0, 0.3, (40, 2)))
        for level in (0.8, 0.6, 0.5)
    ]
    one = number(evolution.fall_with_depth([evolution.above_floor(*both) for both in layers]))
    falls = []
    for _ in range(600):
        drawn = [[part[rows].mean() for part in both] for both in layers for rows in [generator.integers(0, 40, 40)]]
        above = [(own - floor) / (1 - floor) for own, floor in drawn]
        falls.append(above[0] - above[2])
    assert one.value == pytest.approx(np.mean(falls), abs=0.01)
    assert (one.high - one.value) / stats.t.ppf(0.975, one.df) == pytest.approx(np.std(falls), rel=0.1)


def test_likeness_falls_with_depth_above_its_floor() -> None:
    arrays: dict[str, np.ndarray] = {"epochs": np.array([1, 2, 5, 10])}
    generator, levels = np.random.default_rng(0), (0.9, 0.8, 0.1, 0.4, 0.3)
    for layer, level in enumerate(levels, 1):
        arrays[f"alike_{layer}"] = level + generator.normal(0, 0.1, (20, 3))
        arrays[f"floor_{layer}"] = np.full((20, 3), 0.0 if layer < 5 else 0.1)
        arrays[f"common_{layer}"], arrays[f"images_{layer}"] = arrays[f"alike_{layer}"], np.zeros((4, 4), int)
    found, measure = evolution.summary(arrays, [1, 2, 3, 4, 5], 10)
    above = [(arrays[f"alike_{n}"][:, :2].mean(1) - (n == 5) * 0.1) / (1 - (n == 5) * 0.1) for n in range(1, 6)]
    slope = np.polyfit(range(5), [one.mean() for one in above], 1)[0]
    one = number(measure)
    assert one.value == pytest.approx(-4 * slope) and one.low > 0
    errors = [stats.sem(values) for values in above]
    spread = math.sqrt(sum((weight * error) ** 2 for weight, error in zip((0.8, 0.4, 0, 0.4, 0.8), errors)))
    assert (one.high - one.low) / 2 == pytest.approx(1.99 * spread, rel=0.02)
    assert found["layers"]["5"]["first_half_above_floor"] == pytest.approx(above[4].mean())
    for layer in range(1, 6):  # all layers change as much: nothing falls
        arrays[f"alike_{layer}"], arrays[f"floor_{layer}"] = arrays["alike_3"], arrays["floor_1"]
    level = number(evolution.summary(arrays, [1, 2, 3, 4, 5], 10)[1])
    assert level.low < 0 < level.high or level.value == pytest.approx(0)


def test_a_layer_of_a_single_map_has_no_spread() -> None:
    above = [np.array([0.9, 0.8]), np.array([0.5]), np.array([0.2, 0.3, 0.25])]
    fall = number(evolution.fall_with_depth(above))  # the middle of three layers has no weight
    assert fall.value == pytest.approx(0.6) and fall.bounded
    assert not number(evolution.fall_with_depth([*above[:2], above[2][:1]])).bounded
    same = number(evolution.fall_with_depth([np.full(4, 0.9), np.full(4, 0.2)]))
    assert same.exact and same.value == pytest.approx(0.7)


def fig6(model: str, sibling: str, lost: str = "") -> dict[str, Measure]:
    """Estimates of a run of one architecture and its sibling of the other, on invented filters."""
    generator = np.random.default_rng(0)
    metrics, arrays, runs = {}, {}, {}
    for name, kind in (("own", model), ("sibling", sibling)):
        runs[name] = SimpleNamespace(config=SimpleNamespace(model=SimpleNamespace(name=kind)), kind=kind)
        dead = 6 if kind.startswith("alexnet") else 1
        metrics[name] = {
            "dead_filters": dead,
            "filters": 30,
            "dead_share": 100 * dead / 30,
            "grid_peak": 1.0 + dead / 6,
        }
        metrics[name]["grid_peak_error"] = 0.1
        arrays[f"projections_{name}"] = np.zeros((64, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "dead_filters", lambda run, dead: np.zeros(30, bool))
        patch.setattr(filters, "first_filters", lambda run: generator.normal(0, 1, (30, 3, 7, 7)))
        metrics["without"], metrics["with"] = {"rms_max_over_median": 8.0}, {"rms_max_over_median": 2.0}
        return filters.estimates(runs, metrics, arrays, 0.1, lost)  # type: ignore[arg-type]


def test_filters_in_numbers() -> None:
    found = fig6("zfnet_demo", "alexnet_demo")
    assert set(found) == papers.estimates_in("fig6_filters")
    assert (number(found["dominance"]).value, number(found["dominance_over_renormalised"]).value) == (8, 4)
    dead = number(found["fewer_dead_filters"])
    assert dead.exact and dead.value == pytest.approx(100 * 5 / 30)
    peak = number(found["grid_peak_alexnet"])
    assert (peak.value, peak.high - peak.value) == pytest.approx((2, 0.1 * stats.t.ppf(0.975, 63)))
    assert not number(found["more_middle_band"]).exact
    other_way = fig6("alexnet_demo", "zfnet_demo")
    assert number(other_way["fewer_dead_filters"]).value == dead.value
    alone = fig6("zfnet_demo", "zfnet_large")
    assert "AlexNet" in why(alone["more_middle_band"]) and number(alone["dominance"])
    lost = fig6("zfnet_demo", "alexnet_demo", "the network is at chance")
    assert why(lost["fewer_dead_filters"]) == why(lost["grid_peak_alexnet"]) == "alexnet_demo: the network is at chance"
    assert number(lost["dominance"]), "which does not rest on the sibling"


# ---------------------------------------------------------------------------------------------------- knowing the task


def a_run(folder: Path, labels: np.ndarray, lines: list[dict[str, Any]] | None = None, epoch: int = 2) -> Any:
    """As much of a run as is looked at."""
    if lines is not None:
        (folder / "train").mkdir()
        text = "\n".join(map(json.dumps, lines)) + '\n{"epoch": 3, "val_to'  # cut in a line
        (folder / "train" / "metrics.jsonl").write_text(text)
    val = SimpleNamespace(labels=labels)
    return SimpleNamespace(folder=folder, epoch=epoch, data=SimpleNamespace(val=val))


def test_a_network_at_chance_does_not_know_its_task(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(20), 50)
    lines = [
        {"epoch": 1, "val_top1_error": 95.0},
        {"epoch": 2, "val_top1_error": 94.2},
        {"epoch": 4, "val_top1_error": 3.0},
    ]
    found = knowledge.knows_its_task(a_run(tmp_path, labels, lines))
    assert found["known"] is False and found["error"] == 94.2 and found["chance"] == pytest.approx(95)
    assert found["why"] == "the network is at chance: 94.2 % error on 1,000 validation images, guessing gives 95.0 %"


def test_a_network_that_knows_its_task(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(20), 50)
    run = a_run(tmp_path, labels, [{"epoch": 2, "val_top1_error": 80.0}])
    assert knowledge.knows_its_task(run)["known"] is True
    assert knowledge.knows_its_task(run, np.arange(100) >= 3)["known"] is False, "what is measured counts more"


def test_uneven_classes_are_guessed_more_easily(tmp_path: Path) -> None:
    labels = np.array([0] * 800 + [1] * 200)
    assert knowledge.knows_its_task(a_run(tmp_path, labels), np.arange(1000) < 190)["known"] is False
    assert knowledge.knows_its_task(a_run(tmp_path, labels), np.arange(1000) < 150)["known"] is True


def test_images_of_one_class_tell_nothing() -> None:
    """A thousand-class network on a folder of dogs: naming the commonest class is never wrong there."""
    assert knowledge.verdict(12.0, 50, knowledge.chance(np.full(50, 207)))["known"] is None


def test_imported_networks_count_as_knowing(tmp_path: Path) -> None:
    assert knowledge.knows_its_task(a_run(tmp_path, np.arange(20))) == {"known": None}


def test_a_run_at_chance_reproduces_nothing(zfrepro: Zfrepro, tmp_path: Path) -> None:
    """From the command line: a network that was hardly trained, through every quick experiment, to the page."""
    where = (f"outputs={tmp_path}", "run=lost", "precision=fp32")
    zfrepro("train", *where, *[f"{option.split('=')[0]}=1" if option.startswith("epochs") else option for option in TINY],
            "lr=1e-9", "snapshot_epochs=[1]")  # fmt: skip
    zfrepro("visualize", *where, "layer=5", "num_maps=2")
    zfrepro("evaluate", *where)
    out = zfrepro("report", *where).stdout
    claims = json.loads((tmp_path / "lost" / "report" / "claims.json").read_text())
    assert claims["tally"]["reproduced"] == claims["tally"]["contradicted"] == 0
    [claim] = [claim for claim in claims["claims"] if claim["id"] == "parts_exaggerated"]
    assert claim["verdict"] == "not measured" and "at chance" in claim["measured"]
    text = (tmp_path / "lost" / "report" / "index.html").read_text()
    text = re.sub(r"data:[^\")]*", "", text.split("<main>")[1].split("</main>")[0])
    assert not re.search(r"\bnan\b", text + out, re.IGNORECASE)
