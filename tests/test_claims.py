"""The verdicts on the paper's claims, on made-up measurements: both ways, at the threshold, and without what they need."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from zfrepro import paper
from zfrepro.report.claims import DECISIONS, NOT_MEASURED, NOT_REPRODUCED, REPRODUCED, confident, judge, judge_all

CLAIMS = {claim.id: claim for claim in paper.CLAIMS}


def net(model: str, dead: int, middle: float, peak: float) -> dict[str, Any]:
    """A network of Fig. 6."""
    return {
        "model": model,
        "filters": 32,
        "dead_filters": dead,
        "middle": middle,
        "middle_error": 1.0,
        "grid_peak": peak,
        "grid_peak_error": 0.1,
    }


FILTERS = {
    "own": net("zfnet_demo", 1, 45.0, 1.1),
    "sibling": net("alexnet_demo", 6, 30.0, 2.5),
    "without": {"rms_max_over_median": 8.0, "rms_max": 0.8, "rms_median": 0.1},
    "with": {"rms_max_over_median": 1.5},
}


def steps(low: float, high: float, r2: float, kept: float) -> dict[str, float]:
    """One transformation of Fig. 5."""
    return {
        "layer1_relative_distance_small_step": low,
        "layer1_relative_distance_small_step_std": 0.2,
        "layer7_relative_distance_small_step": high,
        "layer7_relative_distance_small_step_std": 0.2,
        "layer7_linearity_r2": 0.97,
        "layer7_linearity_r2_single_images": r2,
        "layer7_linearity_r2_single_images_std": 0.05,
        "probability_kept_percent": kept,
        "probability_loss_points": 20.0,
        "probability_loss_points_standard_error": 1.0,
    }


INVARIANCE = {
    "layers": [1, 7],
    "claims": {
        "images": 100,
        "translation": steps(0.6, 0.2, 0.95, 80.0),
        "scale": steps(0.5, 0.2, 0.93, 85.0),
        "rotation": steps(0.5, 0.2, 0.4, 30.0),
    },
}
COVERED = {"mean": 0.5, "standard_error": 0.02, "control": 0.2, "p_value": 1e-9, "images": 100}
OCCLUSION = {
    "claims": {
        "probability_falls_where_the_object_is": COVERED,
        "activity_falls_where_the_projection_is": COVERED,
    }
}


def gap(mean: float, half: float) -> dict[str, float]:
    """One layer of Table 1; random places score 0.1."""
    return {
        "random_minus_parts": mean,
        "random_minus_parts_low": mean - half,
        "random_minus_parts_high": mean + half,
        "random_minus_parts_relative": mean / 0.1,
        "disjoint_draws": 20,
    }


def row(train: float, val: float, spread: float = 0.5) -> dict[str, Any]:
    """A row of Table 3: three nets."""
    errors = (train - spread, train, train + spread), (val - spread, val, val + spread)
    return {"runs": {str(seed): [errors[0][seed], errors[1][seed], 5.0] for seed in range(3)}}


ABLATION = {
    "variants": {
        "alexnet": row(35, 40),
        "alexnet_no_3_4": row(42, 46),
        "alexnet_no_3_4_6_7": row(71, 71),
        "zfnet": row(33, 38),
        "zfnet_fc_8192": row(22, 38.5),
        "zfnet_maps_512": row(19, 36),
    }
}
NETS = ("a", "b", "c")
AVERAGING = {
    "runs": {
        "demo": {"val_top1_error": 10.0},
        **{name: {"val_top1_error": 20.0 + i} for i, name in enumerate(NETS)},
        "average of 3": {"val_top1_error": 18.0},
    },
    "averaged": list(NETS),
}
TRANSFER = {
    "pretrained": {"15": {"folds": [60.0, 61.0, 62.0]}, "30": {"folds": [70.0, 71.0, 72.0]}},
    "scratch": {"15": {"folds": [20.0, 22.0, 21.0]}, "30": {"folds": [50.0, 51.0, 53.0]}},
}


def depth(*means: float) -> dict[str, Any]:
    """Table 7 on one target: layers 1-5 and 7."""
    layers = zip((1, 2, 3, 4, 5, 7), means, strict=True)
    return {"target": {"svm": {str(n): {"mean": m, "folds": [m - 1, m, m + 1.5]} for n, m in layers}}}


# Claim -> metrics that fulfil it, and changes ({path: value}) each of which breaks it.
CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "parts_exaggerated": (
        {
            "layer2": {},
            "layer5": {
                "last_layer": 5,
                "energy_minus_share": 10.0,
                "energy_minus_share_error": 2.0,
                "energy_on_object": 60.0,
                "object_share_of_field": 50.0,
            },
        },
        [{"layer5.energy_minus_share": -10.0}, {"layer5.energy_minus_share_error": 5.1}],
    ),
    "renormalisation": (
        FILTERS,
        [{"without.rms_max_over_median": 2.9}, {"with.rms_max_over_median": 6.0}],
    ),
    "first_layer": (
        FILTERS,
        [
            {"own.dead_filters": 6},
            {"own.middle": 30.0},
            {"sibling.middle_error": 8.0},
            {"own.model": "alexnet_demo", "sibling.model": "zfnet_demo"},
        ],
    ),
    "aliasing": (FILTERS, [{"sibling.grid_peak": 1.4}, {"own.grid_peak": 1.6}]),
    "convergence": (
        {"first_half": {"difference": 0.3, "difference_error": 0.1, "lower_layers": 0.8, "upper_layers": 0.5}},
        [{"first_half.difference": -0.3}, {"first_half.difference_error": 0.16}],
    ),
    "small_changes": (
        INVARIANCE,
        [
            {"claims.scale.layer7_relative_distance_small_step": 0.6},
            {"claims.translation.layer1_relative_distance_small_step": 0.1},
            {"claims.translation.layer1_relative_distance_small_step_std": 2.1},
        ],
    ),
    "quasi_linear": (
        INVARIANCE,
        [
            {"claims.translation.layer7_linearity_r2_single_images": 0.89},
            {"claims.scale.layer7_linearity_r2_single_images": 0.5},
        ],
    ),
    "stability": (
        INVARIANCE,
        [
            {"claims.translation.probability_kept_percent": 49.0},
            {"claims.scale.probability_kept_percent": 20.0},
            {"claims.rotation.probability_kept_percent": 60.0},
        ],
    ),
    "object_covered": (
        OCCLUSION,
        [
            {"claims.probability_falls_where_the_object_is.mean": 0.29},
            {"claims.probability_falls_where_the_object_is.control": 0.6},
            {"claims.probability_falls_where_the_object_is.p_value": 0.02},
        ],
    ),
    "projection_covered": (
        OCCLUSION,
        [
            {"claims.activity_falls_where_the_projection_is.mean": -0.5},
            {"claims.activity_falls_where_the_projection_is.p_value": 0.5},
        ],
    ),
    "correspondence": (
        {"layer5": gap(0.03, 0.01), "layer7": gap(0.005, 0.01)},
        [
            {"layer5": gap(0.03, 0.04)},
            {"layer5": gap(-0.03, 0.01)},
            {"layer7": gap(0.02, 0.01)},
        ],
    ),
    "architecture": (ABLATION, [{"variants.zfnet": row(33, 41)}, {"variants.zfnet": row(33, 38, 5)}]),
    "averaging": (
        AVERAGING,
        [{"runs.average of 3.val_top1_error": 22.0}, {"runs.average of 3.val_top1_error": 20.5}],
    ),
    "depth": (ABLATION, [{"variants.alexnet_no_3_4": row(42, 72)}, {"variants.alexnet": row(42, 71.1)}]),
    "wider_middle": (ABLATION, [{"variants.zfnet_maps_512": row(19, 39)}, {"variants.zfnet_maps_512": row(19, 37.6)}]),
    "wider_top": (ABLATION, [{"variants.zfnet_fc_8192": row(34, 38)}, {"variants.zfnet_fc_8192": row(22, 30)}]),
    "transfer": (
        TRANSFER,
        [
            {"scratch.15.folds": [50.0, 51.0, 52.0]},
            {"scratch.30.folds": [20.0, 20.0, 20.0]},
            {"scratch.30.folds": [10.0, 40.0, 70.0]},
        ],
    ),
    "deeper_is_better": (
        depth(40, 50, 60, 65, 70, 69),
        [depth(70, 69, 65, 60, 50, 40), depth(40, 60, 50, 70, 35, 65), depth(40, 40.1, 40.2, 40.3, 40.4, 39.9)],
    ),
}


def changed(metrics: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy with the values at dotted paths replaced."""
    found = copy.deepcopy(metrics)
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = found
        for key in parents:
            node = node[key]
        node[last] = value
    return found


