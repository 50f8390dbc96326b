"""VGG's Tables 3 to 6: which networks start from which, the paper's rows, estimates on hand-made answers, the command."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import itertools
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from tests.conftest import Refused, Zfrepro, handed_over, narrow, narrow_file
from zfrepro import papers
from zfrepro.errors import UserError
from zfrepro.evaluator import depth
from zfrepro.evaluator.depth import KINDS, NAMES, PAPER_SCALES, WAVES, Answers, Net, planned, reported_errors
from zfrepro.options.commands import DepthConfig, TrainConfig
from zfrepro.options.compose import load_model
from zfrepro.options.declare import check_options
from zfrepro.options.shared import DataConfig
from zfrepro.statistics import Estimate, Missing


def config(tmp_path: Path, **options: Any) -> DepthConfig:
    return DepthConfig(run="vgg", outputs=str(tmp_path), **options)


def source(**changes: Any) -> TrainConfig:
    """A run of A at the small scale."""
    data = DataConfig(name="embedded", size=128, fit="whole")
    given = {"preset": "vgg_demo", "epochs": 9, "lr": 0.02, "warmup_steps": 300, "train_scale": [64], **changes}
    return TrainConfig(run="vgg", model=load_model("vgg_a_demo"), data=data, **given)


def everything(given: DepthConfig, own: TrainConfig) -> list[Net]:
    """All that would be trained if nothing failed. Each leaves weights behind, from which the next ones start."""
    nets: list[Net] = []
    for wave in WAVES:
        chosen = planned(given, own, wave, nets)
        for net in chosen:
            weights = depth.checkpoint(net)
            weights.parent.mkdir(parents=True, exist_ok=True)
            weights.write_bytes(net.training.run.encode())
        nets += chosen
    return nets


# -------------------------------------------------------------------------------------------------------------- trainings


def test_every_row_of_the_papers_tables_is_trained(tmp_path: Path) -> None:
    nets = everything(config(tmp_path), source())
    rows = {(NAMES[net.configuration], PAPER_SCALES[net.kind]) for net in nets}
    for table in ("vgg_table3_single_scale", "vgg_table4_multi_scale"):
        wanted = {(str(row["config"]), depth.as_text(row["train_s"])) for row in papers.reported(table)}
        assert wanted <= rows
    assert len(nets) == len(rows) == 13  # Table 3's twelve, and B with 5x5 filters


def test_what_starts_from_what(tmp_path: Path) -> None:
    own = source()
    nets = {net.row: net.training for net in everything(config(tmp_path, tuning_epochs=3), own)}
    assert nets["a", "small"].run == "vgg", "the run itself is A at the small scale"
    assert nets["a_lrn", "small"].init_from is None and nets["a_lrn", "small"].model.name == "vgg_a_lrn_demo"
    for name in ("b", "b_5x5", "c", "d", "e"):
        first = nets[name, "small"]
        assert (first.init_from, first.init_match, first.init_convolutions) == ("vgg", "order", 4)
        assert (first.lr, first.epochs, first.train_scale) == (0.02, 9, [64])
    for name in ("c", "d", "e"):
        large, jitter = nets[name, "large"], nets[name, "jitter"]
        assert (large.init_from, jitter.init_from) == (nets[name, "small"].run, large.run)
        assert (large.init_match, large.lr, large.epochs, large.warmup_steps) == ("number", pytest.approx(0.002), 3, 0)
        assert (large.train_scale, jitter.train_scale) == ([96], [64, 128])
        assert jitter.model == nets[name, "small"].model
    assert len({one.run for one in nets.values()}) == len(nets)


def test_what_the_paper_leaves_open_of_the_start(tmp_path: Path) -> None:
    """The learning rates, and how much of A the deeper networks take."""
    given = config(
        tmp_path, tuning_lr=0.003, start_lr=0.005, start_warmup_steps=0, start_convolutions=None, start_match="name",
        configurations=["a", "a_lrn", "d"],
    )  # fmt: skip
    nets = {net.row: net.training for net in everything(given, source())}
    assert nets["d", "small"].init_convolutions is None and nets["d", "small"].lr == 0.005
    assert nets["d", "small"].init_match == "name" and nets["d", "large"].init_match == "number"
    assert nets["a", "small"].lr == nets["a_lrn", "small"].lr == 0.02
    assert nets["d", "small"].warmup_steps == 0 and nets["a_lrn", "small"].warmup_steps == source().warmup_steps > 0
    assert nets["d", "large"].lr == nets["d", "jitter"].lr == 0.003


def test_larger_scales_may_have_fewer_seeds(tmp_path: Path) -> None:
    """Nets that start from themselves are compared with themselves; the small scale's rows need several for their spread."""
    nets = everything(config(tmp_path, seeds=[3, 0, 1], tuning_seeds=[1], configurations=["a", "d"]), source())
    seeds = {kind: [net.seed for net in nets if net.row == ("d", kind)] for kind in KINDS}
    assert seeds == {"small": [3, 0, 1], "large": [1], "jitter": [1]}
    with pytest.raises(UserError, match=r"tuning_seeds=\[2\]: must be among seeds=\[0\]"):
        check_options(config(tmp_path, tuning_seeds=[2]))


