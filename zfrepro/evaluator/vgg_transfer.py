"""`zfrepro transfer protocol=vgg`: descriptors of whole images, one linear SVM a class (VGG paper, Appendix B, Table 11).

Each network's descriptors stand in three ways: of one size, of several averaged, of several stacked; those of VGG's networks
together as well. Images of one label: mean class recall over random splits. Images of several: mean average precision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from zfrepro import papers, statistics
from zfrepro.errors import UserError
from zfrepro.evaluator.average_precision import mean_precision, precision_gain
from zfrepro.evaluator.describers import (
    Descriptors,
    Method,
    Net,
    first_of_vgg,
    methods_of,
    named,
    open_net,
    preferred,
    sizes_of,
)
from zfrepro.evaluator.descriptors import Pool
from zfrepro.evaluator.one_against_all import choose_cost, score_images, train_machines
from zfrepro.evaluator.overlap import compare_with_source
from zfrepro.evaluator.splits import inner_folds, mean_class_accuracy, smallest_class, usual_size
from zfrepro.evaluator.target import Target, has_several, packed_target, spread
from zfrepro.evaluator.vgg_actions import TABLE12, action_part
from zfrepro.figures.transfer import Bar, draw_bars
from zfrepro.knowledge import knows_its_task
from zfrepro.options.commands import TransferConfig
from zfrepro.options.shared import DataConfig
from zfrepro.results import Output, writing
from zfrepro.run import require_apart
from zfrepro.statistics import Measure, Missing, mean_std

TABLE11 = "vgg_table11_transfer"
JOINED = "needs a run of VGG, and several scales"
HELD_OUT = 5  # parts of the training images, of which one chooses the SVM's C
PAPERS_COLUMN = {"caltech101": "caltech101_recall", "caltech256": "caltech256_recall", "voc2007": "voc2007_map",
                 "voc2012": "voc2012_map", "embedded_target": "caltech101_recall", "embedded_scenes": "voc2012_map"}  # fmt: skip


def vgg_transfer(config: TransferConfig) -> None:
    """Write `vgg_table11_transfer/` and `vgg_table12_actions/`, as far as they fit the target, a part for each target."""
    jobs = parts_of(config)
    nets = [open_net(config, name, [data for data, _, _ in jobs]) for name in config.runs or [config.run]]
    require_apart([net.run for net in nets])
    largest = max(scale for net in nets for scale in net.scales)
    hashes = "-".join(net.run.checkpoint_hash[:16] for net in nets)
    for data, folder, write in jobs:
        target = packed_target(dataclasses.replace(data, size=largest, fit="whole"))
        with writing(config.folder / folder, config, hashes, part=target.slug, inputs=target.data.key) as out:
            if out is not None:
                write(config, nets, target, out)


Write = Callable[[TransferConfig, Sequence[Net], Target, Output], None]


def parts_of(config: TransferConfig) -> list[tuple[DataConfig, str, Write]]:
    """Targets, folders and what writes them. The embedded data set stands in for every one: images of one label, of several,
    and, for the actions of people in boxes, the objects of its scenes."""
    data = config.data
    if data.name == "voc2012_actions":
        return [(data, TABLE12, action_part)]
    if data.name.startswith("caltech"):
        return [(dataclasses.replace(data, background=True), TABLE11, recall_part)]  # 102 and 257 classes, as the paper
    if data.name != "embedded":
        return [(data, TABLE11, precision_part if has_several(data) else recall_part)]
    scenes = data if has_several(data) else config.scenes
    several: list[tuple[DataConfig, str, Write]] = [(scenes, TABLE11, precision_part), (scenes, TABLE12, action_part)]
    return several if has_several(data) else [(data, TABLE11, recall_part), *several]


# -------------------------------------------------------------------------------------------------- images of one label


def recall_part(config: TransferConfig, nets: Sequence[Net], target: Target, out: Output) -> None:
    """Mean class recall over random splits (Caltech-101, Caltech-256)."""
    target, overlap = compare_with_source(config, nets[0].run, target)
    labels = target.labels[target.rows]
    size = config.images_per_class or usual_size(target.config.name)
    if size >= (least := smallest_class(labels)):
        raise UserError(f"images_per_class={size}: the smallest class of {target.name} leaves at most {least - 1}")
    folds = [target.fold(config, size, number) for number in range(config.splits)]
    descriptors = Descriptors.of(nets, Pool.of(target.data), config)
    join = config.join or "stack"
    methods = methods_of(nets, join)
    values, costs = {}, {}
    for method in tqdm(methods, desc=f"{target.name}: SVMs", unit="method", disable=None):
        found = []
        for number, fold in enumerate(folds):
            train, test = descriptors.rows(method, fold.train), descriptors.rows(method, fold.test)
            own, other = target.labels[fold.train], target.labels[fold.test]
            found.append(recall_of(train, test, own, other, config, number))
        values[method], costs[named(nets, method)] = ([pair[i] for pair in found] for i in (0, 1))
    facts = {"images_per_class": size, "costs": costs, "overlap": overlap}
    estimates = recall_estimates(nets, join, values, len(folds[0].train), len(folds[0].test))
    write_part(config, nets, target, out, values, "mean class recall", facts, estimates)


def recall_of(
    train: np.ndarray, test: np.ndarray, own: np.ndarray, other: np.ndarray, config: TransferConfig, number: int
) -> tuple[float, float]:
    """Mean class recall on the test images in percent, and the cost that was best on a fifth of the training images."""
    classes = np.unique(own)
    truth = (own[:, None] == classes).astype(np.int8)

    def score(scores: np.ndarray, positions: np.ndarray) -> float:
        return mean_class_accuracy(classes[scores.argmax(1)], own[positions])

    held = inner_folds(own, HELD_OUT, number)
    cost = choose_cost(train, truth, config.costs, held[0] if held else None, score)
    found = train_machines(train, truth, cost).scores(test)
    return mean_class_accuracy(classes[found.argmax(1)], other), cost


def recall_estimates(
    nets: Sequence[Net], join: str, values: Mapping[Method, list[float]], train: int, test: int
) -> dict[str, Measure]:
    """What the claims rest on: differences split by split, corrected for the images that splits share."""

    def difference(one: Method | None, other: Method | None, why: str) -> Measure:
        if one is None or other is None or one not in values or other not in values:
            return Missing(why)
        return statistics.resplits(np.subtract(values[one], values[other]), train, test, "points", of="splits")

    own = [preferred(net, index, join) for index, net in enumerate(nets)]
    vgg = [method for net, method in zip(nets, own) if net.of_vgg]
    best = max(vgg, key=lambda method: float(np.mean(values[method])), default=None)
    together = next((method for method in values if len(method.nets) > 1), None)
    depth = {letter: next((m for net, m in zip(nets, own) if net.of_vgg and is_configuration(net.model, letter)), None)
             for letter in "de"}  # fmt: skip
    shallow = next((method for net, method in zip(nets, own) if net.model.startswith("zfnet")), None)
    pair = "needs runs=[<a run of configuration D>,<one of E>]"
    return {
        "e_minus_d": difference(depth["e"], depth["d"], pair),
        "both_minus_best": difference(together, best, pair),
        "stack_minus_mean": difference(first_of_vgg(nets, "stack"), first_of_vgg(nets, "mean"), JOINED),
        "vgg_minus_zfnet": difference(best, shallow, "needs runs=[<a run of VGG>,<one of ZFNet>]"),
    }


def is_configuration(model: str, letter: str) -> bool:
    """Whether a network is the paper's configuration D or E, by the name of its table: vgg_d_demo, vgg16_bn."""
    names = {"d": ("vgg_d", "vgg16"), "e": ("vgg_e", "vgg19")}[letter]
    return any(model == name or model.startswith(f"{name}_") for name in names)