def test_every_claim_has_a_decision_and_is_tested() -> None:
    assert len(paper.CLAIMS) >= 14 and len(CLAIMS) == len(paper.CLAIMS)
    assert set(DECISIONS) == set(CASES) == set(CLAIMS)
    items = {item.id for item in paper.ITEMS}
    for claim in paper.CLAIMS:
        assert claim.item in items
        assert claim.reason and "{" not in claim.threshold
        for value in claim.thresholds.values():
            assert f"{value:g}" in claim.threshold, "the page must state the numbers that decide"


@pytest.mark.parametrize("name", CASES)
def test_fulfilled(name: str) -> None:
    finding = judge(CLAIMS[name], CASES[name][0])
    assert finding.verdict == REPRODUCED, finding.measured
    assert finding.measured and finding.numbers
    assert all(math.isfinite(value) for value in finding.numbers.values())


@pytest.mark.parametrize(("name", "number"), [(name, i) for name, (_, bad) in CASES.items() for i in range(len(bad))])
def test_broken(name: str, number: int) -> None:
    good, bad = CASES[name]
    finding = judge(CLAIMS[name], changed(good, bad[number]))
    assert finding.verdict == NOT_REPRODUCED, finding.measured
    assert finding.measured and finding.numbers


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("metrics", [None, {}, {"claims": None, "variants": {}, "runs": {"a": {}}, "layers": [1]}])
def test_not_measured(name: str, metrics: dict[str, Any] | None) -> None:
    finding = judge(CLAIMS[name], metrics)
    assert finding.verdict == NOT_MEASURED and finding.numbers == {}