def test_a_run_that_is_not_a_is_no_start(tmp_path: Path) -> None:
    """A is then trained below the run, from drawn weights, whatever the run itself started from."""
    own = source(init_from="other", init_hash="f", freeze=2, seed=0)
    first = next(net.training for net in everything(config(tmp_path), own) if net.row == ("a", "small"))
    assert first.run == "vgg/depth/a_64" and first.init_from is first.init_hash is None and first.freeze == 0


def test_seeds_keep_to_their_own_start(tmp_path: Path) -> None:
    nets = everything(config(tmp_path, seeds=[0, 1], configurations=["a", "d"]), source())
    assert sorted((*net.row, net.seed) for net in nets) == sorted(
        (*row, seed) for row in (("a", "small"), *(("d", kind) for kind in KINDS)) for seed in (0, 1)
    )
    for net in nets:
        assert net.training.seed == net.seed
        if net.training.init_from:
            assert net.training.init_from.endswith("_s1") == (net.seed == 1)


def test_other_recipes_are_not_the_run_itself(tmp_path: Path) -> None:
    for own in (source(train_scale=[96]), source(seed=3)):
        assert everything(config(tmp_path, configurations=["a"]), own)[0].training.run == "vgg/depth/a_64"
    assert everything(config(tmp_path, configurations=["a"], epochs=4), source())[0].training.epochs == 4


def test_what_could_not_be_started_is_left_out(tmp_path: Path) -> None:
    assert planned(config(tmp_path), source(), "large", []) == []
    assert everything(config(tmp_path, configurations=["d"]), source()) == []


# ------------------------------------------------------------------------------------------------------- tables by hand


LABELS = np.arange(200) % 4


def answering(error: float, seed: int) -> np.ndarray:
    """Posteriors of a net that is wrong on that share of the images, others for every seed."""
    wrong = np.random.default_rng(seed).permutation(len(LABELS)) < error * len(LABELS)
    return np.eye(4, dtype=np.float32)[np.where(wrong, (LABELS + 1) % 4, LABELS)]


def answers_of(errors: dict[tuple[str, str, int], float], more: dict[tuple[str, str], float] | None = None) -> Answers:
    """Made-up answers: (configuration, kind, seed) -> error; `more`: (method, 'single' or 'several') -> what it takes off."""
    answers, own = Answers.__new__(Answers), source()
    scales = {"small": [64], "large": [96], "jitter": [64, 128]}
    answers.config = DepthConfig(run="vgg")
    answers.nets = [
        Net(name, kind, seed, dataclasses.replace(own, train_scale=scales[kind])) for name, kind, seed in errors
    ]
    answers.labels = LABELS
    shifts = more or {}

    def found(self: Answers, net: Net, method: str = "dense", several: bool = False) -> np.ndarray:
        shift = shifts.get((method, "several" if several else "single"), 0)
        return answering(
            errors[net.configuration, net.kind, net.seed] + shift, 97 * net.seed + ord(net.configuration[0])
        )

    answers.__class__ = type("Made", (Answers,), {"__call__": found})
    return answers


