"""The verdicts on the papers' claims, on made-up numbers: each one, both ways, at the edges, for every claim of every paper."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zfrepro import papers
from zfrepro.cli import COMMANDS
from zfrepro.papers import PAPERS
from zfrepro.papers.paper import Claim, Paper, Part
from zfrepro.papers.verdicts import (
    CONTRADICTED,
    NOT_MEASURED,
    REPRODUCED,
    UNDECIDED,
    counted,
    decide,
    judge,
    judge_all,
    standardised,
    written,
)
from zfrepro.results import Output
from zfrepro.statistics import Estimate, Measure, Missing, from_data, mean, resplits, to_data

CLAIMS = [claim for paper in PAPERS for claim in paper.claims]
PARTS = [(claim, part) for claim in CLAIMS for part in claim.parts]
each_claim = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
each_part = pytest.mark.parametrize(("claim", "part"), PARTS, ids=[part.estimate for _, part in PARTS])


def between(low: float, high: float) -> Estimate:
    """An estimate with this interval, of seven nets."""
    return Estimate((low + high) / 2, low, high, 7, "nets", df=6)


def placed(part: Part, verdict: str) -> Estimate:
    """An estimate whose interval lies so that a part has this verdict, hard by the bound."""
    near, far, bound = 1e-6, 0.8, part.bound
    if part.relation == "within":
        ends = {
            REPRODUCED: (-bound + near, bound - near),
            CONTRADICTED: (bound + near, bound + far),
            UNDECIDED: (bound - near, bound + near),
        }
    else:
        beyond, short = (bound + near, bound + far), (bound - far, bound - near)
        if part.relation == "below":
            beyond, short = short, beyond
        ends = {REPRODUCED: beyond, CONTRADICTED: short, UNDECIDED: (bound - near, bound + near)}
    return between(*ends[verdict])


def metrics(claim: Claim, **others: Measure) -> dict[str, Any]:
    """A result in which every part of a claim holds, but for the estimates given by name; as it is read from disk."""
    measures = {part.estimate: placed(part, REPRODUCED) for part in claim.parts} | others
    return json.loads(json.dumps({"estimates": {name: to_data(measure) for name, measure in measures.items()}}))


# ------------------------------------------------------------------------------------------------- what the papers say


def test_ids_and_folders_are_unique() -> None:
    items = [item for paper in PAPERS for item in paper.items]
    assert len({item.id for item in items}) == len(items)
    assert len({item.folder for item in items if item.folder}) == sum(bool(item.folder) for item in items)
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)


@each_claim
def test_claims_state_what_decides_them(claim: Claim) -> None:
    item = papers.find_item(claim.item)
    assert item.folder and claim.sentence and claim.statistic and claim.reason and claim.parts
    assert not claim.sentence.endswith(".") and claim.reason.endswith((".", ".)"))
    assert claim.options.format(run="demo").startswith(" ") or not claim.options
    for part in claim.parts:
        assert part.estimate in papers.estimates_in(item.folder)
        assert f"{part.bound:g}" in claim.threshold, "the page must state the numbers that decide"


@pytest.mark.parametrize("claim", papers.zfnet.PAPER.claims + papers.vgg.PAPER.claims, ids=lambda claim: claim.id)
def test_an_effect_as_in_the_paper_reproduces(claim: Claim) -> None:
    """What the paper reports lies on the claimed side of every bound, or the bounds ask for what the paper does not show."""
    for part in claim.parts:
        assert decide(between(part.typical - 1e-9, part.typical + 1e-9), part) == REPRODUCED


def test_vggs_claims_point_where_the_paper_does() -> None:
    """Bounds and directions as they were stated before anything was measured; effects as differences of the paper's cells."""
    rows = papers.reported("vgg_table3_single_scale")
    errors = {row["config"]: float(row["val_top1_error"] or 0) for row in rows if row["train_s"] == 256.0}
    pairs = {
        "gain_of_lrn": ("A", "A-LRN"),
        "a_minus_d": ("A", "D"),
        "d_minus_e": ("D", "E"),
        "b_minus_c": ("B", "C"),
        "c_minus_d": ("C", "D"),
    }
    margins = {
        "gain_of_lrn": ("below", 1),
        "d_minus_e": ("within", 1),
        "e_minus_d": ("above", -1),
        "stack_minus_mean_voc": ("within", 1),
        "vgg_minus_zfnet": ("above", 2.5),
    }
    for part in (part for claim in papers.vgg.PAPER.claims for part in claim.parts):
        assert (part.relation, part.bound) == margins.get(part.estimate, ("above", 0)), part.estimate
        if part.estimate in pairs:
            worse, better = (errors[name] for name in pairs[part.estimate])
            assert part.typical == pytest.approx(worse - better), part.estimate