# ---------------------------------------------------------------------------------------------- images of several labels


def precision_part(config: TransferConfig, nets: Sequence[Net], target: Target, out: Output) -> None:
    """Mean average precision on the validation images (PASCAL VOC; 2007 by its eleven recall levels)."""
    data = target.data
    if data.train.multi is None or data.val.multi is None:
        raise UserError(f"scenes={target.config.name}: its images have one label each; VOC's table needs several")
    marks, truth = np.asarray(data.train.multi), np.asarray(data.val.multi)
    train, test = np.arange(len(marks)), len(marks) + np.arange(len(truth))
    levels = 11 if target.config.name == "voc2007" else None
    measure = partial(mean_precision, levels=levels)
    descriptors = Descriptors.of(nets, Pool.of(data), config)
    join = config.join or "mean"
    methods = methods_of(nets, join)
    scores, costs = {}, {}
    for method in tqdm(methods, desc=f"{target.name}: SVMs", unit="method", disable=None):
        own, other = descriptors.rows(method, train), descriptors.rows(method, test)
        scores[method], costs[named(nets, method)] = score_images(own, other, marks, config.costs, config.seed, measure)
    values = {method: [100 * measure(found, truth)] for method, found in scores.items()}
    pair = [first_of_vgg(nets, how) for how in ("stack", "mean")]
    joined = [scores[method] for method in pair if method is not None and method in scores]
    change: Measure = Missing(JOINED)
    if len(joined) == 2:
        change = precision_gain(joined[0], joined[1], truth, "images", levels)
    write_part(
        config, nets, target, out, values, "mean average precision", {"costs": costs}, {"stack_minus_mean_voc": change}
    )