def test_depth_is_measured_between_nets_of_several_seeds() -> None:
    errors = {("a", "small", s): 0.40 + 0.01 * s for s in range(3)} | {("d", "small", s): 0.20 for s in range(3)}
    found = depth.estimates_of_table3(answers_of(errors))
    gap = found["a_minus_d"]
    assert isinstance(gap, Estimate) and gap.value == pytest.approx(21, abs=0.5) and gap.low > 0 and gap.n == 3
    assert isinstance(found["d_minus_e"], Missing) and "E is not trained" in found["d_minus_e"].why
    reverse = {(("d" if name == "a" else "a"), kind, s): error for (name, kind, s), error in errors.items()}
    other = depth.estimates_of_table3(answers_of(reverse))["a_minus_d"]
    assert isinstance(other, Estimate) and other.high < 0


def made_of(nets: dict[tuple[str, str], int], errors: dict[Any, float]) -> Answers:
    """(configuration, kind) -> how many nets; errors: of (configuration, method, several sizes)."""
    answers = answers_of({(*row, seed): 0.0 for row, count in nets.items() for seed in range(count)})

    def found(self: Answers, net: Net, method: str = "dense", several: bool = False) -> np.ndarray:
        return answering(errors[net.configuration, method, several], 9 * net.seed + ord(net.configuration[-1]))

    answers.__class__ = type("Made", (Answers,), {"__call__": found, "prepare": lambda *given: None})
    return answers


def test_each_claim_of_table_3_compares_its_two_rows() -> None:
    """By dense evaluation, but for the 5x5 filters, which the paper compares on the centre crop."""
    dense = {"a": 40, "a_lrn": 44, "b": 34, "b_5x5": 37, "c": 29, "d": 22, "e": 20}
    errors = {(name, "dense", False): error / 100 for name, error in dense.items()}
    errors |= {("b", "centre", False): 0.45, ("b_5x5", "centre", False): 0.59}
    found = depth.estimates_of_table3(made_of({(name, "small"): 2 for name in dense}, errors))
    values = {name: one.value for name, one in found.items() if isinstance(one, Estimate)}
    expected = {"gain_of_lrn": -4, "a_minus_d": 18, "d_minus_e": 2, "b_minus_c": 5, "c_minus_d": 7, "b_5x5_minus_b": 14}
    assert values == pytest.approx(expected, abs=0.51)


def test_a_good_network_may_be_compared_with_one_at_chance() -> None:
    errors = {("a", "dense", False): 0.75, ("d", "dense", False): 0.2}
    found = depth.estimates_of_table3(made_of({("a", "small"): 2, ("d", "small"): 2}, errors))["a_minus_d"]
    assert isinstance(found, Estimate) and found.value == pytest.approx(55, abs=0.5)