def test_reported_numbers_are_found_by_name() -> None:
    assert papers.reported("table3_ablation")[0]["val_top1_error"] == 40.5
    rows = papers.reported("vgg_table3_single_scale")
    assert rows[0] == {"config": "A", "train_s": 256.0, "test_q": 256.0, "val_top1_error": 29.6, "val_top5_error": 10.4}
    assert papers.reported("table2_imagenet")[0]["val_top1_error"] is None


def test_papers_know_their_networks() -> None:
    zfnet, vgg = papers.zfnet.PAPER, papers.vgg.PAPER
    assert (
        papers.paper_of("zfnet_demo") is papers.paper_of("alexnet") is papers.paper_of("torchvision/alexnet") is zfnet
    )
    assert papers.paper_of("torchvision/vgg16") is papers.paper_of("vgg_d_demo") is vgg
    assert papers.paper_of("somebody's own") is zfnet and not zfnet.is_about("somebody's own")


# --------------------------------------------------------------------------------------------------------- each verdict


@each_claim
def test_reproduced(claim: Claim) -> None:
    finding = judge(claim, metrics(claim))
    assert finding.verdict == REPRODUCED and finding.measured and not finding.remark and not finding.why


@each_part
def test_each_part_decides(claim: Claim, part: Part) -> None:
    """With all others beyond their bounds, one half alone makes the verdict, and is named."""
    for verdict in (CONTRADICTED, UNDECIDED):
        finding = judge(claim, metrics(claim, **{part.estimate: placed(part, verdict)}))
        assert finding.verdict == verdict
        if len(claim.parts) > 1:
            assert part.says in finding.remark
    assert judge(claim, metrics(claim, **{part.estimate: Missing("no masks")})).verdict == NOT_MEASURED
    assert judge(claim, metrics(claim, **{part.estimate: Missing("no masks")})).why == "no masks"


@each_part
def test_at_the_edge(claim: Claim, part: Part) -> None:
    """An interval that ends at the bound itself decides nothing."""
    for low, high in ((part.bound, part.bound + 0.5), (part.bound - 0.5, part.bound), (part.bound, part.bound)):
        assert decide(between(low, high), part) == UNDECIDED


def test_within_a_margin_both_ways() -> None:
    part = Part("x", "nothing changes", "within", 1, 0)
    cases = {
        (-0.9, 0.9): REPRODUCED, (0.2, 0.9): REPRODUCED, (-1.2, 0.5): UNDECIDED, (0.5, 1.1): UNDECIDED, (-3, 3): UNDECIDED,
        (1.1, 2): CONTRADICTED, (-2, -1.1): CONTRADICTED, (-1, 1): UNDECIDED,
    }  # fmt: skip
    for ends, verdict in cases.items():
        assert decide(between(*ends), part) == verdict, ends


def test_a_contradicted_half_outweighs_an_open_one_and_a_missing_one() -> None:
    claim = next(claim for claim in CLAIMS if claim.id == "stability")
    first, second, third = claim.parts
    found = metrics(claim, **{first.estimate: placed(first, UNDECIDED), second.estimate: placed(second, CONTRADICTED)})
    finding = judge(claim, found)
    assert finding.verdict == CONTRADICTED
    assert f"contradicted: {second.says}" in finding.remark and f"open: {first.says}" in finding.remark
    finding = judge(claim, metrics(claim, **{first.estimate: Missing("x"), third.estimate: placed(third, UNDECIDED)}))
    assert finding.verdict == NOT_MEASURED and finding.why == "x"
    finding = judge(
        claim, metrics(claim, **{first.estimate: Missing("x"), third.estimate: placed(third, CONTRADICTED)})
    )
    assert finding.verdict == CONTRADICTED and "not measured" in finding.remark


# --------------------------------------------------------------------------------------------------------- not measured


@each_claim
def test_not_run(claim: Claim) -> None:
    finding = judge(claim, None)
    assert (finding.verdict, finding.halves, finding.why) == (NOT_MEASURED, (), "")


@each_claim
@pytest.mark.parametrize("old", [{}, {"claims": None, "variants": {"a": 1}, "layers": [1]}, {"estimates": 3}])
def test_results_of_earlier_versions_have_no_verdict(claim: Claim, old: dict[str, Any]) -> None:
    finding = judge(claim, old)
    assert finding.verdict == NOT_MEASURED and "earlier version" in finding.why