@pytest.mark.parametrize("name", CASES)
def test_holes_are_not_measurements(name: str) -> None:
    """Whatever single number is missing, NaN (null in JSON) or of another kind, the verdict is a verdict."""
    good = CASES[name][0]
    for path in leaves(good):
        for hole in (None, float("nan"), "?", []):
            verdict = judge(CLAIMS[name], changed(good, {path: hole})).verdict
            assert verdict in (REPRODUCED, NOT_REPRODUCED, NOT_MEASURED)
    blank = dict.fromkeys(leaves(good))
    assert judge(CLAIMS[name], changed(good, blank)).verdict == NOT_MEASURED


def leaves(node: Any, prefix: str = "") -> list[str]:
    """Dotted paths of everything in a dictionary that is no dictionary."""
    if not isinstance(node, dict):
        return [prefix]
    return [path for key, value in node.items() for path in leaves(value, f"{prefix}.{key}" if prefix else key)]


def test_exactly_at_the_threshold() -> None:
    """'At least' includes the threshold, 'below' and 'above' do not."""
    at = changed(
        INVARIANCE, {f"claims.{kind}.layer7_linearity_r2_single_images": 0.9 for kind in ("translation", "scale")}
    )
    assert judge(CLAIMS["quasi_linear"], at).verdict == REPRODUCED
    half = changed(INVARIANCE, {"claims.rotation.probability_kept_percent": 50.0})
    assert judge(CLAIMS["stability"], half).verdict == NOT_REPRODUCED
    peak = changed(FILTERS, {"own.grid_peak": 1.5})
    assert judge(CLAIMS["aliasing"], peak).verdict == NOT_REPRODUCED


def test_one_net_has_no_spread() -> None:
    single = {
        "variants": {name: {"runs": {"0": [30.0, value, 5.0]}} for name, value in (("alexnet", 40.0), ("zfnet", 38.0))}
    }
    finding = judge(CLAIMS["architecture"], single)
    assert finding.verdict == NOT_MEASURED and "two or more" in finding.measured


def test_by_hand() -> None:
    """Table 3: means 40 and 38, standard deviations 0.5 over three nets each: the difference is 2 +- 0.5 sqrt(2/3)."""
    finding = judge(CLAIMS["architecture"], ABLATION)
    assert finding.numbers["difference"] == pytest.approx(2.0)
    assert finding.numbers["standard_error"] == pytest.approx(0.5 * math.sqrt(2 / 3))
    assert finding.measured.startswith("2.0 ± 0.4 points (40.0 % against 38.0 %; 3 nets each)")
    # Table 4: gaps by fold 40, 39, 41 and 20, 20, 19.
    finding = judge(CLAIMS["transfer"], TRANSFER)
    assert finding.numbers["gap_15"] == pytest.approx(40) and finding.numbers["gap_15_error"] == pytest.approx(
        1 / math.sqrt(3)
    )
    assert finding.numbers["gap_30"] == pytest.approx(59 / 3)
    # Table 7: one swap of neighbours among six.
    finding = judge(CLAIMS["deeper_is_better"], depth(40, 50, 60, 65, 70, 69))
    assert finding.numbers["target_rank"] == pytest.approx(1 - 6 * 2 / (6 * 35))


def test_all_at_once() -> None:
    findings = judge_all({"fig6": FILTERS, "table3": None})
    assert [finding.claim.id for finding in findings] == list(CLAIMS)
    assert sum(finding.verdict == REPRODUCED for finding in findings) == 3
    assert sum(finding.verdict == NOT_MEASURED for finding in findings) == len(findings) - 3


def test_layers_are_ordered_by_number() -> None:
    """layer10 stands above layer9: an imported VGG's."""
    deep = {"layer8": gap(0.03, 0.01), "layer10": gap(0.005, 0.01)}
    assert judge(CLAIMS["correspondence"], deep).verdict == REPRODUCED
    assert DECISIONS["small_changes"](changed(INVARIANCE, {"layers": [7, 1]}), {"errors": 2}).fulfilled


def test_the_upper_layers_claim_takes_the_last_layer_alone() -> None:
    metrics = {"layer1": {**CASES["parts_exaggerated"][0]["layer5"]}}
    finding = judge(CLAIMS["parts_exaggerated"], metrics)
    assert (finding.verdict, finding.measured) == (NOT_MEASURED, "layer 5 is not visualised")


def test_few_nets_need_a_clearer_difference() -> None:
    """Two and a half standard errors: enough for many nets, not for three (Student's t: 4.30) or two (12.7)."""
    assert confident(2.5, 1, 100, 95)
    assert not confident(2.5, 1, 3, 95)
    assert confident(4.31, 1, 3, 95) and not confident(4.29, 1, 3, 95)
    assert confident(12.8, 1, 2, 95) and not confident(12.6, 1, 2, 95)
    assert not confident(-20, 1, 100, 95)