def test_several_sizes_and_both_methods_against_the_same_nets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """D gains 10 points from several sizes, E one: what differs between the two is no chance, nor is it a spread. Table 4 has
    no A."""
    errors = {
        ("d", "dense", False): 0.30, ("d", "dense", True): 0.20, ("e", "dense", False): 0.25, ("e", "dense", True): 0.24,
        ("d", "multi_crop", True): 0.22, ("e", "multi_crop", True): 0.21,
        ("d", "dense_and_multi_crop", True): 0.17, ("e", "dense_and_multi_crop", True): 0.18,
        ("a", "dense", True): 0.4, ("b", "dense", True): 0.3,
    }  # fmt: skip
    answers = made_of({("a", "small"): 1, ("b", "small"): 1, ("d", "jitter"): 2, ("e", "jitter"): 2}, errors)
    written: dict[str, Any] = {}
    monkeypatch.setattr(
        depth, "write", lambda config, answers, item, rows, found: written.update({item: (rows, found)})
    )
    for make in (depth.multi_scale, depth.evaluation):
        make(answers.config, answers)
    rows, found = written["vgg_table4"]
    assert [(row.name, len(row.posteriors)) for row in rows] == [("B", 1), ("D", 2), ("E", 2)]
    gain, wrong = found["gain_of_scales"], {}
    for name, seed, several in itertools.product("de", (0, 1), (False, True)):
        given = answering(errors[name, "dense", several], 9 * seed + ord(name))
        wrong[name, seed, several] = 100.0 * (given.argmax(1) != LABELS)
    differences = np.array([wrong[name, seed, False] - wrong[name, seed, True] for name in "de" for seed in (0, 1)])
    assert differences.mean(1) == pytest.approx([10, 10, 1, 1], abs=0.5) and (gain.value, gain.n) == (
        pytest.approx(5.5),
        4,
    )
    reach = stats.t.ppf(0.975, gain.df) * differences.mean(0).std(ddof=1) / np.sqrt(len(LABELS))
    assert gain.high - gain.value == pytest.approx(reach)
    gains = {name: one.value for name, one in written["vgg_table5"][1].items()}
    assert gains == pytest.approx({"dense_minus_both": 4.5, "multi_crop_minus_both": 4}, abs=0.5)


def test_one_net_each_says_nothing_about_nets() -> None:
    found = depth.estimates_of_table3(answers_of({("a", "small", 0): 0.4, ("d", "small", 0): 0.2}))["a_minus_d"]
    assert isinstance(found, Estimate) and found.low == -np.inf and found.high == np.inf


def test_networks_at_chance_show_nothing() -> None:
    guessing = {(name, "small", s): 0.75 for name in ("a", "d") for s in range(3)}
    found = depth.estimates_of_table3(answers_of(guessing))["a_minus_d"]
    assert isinstance(found, Missing) and "at chance" in found.why


def test_jitter_against_the_better_fixed_scale() -> None:
    kinds = {"small": 0.30, "large": 0.25, "jitter": 0.20}
    errors = {(name, kind, 0): error for name in ("c", "d", "e") for kind, error in kinds.items()}
    found = depth.gain_of_jitter(answers_of(errors))
    assert isinstance(found, Estimate) and found.value == pytest.approx(5, abs=0.5) and found.n == 3
    assert isinstance(depth.gain_of_jitter(answers_of({("d", "jitter", 0): 0.2})), Missing)


def test_jitter_is_compared_with_the_net_of_its_seed() -> None:
    """Two seeds, of which the second is ten points worse at either scale: every net gains ten points, however many there are."""
    fixed = {("d", "small", 0): 0.30, ("d", "small", 1): 0.40, ("d", "large", 0): 0.50, ("d", "large", 1): 0.60}
    both = depth.gain_of_jitter(answers_of(fixed | {("d", "jitter", 0): 0.20, ("d", "jitter", 1): 0.30}))
    assert isinstance(both, Estimate) and both.n == 2 and both.value == pytest.approx(10)
    assert both.high - both.low < 20, "two nets that gain alike; nets of other seeds would differ by twenty points"
    second = depth.gain_of_jitter(answers_of(fixed | {("d", "jitter", 1): 0.30}))
    assert isinstance(second, Estimate) and second.value == pytest.approx(10)


def test_both_methods_together_are_their_mean(tmp_path: Path) -> None:
    answers = Answers.__new__(Answers)
    answers.config = config(tmp_path)
    net, path = Net("d", "jitter", 0, cast(Any, None)), {}
    for method in ("dense", "multi_crop"):
        path[method] = tmp_path / f"{method}.npy"
        np.save(path[method], answering(0.3, ord(method[0])))
    answers._path = lambda net, method, several: path[method]  # type: ignore[method-assign]
    both = answers(net, "dense_and_multi_crop", True)
    np.testing.assert_array_equal(both, (np.load(path["dense"]) + np.load(path["multi_crop"])) / 2)
    answers.config = config(tmp_path, weights="views")
    both = answers(net, "dense_and_multi_crop", True)
    np.testing.assert_allclose(both, (2 * np.load(path["dense"]) + 50 * np.load(path["multi_crop"])) / 52, rtol=1e-6)