@each_part
def test_holes_are_not_measurements(claim: Claim, part: Part) -> None:
    """A number that is missing, null (NaN in JSON) or of another kind is no measurement, and no NaN is ever printed."""
    good = metrics(claim)
    for hole in (None, float("nan"), "?", [], {}, {"value": None}):
        for key in (None, "value", "n"):
            bad = json.loads(json.dumps(good))
            if key is None:
                bad["estimates"][part.estimate] = hole
            else:
                bad["estimates"][part.estimate][key] = hole
            finding = judge(claim, bad)
            assert finding.verdict == NOT_MEASURED and finding.why
            assert "nan" not in finding.why.lower()
    del good["estimates"][part.estimate]
    assert judge(claim, good).verdict == NOT_MEASURED


@each_claim
def test_a_network_at_chance_shows_nothing(claim: Claim) -> None:
    ignorant = {**metrics(claim), "task": {"known": False, "why": "the network is at chance"}}
    finding = judge(claim, ignorant)
    assert (finding.verdict, finding.why) == (NOT_MEASURED, "the network is at chance")
    for known in (True, None):
        assert judge(claim, {**metrics(claim), "task": {"known": known}}).verdict == REPRODUCED


def test_a_single_net_decides_nothing() -> None:
    claim = next(claim for claim in CLAIMS if claim.id == "architecture")
    measure = mean([23.0], "nets", "points")
    finding = judge(claim, metrics(claim, alexnet_minus_zfnet=measure))
    assert finding.verdict == UNDECIDED
    assert finding.measured.endswith("23.0 points (1 net: no spread is known)")
    assert "1 net: more are needed" in finding.remark


# ----------------------------------------------------------------------------------------------- results of several parts


def test_every_target_must_hold() -> None:
    """Table 7: a claim about every target that was probed; the one that fails is named."""
    claim = next(claim for claim in CLAIMS if claim.id == "deeper_is_better")
    good, part = metrics(claim), claim.parts[0]
    bad = metrics(claim, **{part.estimate: placed(part, CONTRADICTED)})
    assert judge(claim, {"caltech101": good, "caltech256": good, "per_class": 30}).verdict == REPRODUCED
    finding = judge(claim, {"caltech101": good, "caltech_256": bad})
    assert finding.verdict == CONTRADICTED and "(caltech 256)" in finding.remark
    unmeasured = metrics(claim, **{name.estimate: Missing("two layers only") for name in claim.parts})
    assert judge(claim, {"caltech101": good, "caltech256": unmeasured}).verdict == REPRODUCED
    assert judge(claim, {"caltech101": unmeasured}).why == "two layers only"


# ----------------------------------------------------------------------------------------------------------- in words


def test_in_words() -> None:
    assert written(Estimate(23.456, 20.41, 26.6, 5, "nets", "points")) == "23.5 points (95 %: 20.4 to 26.6; 5 nets)"
    assert written(Estimate(0.5, 0.5, 0.5, 1, "network")) == "0.50"
    assert written(Estimate(0.5, 0.5, 0.5, 3, "folds", note="n")) == "0.50 (3 folds, all alike; n)"
    assert written(Estimate(-0.001, -0.04, 0.03, 1200, "images")) == "0.00 (95 %: -0.04 to 0.03; 1,200 images)"
    assert (
        written(Estimate(0.9401, 0.9399, 0.9403, 9, "folds", note="n")) == "0.9401 (95 %: 0.9399 to 0.9403; 9 folds; n)"
    )
    assert counted(1, "nets") == "1 net" and counted(2, "nets") == "2 nets"


def test_what_would_decide_it() -> None:
    """Mean 1 with a standard deviation of 2: Student's t reaches from the mean to zero at eighteen values."""
    part = Part("x", "it helps", "above", 0, 1, "points")
    claim = Claim("x", "table3", "It helps", "x", "x", (part,))
    spread = mean([-1.0, 1.0, 3.0], "nets", "points")  # mean 1, standard deviation 2
    finding = judge(claim, metrics(claim, x=spread))
    assert finding.verdict == UNDECIDED
    assert finding.remark == "about 18 nets would decide it, if value and spread stay"
    pool = judge(claim, metrics(claim, x=resplits([-1.0, 1.0, 3.0], 100, 100, "points")))
    assert pool.remark == "no number of folds in reach would decide it on these images"
    at = judge(claim, metrics(claim, x=Estimate(0, 0, 0, 1, "networks")))
    assert (at.verdict, at.remark) == (UNDECIDED, "exactly at the threshold")