# --------------------------------------------------------------------------------------------------------------- writing


def write_part(
    config: TransferConfig, nets: Sequence[Net], target: Target, out: Output, values: Mapping[Method, list[float]],
    measured: str, facts: dict[str, Any], estimates: dict[str, Measure],
) -> None:  # fmt: skip
    """One target's table, picture, arrays and metrics."""
    column = PAPERS_COLUMN.get(target.slug, "caltech101_recall")
    rows = paper_rows(column)
    bars = [Bar(label, value, std, True) for label, _, value, std in rows]
    for method, found in values.items():
        rows.append((f"ours: {named(nets, method)}", sizes_of(nets, method), *mean_std(found)))
        bars.append(Bar(named(nets, method), *mean_std(found), False))
    said = notes(config, nets, target, measured, column)
    shown = out.table_with_others(["method", "scales", "percent", "std"], rows, said)
    found_by = {named(nets, method): found for method, found in values.items()}
    out.arrays(f"{target.slug}.npz", methods=np.array(list(found_by)), values=np.array(list(found_by.values())))
    out.figure(f"{target.slug}.png", draw_bars(bars, f"Table 11: {target.name}", f"{measured} (%)"))
    summary = {name: dict(zip(("mean", "std"), mean_std(found)), values=found) for name, found in found_by.items()}
    layers = {net.run.config.run: {"layer": net.layer, "scales": net.scales, "model": net.model} for net in nets}
    metrics = {
        "measured": measured,
        "methods": summary,
        "networks": layers,
        "target_key": target.data.key,
        **facts,
        **shown,
    }
    out.done(metrics, estimates, knows_its_task(nets[0].run))
    for name, found in found_by.items():
        print(f"{target.name}, {name}: {spread(found)} % {measured}")


def paper_rows(column: str) -> list[tuple[str, str | None, float, float | None]]:
    """The paper's rows that report a column: method, scales (not said), percent, standard deviation."""
    found: list[tuple[str, str | None, float, float | None]] = []
    for row in papers.reported("vgg_table11_transfer"):
        value, spread = row[column], row.get(column.replace("recall", "std")) if "recall" in column else None
        if isinstance(value, float):
            method = f"the paper's, {column.split('_')[0]}: {row['method']}"
            found.append((method, None, value, spread if isinstance(spread, float) else None))
    return found


def notes(config: TransferConfig, nets: Sequence[Net], target: Target, measured: str, column: str) -> str:
    """What ours were measured on."""
    described = "; ".join(
        f"{net.run.config.run}: {net.run.config.origin}, layer {net.layer}, smaller sides of "
        f"{', '.join(map(str, net.scales))} px" for net in nets
    )  # fmt: skip
    data, before = target.data, "" if config.relu else " before the ReLU"
    if has_several(target.config):
        images = f"{len(data.train)} training and {len(data.val)} validation images"
        chosen = "a random half"
    else:
        size = config.images_per_class or usual_size(target.config.name)
        images = (
            f"{size} training and at most {config.test_per_class} test images a class, {config.splits} random splits"
        )
        chosen = "a fifth"
    return (
        f"Percent: {measured}. The paper's: column {column} of its Table 11, networks trained on ImageNet. Ours: {target.name}, "
        f"{data.num_classes} classes, {images}. {described}. Outputs{before} averaged over all places, over the image and its "
        f"mirror image, unit length, one linear SVM a class, its C chosen on {chosen} of the training images."
    )