def test_fusion_averages_the_nets_of_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """D and E are wrong on different images: of two seeds each, the mean of their posteriors, beside the better of the two."""
    errors = {(name, "jitter", seed): error for name, error in (("d", 0.25), ("e", 0.30)) for seed in (0, 1)}
    answers, written = answers_of(errors), []
    monkeypatch.setattr(depth, "write", lambda config, answers, item, rows, measures: written.extend([rows, measures]))
    depth.fusion(DepthConfig(run="vgg"), answers)
    (dense, *_), measures = written
    assert (dense.trained, dense.tested) == ("[64;128]", "64 96 128")
    for seed, found in enumerate(dense.posteriors):
        d, e = (answering(error, 97 * seed + ord(name)) for name, error in (("d", 0.25), ("e", 0.30)))
        np.testing.assert_allclose(found, (d + e) / 2)
    wrong = [found.argmax(1) != LABELS for found in dense.posteriors]
    assert measures["best_minus_fusion"].value == pytest.approx(25 - 100 * np.mean(wrong))
    assert dense.paper == (24.0, 7.1) and dense.name == "D and E, dense evaluation"


def test_nets_are_fused_by_each_method(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = ("dense", "multi_crop", "dense_and_multi_crop")
    errors = {(name, method, True): 0.2 + 0.05 * i for name in "de" for i, method in enumerate(methods)}
    written: list[Any] = []
    monkeypatch.setattr(depth, "write", lambda config, answers, item, rows, measures: written.extend(rows))
    depth.fusion(DepthConfig(run="vgg"), made_of({("d", "jitter"): 1, ("e", "jitter"): 1}, errors))
    for row, method, paper in zip(written, methods, ((24.0, 7.1), (23.9, 7.2), (23.7, 6.8)), strict=True):
        d, e = (answering(errors[name, method, True], ord(name)) for name in "de")
        np.testing.assert_allclose(row.posteriors[0], (d + e) / 2)
        assert row.paper == paper


def test_a_fusion_of_seven_nets_names_the_sizes_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*(("d", kind) for kind in KINDS), *((name, kind) for name in "ce" for kind in KINDS)]
    written: list[Any] = []
    monkeypatch.setattr(depth, "write", lambda config, answers, item, rows, measures: written.extend(rows))
    depth.fusion(DepthConfig(run="vgg"), answers_of({(*row, 0): 0.2 for row in rows}))
    assert written[-1].paper == (24.7, 7.5)
    assert (written[-1].trained, written[-1].tested) == ("64, 96, [64;128]", "56 64 72, 88 96 104, 64 96 128")


def test_only_nets_of_one_seed_are_fused() -> None:
    answers = answers_of(
        {("d", "jitter", 2): 0.2, ("d", "jitter", 0): 0.2, ("e", "jitter", 0): 0.2, ("e", "jitter", 1): 0.2}
    )
    found = depth.sets_of(answers, [("d", "jitter"), ("e", "jitter")])
    assert [[(net.configuration, net.seed) for net in nets] for nets in found] == [[("d", 0), ("e", 0)]]


def test_kept_answers_are_those_of_their_sizes_precision_weights_and_data(tmp_path: Path) -> None:
    answers = answers_of({("d", "small", 0): 0.2, ("d", "large", 0): 0.2})
    answers.data, answers.precision = cast(Any, SimpleNamespace(key="data")), "fp32"
    small = answers.nets[0]
    other = dataclasses.replace(small, training=dataclasses.replace(small.training, train_scale=[72]))
    answers.hashes = {small.training.run: "weights"}
    names = [answers._path(net, "dense", several).name for net in (small, other) for several in (False, True)]
    for change in (
        {"precision": "bf16"},
        {"hashes": {small.training.run: "others"}},
        {"data": SimpleNamespace(key="b")},
    ):
        vars(answers).update(change)
        names.append(answers._path(small, "dense", True).name)
    assert len(set(names)) == 7