def test_standardised() -> None:
    """0 is the bound and 1 what the paper reports, whichever way a part points."""
    cases = [
        (Part("x", "", "above", 15, 61), between(15, 61), (0, 0.5, 1)),
        (Part("x", "", "below", 50, 18), between(18, 82), (-1, 0, 1)),
        (Part("x", "", "within", 1, 0), between(-0.5, 0.25), (0.5, 0.875, 1)),
        (Part("x", "", "within", 1, 0), between(2, 4), (-3, -2, -1)),
    ]
    for part, estimate, expected in cases:
        finding = judge(Claim("x", "table3", "", "", "", (part,)), {"estimates": {"x": to_data(estimate)}})
        assert standardised(finding.halves[0]) == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------------------- writing


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Any]:
    """An open result in Table 3's folder."""
    from zfrepro.options.shared import Common
    from zfrepro.results import writing

    with writing(tmp_path / "table3_ablation", Common(run="a"), None) as out:
        yield out


def test_estimates_are_written_and_read(output: Output) -> None:
    measure = mean([1.0, 2.0, 4.0], "nets", "points")
    output.done({"variants": {}}, {"alexnet_minus_zfnet": measure, "validation_gain": mean([1.0], "nets")})
    stored = json.loads((output.folder / "metrics.json").read_text())
    assert from_data(stored["estimates"]["alexnet_minus_zfnet"]) == measure
    single = from_data(stored["estimates"]["validation_gain"])
    assert isinstance(single, Estimate) and (single.low, single.high) == (-math.inf, math.inf)


def test_another_version_of_the_code_is_another_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier version made is made again, what the same version made is not."""
    from zfrepro.options.shared import Experiment
    from zfrepro.results import writing

    folder, config = tmp_path / "table3_ablation", Experiment(run="a")
    with writing(folder, config) as out:
        assert out is not None
        out.done({})
    with writing(folder, config) as out:
        assert out is None
    item = papers.find_item("table3")
    monkeypatch.setattr(papers, "items_in", lambda name: [dataclasses.replace(item, version=item.version + 1)])
    with writing(folder, config) as out:
        assert out is not None


def test_names_that_no_claim_knows_are_refused(output: Output) -> None:
    for name in ("alexnet_minus_zfnett", "gain_of_averaging"):  # a typo; another table's
        with pytest.raises(ValueError, match=name):
            output.done({}, {name: mean([1.0, 2.0], "nets")})
    assert not (output.folder / "metrics.json").exists()


def test_every_estimate_is_served_by_an_experiment() -> None:
    """Its name stands in an experiment's code, whole or as an f-string makes it; a typo would be 'not measured' for ever."""
    package = Path(papers.__file__).parent.parent
    names, patterns = set(), []
    for path in (*(package / "evaluator").glob("*.py"), *(package / "visualizer").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                pieces = [re.escape(str(one.value)) if isinstance(one, ast.Constant) else r"\w+" for one in node.values]
                if any(re.search("_[a-z]", str(one.value)) for one in node.values if isinstance(one, ast.Constant)):
                    patterns.append("".join(pieces))
    made = re.compile("|".join(patterns))
    commands = {claim.id: papers.find_item(claim.item).command for claim in CLAIMS}
    asked = {part.estimate for claim, part in PARTS if commands[claim.id] in COMMANDS}
    assert {name for name in asked if name not in names and not made.fullmatch(name)} == set()


# -------------------------------------------------------------------------------------------------------- a new paper


def test_a_toy_paper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A paper is data: one folder, named in one place, and everything that reads papers knows it."""
    item = papers.Item("toy_table1", "Table 1", "probe", "toy_table1", "A toy")
    claim = Claim(
        "toy", "toy_table1", "Toys help", "a difference", "Why not.", (Part("gain", "a toy helps", "above", 0, 1),)
    )
    toy = Paper("toy", "Toys", "Nobody (2026)", "https://example.org", ("toy",), (item,), (claim,))
    monkeypatch.setattr(papers, "PAPERS", (*PAPERS, toy))
    assert papers.paper_of("toy_large") is toy and papers.find_item("toy_table1") is item
    assert papers.estimates_in("toy_table1") == {"gain"}
    [finding] = judge_all(toy, {"toy_table1": {"estimates": {"gain": to_data(mean([2.0, 2.1, 2.2], "nets"))}}})
    assert finding.verdict == REPRODUCED