def test_what_is_kept_is_what_the_net_itself_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets that answer with a number made of their name, the method and the sizes: each file and log is its own net's."""

    def number(run: str, method: str, sizes: list[int]) -> int:
        return zlib.crc32(f"{run} {method} {sizes}".encode())

    def posteriors(run: Any, split: Any, method: str, sizes: list[int], reading: Any) -> np.ndarray:
        return np.full((len(split), 2), number(run.name, method, sizes), np.int64)

    def opened(given: DepthConfig) -> Any:
        print(given.run)
        return SimpleNamespace(name=given.run, data=data)

    def with_logs(tasks: Any, logs: list[Path], *others: Any) -> None:
        for task, log in zip(tasks, logs, strict=True):
            with log.open("a") as file, contextlib.redirect_stdout(file):
                task()

    data = SimpleNamespace(val=range(3), num_classes=2, key="data")
    monkeypatch.setattr(depth, "open_run", opened)
    monkeypatch.setattr(depth, "in_parallel", with_logs)
    monkeypatch.setattr(depth, "posteriors", posteriors)
    given = config(tmp_path, workers=1)
    answers = Answers.__new__(Answers)
    answers.config, answers.data, answers.precision = given, cast(Any, data), "fp32"
    answers.nets = everything(dataclasses.replace(given, configurations=["a", "d"]), source(outputs=str(tmp_path)))
    answers.hashes = {net.training.run: "weights" for net in answers.nets}
    wanted = [
        (net, method, several) for net in answers.nets for method, several in (("dense", False), ("centre", True))
    ]
    answers.prepare(wanted, "testing")
    for net, method, several in wanted:
        assert set(answers(net, method, several).flat) == {number(net.training.run, method, net.scales(several))}
    for net in answers.nets:
        assert (net.training.folder / "train.log").read_text().split() == [net.training.run] * 2


def test_kept_answers_are_those_of_their_reading(tmp_path: Path) -> None:
    """A reading has files of its own where it changes the answers, and where it does not, those that are there."""
    answers = answers_of({("d", "small", 0): 0.2})
    answers.data, answers.precision, net = cast(Any, SimpleNamespace(key="data")), "fp32", answers.nets[0]
    answers.hashes = {net.training.run: "weights"}

    def names(**reading: str) -> list[str]:
        answers.config = config(tmp_path, **reading)
        return [answers._path(net, method, False).name for method in ("centre", "dense", "multi_crop")]

    centre, dense, crops = names()
    assert (dense, crops) == ("dense-64px-fp32-weights-data.npy", "multi_crop-64px-fp32-weights-data.npy")
    other = [{"places": one} for one in ("posteriors", "sum", "max")] + [{"rounding": "ceil"}]
    found = [names(**one) for one in (*other, {"places": "max", "rounding": "ceil"})]
    assert len({dense, *(row[1] for row in found)}) == 6 and all(row[::2] == [centre, crops] for row in found)
    square = names(grid="square", weights="views")
    assert square[:2] == [centre, dense] and square[2] != crops


def test_the_papers_numbers_stand_beside_the_right_rows() -> None:
    single, multi = (papers.reported(f"vgg_{name}") for name in ("table3_single_scale", "table4_multi_scale"))
    assert reported_errors(single, config="A-LRN", train_s="256") == (29.7, 10.5)
    assert reported_errors(single, config="E", train_s="[256;512]") == (25.5, 8.0)
    assert reported_errors(multi, config="D", train_s="384") == (26.5, 8.6)
    assert reported_errors(single, config="B-5X5", train_s="256") == (None, None)
    fused = papers.reported("vgg_table6_fusion")
    assert reported_errors(fused, nets="2", method="multi-crop and dense") == (23.7, 6.8)
    assert reported_errors(fused, nets="7", method="dense") == (24.7, 7.5)
    both = reported_errors(papers.reported("vgg_table5_evaluation"), config="E", method="multi-crop and dense")
    assert both == (24.4, 7.1)


# ------------------------------------------------------------------------------------------------------------ the command


TINY = ["data=folder", "data.size=80", "data.val_fraction=0.2", "data.workers=1", "epochs=1", "batch_size=8", "warmup_steps=2",
        "precision=fp32"]  # fmt: skip

ROWS = ["run=vgg", "configurations=[a,d,e]", "scales=[64,72,80]", "precision=fp32", "workers=1"]


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory, zfrepro: Zfrepro, cache: Path) -> Iterator[Path]:
    """An outputs folder with the run `vgg`: A for one epoch, and Tables 3 to 6 of A, D and E, all of them narrow, on noise: each
    image is tested in hundreds of crops."""
    outputs = tmp_path_factory.mktemp("vgg")
    model, rng = f"model={narrow_file(tmp_path_factory.mktemp('model'), 'vgg_a_demo', 12)}", np.random.default_rng(0)
    for number in range(20):
        path = outputs / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (80, 80 + 2 * number, 3), np.uint8)).save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(depth, "load_model", functools.partial(narrow, by=12))
        patch.setattr(depth, "in_parallel", handed_over)
        data = f"data.root={outputs / 'pictures'}"
        zfrepro("train", "preset=vgg_demo", f"outputs={outputs}", "run=vgg", model, *TINY, data)
        zfrepro("depth", f"outputs={outputs}", *ROWS)
        yield outputs


def test_four_tables_come_out(vgg: Path) -> None:
    rows = {
        "vgg_table3_single_scale": 7,
        "vgg_table4_multi_scale": 6,
        "vgg_table5_evaluation": 6,
        "vgg_table6_fusion": 3,
    }
    for name, count in rows.items():
        folder = vgg / "vgg" / name
        table = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
        assert len(table) == count and (folder / f"{name}.png").stat().st_size > 5000
        metrics = json.loads((folder / "metrics.json").read_text())
        with np.load(folder / "arrays.npz") as arrays:
            for row, own, errors in zip(table, metrics["rows"], arrays["errors"]):
                assert float(row["val_top1_error"]) == pytest.approx(errors[0, 0]) == pytest.approx(own["top1"][0])
    assert len(list((vgg / "vgg" / "depth").iterdir())) == 6


def test_nothing_is_done_twice(vgg: Path, zfrepro: Zfrepro) -> None:
    times = {
        path: path.stat().st_mtime_ns for path in (vgg / "vgg" / "depth").rglob("*") if path.suffix in (".pt", ".npy")
    }
    done = zfrepro("depth", f"outputs={vgg}", *ROWS)
    assert done.stdout.count("up to date") == 4
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_another_reading_is_tested_anew(vgg: Path, zfrepro: Zfrepro, tmp_path: Path) -> None:
    """Of the crops alone, beside the other answers, which stay; the tables say which reading theirs is."""
    outputs = Path(shutil.copytree(vgg, tmp_path / "outputs"))
    before = {path: path.stat().st_mtime_ns for path in outputs.rglob("*.npy")}
    zfrepro("depth", f"outputs={outputs}", *ROWS, "grid=square", "weights=views")
    fresh = {path.name.partition("px")[0] for path in outputs.rglob("*.npy") if path not in before}
    assert fresh == {"multi_crop-square-64_72_80"}
    assert before == {path: path.stat().st_mtime_ns for path in before}
    notes = (outputs / "vgg" / "vgg_table5_evaluation" / "table.md").read_text()
    assert ", grid=square, weights=views;" in notes


@pytest.mark.parametrize(
    ("option", "says"),
    [("scales=[64,32,96]", "scales="), ("configurations=[f]", "configurations="), ("seeds=[1,1]", "seeds=")],
)
def test_mistakes_are_one_line(vgg: Path, refused: Refused, option: str, says: str) -> None:
    assert says in refused("depth", f"outputs={vgg}", "run=vgg", option)


def test_another_papers_network_is_refused(tiny_run: Path, refused: Refused) -> None:
    assert "preset=vgg_demo" in refused("depth", f"outputs={tiny_run}", "run=tiny")
